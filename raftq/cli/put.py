"""``raftq queue put``: from arguments or standard input, in batches that may be repeated."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlencode

import typer

from raftq.cli import messages
from raftq.cli.failure import Exit, Failure
from raftq.cli.messages import Attributes, Item
from raftq.cli.options import Account, Queue, Timeout, Urls, connect, queue_path

if TYPE_CHECKING:
    from raftq.cli.http import Client

PROGRESS_AFTER_S = 2.0
PROGRESS_EVERY_S = 0.5


def put(
    queue: Queue,
    bodies: Annotated[
        list[str] | None, typer.Argument(help="Messages; without any, standard input is read.")
    ] = None,
    *,
    lines: Annotated[bool, typer.Option(help="One message per line of standard input.")] = False,
    ndjson: Annotated[
        bool,
        typer.Option(
            "--ndjson", help='One {"body": ...} per line, as claim and peek --ndjson print.'
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Arguments and lines are JSON values, not text.")
    ] = False,
    content_type: Annotated[
        str | None, typer.Option(help="Of standard input taken as one message.")
    ] = None,
    ttl: Annotated[float | None, typer.Option(help="Seconds until it expires.")] = None,
    delay: Annotated[float | None, typer.Option(help="Seconds until it is ready.")] = None,
    zone: Annotated[str | None, typer.Option(help="Instead of the replica's.")] = None,
    priority: Annotated[
        int | None, typer.Option(min=0, max=9, help="Higher ones are claimed first.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Messages of a group go one at a time, in order.")
    ] = None,
    header: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; repeatable.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not print the ids.")] = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Put messages; prints their ids.

    Text from arguments and lines is stored as JSON strings.

    Standard input without --lines or --ndjson is one message with exactly those bytes.
    """
    attributes = Attributes(ttl, delay, zone, headers_from(header or []), priority, group)
    if bodies:
        items = messages.texts(bodies, attributes, as_json=as_json)
    elif ndjson:
        items = messages.ndjson(sys.stdin.buffer)
    elif lines:
        items = messages.texts(_lines(), attributes, as_json=as_json)
    else:
        items = iter([messages.whole(sys.stdin.buffer.read(), content_type, attributes)])
    with connect(url, timeout) as client:
        for ids in put_all(client, queue_path(account, queue) + "/messages", items):
            if not quiet:
                typer.echo("\n".join(ids))


def put_all(client: Client, path: str, items: Iterable[Item]) -> Iterator[list[str]]:
    """Put everything, in order; yields the ids of each batch as it is acknowledged."""
    # One key per batch makes a repetition of it harmless.
    run = uuid.uuid4().hex
    progress = _Progress()
    for number, batch in enumerate(messages.batches(items)):
        method_path, body, headers = _request(path, batch)
        headers["idempotency-key"] = f"{run}-{number}"
        try:
            answer = client.request(
                "POST", method_path, body=body, headers=headers, repeatable=True
            )
        except Failure as failure:
            before = f"after {progress.done:,} messages: " if progress.done else ""
            raise Failure(f"{before}{failure}", failure.code) from None
        ids = answer.json()["ids"]
        progress.add(len(ids))
        yield ids
    progress.close()


def _request(path: str, batch: list[Item]) -> tuple[str, bytes, dict[str, str]]:
    first = batch[0]
    if first.content_type == messages.JSON:
        body = b'{"messages":[%b]}' % b",".join(item.content for item in batch)
        return path, body, {"content-type": messages.JSON}
    fields = first.attributes._asdict()
    del fields["headers"]
    query = urlencode({name: value for name, value in fields.items() if value})
    headers = {f"raftq-header-{name}": v for name, v in first.attributes.headers.items()}
    headers["content-type"] = first.content_type
    return f"{path}?{query}" if query else path, first.content, headers


def _lines() -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise Failure(f"line {number} is not UTF-8", Exit.USAGE) from None


def headers_from(pairs: list[str]) -> dict[str, str]:
    """NAME=VALUE pairs, taken apart."""
    headers = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise Failure(f'header "{pair}" is not NAME=VALUE', Exit.USAGE)
        headers[name] = value
    return headers


class _Progress:
    """A count on standard error, if it is a terminal and this takes long."""

    def __init__(self) -> None:
        self.done = 0
        self._started_s = self._shown_s = time.monotonic()
        self._visible = False

    def add(self, count: int) -> None:
        self.done += count
        now_s = time.monotonic()
        slow = now_s - self._started_s > PROGRESS_AFTER_S
        if slow and now_s - self._shown_s > PROGRESS_EVERY_S and sys.stderr.isatty():
            rate = self.done / (now_s - self._started_s)
            sys.stderr.write(f"\r{self.done:,} messages, {rate:,.0f}/s\x1b[K")
            sys.stderr.flush()
            self._shown_s, self._visible = now_s, True

    def close(self) -> None:
        if self._visible:
            sys.stderr.write("\n")
