"""What a claim takes: the highest priority first, then what may be had, then the oldest.

A claim goes through the lanes that have something ready: ten priorities at most, and
as many zones as a queue may have. It looks at the oldest message of each, which is at
hand, and at nothing behind; so its cost depends on what it takes, not on how much waits
where.

A zone that has no consumer must not starve: "prefer" is delay scheduling. A message is
first for consumers of its own zone, and for all when it has waited long enough, which
counts from when it was enqueued.
"""

from __future__ import annotations

from heapq import heapify, heappop, heapreplace

from statemachine import deadlines, fresh, messages, records, returned
from statemachine.commands import Claim, Take
from statemachine.deadlines import EXPIRY, later
from statemachine.outcomes import Delivered
from statemachine.records import FOR_EVER, Held
from statemachine.settings import ONLY, PREFER
from statemachine.state import Fresh, Lane, Queue, Returned, State

EXPIRED_MAX = 256
"""How many expired messages a claim clears away before it answers without them."""


class Taken:
    """What a claim gathers."""

    __slots__ = ("_dropped", "_limit", "_queue", "_state", "delivered", "due_ms", "freed", "held")

    def __init__(self, state: State, queue: Queue, limit: int) -> None:
        self.held: list[Held] = []
        self.delivered: list[Delivered] = []
        self.due_ms = 0
        """When the first of the messages is due here that wait for their own zone; or 0."""
        self.freed = False
        """Whether something became ready that may come before what is next."""
        self._state = state
        self._queue = queue
        self._limit = limit
        self._dropped = 0

    def wants(self) -> int:
        """How many messages may be taken next, dead or alive."""
        # Exactly so many, however many are at hand: replicas must stop at the same one.
        return min(self._limit - len(self.held), EXPIRED_MAX - self._dropped)

    def take_all(self, lane: Lane) -> None:
        """Take from a lane, the oldest first, until it has nothing more or ``freed`` is set."""
        # What is asked first is a part of ``wants``: it spares most claims, of one, another call.
        while len(self.held) < self._limit and not self.freed and (wanted := self.wants()) > 0:
            if lane.record.returned:
                self.take_oldest(lane)
            elif not self._take_fresh(lane, wanted):
                return

    def take_oldest(self, lane: Lane) -> None:
        """Take a lane's oldest message."""
        oldest, back = self._oldest(lane)
        if oldest is not None and (back is None or oldest[0][2:] < back[0]):
            self._take_fresh(lane, 1)
        elif back is not None:
            self._take_returned(lane, *back)

    def take_older(self, lane: Lane, age: bytes) -> None:
        """Take what a lane has before a message of that age, as far as it is at hand."""
        if not lane.record.returned and (count := fresh.older(lane, self.wants(), age)):
            self._take_fresh(lane, count)
        else:
            self.take_oldest(lane)

    def age(self, lane: Lane) -> bytes | None:
        """What a lane's oldest message is compared by."""
        if lane.window and not lane.record.returned:  # The most frequent case.
            return lane.window[0][0][2:]
        oldest, back = self._oldest(lane)
        if back is None:
            return None if oldest is None else oldest[0][2:]
        return back[0] if oldest is None else min(oldest[0][2:], back[0])

    def enqueued_ms(self, lane: Lane, age: bytes) -> int:
        """When a lane's oldest message was enqueued."""
        oldest, _ = self._oldest(lane)
        if oldest is not None and oldest[0][2:] == age:
            return records.times(oldest[4]).enqueued_ms
        return records.times(self._stored(age[-2:] + age[:-2])).enqueued_ms

    def _oldest(self, lane: Lane) -> tuple[Fresh | None, Returned | None]:
        return fresh.first(self._state, lane), returned.first(self._state, self._queue, lane)

    def _stored(self, message_id: bytes) -> bytes:
        data = self._state.kv.get(self._queue.messages + message_id)
        assert data is not None, "a returned message is stored"
        return data

    def _take_fresh(self, lane: Lane, count: int) -> bool:
        """Take up to ``count`` of the oldest fresh ones; False if there are none."""
        state, queue, now_ms = self._state, self._queue, self._state.now_ms
        taken = fresh.take(state, queue, lane, count)
        for message in taken:
            message_id, expires_ms, size, timed, data = message
            if expires_ms <= now_ms:
                messages.drop_fresh(state, queue, message)
                self._dropped += 1
                continue
            if timed:
                deadlines.remove(state, queue, expires_ms, EXPIRY, message_id)
            self.held.append(Held(message_id, 1, size))
            self.delivered.append(Delivered(message_id, 1, data))
        return bool(taken)

    def _take_returned(self, lane: Lane, age: bytes, deliveries: int, error: str) -> None:
        state, queue = self._state, self._queue
        message_id = age[-2:] + age[:-2]
        data = self._stored(message_id)
        times = records.times(data)
        messages.take_returned(state, queue, message_id, times.expires_ms)
        returned.took_first(lane, message_id)
        if times.expires_ms <= state.now_ms:
            self.freed = messages.expired(state, queue, Held(message_id, deliveries, times.bytes))
            self._dropped += 1
        else:
            self.held.append(Held(message_id, deliveries + 1, times.bytes, error))
            self.delivered.append(Delivered(message_id, deliveries + 1, data, error))


