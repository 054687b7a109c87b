"""``raftq key``: who may do what. A secret is printed once, alone on standard output."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from raftq.cli import messages, output
from raftq.cli.failure import Failure
from raftq.cli.options import Account, Json, Timeout, Urls, account_path, connect
from raftq.cli.queue import Yes, confirm
from raftq.cli.requests import given, write

app = typer.Typer(help="Access keys of an account, or of the operator.", no_args_is_help=True)

KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id.")]
Operator = Annotated[
    bool, typer.Option("--operator", help="The operator's keys, which are for all accounts.")
]


@app.command()
def create(
    role: Annotated[
        list[str], typer.Option(help="produce, consume, manage, or admin (operator); repeatable.")
    ],
    queue: Annotated[
        list[str] | None, typer.Option(help="A pattern like 'orders.*'; repeatable. Else: all.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    expires_in: Annotated[float | None, typer.Option(help="Seconds. Else: never.")] = None,
    operator: Operator = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Make a key; prints it, only this once."""
    asked = {"roles": role, "queues": queue, "name": name, "expires_in": expires_in}
    with connect(url, timeout) as client:
        made = write(client, "POST", _path(account, operator), body=messages.encode(given(asked)))
    _print_secret(made)


@app.command("ls")
def list_keys(
    as_json: Json = False,
    operator: Operator = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """List the keys that yours may manage."""
    with connect(url, timeout) as client:
        found = client.request("GET", _path(account, operator), repeatable=True).json()["keys"]
    if as_json:
        output.print_json(found)
        return
    columns = ("id", "name", "roles", "queues", "expires_at", "last_used_at")
    rows = [{**one, **{part: " ".join(one[part]) for part in ("roles", "queues")}} for one in found]
    output.print_table(columns, [[row[column] for column in columns] for row in rows])


@app.command()
def rotate(
    key_id: KeyId,
    grace: Annotated[
        float | None, typer.Option(help="Seconds that the old secret stays good. Else: a day.")
    ] = None,
    operator: Operator = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Give a key another secret; prints it, only this once."""
    path = f"{_path(account, operator)}/{quote(key_id, safe='')}/rotate"
    with connect(url, timeout) as client:
        made = write(client, "POST", path, body=messages.encode(given({"grace": grace})))
    _print_secret(made)


@app.command()
def revoke(
    key_id: KeyId,
    yes: Yes = False,
    operator: Operator = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Delete a key: within a second nobody gets in with it."""
    confirm(f"Revoke the key {key_id} of {'the operator' if operator else account}?", yes)
    with connect(url, timeout) as client:
        write(client, "DELETE", f"{_path(account, operator)}/{quote(key_id, safe='')}")
    typer.echo(f"{key_id} revoked")


@app.command()
def generate() -> None:
    """Print a key that no cluster knows yet: for auth.bootstrap_key_file."""
    # Late: it is the one command that makes something of the server's own.
    from api.access import minting

    typer.echo(minting.new_token(minting.new_id()))


def _path(account: str, operator: bool) -> str:
    return "/cluster/keys" if operator else f"{account_path(account)}/keys"


def _print_secret(made: dict[str, Any]) -> None:
    if "key" not in made:
        raise Failure(f"the key {made['id']} is there, but its secret was lost: rotate it")
    typer.echo(f"{made['id']}: the key is shown only this once", err=True)
    typer.echo(made["key"])
