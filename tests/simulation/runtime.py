"""``raftq.runtime.Runtime`` of one life of one node, on the world's clock.

A node's monotonic clock starts anywhere and runs a little fast or slow; its wall clock is
off by what the faults say. Background work happens in one instant, some time after it was
asked for; its end is told later still.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from simulation.events import Events, Timer

T = TypeVar("T")

WALL_START_MS = 1_700_000_000_000
WORK_S = (0.0002, 0.0022)  # What background work takes on a disk that is well.

TOLD_S = 0.002  # Until the loop hears that it is done.


class Machine(Protocol):
    """The node around the runtime."""

    life: int
    wall_skew_ms: int
    clock_rate: float
    clock_origin: float
    work_delay_s: float

    def run(self, life: int, callback: Callable[[], None]) -> None:
        """Call back on the node's loop, unless that life is over."""
        ...


class VirtualRuntime:
    """See the module."""

    def __init__(self, events: Events, chance: random.Random, machine: Machine) -> None:
        self._events = events
        self._chance = chance
        self._machine = machine
        self._life = machine.life

    def monotonic(self) -> float:
        return self._machine.clock_origin + self._events.now * self._machine.clock_rate

    def wall_ms(self) -> int:
        return WALL_START_MS + int(self._events.now * 1000) + self._machine.wall_skew_ms

    def random(self) -> float:
        return self._chance.random()

    def token(self, count: int) -> bytes:
        return self._chance.randbytes(count)

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.call_later(0.0, callback)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        machine = self._machine
        return self._events.at(
            delay_s / machine.clock_rate, partial(machine.run, self._life, callback)
        )

    def offload(
        self, work: Callable[[], T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        def run() -> None:
            told_s = self.random() * TOLD_S
            try:
                result = work()
            except Exception as error:
                caught = error
                self.call_later(told_s, lambda: done(None, caught))
            else:
                self.call_later(told_s, lambda: done(result, None))

        low, high = WORK_S
        self.call_later(self._machine.work_delay_s + low + self.random() * (high - low), run)
