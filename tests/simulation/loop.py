"""asyncio for one life of one node, on the node's virtual runtime.

Every callback is an event of the world, so that tasks stand still while their process is
held up, and nothing of them runs any more once it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from raftq.runtime import Runtime, Timer


class _Handle(asyncio.Handle):
    """One that takes its event back when it is cancelled."""

    timer: Timer | None = None

    def cancel(self) -> None:
        super().cancel()
        if self.timer is not None:
            self.timer.cancel()


class VirtualLoop(asyncio.AbstractEventLoop):
    """See the module. ``broken`` hears what a task did not handle."""

    def __init__(self, runtime: Runtime, broken: Callable[[BaseException], None]) -> None:
        self._runtime, self._broken = runtime, broken
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._closed = False

    def time(self) -> float:
        return self._runtime.monotonic()

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_later(0.0, callback, *args, context=context)

    def call_at(  # type: ignore[override]  # Nobody asks its timers when they are due.
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.Handle:
        return self.call_later(max(0.0, when - self.time()), callback, *args, context=context)

    def call_later(  # type: ignore[override]  # As above.
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        if not self._closed:
            handle.timer = self._runtime.call_later(delay, lambda: self._run(handle))
        return handle

    def _run(self, handle: asyncio.Handle) -> None:
        if not handle.cancelled() and not self._closed:
            self.within(handle._run)

    def within(self, work: Callable[[], object]) -> None:
        """Do something that asks for the running loop."""
        asyncio._set_running_loop(self)
        try:
            work()
        finally:
            asyncio._set_running_loop(None)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]  # Coroutines are all that comes.
        self, coro: Coroutine[Any, Any, Any], *, name: object = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, context=context)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None) and None)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None:
            self._broken(error)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self._closed

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """The process has ended: its tasks end where they stand, and do nothing more."""
        self._closed = True
        for task in self._tasks:
            private: Any = task
            private._log_destroy_pending = False
            self.within(lambda task=task: self._end(task))
        self._tasks.clear()

    def _end(self, task: asyncio.Task[Any]) -> None:
        asyncio.tasks._enter_task(self, task)
        try:
            task.get_coro().close()
        finally:
            asyncio.tasks._leave_task(self, task)
