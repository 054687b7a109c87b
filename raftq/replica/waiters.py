"""Who waits for something to be applied on this node: long polls and session reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

Callback = Callable[[], object]
TakesWake = Callable[[], bool]  # Whether it was still waiting: if not, the wake is for the next.
QueueKey = tuple[str, str]  # (account, queue)


class Waiters:
    """Costs nothing while nothing happens."""

    def __init__(self) -> None:
        self._ready: dict[QueueKey, deque[TakesWake]] = {}
        self._reaching: dict[object, tuple[int, Callback]] = {}
        self._watching: dict[object, Callback] = {}
        self.subscription_changes = 0
        """How often subscriptions, or who runs them, have changed."""

    @property
    def parked(self) -> int:
        """How many wait for something to become ready."""
        return sum(len(waiters) for waiters in self._ready.values())

    def when_ready(self, key: QueueKey, callback: TakesWake) -> Callable[[], None]:
        """Call back when something becomes ready in a queue; answers how to stop waiting."""
        waiters = self._ready.setdefault(key, deque())
        waiters.append(callback)

        def forget() -> None:
            if callback in waiters:
                waiters.remove(callback)
            if not waiters and self._ready.get(key) is waiters:
                del self._ready[key]

        return forget

    def when_applied(self, index: int, callback: Callback) -> Callable[[], None]:
        """Call back once ``index`` has been applied; answers how to stop waiting."""
        ticket = object()
        self._reaching[ticket] = (index, callback)

        def forget() -> None:
            self._reaching.pop(ticket, None)

        return forget

    def when_subscriptions_change(self, callback: Callback) -> Callable[[], None]:
        """Call back at the next change; answers how to stop waiting."""
        ticket = object()
        self._watching[ticket] = callback

        def forget() -> None:
            self._watching.pop(ticket, None)

        return forget

    def subscriptions_changed(self) -> None:
        """A round was applied that changed subscriptions, or who runs them."""
        self.subscription_changes += 1
        watching, self._watching = self._watching, {}
        for callback in watching.values():
            callback()

    def wake(self, woken: Mapping[QueueKey, int], applied_index: int) -> None:
        """A round was applied: so many messages became ready, and the state stands at the index."""
        for key, count in woken.items():
            waiters = self._ready.get(key)
            while waiters and count > 0:
                count -= waiters.popleft()()
            if not waiters and self._ready.get(key) is waiters:
                self._ready.pop(key, None)
        if self._reaching:
            reached = [one for one, (index, _) in self._reaching.items() if index <= applied_index]
            for ticket in reached:
                self._reaching.pop(ticket)[1]()

    def wake_everybody(self, applied_index: int) -> None:
        """What became ready inside a snapshot is not known: let everybody look."""
        self.subscriptions_changed()
        self.wake({key: len(waiters) for key, waiters in self._ready.items()}, applied_index)
