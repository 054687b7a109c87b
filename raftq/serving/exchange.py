"""One request and its answer.

uvicorn writes the head of an answer and then its body: two system calls, two segments, and a
client that is woken twice. Here a head that announces a length waits for the body, which an
application has at hand, and both leave in one write. The head of a stream does not wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from uvicorn._types import (
    ASGI3Application,
    ASGIReceiveEvent,
    ASGISendEvent,
    HTTPResponseBodyEvent,
    HTTPResponseStartEvent,
    HTTPScope,
)
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from api.fairness.admission import PLACE, Place

Header = tuple[bytes, bytes]

CLOSE = (b"connection", b"close")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
JOINED_BYTES_MAX = 64 * 1024
"""A larger body is not copied for the sake of one write."""

_BROKEN_BODY = b"Internal Server Error"
_BROKEN: tuple[HTTPResponseStartEvent, HTTPResponseBodyEvent] = (
    {
        "type": "http.response.start",
        "status": 500,
        "headers": [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(_BROKEN_BODY)),
            CLOSE,
        ],
    },
    {"type": "http.response.body", "body": _BROKEN_BODY, "more_body": False},
)


class Exchange:
    """What takes the place of uvicorn's ``RequestResponseCycle``."""

    __slots__ = (
        "_changed",
        "_has_news",
        "_head",
        "_is_chunked",
        "_is_taken",
        "_left_bytes",
        "_on_response",
        "_place",
        "_until_closed",
        "_wants_continue",
        "body",
        "default_headers",
        "disconnected",
        "flow",
        "keep_alive",
        "logger",
        "more_body",
        "response_complete",
        "response_started",
        "scope",
        "transport",
    )

    def __init__(
        self,
        scope: HTTPScope,
        transport: asyncio.Transport,
        flow: FlowControl,
        logger: logging.Logger,
        default_headers: list[Header],
        on_response: Callable[[], None],
        *,
        keep_alive: bool,
        wants_continue: bool,
    ) -> None:
        self.scope = scope
        self.transport = transport
        self.flow = flow
        self.logger = logger
        self.default_headers = default_headers
        self.keep_alive = keep_alive
        self.body: bytes | bytearray = bytearray()
        self.more_body = True
        self.disconnected = self.response_started = self.response_complete = False
        self._on_response: Callable[[], None] | None = on_response
        self._wants_continue = wants_continue
        self._place: Place | None = None  # Once it was let in.
        self._has_news = False
        self._changed: asyncio.Event | None = None  # Once somebody has waited for news.
        self._is_taken = False  # The whole body, by the application.
        self._head = b""  # What waits for the body.
        self._is_chunked: bool | None = None
        self._left_bytes = 0  # Of the answer's body, as far as it was announced.
        self._until_closed = False  # Who speaks HTTP/1.0 knows no chunks (RFC 9112, section 7.1).

    @property
    def message_event(self) -> asyncio.Event:
        """What uvicorn's protocol sets when the connection is lost."""
        if self._changed is None:
            self._changed = asyncio.Event()
        return self._changed

    @property
    def is_usual(self) -> bool:
        """It is there as a whole, waits for no word of ours, and is not the last."""
        return self.keep_alive and not (self.more_body or self._wants_continue)

    def let_in(self, place: Place) -> None:
        """It has a place, which it leaves however it ends."""
        self._place = place
        extensions: dict[str, object] = self.scope["extensions"]  # type: ignore[assignment] # uvicorn
        extensions[PLACE] = place

    def wake(self) -> None:
        """Something has happened that ``receive`` tells of."""
        self._has_news = True
        if self._changed is not None:
            self._changed.set()

    def read(self) -> None:
        """All of the body is there."""
        self.more_body = False
        self.wake()
        if self._place is not None:
            self._place.read()

    async def receive(self) -> ASGIReceiveEvent:
        """See ASGI."""
        if not (self.more_body or self._is_taken or self.disconnected or self.response_complete):
            # All of it is there: nothing is to be waited for.
            self._is_taken, self._has_news = True, False
        else:
            await self._news()
            if self.disconnected or self.response_complete:
                return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def _news(self) -> None:
        if self._wants_continue and not self.transport.is_closing():
            self.transport.write(CONTINUE)
            self._wants_continue = False
        if self.disconnected or self.response_complete:
            return
        self.flow.resume_reading()
        if not self._has_news:
            self.message_event.clear()
            await self.message_event.wait()
        self._has_news = False

    def forget(self) -> None:
        """Nobody asks for it any more; its connection may be kept for long."""
        self.scope = {}  # type: ignore[typeddict-item] # Nothing is asked of it.
        self.body = bytearray()

    async def run(self, app: ASGI3Application) -> None:
        """Have the application answer; if it does not, say that it is broken, and close."""
        try:
            await app(self.scope, self.receive, self.send)
            if not (self.response_complete or self.disconnected):
                self.logger.error("the application has returned without a whole answer")
                await self._break_off()
        except BaseException as error:
            self.logger.error("Exception in ASGI application\n", exc_info=error)
            await self._break_off()
        finally:
            self._on_response = None
            self.forget()
            if self._place is not None:
                self._place.leave()

    async def _break_off(self) -> None:
        if self.response_started:
            self.transport.close()
            return
        for message in _BROKEN:
            await self.send(message)

    async def send(self, message: ASGISendEvent) -> None:
        """See ASGI; raises ``RuntimeError`` for what is not an answer."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start" and not self.response_started:
            self._start(message)
        elif (
            message["type"] == "http.response.body"
            and self.response_started
            and not self.response_complete
        ):
            self._go_on(message)
        else:
            raise RuntimeError(f"{message['type']} is not what comes next")

    def _start(self, message: HTTPResponseStartEvent) -> None:
        status = message["status"]
        headers = [*self.default_headers, *message.get("headers", ())]
        for name, value in headers:
            if name == b"content-length":
                self._left_bytes = int(value)
                self._is_chunked = False
            elif name == b"connection":
                self.keep_alive = self.keep_alive and value != b"close"
        bodiless = self.scope["method"] == "HEAD" or status in (204, 304)
        if self._is_chunked is None and not bodiless:
            if self.scope["http_version"] == "1.0":
                self._until_closed, self.keep_alive = True, False
            else:
                self._is_chunked = True
                headers.append((b"transfer-encoding", b"chunked"))
        if not self.keep_alive and CLOSE not in headers:
            headers.append(CLOSE)
        head = _head(status, headers)
        self.response_started = True
        self._wants_continue = False
        if self._is_chunked or self._until_closed:
            # Whoever waits for the first of a stream is to know that there is one.
            self.transport.write(head)
        else:
            self._head = head

    def _go_on(self, message: HTTPResponseBodyEvent) -> None:
        body, more = message.get("body", b""), message.get("more_body", False)
        if self.scope["method"] == "HEAD":
            self._left_bytes = 0
            self._write(b"")
        elif self._is_chunked:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self.transport.write(chunk if more else chunk + b"0\r\n\r\n")
        elif self._until_closed:
            self.transport.write(body)
        else:
            self._left_bytes -= len(body)
            if self._left_bytes < 0:
                raise RuntimeError("an answer that is longer than announced")
            self._write(body)
        if more:
            return
        if self._left_bytes:
            raise RuntimeError("an answer that is shorter than announced")
        self.response_complete = True
        self.wake()
        if not self.keep_alive:
            self.transport.close()
        if self._on_response is not None:
            self._on_response()

    def _write(self, body: bytes) -> None:
        head, self._head = self._head, b""
        if len(body) > JOINED_BYTES_MAX:
            self.transport.write(head)
            self.transport.write(body)
        else:
            self.transport.write(head + body)


def _head(status: int, headers: list[Header]) -> bytes:
    """Status line and headers, none of which becomes two (RFC 9110, section 5.5)."""
    parts = [STATUS_LINE[status]]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    parts.append(b"\r\n")
    head = b"".join(parts)
    if not head.count(b"\r") == head.count(b"\n") == len(headers) + 2 or b"\0" in head:
        raise RuntimeError("an answer with a header of several lines")
    return head
