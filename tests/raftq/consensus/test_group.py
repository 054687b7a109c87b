"""Whole groups of members: elections, replication, crashes with power loss, partitions."""

from __future__ import annotations

import logging

import pytest

from group import Group, number_of, payload
from raftq.consensus.guard import Intervention


def test_a_leader_is_elected_and_its_entries_reach_everybody() -> None:
    group = Group(1)
    group.start()
    group.until(lambda: group.leader() is not None, 3)
    leader = group.leader()
    assert leader is not None
    for number in range(100):
        leader.propose(payload(number))
        group.run(0.0005)
    group.until(group.converged, 2)
    found = [number_of(data) for _, (_, data) in sorted(group.committed.items())]
    assert [number for number in found if number is not None] == list(range(100))


def test_a_member_alone_commits_only_what_its_own_disk_holds() -> None:
    group = Group(2, count=1)
    group.start()
    group.until(lambda: group.leader() is not None, 3)
    member = group.members["n1/x"]
    group.until(group.converged, 1)
    member.propose(payload(1))
    member.consensus.tick()
    assert member.applied_index < member.journal.last_index
    group.until(group.converged, 1)


def test_a_load_without_faults_truncates_nothing(caplog: pytest.LogCaptureFixture) -> None:
    group = Group(3)
    group.start()
    group.until(lambda: group.leader() is not None, 3)
    leader = group.leader()
    assert leader is not None
    with caplog.at_level(logging.CRITICAL, "pysyncobj"):
        for number in range(2_000):
            leader.propose(payload(number))
            if number % 7 == 0:
                group.run(0.0003)
        group.until(group.converged, 5)
    assert "truncating" not in caplog.text
    assert group.leader() is leader


def test_a_member_that_was_cut_off_does_not_depose_the_leader_on_return() -> None:
    group = Group(4)
    group.start()
    group.until(lambda: group.leader() is not None, 3)
    leader = group.leader()
    assert leader is not None
    term = leader.consensus.term
    other = next(name for name in group.ids if name != leader.name)
    group.isolate(other)
    group.run(10)
    assert group.members[other].consensus.term == term
    group.heal()
    group.run(3)
    assert group.leader() is leader
    assert leader.consensus.term == term


def test_a_leader_that_was_cut_off_steps_down_and_its_tail_is_replaced() -> None:
    group = Group(5)
    group.start()
    group.until(lambda: group.leader() is not None, 3)
    old = group.leader()
    assert old is not None
    group.until(group.converged, 1)
    group.isolate(old.name)
    for number in range(5):
        old.propose(payload(number))
    group.run(4)
    assert not old.consensus.is_leader
    new = group.leader()
    assert new is not None
    assert new is not old
    new.propose(payload(100))
    group.heal()
    group.until(group.converged, 5)
    numbers = [number_of(data) for _, data in group.committed.values()]
    assert 100 in numbers
    assert not set(range(5)) & set(numbers)


def test_a_leadership_is_handed_over_without_an_election_timeout() -> None:
    group = Group(6)
    group.start()
    group.until(lambda: group.leader() is not None and group.converged(), 3)
    old = group.leader()
    assert old is not None
    assert old.consensus.transfer_leadership()
    old.wake()
    before = group.now
    group.until(lambda: group.leader() not in (None, old), 1)
    assert group.now - before < 0.2
    assert not any(Intervention.STICKY_LEADER in m.interventions for m in group.members.values())


def disturb(group: Group) -> None:
    """One random fault, or the end of one."""
    chance = group.random
    event = chance.random()
    member = group.members[chance.choice(group.ids)]
    if event < 0.15 and member.up:
        member.crash()
    elif event < 0.4 and not member.up:
        member.start()
    elif event < 0.5:
        group.isolate(member.name)
    elif event < 0.55:
        other = chance.choice([one for one in group.ids if one != member.name])
        group.cut.add((member.name, other))
    elif event < 0.7:
        group.heal()
    elif event < 0.8:
        group.loss = chance.choice([0.0, 0.0, 0.05, 0.3])


def load(group: Group, first: int) -> int:
    """Propose a few entries at whoever leads; the next number."""
    leader = group.leader()
    number = first
    for _ in range(group.random.randrange(8)):
        if leader is not None and leader.up and leader.consensus.is_leader:
            leader.propose(payload(number))
            number += 1
            group.run(group.random.choice([0.0, 0.0003, 0.002]))
    return number


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [3, 5])
def test_crashes_cuts_and_losses_never_break_a_rule(seed: int, count: int) -> None:
    group = Group(seed * 2 + count, count)
    group.start()
    number = 0
    for _ in range(60):
        disturb(group)
        number = load(group, number)
        group.run(group.random.random())
    group.heal()
    group.loss = 0.0
    for member in group.members.values():
        if not member.up:
            member.start()
    group.until(lambda: group.leader() is not None and group.converged(), 15)
    numbers = [n for _, data in group.committed.values() if (n := number_of(data)) is not None]
    assert len(numbers) == len(set(numbers))
