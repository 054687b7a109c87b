"""What a leader proposes for a tick that is due: in time, late, or of an unknown calendar."""

from __future__ import annotations

import pytest

from fake_runtime import FakeRuntime
from raftq.replica.schedules import CATCH_UP_MAX, LATE_MS, TICKS_LIMIT, Schedules, tick_of
from raftq.replica.stamps import Stamps
from raftq.replica.watch import GAP_S
from statemachine.commands import Command, NewMessage, Tick, Timing
from statemachine.records import ScheduleRecord
from statemachine.schedules import Due

NEW = NewMessage(b"", "text/plain")


def due(timing: Timing, due_ms: int, behind: int = 0) -> Due:
    record = ScheduleRecord(7, "q", NEW, timing, 0, next_ms=due_ms, behind=behind)
    return Due("a", "s", record)


# Missed, late by, behind: the tick that follows one at 1,000 of every 100, and whether to skip.
LATENESS = [
    ("once", 0, 0, 1_100, False),
    ("once", 99, 0, 1_100, False),
    ("once", 100, 0, 1_200, False),
    ("once", 10 * LATE_MS, 0, 1_100 + 10 * LATE_MS, False),
    ("skip", LATE_MS, 0, 1_100 + LATE_MS, False),
    ("skip", LATE_MS + 1, 0, 1_100 + LATE_MS, True),
    ("all", 10 * LATE_MS, 0, 1_100, False),
    ("all", 10 * LATE_MS, CATCH_UP_MAX - 1, 1_100, False),
    ("all", 10 * LATE_MS, CATCH_UP_MAX, 1_100 + 10 * LATE_MS, False),
]


@pytest.mark.parametrize(("missed", "late_ms", "behind", "next_ms", "skip"), LATENESS)
def test_ticks_that_were_missed(
    missed: str, late_ms: int, behind: int, next_ms: int, skip: bool
) -> None:
    timing = Timing(every_ms=100, missed=missed)
    tick = tick_of(due(timing, 1_000, behind), 1_000 + late_ms)
    assert tick == Tick("a", "s", 7, 1_000, next_ms, skip)


def test_a_clock_that_is_behind_the_tick_changes_nothing() -> None:
    assert tick_of(due(Timing(every_ms=100), 1_000), 500).next_ms == 1_100


class Node:
    """A leader with schedules, and what it proposes."""

    def __init__(self) -> None:
        self.runtime = FakeRuntime()
        self.is_leader = True
        self.schedules: list[Due] = []
        self.proposed: list[tuple[Command, ...]] = []
        self.warned: list[str] = []
        stamps = Stamps(self.runtime)
        stamps.observe(self.runtime.wall, live=True)
        self.now_ms = stamps.now_ms()
        self.watch = Schedules(
            self,
            lambda: self,
            self,  # type: ignore[arg-type]  # Of the sequencer only propose_own is used.
            stamps,
            self.runtime,
            self,  # type: ignore[arg-type]  # And of the log only warnings.
        )

    def next_tick_ms(self) -> int | None:
        waiting = [one.record.next_ms for one in self.schedules]
        return min([at for at in waiting if at is not None], default=None)

    def due_schedules(self, now_ms: int, limit: int) -> list[Due]:
        return [one for one in self.schedules if (one.record.next_ms or 0) <= now_ms][:limit]

    def propose_own(self, *commands: Command, now_ms: int) -> bool:
        assert now_ms >= self.now_ms
        self.proposed.append(commands)
        return True

    def warning(self, event: str, **fields: object) -> None:
        self.warned.append(event)


def test_what_is_due_together_is_proposed_together_and_in_bounds() -> None:
    node = Node()
    node.schedules = [due(Timing(every_ms=100), node.now_ms)] * (TICKS_LIMIT + 1)
    node.watch.arm()
    node.runtime.pass_time(2 * GAP_S)
    (ticks,) = node.proposed
    assert len(ticks) == TICKS_LIMIT
    node.watch.arm()
    node.runtime.pass_time(2 * GAP_S)
    assert len(node.proposed) == 1, "one proposal is under way at a time"
    node.watch.done()
    node.watch.arm()
    node.runtime.pass_time(2 * GAP_S)
    assert len(node.proposed) == 2


def test_a_calendar_that_this_leader_does_not_know_ends_its_schedule_and_no_other() -> None:
    node = Node()
    unknown = Timing(cron="* * * * *", timezone="Europe/Atlantis")
    node.schedules = [due(unknown, node.now_ms), due(Timing(every_ms=100), node.now_ms)]
    node.watch.arm()
    node.runtime.pass_time(2 * GAP_S)
    ((ended, other),) = node.proposed
    assert ended == Tick("a", "s", 7, node.now_ms, None)
    assert isinstance(other, Tick)
    assert other.next_ms is not None
    assert node.warned == ["schedule ended"]
