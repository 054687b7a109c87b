"""The real world behind ``raftq.runtime``: the only module that reads clocks or entropy.

Everything runs on one loop's thread. An exception in a callback stops the node: it
goes to the ``fatal`` handler, once, and from then on nobody is called back, since
logic that broke half-way through a step must not take another.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from raftq.runtime import Timer

T = TypeVar("T")

# For timeouts, not for secrets: seeded once, since entropy costs a system call.
_chance = random.Random(secrets.randbits(128))  # noqa: S311  # see above


class Background(Protocol):
    """Threads to run work on; ``workers.Workers``, or an executor of the standard library."""

    def submit(self, work: Callable[[], None], /) -> object:
        """Run it on some thread."""
        ...


class ClockOffset:
    """What a process adds to its wall clock: zero, unless a test steps it."""

    def __init__(self, ms: int = 0) -> None:
        self.ms = ms


class AsyncioRuntime:
    """``raftq.runtime.Runtime`` on a loop; background work runs on the threads given.

    The threads stay the caller's: give it enough that a long flush cannot keep an fsync
    waiting, and shut them down after ``close``.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        background: Background,
        fatal: Callable[[BaseException], None],
        *,
        offset: ClockOffset | None = None,
    ) -> None:
        self._loop = loop
        self._background = background
        self._fatal = fatal
        self._offset = offset or ClockOffset()
        self._closed = False

    monotonic = staticmethod(time.monotonic)
    """See ``Runtime``. Not the loop's time: that one stands still during a turn."""

    def wall_ms(self) -> int:
        """See ``Runtime``."""
        return time.time_ns() // 1_000_000 + self._offset.ms

    def random(self) -> float:
        """See ``Runtime``."""
        return _chance.random()

    def token(self, count: int) -> bytes:
        """See ``Runtime``."""
        return secrets.token_bytes(count)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """See ``Runtime``."""
        self._loop.call_soon(self._run, callback)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """See ``Runtime``."""
        return self._loop.call_later(delay_s, self._run, callback)

    def offload(
        self, work: Callable[[], T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        """See ``Runtime``."""
        if self._closed:
            return

        def run() -> None:
            try:
                result = work()
            except BaseException as error:  # Any of them is the caller's to judge.
                post(None, error)
            else:
                post(result, None)

        def post(result: T | None, error: BaseException | None) -> None:
            # The loop is closed when the process is going away: nobody is left to tell.
            # Not run_in_executor: its future would cost a second turn of the loop.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._run, lambda: done(result, error))

        self._background.submit(run)

    def fail(self, error: BaseException) -> None:
        """Stop the node for ``error``; later ones are only its consequences."""
        if self._closed:
            return
        self.close()
        self._fatal(error)

    def close(self) -> None:
        """From now on call nobody back, also not for what is under way."""
        self._closed = True

    def _run(self, callback: Callable[[], None]) -> None:
        if self._closed:
            return
        try:
            callback()
        except Exception as error:
            self.fail(error)
