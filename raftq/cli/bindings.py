"""``raftq queue bind``, ``unbind`` and ``bindings``: which messages go to other queues."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from raftq.cli import messages, output
from raftq.cli.failure import Exit, Failure
from raftq.cli.options import Account, Json, Queue, Timeout, Urls, connect, queue_path
from raftq.cli.requests import write

Target = Annotated[str, typer.Argument(metavar="TARGET", help="The queue they go to.")]


def bind(
    queue: Queue,
    target: Target,
    match: Annotated[
        list[str] | None,
        typer.Option(
            "--match",
            "-m",
            metavar="HEADER=VALUE",
            help="What a message must have; VALUE* is a prefix. Repeatable: several values of "
            "one header are alternatives. Without any, every message.",
        ),
    ] = None,
    any_of: Annotated[bool, typer.Option("--any", help="One of the headers is enough.")] = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Send messages put to QUEUE that match to TARGET instead."""
    settings = {"match": _match(match or []), "match_mode": "any" if any_of else "all"}
    with connect(url, timeout) as client:
        write(client, "PUT", _path(account, queue, target), body=messages.encode(settings))
    typer.echo(f"{queue} is bound to {target}")


def unbind(
    queue: Queue,
    target: Target,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Bind no more. What was delivered stays."""
    with connect(url, timeout) as client:
        write(client, "DELETE", _path(account, queue, target))
    typer.echo(f"{queue} is not bound to {target} any more")


def list_bindings(
    queue: Queue,
    as_json: Json = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """List the queues to which a queue is bound, and what goes there."""
    with connect(url, timeout) as client:
        path = f"{queue_path(account, queue)}/bindings"
        found = client.request("GET", path, repeatable=True).json()["bindings"]
    if as_json:
        output.print_json(found)
        return
    rows = [[one["target"], one["match_mode"], _shown(one["match"])] for one in found]
    output.print_table(("target", "mode", "match"), rows)


def _path(account: str, queue: str, target: str) -> str:
    return f"{queue_path(account, queue)}/bindings/{quote(target, safe='')}"


def _match(pairs: list[str]) -> dict[str, list[Any]]:
    match: dict[str, list[Any]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise Failure(f'match "{pair}" is not HEADER=VALUE', Exit.USAGE)
        term = {"prefix": value[:-1]} if value.endswith("*") else value
        match.setdefault(name, []).append(term)
    return match


def _shown(match: dict[str, Any]) -> str:
    return " ".join(
        f"{name}={term['prefix'] + '*' if isinstance(term, dict) else term}"
        for name, wanted in match.items()
        for term in (wanted if isinstance(wanted, list) else [wanted])
    )
