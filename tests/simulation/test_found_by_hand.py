"""Schedules that people found by reading: each once broke a promise, and is kept.

Most need two or three rare things at once, in an order that a random plan seldom strikes.
``Checks`` looks on in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from raftq.consensus.messages import MembershipChange, membership_change
from raftq.replica.submitter import Answer
from simulation.checks import Checks
from simulation.node import Node
from simulation.world import World
from statemachine.commands import Claim, Command, Enqueue, NewMessage
from statemachine.outcomes import Claimed, Enqueued
from statemachine.records import decode_message

SEEDS = range(1, 4)
NEVER_S = 1e6


def put(body: bytes) -> Enqueue:
    return Enqueue("a", "q", (NewMessage(body, "text/plain"),))


def settled_world(
    seed: int, tune: Callable[[Node], None] = lambda _node: None
) -> tuple[World, Node, Node, Node]:
    """A world of three, its leader, and the two others."""
    world = World(seed)
    Checks(world)
    for node in world.nodes.values():
        tune(node)
    world.start()
    world.until(world.settled, 30, "the first leader")
    world.run(1)
    leader = leader_of(world)
    one, other = (node for node in world.alive if node is not leader)
    return world, leader, one, other


def often_on_disk(node: Node) -> None:
    """A node whose store is never far behind on its disk."""
    node.tune(flush_interval_ms=100)


def leader_of(world: World) -> Node:
    leader = world.leader()
    assert leader is not None
    return leader


def ask(world: World, node: Node, command: Command) -> Answer:
    answers = node.submit(command)
    world.until(lambda: bool(answers), 30, "an answer")
    return answers[0]


def bodies(world: World) -> list[bytes]:
    """Of all messages, in order, as the leader hands them out."""
    claimed = ask(world, leader_of(world), Claim("a", "q", 1_000, 60_000))
    assert isinstance(claimed, Claimed)
    return [bytes(decode_message(one.record).body) for one in claimed.messages]


def same_state(world: World) -> None:
    """Every node holds byte for byte the same."""
    world.until(lambda: len(world.alive) == 3 and world.converged(), 60, "convergence")
    first, *others = [list(node.running.reader().scan(b"", b"\xff")) for node in world.alive]
    assert all(other == first for other in others)


def changes(node: Node) -> list[tuple[int, MembershipChange]]:
    """The changes of membership in a node's log."""
    journal = node.running.journal
    first, last = journal.base_index + 1, journal.last_index
    entries = journal.slice(first, last) if first <= last else []
    found = [(entry.index, membership_change(entry.payload)) for entry in entries]
    return [(index, change) for index, change in found if change is not None]


def lose_disk(world: World, node: Node) -> None:
    """Killed, wiped and started again, which makes it another member."""
    node.crash()
    world.run(0.2)
    node.wipe()
    node.start()


class HeldUp:
    """A node whose process is stopped once, at the n-th look at the clock within a call."""

    def __init__(self, node: Node, call: str, look: int, seconds: float) -> None:
        self._node, self._look, self._seconds = node, look, seconds
        self._left: int | None = None
        consensus: Any = node.running.consensus
        self._monotonic: Callable[[], float] = consensus._runtime.monotonic
        self._call: Callable[..., Any] = getattr(consensus, call)
        setattr(consensus, call, self._called)
        consensus._runtime.monotonic = consensus.core._monotonic = self._looked

    def _called(self, *args: Any) -> Any:
        self._left = self._look
        result = self._call(*args)
        self._left = None
        return result

    def _looked(self) -> float:
        if self._left is not None and self._seconds:
            self._left -= 1
            if self._left == 0:
                self._node.clock_origin += self._seconds
                self._seconds = 0.0
        return self._monotonic()


