"""``raftq encryption``: message bodies of an account at rest, and the keys for them."""

from __future__ import annotations

import os
from base64 import b64encode
from typing import Annotated, Any

import typer

from raftq.cli import messages, output
from raftq.cli.options import Account, Json, Timeout, Urls, account_path, connect
from raftq.cli.queue import Yes, confirm
from raftq.cli.requests import write

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
def rewrap(url: Urls = None, account: Account = "default", timeout: Timeout = 10.0) -> None:
    """Wrap the keys of an account under the current master key. No message is touched."""
    with connect(url, timeout) as client:
        _print(write(client, "POST", f"{_path(account)}/rewrap"))


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
