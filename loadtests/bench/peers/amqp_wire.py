"""AMQP 0-9-1 as far as a queue needs it: frames, and the methods that are said and heard.

See the specification's generated grammar. A frame is a type, a channel, the size of its
payload, that, and an octet that ends it. Everything here is on one channel.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator

from loadtests.bench.client import BadAnswer
from loadtests.bench.peers.session import Session, WholeFraming

GREETING = b"AMQP\x00\x00\x09\x01"
CHANNEL = 1
METHOD, HEADER, BODY = 1, 2, 3
FRAME_END = b"\xce"
PERSISTENT = 2
GUEST = "guest"

_HEAD = struct.Struct("!BHI")
_NO_TABLE = bytes(4)
_DURABLE = 2


class Method(enum.IntEnum):
    """Class and number, as in the first four octets of a payload."""

    START = 10 << 16 | 10
    START_OK = 10 << 16 | 11
    TUNE = 10 << 16 | 30
    TUNE_OK = 10 << 16 | 31
    OPEN = 10 << 16 | 40
    OPEN_OK = 10 << 16 | 41
    CLOSE = 10 << 16 | 50
    CHANNEL_OPEN = 20 << 16 | 10
    CHANNEL_OPEN_OK = 20 << 16 | 11
    CHANNEL_CLOSE = 20 << 16 | 40
    DECLARE = 50 << 16 | 10
    DECLARE_OK = 50 << 16 | 11
    DELETE = 50 << 16 | 40
    DELETE_OK = 50 << 16 | 41
    QOS = 60 << 16 | 10
    QOS_OK = 60 << 16 | 11
    CONSUME = 60 << 16 | 20
    CONSUME_OK = 60 << 16 | 21
    PUBLISH = 60 << 16 | 40
    DELIVER = 60 << 16 | 60
    ACK = 60 << 16 | 80
    NACK = 60 << 16 | 120
    SELECT = 85 << 16 | 10
    SELECT_OK = 85 << 16 | 11


class AmqpFraming(WholeFraming):
    """Frames; the exchange knows how many it waits for."""

    def __init__(self) -> None:
        super().__init__(_frames)


class AmqpSession(Session):
    """With one channel."""

    framing = AmqpFraming
    version = ""
    """Of the server."""

    def greet(self) -> None:
        """See ``Session``."""
        self.version = _property("version", self._say(GREETING, Method.START))
        plain = f"\0{GUEST}\0{GUEST}".encode()
        response = len(plain).to_bytes(4, "big") + plain
        started = _method(
            Method.START_OK, _NO_TABLE, _short("PLAIN"), response, _short("en_US"), channel=0
        )
        limits = self._say(started, Method.TUNE)
        # As the server has it, but without heartbeats: a run is short.
        self.socket.sendall(_method(Method.TUNE_OK, limits[:6], bytes(2), channel=0))
        opened = _method(Method.OPEN, _short("/"), _short(""), bytes(1), channel=0)
        self._say(opened, Method.OPEN_OK)
        self._say(_method(Method.CHANNEL_OPEN, _short("")), Method.CHANNEL_OPEN_OK)

    def declare_quorum(self, queue: str, size: int) -> None:
        """With so many replicas."""
        arguments = _table({"x-queue-type": "quorum", "x-quorum-initial-group-size": size})
        declared = _method(Method.DECLARE, bytes(2), _short(queue), bytes([_DURABLE]), arguments)
        self._say(declared, Method.DECLARE_OK)

    def delete(self, queue: str) -> None:
        """With all that is in it."""
        self._say(_method(Method.DELETE, bytes(2), _short(queue), bytes(1)), Method.DELETE_OK)

    def confirm(self) -> None:
        """From now on what is published is confirmed."""
        self._say(_method(Method.SELECT, bytes(1)), Method.SELECT_OK)

    def consume(self, queue: str, prefetch: int) -> None:
        """From now on at most so many unsettled messages are delivered."""
        limits = struct.pack("!IHB", 0, prefetch, 0)
        self._say(_method(Method.QOS, limits), Method.QOS_OK)
        consumed = (bytes(2), _short(queue), _short(""), bytes(1), _NO_TABLE)
        self._say(_method(Method.CONSUME, *consumed), Method.CONSUME_OK)

    def _say(self, request: bytes, expected: Method) -> bytes:
        """The arguments of the answer, which must be all that comes."""
        self.socket.sendall(request)
        _, answer = self.received()
        ((method, arguments),) = methods(answer)
        if method != expected:
            raise BadAnswer(answer)
        return arguments


def publish(queue: str, body: bytes) -> bytes:
    """A persistent message, straight to a queue."""
    properties = struct.pack("!HHQHB", 60, 0, len(body), 1 << 12, PERSISTENT)
    return (
        _method(Method.PUBLISH, bytes(2), _short(""), _short(queue), bytes(1))
        + frame(HEADER, properties)
        + frame(BODY, body)
    )


def ack(delivery_tag: int) -> bytes:
    """Settle all up to this one."""
    return _method(Method.ACK, struct.pack("!QB", delivery_tag, 1))


def methods(frames: bytes) -> Iterator[tuple[int, bytes]]:
    """Which, and their arguments; what contents follow is left out."""
    for kind, begin, end in _frames(frames):
        if kind == METHOD:
            yield int.from_bytes(frames[begin : begin + 4], "big"), frames[begin + 4 : end - 1]


def acked(arguments: bytes) -> tuple[int, bool]:
    """A delivery tag, and whether all before it are meant as well."""
    return int.from_bytes(arguments[:8], "big"), bool(arguments[8])


def delivered(arguments: bytes) -> int:
    """The delivery tag, which is behind the consumer's."""
    at = 1 + arguments[0]
    return int.from_bytes(arguments[at : at + 8], "big")


def frame(kind: int, payload: bytes, channel: int = CHANNEL) -> bytes:
    """One."""
    return _HEAD.pack(kind, channel, len(payload)) + payload + FRAME_END


def _frames(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Type, begin of the payload, and end of each frame that is whole."""
    at = 0
    while at + _HEAD.size <= len(data):
        kind, _, size = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + size + len(FRAME_END)
        if end > len(data):
            return
        yield kind, at + _HEAD.size, end
        at = end


def _method(method: Method, *arguments: bytes, channel: int = CHANNEL) -> bytes:
    return frame(METHOD, b"".join((method.to_bytes(4, "big"), *arguments)), channel)


def _property(name: str, arguments: bytes) -> str:
    """A text among the server's properties, found by its name and type."""
    value = arguments.partition(_short(name) + b"S")[2]
    return value[4 : 4 + int.from_bytes(value[:4], "big")].decode()


def _short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _table(entries: dict[str, str | int]) -> bytes:
    fields = b"".join(_short(name) + _field(value) for name, value in entries.items())
    return len(fields).to_bytes(4, "big") + fields


def _field(value: str | int) -> bytes:
    if isinstance(value, int):
        return b"I" + value.to_bytes(4, "big")
    return b"S" + len(value).to_bytes(4, "big") + value.encode()