# Membership.


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_acknowledged_is_lost_when_one_disk_hangs_and_another_is_replaced(
    seed: int,
) -> None:
    """One node lost its disk while the other follower's hangs. If the leader took the old
    member out and the new one in before either change was committed, it and the newcomer would
    be a majority; the hung node loses power, the old disk is put back, and these two are a
    majority as well, of the membership before: they know nothing of what was acknowledged."""
    world, leader, hung, lost = settled_world(seed)
    old_disk = lost.disk
    hung.work_delay_s = NEVER_S
    lose_disk(world, lost)
    world.run(6)
    assert changes(leader)
    answers = leader.submit(put(b"x"))
    world.run(5)
    acknowledged = isinstance(answers[0], Enqueued) if answers else False
    leader.crash()
    lost.crash()
    hung.crash(power=True)
    hung.work_delay_s = 0
    lost.disk = old_disk
    world.start(hung.name, lost.name)
    hung.submit(put(b"y"))
    world.run(20)  # Whether these two may go on depends on what the power left.
    leader.start()
    world.until(world.settled, 30, "a leader of all")
    same_state(world)
    assert not acknowledged or b"x" in bodies(world)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_change_of_membership_waits_for_the_one_before(seed: int) -> None:
    """While the follower that is left has a hanging disk, the removal of the lost one cannot be
    committed. So the newcomer is not taken in; it is once the disk answers."""
    world, leader, slow, lost = settled_world(seed)
    slow.work_delay_s = 6
    lose_disk(world, lost)
    world.run(4)
    assert [change.add for _, change in changes(leader)] == [False]
    slow.work_delay_s = 0
    world.until(lambda: lost.running.consensus.is_member, 30, "taken in again")
    world.until(world.settled, 30)
    same_state(world)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_member_that_does_not_know_the_only_possible_leader_votes_for_it(seed: int) -> None:
    """One node was replaced while another was down. Then the leader goes, for good: of the
    two that are left, only the newcomer has what is committed, and the other one has not heard
    that it is a member."""
    world, leader, behind, lost = settled_world(seed)
    lose_disk(world, lost)

    def removed() -> bool:
        """The two that are left both know it, on disk."""
        two = [node.running for node in (leader, behind)]
        return all(
            changes(node) and node.running.journal.durable_index == node.running.journal.last_index
            for node in (leader, behind)
        ) and (two[0].machine.applied_index == two[0].journal.last_index)

    world.until(removed, 20, "the removal")
    behind.crash(power=True)
    world.until(lambda: lost.running.consensus.is_member, 30, "taken in again")
    assert isinstance(ask(world, leader, put(b"x")), Enqueued)
    leader.crash()
    behind.start()
    assert not any(m.startswith(lost.name + "/") for m in behind.running.consensus.members)
    world.until(lambda: world.leader() is lost, 20, "the newcomer leads")
    assert bodies(world) == [b"x"]
    leader.start()
    same_state(world)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_newcomer_is_a_member_from_when_its_log_says_so(seed: int) -> None:
    """The newcomer has in its log that it is a member, and nobody has committed that yet. Then
    the leader goes, for good. The other follower cannot lead without the newcomer's vote, nor
    the newcomer without its own."""
    world, leader, slow, lost = settled_world(seed)
    lose_disk(world, lost)

    def both_know_of_the_removal() -> bool:
        known = changes(leader)
        return bool(known) and all(
            node.running.machine.applied_index >= known[0][0] for node in (leader, slow)
        )

    def hears_of_itself() -> bool:
        own = lost.running.self_id
        return any(change.add and change.member == own for _, change in changes(lost))

    world.until(both_know_of_the_removal, 20, "the removal")
    slow.work_delay_s = NEVER_S
    world.until(hears_of_itself, 60, "the newcomer's addition")
    leader.crash()
    slow.work_delay_s = 0
    slow.crash()
    slow.start()
    world.until(lambda: world.leader() is not None, 20, "one of the two leads")
    ask(world, leader_of(world), put(b"x"))
    leader.start()
    same_state(world)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_leader_that_had_applied_nothing_takes_a_newcomer_in(seed: int) -> None:
    """The cluster is young: its log is whole, and the leader starts again and has applied
    nothing yet when the newcomer asks for a snapshot, because the other disk is slow. A snapshot
    of nothing is no use to it, nor must it be the one that is offered for ever."""
    world, leader, slow, lost = settled_world(seed)
    lose_disk(world, lost)
    world.until(lambda: len(changes(leader)) > 1, 30, "the newcomer's addition")
    leader.crash()
    slow.work_delay_s = 1
    leader.start()
    replica = leader.running
    assert replica.machine.applied_index == replica.journal.base_index == 0
    world.until(lambda: lost.running.snapshots_installed == 1, 60, "a snapshot")
    slow.work_delay_s = 0
    world.until(lambda: lost.running.consensus.is_member, 30, "taken in")
    same_state(world)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_newcomer_that_has_not_heard_of_its_addition_votes(seed: int) -> None:
    """The leader has the newcomer's addition in its log when it is killed, and nobody else has.
    The other old member is gone, so it needs the newcomer's vote."""
    world, leader, other, lost = settled_world(seed, often_on_disk)
    lose_disk(world, lost)
    world.until(lambda: len(changes(leader)) > 1, 30, "the newcomer's addition")
    other.crash()
    leader.crash()
    leader.start()
    assert not lost.running.consensus.members
    world.until(lambda: world.leader() is leader, 20, "it leads again")
    world.until(lambda: lost.running.consensus.is_member, 30, "taken in")
    ask(world, lost, put(b"x"))
    other.start()
    same_state(world)
    assert bodies(world) == [b"x"]


