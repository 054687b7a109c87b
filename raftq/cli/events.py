"""``raftq queue events`` and ``history``: what happens, and what happened to one message."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from raftq.cli import output
from raftq.cli.failure import Exit, Failure
from raftq.cli.options import Account, Json, Queue, Timeout, Urls, account_path, connect, queue_path

if TYPE_CHECKING:
    from raftq.cli.http import Client

READ_TIMEOUT_S = 40.0  # Nothing for so long: even the heartbeats stay away.
PAUSE_S = 0.5
COME_BACK = ("stopping", "events_gone")
"""Cuts after which a reader asks again, to go on elsewhere or to be told what is gone."""


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
        for number, event in enumerate(_follow(client, f"{path}/events", query, timeout), 1):
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


def _follow(client: Client, path: str, query: dict[str, str], patience_s: float) -> Iterator[Any]:
    """Events for ever: a stream that breaks off is taken up behind its last id."""
    last = ""
    unheard_since_s = time.monotonic()
    while True:
        headers = {"last-event-id": last} if last else {}
        try:
            for position, name, data in client.stream(path, query, headers, READ_TIMEOUT_S):
                last = position or last
                unheard_since_s = time.monotonic()
                if name == "cut":
                    cut = msgspec.json.decode(data)
                    if cut["reason"] not in COME_BACK:
                        raise Failure(cut["detail"])
                elif name:
                    yield msgspec.json.decode(data)
        except Failure as failure:
            lost = failure.code in (Exit.UNREACHABLE, Exit.UNKNOWN)
            if not lost or time.monotonic() - unheard_since_s > patience_s:
                raise
        time.sleep(PAUSE_S)


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
