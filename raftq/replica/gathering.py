"""How much is worth an entry: those who were answered together are waited for together.

An entry costs three nodes the same whatever it carries, and so does a batch. The clients whose
requests are in one are answered at one time, and ask again a moment later: to append at once
whatever is there divides them into cohorts for good, one for each entry that is under way. So
the next one waits until there are about as many requests as were under way when the last was
appended: on each node for a batch of its own clients, and on the leader for an entry of all.

Nobody may come. While others are under way a wait is short beside what they take. When none are,
it lasts about as long as two commits do, so that it costs little more than the entry that it
may save (the rent of a ski before it is bought: Karlin, Manasse, Rudolph and Sleator, 1988);
and after waits in vain that many entries do not wait. To keep something idle for who is about
to ask again is anticipatory scheduling (Iyer and Druschel, SOSP 2001).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from raftq.runtime import Runtime, Timer

WAIT_MAX_S = 0.005
"""Far less than a commit takes between distant zones."""
WAIT_COMMITS = 2
"""How long a wait is when nothing is under way, in what the last commit took."""
EXPECTED_TENTHS = 9
"""Of those who are expected, so many tenths will do: somebody may not come again."""
ENOUGH_REQUESTS = 64
ENOUGH_BYTES = 48 << 10
"""With so much in it, an entry costs little beside what it carries; and nobody waits for who
brought so much, since that is enough when it comes again."""
SKIPS_MAX = 63
"""After waits in vain, one after the other, so many entries do not wait: 0, 1, 3, 7, and so on."""


class Gathering:
    """What a sequencer asks before it appends, and a submitter before it sends.

    ``wake`` makes it ask again. (Below, an entry is either's, and its index the batch's number.)
    """

    def __init__(self, runtime: Runtime, wake: Callable[[], None]) -> None:
        self._runtime = runtime
        self._wake = wake
        self._timer: Timer | None = None
        self._is_idle = False  # It waits, and nothing is under way any more.
        self._is_over = False  # It has waited.
        self._commit_s = WAIT_MAX_S  # What the last one took.
        self.clear()

    def clear(self) -> None:
        """Nothing is under way and nobody is expected."""
        self._under_way: deque[tuple[int, int, float]] = deque()  # (index, requests, since when)
        self._requests_under_way = self._expected = 0
        self._skips = 0  # Entries that do not wait.
        self._next_skips = 0  # After the next wait in vain.
        self._stop()

    def is_enough(self, requests: int, size: int) -> bool:
        """Whether so many requests of ``size`` bytes are to be appended now.

        If not, ``wake`` is called in a moment.
        """
        if self._is_over or size >= ENOUGH_BYTES or requests >= ENOUGH_REQUESTS:
            return True
        if 10 * requests >= EXPECTED_TENTHS * self._expected:
            if self._is_idle:
                self._next_skips = 0
            return True
        if self._under_way:
            if self._timer is None:
                self._wait(WAIT_MAX_S)
        elif self._skips:
            self._skips -= 1
            return True
        elif not self._is_idle:
            self._stop()
            self._is_idle = True
            self._wait(min(WAIT_COMMITS * self._commit_s, WAIT_MAX_S))
        return False

    def appended(self, index: int, requests: int, size: int) -> None:
        """So many requests of ``size`` bytes went into the entry ``index``."""
        self._stop()
        if size >= ENOUGH_BYTES:
            requests = 0
        self._under_way.append((index, requests, self._runtime.monotonic()))
        self._requests_under_way += requests
        self._expected = self._requests_under_way

    def committed(self, index: int) -> None:
        """All entries up to this one are."""
        while self._under_way and self._under_way[0][0] <= index:
            _, requests, since_s = self._under_way.popleft()
            self._requests_under_way -= requests
            self._commit_s = self._runtime.monotonic() - since_s

    def _wait(self, seconds: float) -> None:
        self._timer = self._runtime.call_later(seconds, self._waited)

    def _waited(self) -> None:
        self._timer = None
        self._is_over = True
        if self._is_idle:
            self._skips = self._next_skips
            self._next_skips = min(2 * self._skips + 1, SKIPS_MAX)
        self._wake()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._is_idle = self._is_over = False
