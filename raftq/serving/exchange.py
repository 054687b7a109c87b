"""One request and its answer.

uvicorn writes the head of an answer and then its body: two system calls, two segments, and a
client that is woken twice. Here a head that announces a length waits for the body, which an
application has at hand, and both leave in one write. The head of a stream does not wait.
"""

from __future__ import annotations

from typing import cast

from uvicorn._types import (
    ASGI3Application,
    ASGIReceiveEvent,
    ASGISendEvent,
    HTTPResponseBodyEvent,
    HTTPResponseStartEvent,
    HTTPScope,
)
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from api.fairness.admission import PLACE, Place

Header = tuple[bytes, bytes]

CLOSE = (b"connection", b"close")
JOINED_BYTES_MAX = 64 * 1024
"""A larger body is not copied for the sake of one write."""


class Exchange(RequestResponseCycle):
    """See ``RequestResponseCycle``."""

    _place: Place | None = None  # Once it was let in.
    _is_taken = False  # The whole body, by the application.
    _head = b""  # What waits for the body.
    _until_closed = False  # Who speaks HTTP/1.0 knows no chunks (RFC 9112, section 7.1).

    def let_in(self, place: Place) -> None:
        """It has a place, which it leaves however it ends."""
        self._place = place
        extensions: dict[str, object] = self.scope["extensions"]  # type: ignore[assignment] # uvicorn
        extensions[PLACE] = place

    def read(self) -> None:
        """All of the body is there."""
        self.more_body = False
        self.message_event.set()
        if self._place is not None:
            self._place.read()

    async def receive(self) -> ASGIReceiveEvent:
        """See ASGI."""
        if self.more_body or self._is_taken or self.disconnected or self.response_complete:
            return await super().receive()
        # All of it is there: nothing is to be waited for.
        self._is_taken = True
        self.message_event.clear()
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": False}

    def forget(self) -> None:
        """Nobody asks for it any more; its connection may be kept for long."""
        self.scope = cast(HTTPScope, {})
        self.body = bytearray()

    async def run_asgi(self, app: ASGI3Application) -> None:
        """See ``RequestResponseCycle``."""
        try:
            await super().run_asgi(app)
        finally:
            self.forget()
            if self._place is not None:
                self._place.leave()

    async def send(self, message: ASGISendEvent) -> None:
        """See ASGI; raises ``RuntimeError`` for what is not an answer."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start" and not self.response_started:
            self._start(message)
        elif message["type"] == "http.response.body" and self._is_answering():
            self._go_on(message)
        else:
            raise RuntimeError(f"{message['type']} is not what comes next")

    def _is_answering(self) -> bool:
        return self.response_started and not self.response_complete

    def _start(self, message: HTTPResponseStartEvent) -> None:
        status = message["status"]
        headers = [*self.default_headers, *message.get("headers", ())]
        for name, value in headers:
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"connection":
                self.keep_alive = self.keep_alive and value != b"close"
        if self.chunked_encoding is None and not (self._is_head() or status in (204, 304)):
            if self.scope["http_version"] == "1.0":
                self._until_closed, self.keep_alive = True, False
            else:
                self.chunked_encoding = True
                headers.append((b"transfer-encoding", b"chunked"))
        if not self.keep_alive and CLOSE not in headers:
            headers.append(CLOSE)
        head = _head(status, headers)
        self.response_started = True
        self.waiting_for_100_continue = False
        if self.chunked_encoding or self._until_closed:
            # Whoever waits for the first of a stream is to know that there is one.
            self.transport.write(head)
        else:
            self._head = head

    def _go_on(self, message: HTTPResponseBodyEvent) -> None:
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._is_head():
            self.expected_content_length = 0
            self._write(b"")
        elif self.chunked_encoding:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self.transport.write(chunk if more else chunk + b"0\r\n\r\n")
        elif self._until_closed:
            self.transport.write(body)
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("an answer that is longer than announced")
            self._write(body)
        if more:
            return
        if self.expected_content_length:
            raise RuntimeError("an answer that is shorter than announced")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _write(self, body: bytes) -> None:
        head, self._head = self._head, b""
        if len(body) > JOINED_BYTES_MAX:
            self.transport.write(head)
            self.transport.write(body)
        else:
            self.transport.write(head + body)

    def _is_head(self) -> bool:
        return self.scope["method"] == "HEAD"


def _head(status: int, headers: list[Header]) -> bytes:
    """Status line and headers, none of which becomes two (RFC 9110, section 5.5)."""
    lines = [STATUS_LINE[status]]
    for name, value in headers:
        lines += (name, b": ", value, b"\r\n")
    head = b"".join(lines)
    if len(head.splitlines()) != 1 + len(headers) or b"\0" in head:
        raise RuntimeError("an answer with a header of several lines")
    return head + b"\r\n"
