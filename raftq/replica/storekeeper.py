"""The store's background work, one piece at a time: flush, snapshot, the journal's truncation.

The store may be changed by the loop while a piece of work runs in the background, but
no two pieces run together and the store is never exchanged under one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from raftq.journal import Journal
from raftq.runtime import Runtime

T = TypeVar("T")


class StoreKeeper:
    """Runs work on the store off the loop, in order."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._jobs: deque[Callable[[], None]] = deque()
        self._running = False

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self._running and not self._jobs

    def run(self, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Run ``work`` off the loop, then ``done`` on it; an exception in either is fatal."""

        def start() -> None:
            def finished(result: T | None, error: BaseException | None) -> None:
                self._running = False
                if error is not None:
                    raise error
                done(result)  # type: ignore[arg-type]  # None is a T when there is no error
                self._next()

            self._runtime.offload(work, finished)

        self._jobs.append(start)
        self._next()

    def run_on_loop(self, work: Callable[[], None]) -> None:
        """Run ``work`` on the loop while nothing runs in the background."""

        def start() -> None:
            work()
            self._running = False
            self._next()

        self._jobs.append(start)
        self._next()

    def _next(self) -> None:
        if self._jobs and not self._running:
            self._running = True
            self._jobs.popleft()()


def compaction_point(journal: Journal, applied_durable: int, keep_bytes: int) -> int:
    """The index up to which the journal may be cut: behind the durable state, keeping a tail.

    ``keep_bytes`` of the newest entries stay for members that are a little behind.
    """
    kept = 0
    for segment in reversed(journal.segments()):
        kept += segment.bytes
        if kept >= keep_bytes:
            return min(segment.first_index - 1, applied_durable)
    return journal.base_index
