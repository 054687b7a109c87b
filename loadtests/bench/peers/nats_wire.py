"""The text protocol of NATS, and as much of JetStream's API as a queue needs.

See "Client Protocol" in its documentation. A line ends with CRLF; MSG and HMSG are followed
by as many bytes as their last word says.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

from loadtests.bench.client import BadAnswer
from loadtests.bench.peers.session import Session, WholeFraming

LINE_END = b"\r\n"
CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}\r\n'
API = "$JS.API"
INBOX_BYTES = 8
OWN, LOAD = 1, 2
"""Numbers of subscriptions: of a session, and of the load that goes on with its connection."""


class NatsFraming(WholeFraming):
    """Lines with their payloads."""

    def __init__(self) -> None:
        super().__init__(_messages)


class NatsSession(Session):
    """With a subscription for answers."""

    framing = NatsFraming

    def greet(self) -> None:
        """See ``Session``."""
        self._inbox = inbox()
        self.socket.sendall(CONNECT + subscribe(self._inbox, OWN) + b"PING\r\n")
        self._until(b"PONG")

    def ask(self, call: str, request: object = None) -> dict[str, Any]:
        """The answer to a call of the API; ``BadAnswer`` if it is an error."""
        payload = b"" if request is None else json.dumps(request).encode()
        self.socket.sendall(publish(f"{API}.{call}", payload, self._inbox))
        answer: dict[str, Any] = json.loads(self._until(b"MSG", b"HMSG"))
        if "error" in answer:
            raise BadAnswer(answer["error"])
        return answer

    def _until(self, *kinds: bytes) -> bytes:
        while True:
            for line, payload in messages(self.received()[1]):
                if line[:1] == b"-":
                    raise BadAnswer(line)
                if line.split(b" ", 1)[0] in kinds:
                    return payload


def inbox() -> str:
    """A subject that nobody else has."""
    return f"_INBOX.{secrets.token_hex(INBOX_BYTES)}"


def subscribe(subject: str, number: int) -> bytes:
    """A number that the connection has no subscription of yet."""
    return f"SUB {subject} {number}\r\n".encode()


def publish(subject: str, payload: bytes, reply: str) -> bytes:
    """Something that ``reply`` is told the fate of."""
    return f"PUB {subject} {reply} {len(payload)}\r\n".encode() + payload + LINE_END


def messages(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each line, and its payload; for HMSG the headers are in front of that."""
    for begin, line_end, end in _messages(data):
        yield data[begin:line_end], data[line_end + 2 : end - 2]


def _messages(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Begin, end of the line and end of each that is whole."""
    at = 0
    while (line_end := data.find(LINE_END, at)) >= 0:
        end = line_end + len(LINE_END)
        if data.startswith((b"MSG ", b"HMSG "), at):
            end += int(data[data.rfind(b" ", at, line_end) : line_end]) + len(LINE_END)
        if end > len(data):
            return
        yield at, line_end, end
        at = end
