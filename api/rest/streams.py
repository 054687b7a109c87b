"""Server-sent events (the HTML standard, 9.2): how a feed goes out, and how it ends.

Every block has an id from which a reader can go on, on any replica: that of the event,
or in a heartbeat the index up to which there was nothing for this reader. Nothing is
read before what was read last is on its way, so that nothing piles up here. A reader
that takes nothing for ``SEND_TIMEOUT_S`` loses its connection; one that is told why it
is the last, in an event ``cut``, comes back and is told the same with a status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import msgspec
from starlette.types import Message, Send

from api.ports import Unavailable, Watch
from api.problems import Problem
from api.rest.feeds import Ended, Feed
from api.rest.polling import ClientPresence
from api.rest.requests import ABORT, Call, Disconnected
from statemachine.histories import Event, Position

ROWS_AT_ONCE = 100
CHUNK_BYTES = 64 << 10
HEARTBEAT_S = 15.0
SEND_TIMEOUT_S = 20.0
RETRY_MS = 1_000
MEDIA_TYPE = "text/event-stream"
PROXIES_KEEP_OUT = (b"x-accel-buffering", b"no")
"""Some proxies gather an answer until it is long enough, unless they are told not to."""


class Cut(msgspec.Struct, frozen=True):
    """Why a stream ends: the data of its last event."""

    reason: str
    detail: str


class EventStream:
    """One reader's, from when it is answered until one of the two leaves."""

    def __init__(
        self, call: Call, feed: Feed, watch: Watch, encode: Callable[[Event], bytes]
    ) -> None:
        self._call = call
        self._feed = feed
        self._watch = watch
        self._encode = encode

    async def run(self, send: Send, with_body: bool) -> None:
        """See ``answers.Stream``."""
        try:
            await send(head(MEDIA_TYPE))
            if with_body:
                await self._run_body(send)
            await send({"type": "http.response.body", "body": b""})
        except Disconnected:
            pass  # Nobody is left to be told.
        except TimeoutError:
            self._abort()
        finally:
            self._watch.forget()
            self._call.unpark()

    async def _run_body(self, send: Send) -> None:
        presence = ClientPresence(self._call.receive)
        try:
            await _send(send, b"retry: %d\n%b" % (RETRY_MS, _idle(self._feed.position)))
            while not presence.gone:
                await self._catch_up(send, presence)
                if self._call.service.is_stopping():
                    raise Ended("stopping", "this node is stopping; ask another")
                changed = await presence.during(lambda: self._watch.wait(HEARTBEAT_S))
                await self._feed.go_on(changed)
                if changed == ():
                    # What there was is not for this reader, who need not ask for it again.
                    await _send(send, _idle(self._feed.position))
        except Ended as ended:
            await _send(send, _cut(ended.reason, str(ended)))
        finally:
            await presence.close()

    async def _catch_up(self, send: Send, presence: ClientPresence) -> None:
        """Send what there is."""
        await self._readmit()
        while not (self._feed.is_done or presence.gone):
            for chunk in self._chunks(self._feed.read(ROWS_AT_ONCE)):
                await _send(send, chunk)
            await asyncio.sleep(0)  # A long history must not keep others waiting.
            await self._readmit()

    async def _readmit(self) -> None:
        """End the stream if its key has ended."""
        try:
            await self._call.readmit()
        except Problem as problem:
            raise Ended(problem.reason, problem.detail) from problem
        except Unavailable as error:
            raise Ended(error.reason, str(error)) from error

    def _chunks(self, events: Iterable[Event]) -> Iterable[bytes]:
        parts: list[bytes] = []
        size = 0
        for event in events:
            parts.append(self._encode(event))
            size += len(parts[-1])
            if size >= CHUNK_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
        if parts:
            yield b"".join(parts)

    def _abort(self) -> None:
        """Do not even wait for what is on its way."""
        extension = self._call.scope.get("extensions", {}).get(ABORT)
        if extension is not None:
            extension["abort"]()


def head(media_type: str) -> Message:
    """The beginning of an answer that goes out as it comes to be."""
    headers = [
        (b"content-type", media_type.encode()),
        (b"cache-control", b"no-store"),
        PROXIES_KEEP_OUT,
    ]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def block(position: Position, kind: str, data: bytes) -> bytes:
    """One event."""
    return b"id: %d.%d\nevent: %b\ndata: %b\n\n" % (*position, kind.encode(), data)


def as_problem(ended: Ended) -> Problem:
    """What a reader is told that comes too late for its first event."""
    return Problem(ended.reason, str(ended), oldest_index=ended.oldest)


async def _send(send: Send, data: bytes) -> None:
    async with asyncio.timeout(SEND_TIMEOUT_S):
        await send({"type": "http.response.body", "body": data, "more_body": True})


def _idle(position: Position) -> bytes:
    """A comment; its id is remembered by clients although there is no event."""
    return b": nothing yet\nid: %d\n\n" % position.at


def _cut(reason: str, detail: str) -> bytes:
    data = msgspec.json.encode(Cut(reason, detail))
    return b"event: cut\ndata: %b\n\n" % data
