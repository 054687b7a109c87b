"""Who waits for something to be applied on this node: long polls, session reads, event readers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

Callback = Callable[[], object]
TakesWake = Callable[[], bool]  # Whether it was still waiting: if not, the wake is for the next.
QueueKey = tuple[str, str]  # (account, queue)


class Watcher(Protocol):
    """Who reads events as they come."""

    def tell(self, queue: str) -> None:
        """The queue has new ones."""
        ...

    def tell_any(self) -> None:
        """Any queue may have new ones."""
        ...


class Waiters:
    """Costs nothing while nothing happens."""

    def __init__(self) -> None:
        self._ready: dict[QueueKey, deque[TakesWake]] = {}
        self._reaching: dict[object, tuple[int, Callback]] = {}
        self._watchers: dict[tuple[str, str | None], dict[Watcher, None]] = {}

    @property
    def parked(self) -> int:
        """How many wait for something to become ready."""
        return sum(len(waiters) for waiters in self._ready.values())

    @property
    def watching(self) -> int:
        """How many read events."""
        return sum(len(watchers) for watchers in self._watchers.values())

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

    def watch(self, account: str, queue: str | None, watcher: Watcher) -> Callable[[], None]:
        """Tell of new events in a queue, or in all of the account; answers how to stop."""
        key = (account, queue)
        watchers = self._watchers.setdefault(key, {})
        watchers[watcher] = None

        def forget() -> None:
            watchers.pop(watcher, None)
            if not watchers and self._watchers.get(key) is watchers:
                del self._watchers[key]

        return forget

    def noted(self, queues: Iterable[QueueKey]) -> None:
        """A round was applied: these queues have new events."""
        if not self._watchers:
            return
        for account, queue in queues:
            for key in ((account, queue), (account, None)):
                for watcher in self._watchers.get(key, ()):
                    watcher.tell(queue)

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
        self.wake({key: len(waiters) for key, waiters in self._ready.items()}, applied_index)
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.tell_any()
