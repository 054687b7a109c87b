"""Faults of stock pysyncobj that show in whole nodes; the table is in ``test_stock_faults``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from raftq import snapshots
from raftq.config.schema import RaftConfig
from raftq.replica.submitter import Answer
from simulation import stock
from simulation.checks import Checks, Violation
from simulation.node import Node
from simulation.stock import Row, Switch, each_of, shows_only_without
from simulation.world import World
from statemachine.commands import Enqueue, NewMessage
from statemachine.outcomes import Enqueued


def put(text: str) -> Enqueue:
    return Enqueue("a", "q", (NewMessage(text.encode(), "text/plain"),))


def settled_world(seed: int, *, raft: RaftConfig | None = None, small: bool = False) -> World:
    world = World(seed)
    Checks(world)
    for node in world.nodes.values():
        node.raft = raft or node.raft
        if small:
            node.tune(segment_bytes=4096, journal_keep_bytes=4096, flush_interval_ms=200)
    world.start()
    world.until(world.settled, 10, "the first leader")
    return world


def roles(world: World) -> tuple[Node, Node, Node]:
    """The leader and the others."""
    leader = world.leader()
    assert leader is not None
    first, second = (node for node in world.alive if node is not leader)
    return leader, first, second


def other_leader(world: World, old: Node) -> Node:
    """Whom the others elect."""
    world.until(lambda: world.leader() not in (None, old), 10, "another leader")
    leader = world.leader()
    assert leader is not None
    return leader


def fill(world: World, node: Node, behind: Node) -> None:
    """Until the log no longer holds what ``behind`` lacks."""
    last = behind.running.journal.last_index
    for number in range(300):
        answers = node.submit(put("x" * 200 + str(number)))
        world.until(lambda answers=answers: bool(answers), 15, "an answer")
    base = node.running.journal
    world.until(lambda: base.base_index > last, 10, "truncation")


def a_poisoned_entry(fault: Switch) -> None:
    with fault():
        world = settled_world(1)
        leader, odd, _ = roles(world)
        machine: Any = odd.running.machine
        honest = machine.apply
        tried: Counter[int] = Counter()

        def apply(index: int, term: int, entry: object) -> object:
            if b"poison" in repr(entry).encode():
                tried[index] += 1
                raise RuntimeError("poison")
            return honest(index, term, entry)

        machine.apply = apply
        leader.submit(put("poison"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.watcher, "failed", lambda _node, _error: True)
            world.run(3)
    assert tried
    if max(tried.values()) > 1:
        raise Violation(f"one entry was applied {max(tried.values())} times")
    assert [(name, repr(error)) for name, error in world.fatal] == [
        (odd.name, "RuntimeError('poison')")
    ]


PATIENT = RaftConfig(leader_fallback_ms=30_000)


def a_leader_cut_off(fault: Switch) -> None:
    with fault():
        world = settled_world(2)
        old, *_ = roles(world)
        world.isolate(old.name)
        other_leader(world, old)
        world.run(2)
        if old.running.consensus.is_leader:
            raise Violation("there is a newer leader, and the old one believes in itself")


def reads_of_a_leader(fault: Switch) -> None:
    """However long it believes in itself, it says how old its state may be."""
    with fault():
        world = settled_world(3, raft=PATIENT)
        old, *_ = roles(world)
        assert old.running.consensus.staleness_s() == 0.0
        world.isolate(old.name)
        new = other_leader(world, old)
        written = new.submit(put("news"))
        world.until(lambda: bool(written), 5)
        written_at = world.now
        world.run(2)
        assert old.running.consensus.is_leader
        if old.running.consensus.staleness_s() < world.now - written_at:
            raise Violation("a stale read that counts as fresh")


def a_tail_under_a_snapshot(fault: Switch) -> None:
    """What only a deposed leader holds is not committed by the snapshot that replaces it."""
    with fault():
        world = settled_world(4, small=True)
        old, *_ = roles(world)
        world.isolate(old.name)
        answers = [old.submit(put(f"tail {number}")) for number in range(3)]
        new = other_leader(world, old)
        assert old.running.journal.last_index > old.running.machine.applied_index
        world.until(lambda: new.running.submitter.has_session, 5)
        fill(world, new, behind=old)
        assert new.running.consensus.commit_index > old.running.journal.last_index
        world.heal()
        world.until(lambda: old.running.snapshots_installed == 1, 10, "the snapshot")
        world.until(lambda: all(answers), 30, "the answers")
        world.until(world.converged, 10, "convergence")


def a_skipped_waiter(fault: Switch) -> None:
    """Its entry is inside the snapshot that its node installs."""
    world = settled_world(5, small=True)
    leader, behind, _ = roles(world)
    answers: list[Answer] = []
    with fault():
        answers = behind.submit(put("waited for"))
        world.run(0.0005)
        before = leader.running.journal.last_index
        for other in world.names:
            if other != behind.name:
                world.cut(other, behind.name)
        world.run(0.05)
        assert leader.running.journal.last_index > before
        fill(world, leader, behind)
        assert not answers
        world.heal()
        world.until(lambda: behind.running.snapshots_installed == 1, 10, "the snapshot")
        world.run(15)
    if not answers:
        raise Violation("a command was committed, and its client waits for ever")
    assert isinstance(answers[0], Enqueued)


def a_damaged_snapshot(fault: Switch) -> None:
    """One bit of it is another when it arrives for the first time."""
    with fault(), pytest.MonkeyPatch.context() as patch:
        world = settled_world(6, small=True)
        leader, behind, _ = roles(world)
        behind.crash()
        read, damaged = snapshots.Source.read, []

        def rotten(self: snapshots.Source, number: int, offset: int, count: int) -> bytes:
            data = bytearray(read(self, number, offset, count))
            if not damaged and b"x" * 200 in data:
                damaged.append(number)
                data[data.index(b"x" * 200)] ^= 1
            return bytes(data)

        patch.setattr(snapshots.Source, "read", rotten)
        for number in range(300):
            answers = leader.submit(put("x" * 200 + str(number)))
            world.until(lambda answers=answers: bool(answers), 15, "an answer")
        world.until(lambda: leader.running.journal.base_index > 200, 10, "truncation")
        world.start(behind.name)
        world.until(lambda: behind.running.snapshots_installed == 1, 20, "the snapshot")
        assert damaged
        world.until(world.converged, 10, "convergence")
        for node in world.alive:
            world.watcher.digest(node)


def an_old_leader(fault: Switch) -> None:
    """It reaches only a follower of the new one."""
    with fault():
        world = settled_world(7, raft=PATIENT)
        old, *_ = roles(world)
        world.isolate(old.name)
        new = other_leader(world, old)
        (between,) = (node for node in world.alive if node not in (old, new))
        world.links.cut -= {(old.name, between.name), (between.name, old.name)}
        world.run(3)
        assert world.leader() is new
        if old.running.consensus.is_leader:
            raise Violation("an old leader speaks to a member that knows better, and believes on")


SCENARIOS: list[Row] = [
    (10, a_poisoned_entry, stock.without_stopping_on_an_exception, "was applied .* times"),
    (14, a_leader_cut_off, stock.without_a_short_fallback, "believes in itself"),
    (14, reads_of_a_leader, stock.without_knowing_how_stale, "stale read"),
    (
        16,
        a_tail_under_a_snapshot,
        stock.without_an_own_commit_index_while_a_snapshot_is_due,
        "committed otherwise",
    ),
    (17, a_skipped_waiter, stock.without_asking_again, "waits for ever"),
    (18, a_damaged_snapshot, stock.without_checking_a_snapshot, "StoreCorruption"),
    (21, an_old_leader, stock.without_telling_an_old_leader, "believes on"),
]


@each_of(SCENARIOS)
def test_a_fault_of_the_engine_shows_only_without_its_remedy(
    scenario: Callable[[Switch], None], fault: Switch, violation: str
) -> None:
    shows_only_without(scenario, fault, violation)
