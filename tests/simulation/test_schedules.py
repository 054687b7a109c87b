"""Ticks while leaders come and go: each comes exactly once, and every node agrees.

The faults strike the leader within milliseconds of a tick: when it has proposed one and
nobody knows, when two leaders tell of the same one, or when nobody is there to.
"""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from raftq.replica.ticks import next_tick
from simulation.checks import Checks
from simulation.network import Delay
from simulation.node import Node
from simulation.world import World
from statemachine import commands as c
from statemachine import queries
from statemachine.outcomes import Stored
from statemachine.records import decode_message

NEW = c.NewMessage(b"wake up", "text/plain", ttl_ms=0)
EVERY_MS = 500
FAULTS = ("kill", "power", "pause", "isolate", "hand over")


class Ticking:
    """A world of three with three schedules, one for each way to deal with missed ticks."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.world = World(seed)
        # So slow that a new leader hears of a tick before it hears that it is committed.
        slow = Delay(0.03, 0.03)
        names = self.world.names
        self.world.links.delays = {(one, other): slow for one in names for other in names}
        self.checks = Checks(self.world)
        self.world.start()
        self.world.until(self.world.settled, 30, "the first leader")
        leader = self.leader()
        self.first_ms = leader.running.stamps.now_ms() // EVERY_MS * EVERY_MS + 2 * EVERY_MS
        for missed in ("all", "once", "skip"):
            timing = c.Timing(every_ms=EVERY_MS, missed=missed)
            self.ask(c.PutSchedule("a", missed, missed, NEW, timing, self.first_ms))
        self.ask(c.PutBinding("a", "all", "copies", ()))
        self.ask(c.PutBinding("a", "all", "all", ()))

    def leader(self) -> Node:
        world = self.world
        world.until(lambda: world.leader() is not None, 60, "a leader")
        leader = world.leader()
        assert leader is not None
        return leader

    def ask(self, command: c.QueueCommand) -> None:
        answers = self.leader().submit(command)
        self.world.until(lambda: bool(answers), 30, "an answer")
        assert answers == [Stored(created=True)]

    def strike(self) -> None:
        """Something happens to the leader close to a tick, and is made good after a while."""
        world, chance = self.world, self.chance
        leader = self.leader()
        # One that has just been elected may not have applied all that it leads.
        due_ms = leader.running.machine.next_tick_ms() or 0
        wait_s = (due_ms - leader.running.stamps.now_ms()) / 1000
        world.run(max(0, wait_s) + chance.uniform(0, 0.1))
        if not leader.is_up or not leader.running.consensus.is_leader:
            return
        fault = chance.choice(FAULTS)
        match fault:
            case "kill" | "power":
                leader.crash(power=fault == "power")
                world.run(chance.uniform(0, 2))
                leader.start()
            case "pause":
                leader.pause()
                world.run(chance.uniform(0, 4))
                leader.resume()
            case "isolate":
                world.isolate(leader.name)
                world.run(chance.uniform(0, 4))
                world.heal()
            case _:
                consensus = leader.running.consensus
                consensus.transfer_leadership(sorted(consensus.members - {consensus.self_id}))
        world.run(chance.uniform(0, 1))

    def settle(self) -> None:
        world = self.world
        world.until(lambda: world.settled() and world.converged(), 60, "agreement")


def ticks_of(node: Node, queue: str) -> list[int]:
    """What a consumer of the queue finds, in order."""
    page = queries.browse(node.running.reader(), "a", queue, limit=1_000)
    assert page is not None
    headers = [dict(decode_message(one.record).headers) for one in page.items]
    return [int(one["raftq-tick"]) for one in headers]


@pytest.mark.parametrize("seed", range(12))
def test_every_tick_comes_exactly_once_whoever_leads(seed: int) -> None:
    ticking = Ticking(seed)
    for _ in range(8):
        ticking.strike()
    ticking.world.run(2)
    ticking.settle()
    assert ticking.world.reached["two leaders told of one tick"], "the faults are too tame"
    for node in ticking.world.alive:
        ticks = ticks_of(node, "all")
        assert len(ticks) > 10
        expected = range(ticking.first_ms, ticks[-1] + 1, EVERY_MS)
        assert ticks == [*expected], "none is left out, and none comes twice"
        assert ticks_of(node, "copies") == ticks
        for missed in ("once", "skip"):
            some = ticks_of(node, missed)
            assert some == sorted({*some}), "none comes twice"
            assert {*some} <= {*ticks}
            timing = c.Timing(every_ms=EVERY_MS)
            assert all(next_tick(timing, tick - 1) == tick for tick in some)


def test_a_cluster_that_was_down_catches_up_as_each_schedule_says() -> None:
    ticking = Ticking(1)
    world = ticking.world
    world.run(3)
    for node in list(world.alive):
        node.crash()
    world.run(120)
    world.start()
    world.run(30)
    ticking.settle()
    node = ticking.leader()
    caught_up, once, skipped = (ticks_of(node, queue) for queue in ("all", "once", "skip"))
    gaps = {
        queue: [after - before for before, after in pairwise(ticks)]
        for queue, ticks in (("all", caught_up), ("once", once), ("skip", skipped))
    }
    assert [gap for gap in gaps["once"] if gap > 100 * EVERY_MS] == [max(gaps["once"])]
    assert [gap for gap in gaps["skip"] if gap > 100 * EVERY_MS] == [max(gaps["skip"])]
    assert max(gaps["skip"]) == max(gaps["once"]) + EVERY_MS, "the first one missed is left out"
    assert [gap for gap in gaps["all"] if gap > EVERY_MS] == [max(gaps["all"])]
    assert max(gaps["all"]) < max(gaps["once"]) * 3 // 4, "a hundred of them came late"


def test_ticks_wait_for_log_time_and_cost_nothing_meanwhile() -> None:
    ticking = Ticking(2)
    leader = ticking.leader()
    ticking.ask(c.PutSchedule("a", "later", "q", NEW, c.Timing(every_ms=EVERY_MS), 2**50))
    for missed in ("all", "once", "skip"):
        leader.submit(c.DeleteSchedule("a", missed))
    ticking.world.run(2)
    before = leader.running.machine.applied_index
    ticking.world.run(20)
    assert leader.running.machine.applied_index == before
