"""``raftq.runtime.Runtime`` for one part of a node: nothing happens until the test says so.

``turn`` runs what was asked for with ``call_soon``, ``pass_time`` moves the clock from timer
to timer, ``work`` runs one piece of background work and ``finish`` tells of one that has run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from raftq.consensus.guard import Intervention

T = TypeVar("T")

WALL_START_MS = 1_700_000_000_000
TURNS_MAX = 1_000


class FakeTimer:
    """One call that is due at a time."""

    def __init__(self, due_at: float, callback: Callable[[], None]) -> None:
        self.due_at = due_at
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeRuntime:
    """The clock, the loop and the background of one test."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.wall = WALL_START_MS
        self.soon: deque[Callable[[], None]] = deque()
        self.background: deque[Callable[[], None]] = deque()
        self.finished: deque[Callable[[], None]] = deque()
        self._timers: list[FakeTimer] = []
        self._tokens = 0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return self.wall

    def random(self) -> float:
        return 0.5

    def token(self, count: int) -> bytes:
        self._tokens += 1
        return self._tokens.to_bytes(count, "big")

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> FakeTimer:
        assert delay_s >= 0
        timer = FakeTimer(self.now + delay_s, callback)
        self._timers.append(timer)
        return timer

    def offload(
        self, work: Callable[[], T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        def run() -> None:
            try:
                result = work()
            except Exception as error:
                caught = error
                self.finished.append(lambda: done(None, caught))
            else:
                self.finished.append(lambda: done(result, None))

        self.background.append(run)

    @property
    def timers(self) -> list[float]:
        """Seconds until each timer that is armed, soonest first."""
        return sorted(timer.due_at - self.now for timer in self._timers if not timer.cancelled)

    def turn(self) -> int:
        """What was to happen soon happens; how many calls that were. New ones wait."""
        count = len(self.soon)
        for _ in range(count):
            self.soon.popleft()()
        return count

    def settle(self) -> None:
        """Turns and background work until there is no more of either."""
        for _ in range(TURNS_MAX):
            if not (self.turn() or self.work() or self.finish()):
                return
        raise AssertionError("it never comes to rest")

    def pass_time(self, seconds: float) -> None:
        """Move both clocks on; what becomes due meanwhile happens at its time."""
        end = self.now + seconds
        while True:
            self.turn()
            due = [timer for timer in self._timers if timer.due_at <= end and not timer.cancelled]
            if not due:
                break
            timer = min(due, key=lambda one: one.due_at)
            self._timers.remove(timer)
            self._move_to(max(self.now, timer.due_at))
            timer.callback()
        self._move_to(end)

    def work(self) -> bool:
        """Run the oldest background work; its end is told by ``finish``."""
        if self.background:
            self.background.popleft()()
            return True
        return False

    def finish(self) -> bool:
        """Tell of the oldest background work that has run."""
        if self.finished:
            self.finished.popleft()()
            return True
        return False

    def _move_to(self, when: float) -> None:
        self.wall += round((when - self.now) * 1000)
        self.now = when


class QuietMeter:
    """``meter.Meter`` that remembers what a test may ask about."""

    def __init__(self) -> None:
        self.batches_appended: list[tuple[int, int]] = []
        self.commit_seconds: list[float] = []

    def applied(self, entries: int, commands: int, seconds: float) -> None:
        pass

    def appended(self, commands: int, size_bytes: int) -> None:
        self.batches_appended.append((commands, size_bytes))

    def committed(self, seconds: float) -> None:
        self.commit_seconds.append(seconds)

    def synced(self, seconds: float) -> None:
        pass

    def intervened(self, what: Intervention) -> None:
        pass

    def leader_changed(self) -> None:
        pass


class ListLog:
    """``meter.Log`` as a list of (event, fields)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: object) -> None:
        self.events.append((event, fields))

    debug = warning = info
