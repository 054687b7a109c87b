"""Putting messages: a whole request of them, or a stream.

Of a stream one batch is under way at a time, and what comes meanwhile is the next one: a lone
line goes at once, and a flood in batches that are as large as the log is slow. A second batch
under way could be put although the first is refused, or overtake it when a leader is lost;
with one, what is told of a line is true of all before it, and nothing behind it was done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

import msgspec
from starlette.types import Send

from api import problems
from api.access.principals import Role
from api.access.rules import Access
from api.ports import OutcomeUnknown, Unavailable
from api.problems import ENDINGS, Document, Problem
from api.rest import lines, messages
from api.rest.answers import Answer, Stream
from api.rest.browsing import MESSAGES
from api.rest.lines import Line, Lines
from api.rest.messages import BatchToPut, MessageToPut, Place, Put, PutQuery, Taken
from api.rest.operations import Operation, Says
from api.rest.requests import (
    NDJSON,
    RETRY_S,
    Call,
    Disconnected,
    decode,
    is_ndjson,
)
from statemachine.commands import Enqueue, NewMessage
from statemachine.outcomes import Enqueued

BATCH_BYTES_MAX = 1 << 20
"""Of lines: as much as a node sends to its leader at once. Others wait behind a batch."""

TURNS = 8
"""Of the loop, in which the next piece of a body comes if it is there."""

Unset = msgspec.UnsetType
UNSET = msgspec.UNSET


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How many messages of a stream were put so far, all in one line: those of its first lines.

    With ``ids`` also those of the last batch, unless it is of messages that need not persist. The
    last line says that all were put (``done``), or why no more are: nothing of ``line`` and of
    what comes after it was put, but of the first messages from there on it may be ``unknown``.
    """

    put: int
    ids: list[str] | Unset = UNSET
    duplicates: tuple[int, ...] | Unset = UNSET
    routed: list[list[Place]] | Unset = UNSET
    problem: Document | Unset = UNSET
    line: int | Unset = UNSET
    unknown: int | Unset = UNSET
    done: bool | Unset = UNSET


class _Gathered(NamedTuple):
    line: int
    size: int
    message: NewMessage
    persistent: bool | None


async def put_messages(call: Call, query: PutQuery) -> Answer | Stream:
    """POST messages: a JSON message, a JSON batch, lines of messages, or one raw body."""
    if not is_ndjson(call.content_type):
        return await messages.put_whole(call, query)
    if query != PutQuery(ids=query.ids):
        raise Problem("invalid_request", f"{messages.ATTRIBUTES} are fields of each message")
    lines.require_plain(call, "; give its messages a dedup_id each")
    stream = PutStream(call, with_ids=query.ids)
    # What is wrong before anything was put is an answer like any other.
    return Stream((await stream.begun()).run)


