"""``raftq queue``: what is in the queues, and the work of a producer and of a worker."""

from __future__ import annotations

import enum
import sys
from itertools import islice
from typing import Annotated, Any

import typer

from raftq.cli import bindings, events, jobs, messages, output, put, sharing
from raftq.cli.failure import Exit, Failure
from raftq.cli.options import (
    JSON_HEADERS,
    Account,
    Json,
    Queue,
    Timeout,
    Urls,
    account_path,
    connect,
    queue_path,
)
from raftq.cli.requests import given, pages, write


class ZoneMode(enum.StrEnum):
    """Whose messages a claim takes."""

    ANY = "any"
    PREFER = "prefer"
    ONLY = "only"


app = typer.Typer(help="Put, claim, ack; look at queues.", no_args_is_help=True)
app.command("put")(put.put)
app.command("events")(events.events)
app.command("history")(events.history)
app.command("bind")(bindings.bind)
app.command("unbind")(bindings.unbind)
app.command("bindings")(bindings.list_bindings)
app.command("bulk")(jobs.bulk)
app.command("redrive")(jobs.redrive)
app.command("job")(jobs.job)
app.command("share")(sharing.share)

Ndjson = Annotated[bool, typer.Option("--ndjson", help="One JSON message per line.")]
Claim = Annotated[str, typer.Argument(metavar="CLAIM", help="As claim printed it.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Without any, all.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("ls")
def list_queues(
    prefix: Annotated[str, typer.Option(help="Only names that start so.")] = "",
    as_json: Json = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """List the queues of an account with their counts."""
    with connect(url, timeout) as client:
        query = {"prefix": prefix} if prefix else {}
        queues = list(pages(client, f"{account_path(account)}/queues", "queues", query))
    if as_json:
        output.print_json(queues)
        return
    states = ("ready", "delayed", "claimed", "blocked")
    rows = [[q["name"], *(q["messages"][state] for state in states), q["bytes"]] for q in queues]
    output.print_table(("queue", *states, "bytes"), rows)


@app.command()
def stats(
    queue: Queue,
    as_json: Json = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Show the counts of one queue."""
    with connect(url, timeout) as client:
        path = f"{queue_path(account, queue)}/stats"
        found = client.request("GET", path, repeatable=True).json()
    if as_json:
        output.print_json(found)
        return
    rates = {f"{kind}/s": rate for kind, rate in found.pop("rates", {}).items()}
    flat = {**found.pop("messages", {}), **found, **rates}
    output.print_table(("what", "value"), list(flat.items()))


@app.command()
def peek(
    queue: Queue,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 10,
    include_claimed: Annotated[bool, typer.Option(help="Those at work as well.")] = False,
    header: jobs.Headers = None,
    group: jobs.Group = None,
    priority: jobs.Priority = None,
    zone: jobs.Zone = None,
    min_age: jobs.MinAge = None,
    max_age: jobs.MaxAge = None,
    min_deliveries: jobs.Deliveries = None,
    state: jobs.InState = None,
    ndjson: Ndjson = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Look at messages without claiming them. Exits 5 when there is none."""
    wanted = {
        "include_claimed": "true" if include_claimed else None,
        "group": group,
        "priority": priority,
        "zone": zone,
        "min_age": min_age,
        "max_age": max_age,
        "min_deliveries": min_deliveries,
        "state": state,
    }
    query = {name: str(value) for name, value in given(wanted).items()}
    query |= {f"header.{name}": value for name, value in put.named_headers(header or []).items()}
    with connect(url, timeout) as client:
        path = f"{queue_path(account, queue)}/messages"
        found = list(islice(pages(client, path, "messages", query, limit), limit))
    _print_messages(found, ndjson)
    _exit_if_empty(found)


@app.command()
def claim(
    queue: Queue,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 1,
    lease: Annotated[float | None, typer.Option(help="Seconds; else as the queue says.")] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a message.")] = 0.0,
    zone: Annotated[str | None, typer.Option(help="Where the work will be done.")] = None,
    zone_mode: Annotated[
        ZoneMode | None, typer.Option(help="Whose messages; else as the queue says.")
    ] = None,
    locality_wait: Annotated[
        float | None, typer.Option(min=0, help="Seconds that other zones' messages have waited.")
    ] = None,
    consumer: Annotated[str | None, typer.Option(help="Who claims, for the history.")] = None,
    ack: Annotated[bool, typer.Option("--ack", help="Ack at once, after printing.")] = False,
    auto_ack: Annotated[
        bool, typer.Option("--auto-ack", help="Acked before printing: at most once, no lease.")
    ] = False,
    ndjson: Ndjson = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Take messages under a lease. Exits 5 when there was none."""
    asked = {
        "limit": limit,
        "lease": lease,
        "wait": wait or None,
        "zone": zone or None,
        "zone_mode": zone_mode,
        "locality_wait": locality_wait,
        "consumer": consumer,
        "auto_ack": auto_ack or None,
    }
    body = messages.encode(given(asked))
    with connect(url, timeout) as client:
        path = f"{queue_path(account, queue)}/claims"
        answer = client.request("POST", path, body=body, headers=JSON_HEADERS, wait_s=wait)
        if answer.status == 204:
            _exit_if_empty([])
        claimed = answer.json()
        if not ndjson and not auto_ack:
            typer.echo(f"claim {claimed['claim']} until {claimed['lease_until']}")
        held = claimed["messages"]
        _print_messages([{"claim": claimed["claim"], **message} for message in held], ndjson)
        if ack and not auto_ack:
            # What was printed must have reached its reader before it is gone from the queue.
            sys.stdout.flush()
            write(client, "POST", f"{path}/{claimed['claim']}/ack")


@app.command()
def ack(
    queue: Queue,
    claim: Claim,
    ids: Ids = None,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Delete messages whose work is done."""
    body = messages.encode({"ids": ids}) if ids else None
    with connect(url, timeout) as client:
        path = f"{queue_path(account, queue)}/claims/{claim}/ack"
        settled = write(client, "POST", path, body=body)
    _report(settled["acked"], "acked", settled["stale"])


@app.command()
def release(
    queue: Queue,
    claim: Claim,
    ids: Ids = None,
    delay: Annotated[
        float | None, typer.Option(min=0, help="Seconds until they are ready.")
    ] = None,
    reason: Annotated[str, typer.Option(help="What went wrong; it stays with them.")] = "",
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Give messages back."""
    query = {"ids": ",".join(ids)} if ids else {}
    if delay is not None:
        query["delay"] = str(delay)
    if reason:
        query["reason"] = reason
    with connect(url, timeout) as client:
        path = f"{queue_path(account, queue)}/claims/{claim}"
        settled = write(client, "DELETE", path, query=query)
    _report(settled["released"], "released", settled["stale"])


@app.command()
def nack(
    queue: Queue,
    claim: Claim,
    ids: Ids = None,
    reason: Annotated[str | None, typer.Option(help="What went wrong.")] = None,
    delay: Annotated[
        float | None, typer.Option(min=0, help="Seconds until they are tried again.")
    ] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Do not try again: dead letters.")] = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Give messages back whose work has failed."""
    asked = {"ids": ids, "reason": reason, "delay": delay, "dead": dead or None}
    body = messages.encode(given(asked))
    with connect(url, timeout) as client:
        path = f"{queue_path(account, queue)}/claims/{claim}/nack"
        settled = write(client, "POST", path, body=body)
    _report(settled["released"], "nacked", settled["stale"])


@app.command()
def purge(
    queue: Queue,
    yes: Yes = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Delete all messages of a queue, claimed ones too."""
    confirm(f"Delete all messages of {account}/{queue}?", yes)
    with connect(url, timeout) as client:
        deleted = write(client, "DELETE", f"{queue_path(account, queue)}/messages")
    typer.echo(f"{deleted['deleted']:,} deleted")


@app.command("rm")
def remove(
    queue: Queue,
    yes: Yes = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Delete a queue with everything in it."""
    confirm(f"Delete the queue {account}/{queue} with all its messages?", yes)
    with connect(url, timeout) as client:
        write(client, "DELETE", queue_path(account, queue))
    typer.echo(f"{queue} deleted")


def _print_messages(found: list[Any], ndjson: bool) -> None:
    for message in found:
        if ndjson:
            output.print_line(message)
        else:
            typer.echo(f"{message['id']}  {output.printable(messages.body_text(message))}")


def _report(count: int, done: str, stale: list[str]) -> None:
    typer.echo(f"{count:,} {done}")
    if stale:
        raise Failure(f"not held by this claim: {', '.join(stale)}")


def confirm(question: str, yes: bool) -> None:
    """Go on only if the answer is yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure("nobody to ask; give --yes", Exit.USAGE)
    typer.confirm(question, abort=True, err=True)


def _exit_if_empty(found: list[Any]) -> None:
    if not found:
        raise typer.Exit(Exit.EMPTY)