class _Rule:
    """What a claim takes that does not take from any zone."""

    __slots__ = ("_mode", "_zones", "now_ms", "wait_ms")

    def __init__(self, state: State, queue: Queue, command: Claim | Take, mode: str) -> None:
        wait_ms = command.locality_wait_ms
        self.wait_ms = queue.in_force().locality_wait_ms if wait_ms is None else wait_ms
        self.now_ms = state.now_ms
        self._mode = mode
        self._zones = ("", command.zone)

    def split(self, ready: list[Lane]) -> tuple[list[Lane], list[Lane]]:
        """Of a priority's lanes, those to take from at once, and those that come after them."""
        near = [lane for lane in ready if lane.record.zone in self._zones]
        if self._mode == ONLY:
            return near, []
        return near, [lane for lane in ready if lane.record.zone not in self._zones]


def take(state: State, queue: Queue, command: Claim | Take, limit: int) -> Taken:
    """Take up to ``limit`` of what the claim may have, off the queue's lanes."""
    taken = Taken(state, queue, limit)
    mode = command.zone_mode or queue.in_force().zone_mode
    rule = _Rule(state, queue, command, mode) if mode in (ONLY, PREFER) else None
    while True:
        if rule is None and len(queue.lanes) == 1:  # The most frequent case.
            taken.take_all(queue.lanes[0])
        else:
            _take_by_priority(taken, rule, queue)
        if not taken.freed:
            return taken
        taken.freed = False  # Once more from the top: it may be of a higher priority.


def _take_by_priority(taken: Taken, rule: _Rule | None, queue: Queue) -> None:
    first_ms = FOR_EVER
    far: list[Lane] = []
    for tier in queue.tiers:
        near = [lane for lane in tier if lane.record.ready]
        if rule is not None:
            near, far = rule.split(near)
        if len(near) == 1:
            taken.take_all(near[0])
        elif near:
            _merge(taken, near, None)
        if far and not taken.freed:
            first_ms = min(first_ms, _merge(taken, far, rule))
        if taken.freed or taken.wants() <= 0:
            return
    taken.due_ms = 0 if first_ms == FOR_EVER else first_ms


def _merge(taken: Taken, lanes: list[Lane], rule: _Rule | None) -> int:
    """Take from lanes by age; with a rule, what has waited long enough.

    The answer is when the first one is due that has not.
    """
    heap = [(age, lane.number, lane) for lane in lanes if (age := taken.age(lane)) is not None]
    heapify(heap)
    while heap and not taken.freed and taken.wants() > 0:
        age, number, lane = heap[0]
        if rule is not None:
            due_ms = later(taken.enqueued_ms(lane, age), rule.wait_ms)
            if due_ms > rule.now_ms:
                # Whatever is behind it came later; so did the oldest of the other lanes.
                return due_ms
            taken.take_oldest(lane)
        elif len(heap) > 1:
            taken.take_older(lane, min(heap[1:3])[0])
        else:
            taken.take_all(lane)
        if taken.wants() <= 0:
            break
        next_age = taken.age(lane)
        if next_age is None:
            heappop(heap)
        else:
            heapreplace(heap, (next_age, number, lane))
    return FOR_EVER
