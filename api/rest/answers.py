"""What a handler gives back: status, headers and a whole body, sent in one go; or a stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from starlette.types import Message, Send

Header = tuple[bytes, bytes]
_encode = msgspec.json.Encoder().encode


BODILESS: Message = {"type": "http.response.body", "body": b""}


class Answer:
    """A complete answer, as the two messages of ASGI."""

    __slots__ = ("end", "start")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        content_type: bytes = b"application/json",
        *more: Header,
    ) -> None:
        headers: list[Header]
        if status == 204:  # It has neither a length nor a type (RFC 9110, 8.6).
            headers = [*more]
        else:
            headers = [
                (b"content-length", b"%d" % len(body)),
                (b"content-type", content_type),
                *more,
            ]
        self.start: Message = {
            "type": "http.response.start",
            "status": status,
            "headers": headers,
        }
        self.end: Message = {"type": "http.response.body", "body": body}


class Stream:
    """An answer without an end in sight.

    ``run`` is given the way out, and whether a body is wanted. It is called once in any
    case, and so can let go of what the handler has taken hold of.
    """

    __slots__ = ("run",)

    def __init__(self, run: Callable[[Send, bool], Awaitable[None]]) -> None:
        self.run = run


def json(status: int, value: msgspec.Struct, *headers: Header) -> Answer:
    """``value`` as JSON; a ``msgspec.Raw`` in it goes out as it came in."""
    return Answer(status, _encode(value), b"application/json", *headers)


def empty(*headers: Header) -> Answer:
    """204."""
    return Answer(204, b"", b"", *headers)
