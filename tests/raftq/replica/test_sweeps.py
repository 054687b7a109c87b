"""A sweep is proposed when log time reaches what is due: one at a time, and by the leader."""

from __future__ import annotations

import pytest

from fake_runtime import FakeRuntime
from raftq.replica.stamps import Stamps
from raftq.replica.sweeps import SWEEP_LIMIT, Sweeps
from raftq.replica.watch import GAP_S
from statemachine.commands import Command, Sweep

HOUR_MS = 3_600_000


class Node:
    """A leader's state machine and its sequencer, as far as sweeps know them."""

    def __init__(self) -> None:
        self.runtime = FakeRuntime()
        self.is_leader = True
        self.full = False
        self.due_ms: int | None = None
        self.proposed: list[Command] = []
        self.stamps = Stamps(self.runtime)
        self.stamps.observe(self.runtime.wall, live=True)
        self.sweeps = Sweeps(
            self,
            lambda: self.due_ms,
            self,  # type: ignore[arg-type]  # Of the sequencer only propose_own is used.
            self.stamps,
            self.runtime,
        )

    def propose_own(self, command: Command) -> bool:
        if not self.full:
            self.proposed.append(command)
        return not self.full

    def due_in(self, seconds: float) -> None:
        self.due_ms = self.stamps.now_ms() + int(seconds * 1000)
        self.sweeps.arm()


def test_it_sweeps_when_something_is_due_and_not_before() -> None:
    node = Node()
    node.due_in(5)
    node.runtime.pass_time(4.9)
    assert node.proposed == []
    node.runtime.pass_time(0.2)
    assert node.proposed == [Sweep(SWEEP_LIMIT)]


def test_what_was_due_long_ago_is_swept_after_a_short_gap_in_which_more_may_join() -> None:
    node = Node()
    node.due_in(-100)
    node.runtime.pass_time(GAP_S / 2)
    assert node.proposed == []
    node.runtime.pass_time(GAP_S)
    assert node.proposed == [Sweep(SWEEP_LIMIT)]


def test_one_sweep_is_under_way_at_a_time() -> None:
    node = Node()
    node.due_in(0)
    node.runtime.pass_time(1)
    node.sweeps.arm()
    assert node.runtime.timers == []
    node.runtime.pass_time(10)
    assert len(node.proposed) == 1
    node.sweeps.done()
    node.sweeps.arm()
    node.runtime.pass_time(GAP_S)
    assert len(node.proposed) == 2


def test_what_is_due_earlier_moves_the_timer_and_what_is_due_later_does_not() -> None:
    node = Node()
    node.due_in(0.5)
    node.due_in(0.6)
    assert node.runtime.timers == pytest.approx([0.5])
    node.due_in(0.05)
    assert node.runtime.timers == pytest.approx([0.05])
    node.runtime.pass_time(0.06)
    assert len(node.proposed) == 1


def test_log_time_that_leaps_ahead_is_noticed() -> None:
    """A leader whose wall clock is far behind learns of the log's time only after it has armed."""
    node = Node()
    node.due_in(800)
    node.stamps.observe(node.stamps.now_ms() + 900_000, live=True)
    node.runtime.pass_time(1.1)
    assert len(node.proposed) == 1


def test_a_timer_that_finds_its_reason_gone_waits_for_the_next() -> None:
    node = Node()
    node.due_in(5)
    node.due_in(20)
    node.runtime.pass_time(10)
    assert node.proposed == []
    node.runtime.pass_time(11)
    assert len(node.proposed) == 1


def test_a_timer_that_finds_nothing_due_does_nothing() -> None:
    node = Node()
    node.due_in(5)
    node.due_ms = None
    node.runtime.pass_time(10)
    assert node.proposed == []
    assert node.runtime.timers == []


def test_it_goes_by_log_time_which_a_step_of_the_wall_does_not_move() -> None:
    node = Node()
    node.due_in(100)
    node.runtime.wall += HOUR_MS
    node.sweeps.arm()
    node.runtime.pass_time(80)
    assert node.proposed == []
    node.runtime.wall -= 2 * HOUR_MS
    # Log time was a tenth fast, and is a tenth slow now.
    node.runtime.pass_time(12)
    assert node.proposed == []
    node.runtime.pass_time(3)
    assert len(node.proposed) == 1


@pytest.mark.parametrize("lost", ["before it was armed", "before it was due"])
def test_only_the_leader_sweeps(lost: str) -> None:
    node = Node()
    node.is_leader = lost == "before it was due"
    node.due_in(5)
    assert len(node.runtime.timers) == node.is_leader
    node.is_leader = False
    node.runtime.pass_time(10)
    assert node.proposed == []


def test_a_sweep_that_could_not_be_queued_is_not_under_way() -> None:
    node = Node()
    node.full = True
    node.due_in(0)
    node.runtime.pass_time(1)
    node.full = False
    node.sweeps.arm()
    node.runtime.pass_time(GAP_S)
    assert len(node.proposed) == 1
