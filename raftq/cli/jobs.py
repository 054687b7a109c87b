"""``raftq queue bulk``, ``redrive`` and ``job``: what is done to many messages; and filters."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from raftq.cli import output
from raftq.cli.messages import encode
from raftq.cli.options import Account, Json, Queue, Timeout, Urls, connect, queue_path
from raftq.cli.put import named_headers
from raftq.cli.requests import given, write


class Act(enum.StrEnum):
    """What is done to messages."""

    REDRIVE = "redrive"
    MOVE = "move"
    DELETE = "delete"
    RELEASE = "release"


class State(enum.StrEnum):
    """Where in its life a message is."""

    READY = "ready"
    DELAYED = "delayed"
    BLOCKED = "blocked"
    CLAIMED = "claimed"


Headers = Annotated[
    list[str] | None,
    typer.Option("--header", help="Only with NAME=VALUE, or NAME= for any; repeatable."),
]
Group = Annotated[str | None, typer.Option(help="Only of this group; '' is none.")]
Priority = Annotated[int | None, typer.Option(min=0, max=9, help="Only of this priority.")]
Zone = Annotated[str | None, typer.Option(help="Only of this zone; '' is none.")]
MinAge = Annotated[float | None, typer.Option(min=0, help="Only so many seconds old, or more.")]
MaxAge = Annotated[float | None, typer.Option(min=0, help="Only so many seconds old, or less.")]
Deliveries = Annotated[int | None, typer.Option(min=0, help="Only delivered so often, or more.")]
InState = Annotated[State | None, typer.Option("--state", help="Only in this state.")]
Limit = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="At most.")]
Rate = Annotated[int | None, typer.Option(min=1, help="At most in a second.")]


def header_matches(headers: Iterable[str] | None) -> dict[str, Any]:
    """What a filter says of headers."""
    pairs = named_headers(list(headers or [])).items()
    return {name: value or {"prefix": ""} for name, value in pairs}


def bulk(
    queue: Queue,
    act: Annotated[Act, typer.Argument(help="What to do to the messages.")],
    to: Annotated[str | None, typer.Option(help="Where to move them.")] = None,
    header: Headers = None,
    group: Group = None,
    priority: Priority = None,
    zone: Zone = None,
    min_age: MinAge = None,
    max_age: MaxAge = None,
    min_deliveries: Deliveries = None,
    state: InState = None,
    limit: Limit = None,
    rate: Rate = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    as_json: Json = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Do the same to all messages that are meant, in the background; see job."""
    wanted = {
        "match": header_matches(header) or None,
        "group": group,
        "priority": priority,
        "zone": zone,
        "min_age": min_age,
        "max_age": max_age,
        "min_deliveries": min_deliveries,
        "state": state,
    }
    asked = {
        "act": act,
        "to": to,
        "filter": given(wanted),
        "limit": limit,
        "rate": rate,
        "dry_run": dry_run,
    }
    with connect(url, timeout) as client:
        body = encode(given(asked))
        _show(write(client, "POST", f"{queue_path(account, queue)}/job", body=body), as_json)


def redrive(
    queue: Queue,
    to: Annotated[str | None, typer.Option(help="Else each to where it died.")] = None,
    limit: Limit = None,
    rate: Rate = None,
    as_json: Json = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Move a queue's dead letters back, in the background; see job."""
    body = encode(given({"to": to, "limit": limit, "rate": rate}))
    with connect(url, timeout) as client:
        _show(write(client, "POST", f"{queue_path(account, queue)}/redrive", body=body), as_json)


def job(
    queue: Queue,
    cancel: Annotated[bool, typer.Option("--cancel", help="Do no more.")] = False,
    as_json: Json = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Show how far the queue's job is, or what the last one has done."""
    with connect(url, timeout) as client:
        path = f"{queue_path(account, queue)}/job"
        if cancel:
            found = write(client, "DELETE", path)
        else:
            found = client.request("GET", path, repeatable=True).json()
    _show(found, as_json)


def _show(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(found)
        return
    failures = [(f"  {one['id']}", one["reason"]) for one in found.pop("failures")]
    rows = [
        (name, encode(value).decode() if name == "filter" else value)
        for name, value in found.items()
    ]
    output.print_table(("what", "value"), [*rows, *failures])
