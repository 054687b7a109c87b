"""``raftq encryption``: message bodies of an account at rest, and the keys for them."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftq.cli import messages, output
from raftq.cli.options import Account, Json, Timeout, Urls, account_path, connect
from raftq.cli.queue import Yes, confirm
from raftq.cli.requests import pages, write

if TYPE_CHECKING:
    from raftq.cli.http import Client

app = typer.Typer(no_args_is_help=True, help="Encryption of message bodies at rest.")
MASTER_KEY_BYTES = 32


@app.command("master-key")
def master_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The key's name, never used before.")],
    for_account: Annotated[
        str, typer.Option("--for", metavar="ACCOUNT", help="For this account alone.")
    ] = "",
) -> None:
    """Print a new line for encryption.key_file, which every node needs."""
    words = [name, b64encode(os.urandom(MASTER_KEY_BYTES)).decode(), for_account]
    typer.echo(" ".join(word for word in words if word))


@app.command()
def show(
    as_json: Json = False, url: Urls = None, account: Account = "default", timeout: Timeout = 10.0
) -> None:
    """Show whether bodies of an account are encrypted, and its keys."""
    with connect(url, timeout) as client:
        _print(client.request("GET", _path(account), repeatable=True).json(), as_json=as_json)


@app.command()
def on(url: Urls = None, account: Account = "default", timeout: Timeout = 10.0) -> None:
    """Encrypt new bodies. Those that are there stay as they are."""
    _switch(url, account, timeout, enabled=True)


@app.command()
def off(url: Urls = None, account: Account = "default", timeout: Timeout = 10.0) -> None:
    """Encrypt new bodies no more. Those that are there stay encrypted, and readable."""
    _switch(url, account, timeout, enabled=False)


@app.command()
def rotate(url: Urls = None, account: Account = "default", timeout: Timeout = 10.0) -> None:
    """Make another key for new bodies of an account."""
    with connect(url, timeout) as client:
        _print(write(client, "POST", f"{_path(account)}/rotate"))


@app.command()
def rewrap(
    everywhere: Annotated[bool, typer.Option("--all", help="Of all accounts.")] = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Wrap the keys of an account under the current master key. No message is touched."""
    with connect(url, timeout) as client:
        if not everywhere:
            _print(write(client, "POST", f"{_path(account)}/rewrap"))
            return
        for name, _ in _with_keys(client):
            write(client, "POST", f"{_path(name)}/rewrap")
            typer.echo(f"the keys of {name} are wrapped anew")


@app.command("ls")
def list_accounts(as_json: Json = False, url: Urls = None, timeout: Timeout = 10.0) -> None:
    """List the accounts that have keys, and the master keys that these need."""
    with connect(url, timeout) as client:
        found = dict(_with_keys(client))
    if as_json:
        output.print_json(found)
        return
    rows = [
        [
            name,
            "yes" if one["enabled"] else "no",
            len(one["keys"]),
            " ".join(sorted({key["master"] for key in one["keys"]})),
        ]
        for name, one in found.items()
    ]
    output.print_table(("account", "encrypted", "keys", "master keys"), rows)


@app.command()
def shred(
    yes: Yes = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Destroy the keys of an account: all that they have encrypted is lost for good."""
    confirm(f"Destroy the keys of {account}, and with them all that they have encrypted?", yes)
    with connect(url, timeout) as client:
        count = write(client, "DELETE", f"{_path(account)}/keys")["deleted"]
    typer.echo(f"{count} keys of {account} destroyed")


def _with_keys(client: Client) -> Iterator[tuple[str, Any]]:
    """The accounts that have keys, and their encryption."""
    for one in pages(client, "/v1", "accounts", {}):
        found = client.request("GET", _path(one["name"]), repeatable=True).json()
        if found["keys"]:
            yield one["name"], found


def _switch(url: list[str] | None, account: str, timeout: float, *, enabled: bool) -> None:
    with connect(url, timeout) as client:
        body = messages.encode({"enabled": enabled})
        _print(write(client, "PUT", _path(account), body=body))


def _path(account: str) -> str:
    return f"{account_path(account)}/encryption"


def _print(found: Any, *, as_json: bool = False) -> None:
    if as_json:
        output.print_json(found)
        return
    typer.echo(f"new bodies are {'encrypted' if found['enabled'] else 'not encrypted'}")
    rows = [[one["id"], one["master"], one["created_at"]] for one in found["keys"]]
    output.print_table(("key", "master key", "created"), rows)
