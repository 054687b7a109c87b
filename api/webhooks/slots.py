"""A bound on how many things are under way."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """So many at once, handed out in the order in which they were asked for."""

    def __init__(self, total: int) -> None:
        self._free = total
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self, most: int) -> int:
        """At least one slot, and up to ``most`` of those that are free."""
        while not self._free:
            await self._wait()
        taken = min(most, self._free)
        self._free -= taken
        self._wake()
        return taken

    def give(self, count: int) -> None:
        """Give slots back."""
        self._free += count
        self._wake()

    async def _wait(self) -> None:
        free: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(free)
        try:
            await free
        except asyncio.CancelledError:
            if not free.cancelled():
                self._wake()  # Woken and gone in the same turn: the next one may have it.
            raise

    def _wake(self) -> None:
        if not self._free:
            return
        while self._waiting:
            free = self._waiting.popleft()
            if not free.done():
                free.set_result(None)
                return
