"""A producer and workers in each zone, and what they did, second by second."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from raftq.client import AsyncClaimedMessage, AsyncQueue, NewMessage, RaftqError

MESSAGES_PER_S = 30  # Of each zone.
WORKERS = 2  # In each zone.
WORK_S = 0.02  # For each message.
BATCH = 50
LIMIT = 5
LEASE_S = 3.0
LOCALITY_WAIT_S = 1.0
PAUSE_S = 0.2


class Done(NamedTuple):
    """What was worked on in a second, in a zone: messages of that zone, or of others."""

    second: int
    zone: str
    local: bool


class Board:
    """What all of them did."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began_s = clock()
        self.done: Counter[Done] = Counter()
        self.worked: Counter[str] = Counter()
        """How often each message was worked on."""
        self.put: dict[str, None] = {}
        """The messages that the queue has acknowledged."""
        self.put_twice = 0
        """Repetitions, after a put of which the outcome was unknown, that added nothing."""

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self._clock() - self._began_s

    @property
    def missing(self) -> int:
        """Messages that were put and not worked on."""
        return len(self.put.keys() - self.worked.keys())

    def finished(self, message: AsyncClaimedMessage, zone: str) -> None:
        """One piece of work."""
        self.done[Done(int(self.seconds), zone, message.zone == zone)] += 1
        self.worked[message.json(str)] += 1


class Producer:
    """Makes messages at a steady rate, and puts them as soon as it can."""

    def __init__(self, queue: AsyncQueue, zone: str, board: Board) -> None:
        self._queue, self._zone, self._board = queue, zone, board
        self._outbox: deque[str] = deque()
        self.made = 0
        self.stopped = False

    @property
    def waiting(self) -> int:
        """How many messages were not put yet."""
        return len(self._outbox)

    async def make(self) -> None:
        """Until it is stopped."""
        began_s = self._board.seconds
        while not self.stopped:
            due = int((self._board.seconds - began_s) * MESSAGES_PER_S)
            for number in range(self.made, due):
                self._outbox.append(f"{self._zone}-{number}")
            self.made = max(self.made, due)
            await asyncio.sleep(1 / MESSAGES_PER_S)

    async def send(self) -> None:
        """For ever. Whatever became of a try, the next says the same, and adds nothing twice."""
        while True:
            batch = [self._outbox[place] for place in range(min(BATCH, len(self._outbox)))]
            if not batch:
                await asyncio.sleep(1 / MESSAGES_PER_S)
                continue
            try:
                ids = await self._queue.put_many(
                    [NewMessage(body=name, dedup_id=name) for name in batch]
                )
            except RaftqError:
                await asyncio.sleep(PAUSE_S)
                continue
            for name, put in zip(batch, ids, strict=True):
                self._outbox.popleft()
                self._board.put[name] = None
                self._board.put_twice += put.duplicate


async def work(queue: AsyncQueue, zone: str, name: str, board: Board) -> None:
    """A worker, for ever: the messages of its zone first, and others that have waited."""
    while True:
        try:
            async with queue.consume(
                LIMIT,
                lease=LEASE_S,
                wait=1.0,
                zone_mode="prefer",
                locality_wait=LOCALITY_WAIT_S,
                consumer=name,
            ) as messages:
                async for message in messages:
                    await _work_on(message, zone, board)
        except RaftqError:  # Only the first claim of a consumer raises.
            await asyncio.sleep(PAUSE_S)


async def _work_on(message: AsyncClaimedMessage, zone: str, board: Board) -> None:
    try:
        async with message:
            await asyncio.sleep(WORK_S)
            board.finished(message, zone)
    except RaftqError:
        pass  # It was not acked, and comes again: to whoever it is then, work is done twice.
