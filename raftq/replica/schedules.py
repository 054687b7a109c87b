"""Ticks: the leader tells the state machine which one follows the one that is due.

Leaders come and go, and two may tell at once: a tick takes effect only while its
schedule waits for it, so that all but the first are in vain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from raftq.replica.meter import Log
from raftq.replica.sequencer import Sequencer
from raftq.replica.stamps import Stamps
from raftq.replica.ticks import BadTiming, next_tick
from raftq.replica.watch import Leading, Watch
from raftq.runtime import Runtime
from statemachine.commands import Tick
from statemachine.schedules import Due

TICKS_LIMIT = 100
LATE_MS = 60_000
"""``missed`` "skip" skips a tick that comes later than this; a change of leaders does not."""

CATCH_UP_MAX = 100
"""So many ticks in a row does ``missed`` "all" catch up on; what is left then is dropped."""


class Source(Protocol):
    """The state machine, as far as it is asked here."""

    def next_tick_ms(self) -> int | None:
        """See ``Machine``."""
        ...

    def due_schedules(self, now_ms: int, limit: int) -> list[Due]:
        """See ``Machine``."""
        ...


def tick_of(due: Due, now_ms: int) -> Tick:
    """What to propose for a schedule whose tick is due. Raises ``BadTiming``."""
    record = due.record
    tick_ms, missed = record.next_ms, record.timing.missed
    assert tick_ms is not None, due
    catches_up = missed == "all" and record.behind < CATCH_UP_MAX
    return Tick(
        due.account,
        due.schedule,
        record.version,
        tick_ms,
        next_tick(record.timing, tick_ms if catches_up else max(tick_ms, now_ms)),
        skip=missed == "skip" and now_ms - tick_ms > LATE_MS,
    )


class Schedules(Watch):
    """Proposes the ticks that are due, so many at a time."""

    def __init__(
        self,
        leading: Leading,
        machine: Callable[[], Source],
        sequencer: Sequencer,
        stamps: Stamps,
        runtime: Runtime,
        log: Log,
    ) -> None:
        def propose(now_ms: int) -> bool:
            due = machine().due_schedules(now_ms, TICKS_LIMIT)
            ticks = [_tick_or_last(one, now_ms, log) for one in due]
            return sequencer.propose_own(*ticks, now_ms=now_ms)

        super().__init__(leading, lambda: machine().next_tick_ms(), propose, stamps, runtime)


def _tick_or_last(due: Due, now_ms: int, log: Log) -> Tick:
    """A schedule whose timing this node does not know, as another did, ends with this tick.

    Waiting for a leader that does would hold up all schedules behind it.
    """
    try:
        return tick_of(due, now_ms)
    except BadTiming as error:
        log.warning("schedule ended", account=due.account, schedule=due.schedule, why=str(error))
        record = due.record
        assert record.next_ms is not None, due
        return Tick(due.account, due.schedule, record.version, record.next_ms, None)
