"""Who waits for something to be applied on this node: long polls, session reads, event readers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar

from statemachine.commands import Command, Enqueue, NewMessage, Once
from statemachine.machine import Machine

Callback = Callable[[], object]
W = TypeVar("W")
# Told in which zone something is ready; whether it was still waiting: if not, the next one is told.
TakesWake = Callable[[str], bool]
QueueKey = tuple[str, str]  # (account, queue)
Place = tuple[str, str, str]  # (account, queue, zone); without a zone it is for everybody.


class _Waiting:
    """Who waits for one queue: by number, in order."""

    def __init__(self) -> None:
        self.by_zone: dict[str | None, dict[int, TakesWake]] = {}
        """By the zone that they take from; None: from any."""
        self.told_of_others: dict[int, str | None] = {}
        """Of these, who also hears of other zones' messages; to the zone they take from."""

    def first(self, zone: str) -> tuple[int, str | None] | None:
        """Who is to be told first of something in this zone."""
        takers = [*self.by_zone] if zone == "" else [None, zone]
        firsts = [(next(iter(self.by_zone[one])), one) for one in takers if self.by_zone.get(one)]
        return min(firsts, key=lambda one: one[0], default=None)

    def take(self, number: int, zone: str | None) -> TakesWake | None:
        """Out of the list, if it is in it."""
        self.told_of_others.pop(number, None)
        waiting = self.by_zone.get(zone, {})
        taken = waiting.pop(number, None)
        if not waiting:
            self.by_zone.pop(zone, None)
        return taken


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
        self._ready: dict[QueueKey, _Waiting] = {}
        self._reaching: dict[object, tuple[int, Callback]] = {}
        self._watchers: dict[tuple[str, str | None], dict[Watcher, None]] = {}
        self._watching: dict[object, Callback] = {}
        self._until_stop: dict[object, Callback] = {}
        self.subscription_changes = 0
        """How often subscriptions, or who runs them, have changed."""
        self.key_changes = 0
        """How often access keys have changed, or may have."""
        self._numbers = 0

    @property
    def parked(self) -> int:
        """How many wait for something to become ready."""
        return sum(
            len(waiting) for queue in self._ready.values() for waiting in queue.by_zone.values()
        )

    @property
    def watching(self) -> int:
        """How many read events."""
        return sum(len(watchers) for watchers in self._watchers.values())

    def are_waiting(self, key: QueueKey) -> bool:
        """Whether anybody waits for something to become ready in a queue."""
        return key in self._ready

    def when_ready(
        self,
        key: QueueKey,
        callback: TakesWake,
        *,
        zone: str | None = None,
        others: bool = False,
    ) -> Callable[[], None]:
        """Call back when something becomes ready in a queue; answers how to stop waiting.

        With a ``zone`` only for what is of it or of none. With ``others`` also for what is of
        other zones and nobody else who waits can take now: to find out when one may have it.
        """
        self._numbers += 1
        number = self._numbers
        queue = self._ready.setdefault(key, _Waiting())
        queue.by_zone.setdefault(zone, {})[number] = callback
        if others:
            queue.told_of_others[number] = zone

        def forget() -> None:
            queue.take(number, zone)
            self._drop_if_empty(key)

        return forget

    def when_applied(self, index: int, callback: Callback) -> Callable[[], None]:
        """Call back once ``index`` has been applied; answers how to stop waiting."""
        return _kept(self._reaching, (index, callback))

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

    def when_subscriptions_change(self, callback: Callback) -> Callable[[], None]:
        """Call back at the next change; answers how to stop waiting."""
        return _kept(self._watching, callback)

    def subscriptions_changed(self) -> None:
        """A round was applied that changed subscriptions, or who runs them."""
        self.subscription_changes += 1
        watching, self._watching = self._watching, {}
        for callback in [*watching.values()]:
            callback()

    def when_stopping(self, callback: Callback) -> Callable[[], None]:
        """Call back when the node begins to stop; answers how to wait no longer."""
        return _kept(self._until_stop, callback)

    def stopping(self) -> None:
        """The node begins to stop."""
        for callback in [*self._until_stop.values()]:
            callback()

    def applied(self, machine: Machine) -> None:
        """A round was applied: tell all whom it concerns."""
        if machine.take_subscriptions_moved():
            self.subscriptions_changed()
        self.key_changes += machine.take_keys_moved()
        # What was claimed by the same entries, for instance by one of whom ``expect`` told.
        still = {
            place: min(count, machine.ready(*place[:2]))
            for place, count in machine.take_woken().items()
            if place[:2] in self._ready
        }
        self.wake(still, machine.applied_index)
        self.noted(machine.take_noted())

    def expect(self, command: Command, machine: Machine) -> bool:
        """Messages are about to be put: tell who waits for them here; whether somebody does.

        A claim that comes behind the put in the same log entry is answered with it: once the
        put is applied, another entry would have to carry it. Where it is not known before
        whether a message will be ready nobody is told of it.
        """
        if not self._ready:
            return False
        put = command.command if isinstance(command, Once) else command
        if not isinstance(put, Enqueue):
            return False
        waiting = self._ready.get((put.account, put.queue))
        if waiting is None or machine.in_force(put.account, put.queue).delay_ms:
            return False
        zones = Counter([message.zone for message in put.messages if _is_plain(message)])
        left = [self._tell_takers(waiting, zone, count) for zone, count in zones.items()]
        self._drop_if_empty((put.account, put.queue))
        return sum(left) < zones.total()

    def wake(self, woken: Mapping[Place, int], applied_index: int) -> None:
        """A round was applied: so many messages became ready, and the state stands at the index."""
        for (account, queue, zone), count in woken.items():
            if waiting := self._ready.get((account, queue)):
                self._tell(waiting, zone, count)
                self._drop_if_empty((account, queue))
        if self._reaching:
            reached = [one for one, (index, _) in self._reaching.items() if index <= applied_index]
            for ticket in reached:
                self._reaching.pop(ticket)[1]()

    def wake_everybody(self, applied_index: int) -> None:
        """What became ready inside a snapshot is not known: let everybody look."""
        self.subscriptions_changed()
        self.key_changes += 1
        woken = {
            (*key, ""): sum(len(waiting) for waiting in queue.by_zone.values())
            for key, queue in self._ready.items()
        }
        self.wake(woken, applied_index)
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.tell_any()

    def _tell(self, waiting: _Waiting, zone: str, count: int) -> None:
        if self._tell_takers(waiting, zone, count):
            # Each finds out for itself when its turn is, and needs no telling from then on.
            for number, own in [*waiting.told_of_others.items()]:
                callback = waiting.take(number, own)
                if callback is not None:
                    callback(zone)

    def _tell_takers(self, waiting: _Waiting, zone: str, count: int) -> int:
        """Tell those who can take what is in the zone; for how many messages there was nobody."""
        while count > 0 and (first := waiting.first(zone)):
            callback = waiting.take(*first)
            if callback is not None and callback(zone):
                count -= 1
        return count

    def _drop_if_empty(self, key: QueueKey) -> None:
        queue = self._ready.get(key)
        if queue is not None and not queue.by_zone:
            del self._ready[key]


def _is_plain(message: NewMessage) -> bool:
    """It is ready when it is put, as far as it says itself."""
    at_once = not message.delay_ms and message.not_before_ms is None
    return at_once and not message.group and not message.dedup_id


def _kept(waiting: dict[object, W], one: W) -> Callable[[], None]:
    """Add one that waits; answers how it waits no longer."""
    ticket = object()
    waiting[ticket] = one

    def forget() -> None:
        waiting.pop(ticket, None)

    return forget
