"""How a reader of events learns that there are new ones, without asking.

The service tells, the reader waits. What is kept between the two is which queues have
something new, never what: the reader looks into the applied state for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from api.ports import Changed

CHANGED_MAX = 10_000
"""Queues that a reader may be behind with by name; beyond, it has to look at all."""


class EventWatch:
    """See ``ports.Watch``. Costs nothing while nothing happens."""

    def __init__(self) -> None:
        self._changed: dict[str, None] = {}
        self._any = False
        self._waiting: asyncio.Future[None] | None = None
        self.forget: Callable[[], None]
        """Ends the watch; set by the service that tells it."""

    def tell(self, queue: str) -> None:
        """The queue has new events."""
        if len(self._changed) < CHANGED_MAX:
            self._changed[queue] = None
            self._wake()
        else:
            self.tell_any()

    def tell_any(self) -> None:
        """Any queue may have new events, or the service has something to say."""
        self._any = True
        self._changed.clear()
        self._wake()

    async def wait(self, timeout_s: float) -> Changed:
        """See ``ports.Watch``."""
        if not (self._changed or self._any):
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            timer = loop.call_later(timeout_s, self._wake)
            try:
                await self._waiting
            finally:
                timer.cancel()
                self._waiting = None
        changed = None if self._any else tuple(self._changed)
        self._any = False
        self._changed.clear()
        return changed

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
