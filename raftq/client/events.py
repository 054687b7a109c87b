"""Events as they happen: a stream of server-sent events that is taken up where it broke off.

The next replica is asked for what comes behind the last id, so that nothing comes twice and
nothing is left out. A reader who cannot be served for the client's ``timeout`` is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from raftq.client.effects import Broken, Pause, Receive, Request, Shut, Steps
from raftq.client.errors import Problem, Refused, Unavailable
from raftq.client.exchange import KINDS, Session
from raftq.client.replicas import Replica

SILENCE_S = 20.0  # Every 15 seconds comes a word at least.
PAUSE_S = 0.5
COME_BACK = ("stopping", "events_gone", "not_current")
"""Cuts after which a reader asks again, to go on elsewhere or to be told what is gone."""

E = TypeVar("E")


class Block(NamedTuple):
    """What stands between two empty lines."""

    id: str
    kind: str
    data: bytes


class Cut(msgspec.Struct, frozen=True):
    """The last word of a stream."""

    reason: str
    detail: str = ""


class Blocks:
    """Puts a stream's pieces together."""

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[bytes, bytes] = {}

    def feed(self, piece: bytes) -> list[Block]:
        """The blocks that are whole now."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        found = []
        for line in lines:
            if line:
                field, _, value = line.partition(b": ")
                self._fields[field] = value
            elif self._fields:
                found.append(self._block())
                self._fields = {}
        return found

    def _block(self) -> Block:
        of = self._fields.get
        return Block(of(b"id", b"").decode(), of(b"event", b"").decode(), of(b"data", b""))


class EventsCore(Generic[E]):
    """One reader; ``decode`` makes of an event's data what the reader gets."""

    def __init__(
        self, session: Session, path: str, query: dict[str, str], decode: Callable[[bytes], E]
    ) -> None:
        self._session = session
        self._request = Request("GET", path, query)
        self._decode = decode
        self._found: deque[E] = deque()
        self._blocks = Blocks()
        self._stream: tuple[Replica, Any] | None = None
        self._troubled_since_s: float | None = None
        self._reading = self._closed = False
        self.last_id = ""
        """Behind which the next stream begins."""

    def next(self) -> Steps[E | None]:
        """The next event, whenever it comes; None once it is closed."""
        while not self._found:
            if self._closed:
                yield from self._leave()
                return None
            if self._stream is None:
                yield from self._open()
            else:
                yield from self._read(*self._stream)
        return self._found.popleft()

    def close(self) -> Steps[None]:
        """End. Who waits for an event learns of it with the next word, within 15 seconds."""
        self._closed = True
        self._found.clear()
        if not self._reading:
            yield from self._leave()

    def _open(self) -> Steps[None]:
        if self._troubled_since_s is not None:
            yield Pause(PAUSE_S)
        headers = {"last-event-id": self.last_id} if self.last_id else {}
        request = self._request._replace(headers=headers)
        self._stream = yield from self._session.stream(request, SILENCE_S)
        self._session.users.add(self)
        self._blocks = Blocks()

    def _read(self, replica: Replica, stream: Any) -> Steps[None]:
        self._reading, self._stream = True, None
        try:
            reply = yield Receive(stream)
        finally:
            self._reading = False
        if isinstance(reply, bytes) and reply:
            self._stream = (replica, stream)
            if self._closed:
                return
            for block in self._blocks.feed(reply):
                yield from self._take(block)
        elif not self._closed:
            words = reply.words if isinstance(reply, Broken) else "the stream ended"
            self._failed(replica, words)

    def _take(self, block: Block) -> Steps[None]:
        if block.kind == "cut":
            cut = msgspec.json.decode(block.data, type=Cut)
            if cut.reason not in COME_BACK:
                yield from self.close()
                said = Problem(title="No more events", reason=cut.reason, detail=cut.detail)
                raise KINDS.get(cut.reason, Refused)(200, said)
            replica = self._stream[0] if self._stream else None
            yield from self._leave()
            if replica is not None:
                self._failed(replica, cut.detail)
            return
        self._troubled_since_s = None
        self.last_id = block.id or self.last_id
        if block.kind:
            self._found.append(self._decode(block.data))

    def _failed(self, replica: Replica, words: str) -> None:
        """Ask another; raises when it has been going on for too long."""
        now_s = self._session.clock()
        replica.failed(now_s)
        if self._troubled_since_s is None:
            self._troubled_since_s = now_s
        if now_s - self._troubled_since_s > self._session.options.timeout_s:
            raise Unavailable(f"{replica.url} broke off: {words}")

    def _leave(self) -> Steps[None]:
        self._session.users.discard(self)
        if self._stream is not None:
            (_, stream), self._stream = self._stream, None
            yield Shut(stream)
