"""Virtual time: a queue of what will happen, one thing after the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush


class Timer:
    """Something that will happen unless cancelled."""

    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Events:
    """The queue. What is due at the same time happens in the order in which it was asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.count_run = 0
        self._queue: list[tuple[float, int, Timer, Callable[[], None]]] = []
        self._number = 0

    def at(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call back after ``delay_s`` virtual seconds."""
        timer = Timer()
        self._number += 1
        due_at = self.now + delay_s if delay_s > 0.0 else self.now
        heappush(self._queue, (due_at, self._number, timer, callback))
        return timer

    def step(self, until: float = math.inf) -> bool:
        """Let the next thing happen; False when nothing will until then."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            due_at, _, timer, callback = heappop(queue)
            if not timer.cancelled:
                self.now = due_at
                self.count_run += 1
                callback()
                return True
        return False

    def run(self, seconds: float, after: Callable[[], None] | None = None) -> None:
        """Let ``seconds`` pass; ``after`` is called after each thing that happens in them."""
        end = self.now + seconds
        while self.step(end):
            if after is not None:
                after()
        self.now = end
