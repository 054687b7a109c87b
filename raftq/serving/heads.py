"""What is kept of a head whose end is still to come.

A header costs some 130 bytes as objects, beside those it has: more than most of them have.
"""

from __future__ import annotations

from raftq.serving.exchange import Header

_END = b"\n"  # Of a name and of a value; neither has one (RFC 9110, section 5.5).


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
