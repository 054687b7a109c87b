"""``raftq subscription``: have the messages of a queue posted to a URL."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from raftq.cli import messages, output
from raftq.cli.failure import Exit, Failure
from raftq.cli.options import (
    Account,
    Json,
    Queue,
    Timeout,
    Urls,
    connect,
    queue_path,
)
from raftq.cli.put import named_headers
from raftq.cli.queue import Yes, confirm
from raftq.cli.requests import given, pages, write

if TYPE_CHECKING:
    from raftq.cli.http import Client

app = typer.Typer(help="Have messages posted to URLs.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The subscription's name.")]


@app.command("put")
def put(
    queue: Queue,
    name: Name,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The URL to post to.")],
    secret_file: Annotated[
        Path | None, typer.Option(help="Holds whsec_...; - is standard input. Else one is made.")
    ] = None,
    header: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; repeatable.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Messages at once.")] = None,
    lease: Annotated[float | None, typer.Option(help="Seconds, as of a claim.")] = None,
    answer_timeout: Annotated[float | None, typer.Option(help="Seconds for an answer.")] = None,
    retry_base: Annotated[float | None, typer.Option(help="Seconds after a failure.")] = None,
    retry_max: Annotated[float | None, typer.Option(help="The most it grows to.")] = None,
    attempts: Annotated[int | None, typer.Option(help="After which it is given up.")] = None,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Create a subscription, or replace one; prints the secret if one was made, only this once."""
    asked = {
        "url": target,
        "secret": None if secret_file is None else _secret(secret_file),
        "headers": named_headers(header or []) or None,
        "concurrency": concurrency,
        "lease": lease,
        "timeout": answer_timeout,
        "retry": given({"base": retry_base, "max": retry_max, "attempts": attempts}) or None,
    }
    body = messages.encode(given(asked))
    with connect(url, timeout) as client:
        stored = write(client, "PUT", _path(account, queue, name), body=body)
    if "secret" in stored:
        typer.echo(stored["secret"])


@app.command("ls")
def list_subscriptions(
    queue: Queue,
    as_json: Json = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """List the subscriptions of a queue."""
    with connect(url, timeout) as client:
        path = f"{queue_path(account, queue)}/subscriptions"
        found = list(pages(client, path, "subscriptions", {}))
    if as_json:
        output.print_json(found)
        return
    columns = ("name", "node", "url", "disabled_reason")
    output.print_table(columns, [[one[column] for column in columns] for one in found])


@app.command()
def show(
    queue: Queue,
    name: Name,
    as_json: Json = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Show one subscription, and how it goes as the node says that runs it."""
    path = _path(account, queue, name)
    with connect(url, timeout) as client:
        found = client.request("GET", path, repeatable=True).json()
        owner = _api_of(client, found["node"]) if found["activity"] is None else None
    if owner is not None:
        with connect([owner], timeout) as client:
            found = client.request("GET", path, repeatable=True).json()
    if as_json:
        output.print_json(found)
        return
    found["headers"] = ", ".join(found["headers"])
    retry, activity = found.pop("retry"), found.pop("activity") or {}
    output.print_table(("what", "value"), list({**found, **retry, **activity}.items()))


@app.command("rm")
def remove(
    queue: Queue,
    name: Name,
    yes: Yes = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Delete a subscription; the messages stay in the queue."""
    confirm(f"Delete the subscription {name} of {account}/{queue}?", yes)
    with connect(url, timeout) as client:
        write(client, "DELETE", _path(account, queue, name))
    typer.echo(f"{name} deleted")


def _path(account: str, queue: str, name: str) -> str:
    return f"{queue_path(account, queue)}/subscriptions/{quote(name, safe='')}"


def _secret(path: Path) -> str:
    """Out of a file: what is on a command line is there for everybody to see."""
    try:
        return (sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")).strip()
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}", Exit.USAGE) from None
    except UnicodeDecodeError:
        raise Failure(f"{path} is not text", Exit.USAGE) from None


def _api_of(client: Client, node: str | None) -> str | None:
    """Where the node answers that runs a subscription."""
    if node is None:
        return None
    members = client.request("GET", "/cluster", repeatable=True).json()["members"]
    return next((member["api_url"] for member in members if member["node"] == node), None)
