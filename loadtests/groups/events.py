"""Virtual time: what will happen, in the order of its time and then of its asking."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

Action = Callable[[], object]


class Events:
    """The queue; ``now_s`` is the time of what happens now."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._queue: list[tuple[float, int, Action]] = []
        self._number = 0

    def after(self, delay_s: float, action: Action) -> None:
        """Do it ``delay_s`` from now."""
        self._number += 1
        heappush(self._queue, (self.now_s + delay_s, self._number, action))

    def run(self, until_s: float) -> None:
        """Let everything happen that does until then."""
        queue = self._queue
        while queue and queue[0][0] <= until_s:
            self.now_s, _, action = heappop(queue)
            action()
        self.now_s = until_s
