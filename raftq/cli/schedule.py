"""``raftq schedule``: messages that are put by the clock."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from raftq.cli import messages, output
from raftq.cli.failure import Exit, Failure
from raftq.cli.messages import Attributes
from raftq.cli.options import Account, Json, Queue, Timeout, Urls, account_path, connect
from raftq.cli.put import named_headers
from raftq.cli.requests import given, pages, write

app = typer.Typer(help="Put messages by the clock.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]


@app.command("put")
def put(
    name: Name,
    queue: Queue,
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="What to put at every tick.")],
    *,
    cron: Annotated[str | None, typer.Option(help="As in a crontab: '0 6 * * MON-FRI'.")] = None,
    every: Annotated[float | None, typer.Option(help="Seconds between ticks.")] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Of --cron: Europe/Berlin; UTC if none.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="No tick before: 2026-01-01T00:00:00Z.")] = None,
    end: Annotated[str | None, typer.Option(help="No tick after.")] = None,
    missed: Annotated[
        str | None, typer.Option(help="Ticks that came late: once, skip or all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="MESSAGE is JSON, not text.")] = False,
    ttl: Annotated[float | None, typer.Option(help="Seconds until a message expires.")] = None,
    delay: Annotated[float | None, typer.Option(help="Seconds until it is ready.")] = None,
    zone: Annotated[str | None, typer.Option(help="The messages' zone.")] = None,
    header: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; repeatable.")] = None,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Create a schedule, or replace it; prints when it ticks first."""
    if (cron is None) == (every is None):
        raise Failure("give either --cron or --every", Exit.USAGE)
    attributes = Attributes(ttl, delay, zone, named_headers(header or []))
    (item,) = messages.texts([message], attributes, as_json=as_json)
    timing = {"cron": cron, "every": every, "timezone": timezone, "start": start, "end": end}
    fields = given({**timing, "missed": missed})
    body = messages.encode({"queue": queue, "message": messages.raw(item.content), **fields})
    with connect(url, timeout) as client:
        stored = write(client, "PUT", _path(account, name), body=body)
    typer.echo(f"{name} ticks next at {stored['next_at']}")


@app.command("ls")
def list_schedules(
    prefix: Annotated[str, typer.Option(help="Only names that start so.")] = "",
    as_json: Json = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """List the schedules of an account."""
    with connect(url, timeout) as client:
        query = {"prefix": prefix} if prefix else {}
        path = f"{account_path(account)}/schedules"
        found = list(pages(client, path, "schedules", query))
    if as_json:
        output.print_json(found)
        return
    rows = [
        [
            one["name"],
            one["queue"],
            one["cron"] or f"every {one['every']:g} s",
            one["timezone"],
            one["next_at"],
        ]
        for one in found
    ]
    output.print_table(("schedule", "queue", "when", "timezone", "next tick"), rows)


@app.command()
def show(
    name: Name,
    as_json: Json = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Show a schedule, with its last tick and its next."""
    with connect(url, timeout) as client:
        found = client.request("GET", _path(account, name), repeatable=True).json()
    if as_json:
        output.print_json(found)
        return
    message = found.pop("message")
    flat = {**found, "message": messages.body_text(message)}
    flat |= {key: value for key, value in message.items() if key != "body" and value}
    output.print_table(("what", "value"), list(flat.items()))


@app.command("rm")
def remove(
    name: Name,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Delete a schedule. The messages it has put stay."""
    with connect(url, timeout) as client:
        write(client, "DELETE", _path(account, name))
    typer.echo(f"{name} deleted")


def _path(account: str, name: str) -> str:
    return f"{account_path(account)}/schedules/{quote(name, safe='')}"