# A process that is held up.


@pytest.mark.parametrize("look", range(1, 7))
def test_what_is_proposed_is_appended_however_long_the_process_is_held_up(look: int) -> None:
    """The leader is stopped for longer than a heartbeat while it appends an entry, with another
    one under way. If the engine kept the entry and the leader took it for appended, it would
    answer for the entry before with this one's outcomes, and its state would be another."""
    world = World(look)
    world.start()
    world.until(world.settled, 30, "the first leader")
    leader = leader_of(world)
    ask(world, leader, put(b"first"))
    replica = leader.running
    one = leader.submit(put(b"one"))
    applied = replica.machine.applied_index
    world.until(lambda: replica.journal.last_index > applied, 5, "it is appended")
    assert replica.machine.applied_index == applied
    HeldUp(leader, "propose", look, 0.15)
    two = leader.submit(put(b"two"))
    world.until(lambda: bool(one and two), 30, "answers")
    ids = [answer.ids[0] for answer in (one[0], two[0]) if isinstance(answer, Enqueued)]
    assert ids == sorted(ids)
    assert len(ids) == 2
    same_state(world)
    assert bodies(world) == [b"first", b"one", b"two"]


@pytest.mark.parametrize("look", range(1, 7))
def test_who_belongs_to_no_cluster_never_stands_however_long_it_is_held_up(look: int) -> None:
    """A node that waits for the others to found a cluster is stopped for longer than an
    election timeout, between finding that no election is due and looking again. It would elect
    itself, alone, and its log would begin with an entry of nobody's."""
    world = World(look)
    Checks(world)
    node = world.nodes["n1"]
    node.start()
    world.run(0.2)
    HeldUp(node, "tick", look, 1.2)
    node.run(node.life, node.running.wake)
    world.run(1)
    consensus = node.running.consensus
    assert (node.running.role, consensus.term, consensus.last_index) == ("joining", 0, 0)
    world.start("n2", "n3")
    world.until(world.settled, 30, "a cluster of three")
    same_state(world)


@pytest.mark.parametrize("look", range(1, 7))
def test_nobody_stands_without_a_pre_vote_however_long_it_is_held_up(look: int) -> None:
    """A follower is stopped for longer than an election timeout, between finding that no
    election is due and looking again; the leader is there all the time."""
    world, leader, follower, _ = settled_world(look)
    term = leader.running.consensus.term
    HeldUp(follower, "tick", look, 1.2)
    follower.run(follower.life, follower.running.wake)
    world.run(5)
    assert world.leader() is leader
    assert leader.running.consensus.term == term


# Disks and logs.


