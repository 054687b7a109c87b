"""PostgreSQL's protocol 3.0, as far as a queue needs it, in binary.

See "Frontend/Backend Protocol" in PostgreSQL's documentation. A message is a letter, a
length that counts itself, and its payload; an answer ends with ReadyForQuery.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

from loadtests.bench.client import BadAnswer
from loadtests.bench.peers.session import Session

OK, FAILED = 0, 1
READY, ERROR, ROW, COMPLETE = b"Z"[0], b"E"[0], b"D"[0], b"C"[0]
BYTEA, INT8 = 17, 20
"""Types of elements of arrays."""
USER = DATABASE = "postgres"

_PROTOCOL = 3 << 16
_HEAD = struct.Struct("!cI")
_SHORT = struct.Struct("!h")
_INT = struct.Struct("!i")
_LONG = struct.Struct("!q")
_BINARY = _SHORT.pack(1) + _SHORT.pack(1)  # One format, for all of them.
SYNC = _HEAD.pack(b"S", 4)


class PostgresFraming:
    """Answers up to ReadyForQuery, and whether there was an error in them."""

    def __init__(self) -> None:
        self._buffer, self._at, self._failed = b"", 0, False

    def feed(self, data: bytes) -> tuple[int, bytes] | None:
        """See ``Framing``."""
        data = self._buffer + data
        for kind, _, end in _messages(data, self._at):
            self._at = end
            self._failed |= kind == ERROR
            if kind == READY:
                assert end == len(data), "nobody has asked for more"
                status = FAILED if self._failed else OK
                self._buffer, self._at, self._failed = b"", 0, False
                return status, data
        self._buffer = data
        return None


class PostgresSession(Session):
    """As the superuser, who needs no password."""

    framing = PostgresFraming

    def greet(self) -> None:
        """See ``Session``."""
        self.ask(startup())

    def ask(self, request: bytes) -> bytes:
        """The answer; ``BadAnswer`` with what the server says."""
        self.socket.sendall(request)
        status, answer = self.received()
        if status == FAILED:
            raise BadAnswer(answer)
        return answer

    def query(self, sql: str) -> list[list[bytes]]:
        """The rows of one or several statements, as text."""
        return [list(columns) for columns in rows(self.ask(message(b"Q", _text(sql))))]

    def prepare(self, statements: Mapping[str, str]) -> None:
        """By name, for ``execute``."""
        parsed = (
            message(b"P", _text(name), _text(sql), _SHORT.pack(0))
            for name, sql in statements.items()
        )
        self.ask(b"".join(parsed) + SYNC)


def startup() -> bytes:
    """The first message, which has no letter."""
    settings = b"".join(map(_text, ("user", USER, "database", DATABASE, "")))
    return _INT.pack(len(settings) + 8) + _INT.pack(_PROTOCOL) + settings


def message(kind: bytes, *parts: bytes) -> bytes:
    """With its length."""
    payload = b"".join(parts)
    return _HEAD.pack(kind, len(payload) + 4) + payload


def execute(statement: str, *values: bytes) -> bytes:
    """Bind, Execute and Sync of a prepared statement, all in binary."""
    bound = (_text(""), _text(statement), _BINARY, _SHORT.pack(len(values)))
    values_sized = (part for value in values for part in (_INT.pack(len(value)), value))
    return (
        message(b"B", *bound, *values_sized, _BINARY)
        + message(b"E", _text(""), _INT.pack(0))
        + SYNC
    )


def integer(value: int) -> bytes:
    """A bigint."""
    return _LONG.pack(value)


def array(element_type: int, elements: Sequence[bytes]) -> bytes:
    """Of one dimension, from 1 on, without nulls."""
    head = struct.pack("!iiIii", 1, 0, element_type, len(elements), 1)
    return head + b"".join(_INT.pack(len(element)) + element for element in elements)


def rows(answer: bytes) -> Iterator[Iterator[bytes]]:
    """The columns of each row, none of them null."""
    for kind, begin, _ in _messages(answer, 0):
        if kind == ROW:
            yield _columns(answer, begin)


def affected(answer: bytes) -> int:
    """Rows that the statement has changed or found."""
    for kind, begin, end in _messages(answer, 0):
        if kind == COMPLETE:
            return int(answer[begin : end - 1].rpartition(b" ")[2])
    raise BadAnswer(answer)


def _columns(data: bytes, at: int) -> Iterator[bytes]:
    (count,) = _SHORT.unpack_from(data, at)
    at += _SHORT.size
    for _ in range(count):
        (size,) = _INT.unpack_from(data, at)
        at += _INT.size
        yield data[at : at + size]
        at += size


def _messages(data: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Kind, begin and end of the payload of each that is whole."""
    while at + _HEAD.size <= len(data):
        end = at + 1 + int.from_bytes(data[at + 1 : at + 5], "big")
        if end > len(data):
            return
        yield data[at], at + _HEAD.size, end
        at = end


def _text(value: str) -> bytes:
    return value.encode() + b"\0"
