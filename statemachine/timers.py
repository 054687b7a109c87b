"""The global time index: what is due when, in the order of log time.

    kind       subject                         value               due
    --------   -----------------------------   -----------------   ----------------------
    QUEUE      u64(queue)                      names of the key    the queue's ``due_ms``
    ONCE       names of the key                (empty)             the end of its window
    SESSION    u64(session)                    (empty)             when it may be idle
    HISTORY    name(account)                   (empty)             when its own may be too old
    RUNNER     name(node)                      (empty)             the end of its lease

A queue has one timer at most: what is due in it is its own affair (``deadlines``).
Timers are put in at or after log time, and swept in order; so no scan need start
below where the last one ended, and none walks over what was swept before.
"""

from __future__ import annotations

from typing import NamedTuple

from statemachine import keys
from statemachine.kv import KV
from statemachine.records import FOR_EVER, MachineRecord

QUEUE = 1
ONCE = 2
SESSION = 3
HISTORY = 4
RUNNER = 6


class Timer(NamedTuple):
    """One entry of the index."""

    due_ms: int
    kind: int
    subject: bytes
    value: bytes


class Timers:
    """The index over a store."""

    def __init__(self, kv: KV, machine: MachineRecord) -> None:
        self._kv = kv
        self._machine = machine
        self._first_ms: int | None = None
        """When the first timer is due, if that is known: a cache, never written."""

    def put(self, due_ms: int, kind: int, subject: bytes, value: bytes = b"") -> None:
        """Set a timer."""
        assert due_ms >= self._machine.timers_low_ms, (due_ms, self._machine.timers_low_ms)
        self._kv.put(keys.timer(due_ms, kind, subject), value)
        if self._first_ms is not None and due_ms < self._first_ms:
            self._first_ms = due_ms

    def remove(self, due_ms: int, kind: int, subject: bytes) -> None:
        """Take a timer out."""
        self._kv.delete(keys.timer(due_ms, kind, subject))
        if due_ms == self._first_ms:
            self._first_ms = None

    def first_ms(self) -> int | None:
        """When the first timer is due; None if there is none."""
        if self._first_ms is None:
            low = keys.timer(self._machine.timers_low_ms)
            for key, _ in self._kv.scan(low, keys.timer(FOR_EVER)):
                self._first_ms = keys.split_timer(key)[0]
                break
            else:
                self._first_ms = FOR_EVER
        return None if self._first_ms == FOR_EVER else self._first_ms

    def due(self, now_ms: int, limit: int) -> list[Timer]:
        """Up to ``limit`` timers that are due, first ones first; they stay in the index."""
        first_ms = self.first_ms()
        if first_ms is None or first_ms > now_ms:
            return []
        found = []
        for key, value in self._kv.scan(keys.timer(first_ms), keys.timer(now_ms + 1)):
            found.append(Timer(*keys.split_timer(key), value))
            if len(found) == limit:
                break
        return found

    def swept(self, now_ms: int) -> None:
        """Nothing is due at ``now_ms`` any more."""
        self._machine.timers_low_ms = now_ms
