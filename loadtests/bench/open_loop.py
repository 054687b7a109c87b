"""Open-loop load: requests go out when they are due, whatever became of those before.

So a service that falls behind is not spared, as one is whose clients each wait for an answer.
Latency counts from when a request was due, also if no connection was free to send it on;
what cannot be sent for ``patience_s`` is not sent any more.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import NamedTuple, cast

from loadtests.bench.client import HEAD_END, Load, content_length

PATIENCE_S = 0.25
DRAIN_S = 5.0
TICK_S = 0.001
GIVEN_UP = 0
"""In the place of a status: it was not sent, or the connection broke."""


class Outcomes:
    """What became of each request: when it was due and done, from the start, and how."""

    def __init__(self) -> None:
        self.due_s = array("d")
        self.done_s = array("d")
        self.status = array("H")

    def add(self, due_s: float, done_s: float, status: int) -> None:
        """One more."""
        self.due_s.append(due_s)
        self.done_s.append(done_s)
        self.status.append(status)

    def count(self, status: int, *, since_s: float = 0.0, until_s: float = float("inf")) -> int:
        """Those that were done like this in this time."""
        rows = zip(self.done_s, self.status, strict=True)
        return sum(status == found and since_s <= at_s < until_s for at_s, found in rows)

    def latencies_s(self, status: int, *, since_s: float, until_s: float) -> list[float]:
        """Of those that were due in this time and ended like this."""
        rows = zip(self.due_s, self.done_s, self.status, strict=True)
        return [
            done_s - due_s
            for due_s, done_s, found in rows
            if found == status and since_s <= due_s < until_s
        ]

    def first_s(self, status: int, *, due_since_s: float) -> float | None:
        """When the first was done like this of those that were due from then on."""
        rows = zip(self.due_s, self.done_s, self.status, strict=True)
        done_s = (
            done_s for due_s, done_s, found in rows if found == status and due_s >= due_since_s
        )
        return next(done_s, None)

    def timely(self, status: int, within_s: float, seconds: int) -> list[int]:
        """In each second, how many were done like this, and in time."""
        counts = [0] * seconds
        for due_s, done_s, found in zip(self.due_s, self.done_s, self.status, strict=True):
            if found == status and done_s - due_s <= within_s and done_s < seconds:
                counts[int(done_s)] += 1
        return counts


class Stage(NamedTuple):
    """A rate, and for how long."""

    rate_per_s: float
    seconds: float


async def peak_per_s(load: Load, batch: int, warmup_s: float, seconds: float) -> float:
    """Requests of so many messages that are answered as they should to clients that wait.

    At least one in all the time, as rates are made of it.
    """
    measured = await load.run(warmup_s, seconds, lambda: None)
    return max(measured.messages / batch, 1) / measured.seconds


class OpenLoop:
    """One kind of request over some connections, each of them used in its turn."""

    def __init__(
        self,
        ports: Sequence[int],
        connections: int,
        request: bytes,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.outcomes = Outcomes()
        self.request = request
        self.due = 0
        """Requests so far, whatever became of them."""
        self._patience_s = patience_s
        self._ports = [ports[place % len(ports)] for place in range(connections)]
        self._lines: set[_Line] = set()
        self._idle: deque[_Line] = deque()
        self._late: deque[float] = deque()  # Due, and no connection is free.
        self._began_s = 0.0
        self._open = 0
        self._stopping = False
        self._reconnecting: set[asyncio.Task[None]] = set()

    async def run(self, stages: Sequence[Stage], tick: Callable[[], None] | None = None) -> None:
        """All stages, one after the other, and whatever is then still under way."""
        try:
            await asyncio.gather(*(self._connect(port) for port in self._ports))
            self._began_s = perf_counter()
            begins_s = 0.0
            for stage in stages:
                await self._send(stage, begins_s, tick)
                begins_s += stage.seconds
            give_up_s = self.now_s() + DRAIN_S
            while (self._open or self._late) and self.now_s() < give_up_s:
                self._forget_late()
                await asyncio.sleep(TICK_S)
        finally:
            self._stopping = True
            for line in self._lines:
                line.close()
            await asyncio.gather(*self._reconnecting, return_exceptions=True)

    def now_s(self) -> float:
        """Since it began."""
        return perf_counter() - self._began_s

    async def _send(self, stage: Stage, begins_s: float, tick: Callable[[], None] | None) -> None:
        sent, ends_s = 0, begins_s + stage.seconds
        while (now_s := self.now_s()) < ends_s:
            while (due_s := begins_s + sent / stage.rate_per_s) <= now_s:
                sent += 1
                self.due += 1
                self._late.append(due_s)
            self._pair()
            self._forget_late()
            if tick is not None:
                tick()
            await asyncio.sleep(TICK_S)

    def _pair(self) -> None:
        while self._late and self._idle:
            self._open += 1
            self._idle.popleft().say(self._late.popleft())

    def _forget_late(self) -> None:
        now_s = self.now_s()
        while self._late and now_s - self._late[0] > self._patience_s:
            self.outcomes.add(self._late.popleft(), now_s, GIVEN_UP)

    def answered(self, line: _Line, due_s: float, status: int) -> None:
        """A line is free again."""
        self._open -= 1
        self.outcomes.add(due_s, self.now_s(), status)
        self._idle.append(line)
        self._pair()

    def lost(self, line: _Line, due_s: float | None, port: int) -> None:
        """The other side hung up."""
        self._lines.discard(line)
        if due_s is None:
            self._idle.remove(line)
        else:
            self._open -= 1
            self.outcomes.add(due_s, self.now_s(), GIVEN_UP)
        if not self._stopping:
            task = asyncio.ensure_future(self._connect(port))
            self._reconnecting.add(task)
            task.add_done_callback(self._reconnecting.discard)

    async def _connect(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(partial(_Line, self, port), "127.0.0.1", port)
        self._lines.add(line)
        self._idle.append(line)


class _Line(asyncio.Protocol):
    """A connection."""

    def __init__(self, loop: OpenLoop, port: int) -> None:
        self._loop = loop
        self._port = port
        self._buffer = b""
        self._due_s: float | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has no such base.

    def say(self, due_s: float) -> None:
        self._due_s = due_s
        assert self._transport is not None
        self._transport.write(self._loop.request)

    def close(self) -> None:
        assert self._transport is not None
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        end = data.find(HEAD_END)
        if end < 0 or len(data) - end - len(HEAD_END) < content_length(data[:end]):
            self._buffer = data
            return
        self._buffer = b""
        due_s, self._due_s = self._due_s, None
        if due_s is not None:
            self._loop.answered(self, due_s, int(data[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        self._loop.lost(self, self._due_s, self._port)
