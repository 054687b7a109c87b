"""What is kept of heads: of those whose end is still to come, and of those that come again.

A header costs some 130 bytes as objects, beside those it has: more than most of them have.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import httptools

from api.fairness.admission import kind_of
from raftq.serving.exchange import Header

KNOWN_MAX = 1_024
KNOWN_BYTES_MAX = 1_024
KNOWN_FIELDS_MAX = 32
"""A head that is larger, or has more of them, is parsed each time."""

_END = b"\n"  # Of a name and of a value; neither has one (RFC 9110, section 5.5).
_HEAD_END = b"\r\n\r\n"
_ENCODED_SEPARATOR = re.compile(rb"[^?]*%(?:2f|5c)", re.IGNORECASE)
"""In a path, what a proxy takes for a part of a name and we would take for a separator."""

KIND = "raftq.kind"
"""In a scope: how dear a request is and whose it claims to be, as ``kind_of`` says."""

Said = dict[str, Any]
"""What of an ASGI scope is as the head says, whoever sends it."""


def said(parser: httptools.HttpRequestParser, url: bytes, headers: list[Header]) -> Said | None:
    """What a head says that was parsed; None if it asks for nothing that can be."""
    if b"%" in url and _ENCODED_SEPARATOR.match(url):
        return None
    parts = httptools.parse_url(url)
    if parts.path is None:
        return None
    path = parts.path.decode("ascii")
    path = unquote(path) if "%" in path else path
    return {
        KIND: kind_of(path),
        "http_version": parser.get_http_version(),
        "method": parser.get_method().decode("ascii"),
        "path": path,
        "raw_path": parts.path,
        "query_string": parts.query or b"",
        "headers": headers,
    }


class KnownHeads:
    """What heads say, by their bytes, and how many bytes of a body follow.

    A client says the same in most of its requests. What was parsed at the beginning of a
    message, and was found good, means the same there in any other connection.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Said, int]] = {}

    def find(self, data: bytes) -> tuple[Said, bytes] | None:
        """What is said, and the body, if that is one request, whole, whose head is known.

        Requests share what they are given here, and so nobody changes it.
        """
        end = data.find(_HEAD_END) + len(_HEAD_END)
        known = self._known.get(data[:end])
        if known is None or len(data) - end != known[1]:
            return None
        return known[0], data[end:]

    def keep(self, data: bytes, head: Said, body_bytes: int) -> None:
        """The head of a request that was parsed, if its body came as it is."""
        end = data.find(_HEAD_END) + len(_HEAD_END)
        if end + body_bytes != len(data):
            return  # In chunks, or together with something else.
        if end > KNOWN_BYTES_MAX or len(head["headers"]) > KNOWN_FIELDS_MAX:
            return
        if len(self._known) >= KNOWN_MAX:
            del self._known[next(iter(self._known))]
        self._known[data[:end]] = head, body_bytes


class Unfinished:
    """The headers that have come, as bytes."""

    __slots__ = ("_packed", "fields")

    def __init__(self) -> None:
        self._packed = bytearray()
        self.fields = 0
        """How many there are."""

    def add(self, headers: list[Header]) -> None:
        """Take these from the list."""
        self.fields += len(headers)
        for name, value in headers:
            self._packed += b"%b%b%b%b" % (name, _END, value, _END)
        headers.clear()

    def finished(self, headers: list[Header]) -> list[Header]:
        """All of them, these last."""
        parts = bytes(self._packed).split(_END)
        return [*zip(parts[:-1:2], parts[1::2], strict=True), *headers]
