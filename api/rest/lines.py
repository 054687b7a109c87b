"""Lines of JSON (``application/x-ndjson``): bodies read as they come, and answers that go out so.

Such a request has no size and no end in sight, so that what bounds it is here and not in the
server: a line may have as many bytes as a request, and has to come whole before the client has
been silent for as long as a request may wait. An empty line is one too, and is how a client
with nothing to say stays, where it may not rest. What is in memory of a stream counts among the
node's bodies.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import msgspec
from starlette.types import Message

from api.problems import Problem
from api.rest import streams
from api.rest.requests import IDEMPOTENCY_KEY, NDJSON, Call

BYTES_PER_S_MIN = 1_024
"""Of a long line: beside the time for any line it has a second more for each of these."""
BUFFERED_BYTES = 80 * 1024
"""What the server may have read ahead of who reads a stream."""

_encode = msgspec.json.Encoder().encode


class Line(NamedTuple):
    """A line that is not empty, and its number among all, from 1."""

    number: int
    text: bytes


class Lines:
    """The lines of a request's body, in order."""

    def __init__(self, call: Call, *, may_rest: bool = False) -> None:
        """``may_rest``: the client may be silent between lines for as long as it likes."""
        limits = call.service.limits
        self.ended = 0
        """Lines that have come whole, empty ones included: a problem is in the one after these."""
        self.kept_bytes = 0
        """What whoever reads them still has of them in memory: to be kept up by him."""
        self._call = call
        self._bytes_max = limits.request_bytes_max
        self._silence_s = limits.wait_ms_max / 1000
        self._may_rest = may_rest
        self._begun: list[bytes] = []  # Of the line that is coming.
        self._begun_bytes = 0
        self._is_too_long = False
        self._has_more = True
        call.stream()
        call.hold(BUFFERED_BYTES)

    @property
    def has_begun(self) -> bool:
        """Whether a part of the next line has come."""
        return self._begun_bytes > 0

    async def read(self) -> list[Line]:
        """The next lines that are there; none at the end of the body.

        Raises ``Disconnected``, the problems ``request_timeout`` and ``request_too_large``, and
        ``Unavailable`` if there is no room for more.
        """
        clock = asyncio.get_running_loop().time
        since_s = clock()
        while self._has_more and not self._is_too_long:
            patience_s = self._silence_s + self._begun_bytes / BYTES_PER_S_MIN
            try:
                is_resting = self._may_rest and not self._begun_bytes
                async with asyncio.timeout_at(None if is_resting else since_s + patience_s):
                    piece, self._has_more = await self._call.more()
            except TimeoutError:
                raise Problem(
                    "request_timeout", f"no whole line has come for {patience_s:.15g} s"
                ) from None
            bytes_now = self.kept_bytes + self._begun_bytes + len(piece)
            await self._call.find_room(BUFFERED_BYTES + bytes_now)
            before = self.ended
            if found := self._split(piece):
                return found
            if self.ended > before:
                since_s = clock()
        if self._is_too_long:
            detail = f"a line may have at most {self._bytes_max} bytes"
            raise Problem("request_too_large", detail, limit=self._bytes_max)
        return []

    def _split(self, piece: bytes) -> list[Line]:
        first, *others = piece.split(b"\n")
        self._begun.append(first)
        self._begun_bytes += len(first)
        if not others and self._has_more:
            self._is_too_long = self._begun_bytes > self._bytes_max
            return []
        whole = [b"".join(self._begun), *others]
        rest = whole.pop() if self._has_more else b""
        self._begun, self._begun_bytes = [rest], len(rest)
        self._is_too_long = len(rest) > self._bytes_max
        found = []
        for text in whole:
            if len(text) > self._bytes_max:
                self._is_too_long = True
                break
            self.ended += 1
            if text and not text.isspace():
                found.append(Line(self.ended, text))
        return found


def require_plain(call: Call, instead: str = "") -> None:
    """Refuse a stream that is to be repeated as a whole, or that is compressed."""
    if IDEMPOTENCY_KEY in call.headers:
        detail = f"a stream cannot be repeated as a whole{instead}"
        raise Problem("invalid_request", detail, field="Idempotency-Key")
    call.refuse_encoding()


def head() -> Message:
    """The beginning of an answer in lines."""
    return streams.head(NDJSON)


def line(value: msgspec.Struct) -> Message:
    """One line of it."""
    return {"type": "http.response.body", "body": _encode(value) + b"\n", "more_body": True}


def empty_line() -> Message:
    """A sign of life."""
    return {"type": "http.response.body", "body": b"\n", "more_body": True}


def last_line(value: msgspec.Struct) -> Message:
    """The last one."""
    return {"type": "http.response.body", "body": _encode(value) + b"\n"}
