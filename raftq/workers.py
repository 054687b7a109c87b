"""Threads for background work, with as little ceremony as Python allows.

An fsync is handed over and back for every round of entries. ``ThreadPoolExecutor``
makes a future with a condition for each piece of work, and threads that wait on one
queue wake each other in vain: several lock operations on either side, each of which is
a chance to wait for the interpreter lock. Here each thread has a queue of its own, the
one that was idle last gets the work, and a new one is started when none is idle.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

Jobs = SimpleQueue[Callable[[], None] | None]


class Workers:
    """As many threads as there was work at once. ``submit`` belongs to one thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: deque[Jobs] = deque()
        self._threads: list[tuple[threading.Thread, Jobs]] = []

    def submit(self, work: Callable[[], None]) -> None:
        """Run ``work``, which must not raise, on a thread that does nothing else meanwhile."""
        try:
            jobs = self._idle.pop()
        except IndexError:
            jobs = self._start()
        jobs.put(work)

    def shutdown(self) -> None:
        """Finish what was submitted, then end."""
        for _, jobs in self._threads:
            jobs.put(None)
        for thread, _ in self._threads:
            thread.join()

    def _start(self) -> Jobs:
        jobs: Jobs = SimpleQueue()
        name = f"{self._name}_{len(self._threads)}"
        thread = threading.Thread(target=self._run, args=(jobs,), name=name, daemon=True)
        self._threads.append((thread, jobs))
        thread.start()
        return jobs

    def _run(self, jobs: Jobs) -> None:
        while (work := jobs.get()) is not None:
            work()
            self._idle.append(jobs)