@pytest.mark.parametrize("seed", SEEDS)
def test_a_leader_whose_disk_never_answers_makes_room(seed: int) -> None:
    """It still speaks, so nobody deposes it; but nothing can be committed without its disk."""
    world, leader, one, _ = settled_world(seed)
    leader.work_delay_s = NEVER_S
    began = world.now
    answers = one.submit(put(b"x"))
    world.until(lambda: world.leader() not in (None, leader), 15, "another leader")
    world.until(lambda: bool(answers), 30, "an answer")
    assert world.now - began < 15
    assert isinstance(answers[0], Enqueued)
    new, term = leader_of(world), leader_of(world).running.consensus.term
    world.run(60)
    assert world.leader() is new
    assert new.running.consensus.term == term


@pytest.mark.parametrize("seed", SEEDS)
def test_a_leader_whose_disk_answers_again_follows(seed: int) -> None:
    """Its tail, which never was on its disk, gives way or is taken over; it does not stand
    against the new leader, and can lead again later."""
    world, leader, one, other = settled_world(seed)
    leader.work_delay_s = 10
    answers = [node.submit(put(node.name.encode())) for node in (leader, one, other)]
    world.until(lambda: world.leader() not in (None, leader), 15, "another leader")
    leader.work_delay_s = 0
    new, term = leader_of(world), leader_of(world).running.consensus.term
    world.until(lambda: all(answers), 30, "answers")
    same_state(world)
    assert world.leader() is new
    assert new.running.consensus.term == term
    assert sorted(bodies(world)) == [b"n1", b"n2", b"n3"]
    for node in (one, other):
        node.crash()
    one.start()
    world.until(lambda: world.leader() is not None, 30, "a leader of it and one of the others")


def large_and_short(node: Node) -> None:
    """A node that cuts its log as soon as it can, and has many entries under way."""
    node.tune(segment_bytes=4096, journal_keep_bytes=1, flush_interval_ms=500)
    node.raft = msgspec.structs.replace(node.raft, inflight_entries_max=8)


def behind_with_a_longer_log(seed: int) -> tuple[World, Node, Node]:
    """A dead node, and the leader, whose log is shorter and begins after what that one has
    committed: the node led, and what it said was lost, so that its tail has no copy."""
    world, behind, one, other = settled_world(seed, large_and_short)
    world.cut(behind.name, one.name)
    world.cut(behind.name, other.name)
    for node in (behind, one, other) * 2:
        node.submit(put(node.name.encode() * 1_000))
        world.run(0.02)
    world.until(lambda: world.leader() not in (behind, None), 20, "another leader")
    world.isolate(behind.name)
    leader = leader_of(world)
    first = behind.running.consensus.commit_index + 1
    world.until(lambda: leader.running.journal.base_index >= first, 60, "the log is cut")
    assert behind.running.journal.last_index > leader.running.journal.last_index
    behind.crash()
    world.heal()
    return world, leader, behind


@pytest.mark.parametrize("seed", SEEDS)
def test_a_member_that_wants_what_lies_beyond_the_leaders_log_is_probed_from_its_end(
    seed: int,
) -> None:
    """The member needs a snapshot, and is told so; it answers with the end of its own log,
    which is longer than the leader's, by a tail that never was committed."""
    world, leader, behind = behind_with_a_longer_log(seed)
    behind.start()
    world.until(lambda: behind.running.snapshots_installed == 1, 20, "the snapshot")
    same_state(world)
    assert world.leader() is leader
    assert len(bodies(world)) == 4  # Its own two went with it, and nobody was answered.


@pytest.mark.parametrize("seed", SEEDS)
def test_a_member_that_waits_for_a_snapshot_is_left_in_peace(seed: int) -> None:
    """As above, and the snapshot is long in coming. The leader must not take the member's longer
    log for one that it can go on with: it would ask again at each answer, for all that time."""
    world, leader, behind = behind_with_a_longer_log(seed)
    behind.start()
    behind.running._fetching.on_offer = lambda *_: None  # type: ignore[method-assign]  # Lost.
    world.run(2)
    world.trace.keep = True
    world.run(2)
    frames = [one for one in world.trace.records if one.kind == "frame" and one.peer == behind.name]
    assert behind.running.snapshots_installed == 0
    beats = 2_000 / leader.raft.heartbeat_ms
    assert beats / 2 < len(frames) < 3 * beats
