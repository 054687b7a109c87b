"""``raftq queue events`` and ``history``: what happens, and what happened to one message."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from raftq.cli import output
from raftq.cli.options import Account, Json, Queue, Timeout, Urls, account_path, connect, queue_path


def events(
    queue: Annotated[
        str | None, typer.Argument(metavar="[QUEUE]", help="Without one, all.")
    ] = None,
    start: Annotated[str, typer.Option("--from", help="now, oldest, or a log index.")] = "now",
    kind: Annotated[
        list[str] | None, typer.Option("--kind", help="Only these: repeated, or with commas.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Stop after.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document per line.")] = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Print what happens in a queue as it happens, until it is interrupted."""
    path = queue_path(account, queue) if queue else account_path(account)
    query = {"from": start} | ({"kind": ",".join(kind)} if kind else {})
    with connect(url, timeout) as client:
        for number, event in enumerate(client.events(f"{path}/events", query), 1):
            if as_json:
                output.print_line(event)
            else:
                typer.echo(_line(event))
            if number == limit:
                return


def history(
    queue: Queue,
    message: Annotated[str, typer.Argument(metavar="ID", help="The message's id.")],
    as_json: Json = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Show what happened to one message, also when it is gone."""
    path = f"{queue_path(account, queue)}/messages/{message}/history"
    found: list[Any] = []
    whole, marker = True, ""
    with connect(url, timeout) as client:
        while marker is not None:
            query = {"marker": marker} if marker else {}
            page = client.request("GET", path, query=query, repeatable=True).json()
            found += page["events"]
            whole, marker = page["whole"], page["marker"]
    if as_json:
        output.print_json(found)
        return
    columns = ("time", "what", "index", "node", "claim", "consumer", "deliveries", "more")
    output.print_table(columns, [_row(event) for event in found])
    if not whole:
        typer.echo("The history does not reach back to the put.", err=True)


def _line(event: Any) -> str:
    ids = [message["id"] for message in event.get("messages", ())]
    named = [f"{name}={event[name]}" for name in _NAMED if event.get(name)]
    shown = (
        ids if len(ids) <= IDS_SHOWN else [*ids[:IDS_SHOWN], f"and {len(ids) - IDS_SHOWN:,} more"]
    )
    text = " ".join([event["time"], event["queue"], event["kind"], *named, *shown])
    return output.printable(text)


IDS_SHOWN = 4
_NAMED = ("claim", "consumer", "reason", "target", "purged", "lease_until", "ready_at", "node")


def _row(event: Any) -> list[object]:
    more = [f"{name}={event[name]}" for name in _NAMED[2:-1] if event.get(name)]
    return [
        event["time"],
        event["kind"],
        event["index"],
        event["node"],
        event.get("claim"),
        event.get("consumer"),
        event["deliveries"],
        " ".join(more) or None,
    ]