class PutStream:
    """One client's stream of messages."""

    def __init__(self, call: Call, *, with_ids: bool) -> None:
        limits = call.service.limits
        self._call = call
        self._with_ids = with_ids
        self._messages_max = limits.batch_messages_max
        self._bytes_max = min(BATCH_BYTES_MAX, limits.request_bytes_max)
        self._lines = Lines(call)
        self._gathered = deque[_Gathered]()
        self._gathered_bytes = 0
        self._changed = asyncio.Event()  # There is more to put, or to hear.
        self._taken = asyncio.Event()  # There is room for more.
        self._put = 0
        self._line = 1  # The first of which nothing was put, if it ends now.
        self._batch: list[_Gathered] = []
        self._steps = self._confirmations()
        self._first: Progress

    async def begun(self) -> PutStream:
        """Itself, once there is something to tell; raises what ends it before that."""
        self._first = await anext(self._steps, Progress(put=0))
        return self

    async def run(self, send: Send, with_body: bool) -> None:
        """See ``answers.Stream``."""
        try:
            async with aclosing(self._steps):
                await send(lines.head())
                await send(lines.line(self._first))
                async for step in self._steps:
                    await send(lines.line(step))
            last = Progress(put=self._put, done=True)
        except Disconnected:
            return  # Nobody is left to be told.
        except ENDINGS as error:
            last = Progress(
                put=self._put,
                problem=problems.of(error).document,
                line=self._line,
                unknown=len(self._batch) if isinstance(error, OutcomeUnknown) else UNSET,
            )
        await send(lines.last_line(last))

    async def _confirmations(self) -> AsyncGenerator[Progress]:
        """What is told of each batch, until the body or something else ends."""
        reading = asyncio.ensure_future(self._gather())
        reading.add_done_callback(lambda _: self._changed.set())
        forget = self._call.service.when_stopping(self._changed.set)
        try:
            while await self._take(reading):
                yield await self._put_batch()
            self._line = self._lines.ended + 1
            await reading  # Raises what it has ended with, if that is not the end of the body.
        finally:
            forget()
            reading.cancel()
            await asyncio.wait([reading])

    async def _gather(self) -> None:
        """Read lines, and no more of them than are put."""
        while found := await self._lines.read():
            for line in found:
                try:
                    self._add(line)
                except Problem:
                    self._lines.ended = line.number - 1
                    raise
            self._changed.set()
            while self._is_full():
                self._taken.clear()
                await self._taken.wait()

    def _add(self, line: Line) -> None:
        given = decode(messages.decode_to_put, line.text, "line")
        message = messages.checked(self._call, given, self._call.home)
        size = len(line.text)
        self._gathered.append(_Gathered(line.number, size, message, given.persistent))
        self._gathered_bytes += size
        self._lines.kept_bytes += size

    def _is_full(self) -> bool:
        return len(self._gathered) >= self._messages_max or self._gathered_bytes >= self._bytes_max

    async def _take(self, reading: asyncio.Future[None]) -> bool:
        """Make a batch of what has come, as soon as something has; False if nothing will."""
        is_stopping = self._call.service.is_stopping
        while not (self._gathered or reading.done() or is_stopping()):
            self._changed.clear()
            await self._changed.wait()
        await self._rest_comes(reading)
        self._batch = []
        if is_stopping():
            self._line = self._gathered[0].line if self._gathered else self._lines.ended + 1
            raise Unavailable("stopping", "this node is stopping; ask another")
        left = self._bytes_max
        while self._gathered and len(self._batch) < self._messages_max:
            left -= self._gathered[0].size
            if left < 0 and self._batch:
                break
            self._batch.append(self._gathered.popleft())
            self._gathered_bytes -= self._batch[-1].size
        self._taken.set()
        return bool(self._batch)

    async def _rest_comes(self, reading: asyncio.Future[None]) -> None:
        """Give way while a line is half there: its rest, and what was sent with it, is at hand.

        What a client sends at once comes in pieces. The first one alone would be a batch, and
        the rest another one behind it.
        """
        turns, ended = 0, self._lines.ended
        while self._lines.has_begun and turns < TURNS and not (self._is_full() or reading.done()):
            await asyncio.sleep(0)
            turns = turns + 1 if ended == self._lines.ended else 0
            ended = self._lines.ended

    async def _put_batch(self) -> Progress:
        """Put it, however long the node lets it wait for its turn."""
        self._line = self._batch[0].line
        while True:
            await self._call.begin()
            try:
                told = await self._propose([one.message for one in self._batch])
                break
            except Unavailable as error:
                if error.reason != "overloaded":
                    raise
            finally:
                self._call.end()
            await asyncio.sleep(RETRY_S)
        self._lines.kept_bytes -= sum([one.size for one in self._batch])
        return told

    async def _propose(self, given: list[NewMessage]) -> Progress:
        call, account, queue = self._call, self._call.account, self._call.queue
        command = Enqueue(account, queue, tuple(given))
        wishes = {one.persistent for one in self._batch}
        view: Put | None = None
        if messages.must_persist(call.service, account, queue, wishes):
            outcome = await call.propose(command, Enqueued)
            view = messages.put_view(outcome) if self._with_ids else None
        else:
            await call.accept(command)
        call.service.observe_put([message.zone for message in given], call.home)
        self._put += len(given)
        if view is None:
            return Progress(put=self._put)
        return Progress(put=self._put, ids=view.ids, duplicates=view.duplicates, routed=view.routed)


OPERATIONS = (
    Operation(
        "POST",
        MESSAGES,
        put_messages,
        "Queue one message, a batch or a stream; creates account and queue if they do not exist",
        access=Access(Role.PRODUCE, "queue"),
        query=PutQuery,
        body_kinds=(MessageToPut, BatchToPut),
        line_kinds=(MessageToPut,),
        raw_body=True,
        answers={
            200: Says(
                "Of a stream: a line for each batch that is durable", Progress, media_type=NDJSON
            ),
            201: Says("The messages are durable and in the queue, in this order", Put),
            202: Says("None is to be persistent, and the leader has taken them", Taken),
        },
        refusals=(
            "body_too_large",
            "headers_too_large",
            "fan_out_too_large",
            "quota_exceeded",
        ),
    ),
)
