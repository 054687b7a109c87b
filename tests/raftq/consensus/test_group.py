"""Whole groups of members: elections, replication, crashes with power loss, partitions."""

from __future__ import annotations

import logging

import pytest

from group import Group, Member, number_of, payload
from raftq.consensus.guard import Intervention
from raftq.consensus.messages import (
    Append,
    AppendReply,
    Beat,
    Kind,
    MembershipChange,
    PreVoteReply,
    membership_payload,
)

OWN = "n3/x"


def entry(kind: Kind, payload: bytes) -> bytes:
    return bytes((kind,)) + payload


OUT = entry(Kind.MEMBERSHIP, membership_payload(MembershipChange(add=False, member=OWN)))
IN = entry(Kind.MEMBERSHIP, membership_payload(MembershipChange(add=True, member=OWN)))
OTHER = entry(Kind.REGULAR, payload(1))


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


def test_a_pre_vote_from_before_the_leader_was_heard_does_not_count() -> None:
    group, leader = led(19, count=5)
    own = group.members[OWN].consensus
    assert leader.name != OWN
    term, others = own.term, [name for name in group.ids if name not in (OWN, leader.name)]
    own.elections.ask_for_pre_votes()
    own.receive(leader.name, Beat(term))
    for member in others:
        own.receive(member, PreVoteReply(term + 1, term, granted=True))
    group.run(1.0)
    assert (own.term, own.elections.stood) == (term, 0)


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
    assert old.consensus.transfer_leadership(old.consensus.core.others)
    old.wake()
    before = group.now
    group.until(lambda: group.leader() not in (None, old), 1)
    assert group.now - before < 0.2
    assert not any(Intervention.STICKY_LEADER in m.interventions for m in group.members.values())


def led(seed: int, count: int = 3) -> tuple[Group, Member]:
    """A group whose leader has committed in its term."""
    group = Group(seed, count)
    group.start()
    group.until(lambda: group.leader() is not None and group.converged(), 3)
    leader = group.leader()
    assert leader is not None
    return group, leader


# Changes of membership.


def test_a_change_of_membership_waits_until_the_one_before_is_committed() -> None:
    group, leader = led(7)
    third = max(one for one in group.ids if one != leader.name)
    change = leader.consensus.change_membership
    assert change(MembershipChange(add=False, member=third))
    leader.propose(payload(1))
    last = leader.journal.last_index
    assert not change(MembershipChange(add=True, member=third))
    assert leader.journal.last_index == last
    group.until(lambda: leader.consensus.commit_index == last, 1)
    assert change(MembershipChange(add=True, member=third))
    group.until(group.converged, 3)
    assert leader.consensus.members == frozenset(group.ids)


def test_a_change_of_membership_waits_until_the_leader_has_committed_in_its_term() -> None:
    group = Group(8)
    group.start()
    while group.leader() is None:
        group.run(0.0005)
    leader = group.leader()
    assert leader is not None
    other = next(one for one in group.ids if one != leader.name)
    removal = MembershipChange(add=False, member=other)
    last = leader.journal.last_index
    assert leader.consensus.commit_index < last
    assert not leader.consensus.change_membership(removal)
    assert leader.journal.last_index == last
    assert leader.consensus.members == frozenset(group.ids)
    group.until(group.converged, 3)
    assert leader.consensus.change_membership(removal)


def test_a_change_of_membership_waits_until_the_leader_has_applied_in_its_term() -> None:
    group = Group(15, count=1)
    group.start()
    leader = group.members["n1/x"]
    while not leader.consensus.commit_index:
        group.run(0.0002)
    assert leader.applied_index < leader.consensus.commit_index
    assert not leader.consensus.change_membership(MembershipChange(add=True, member=OWN))
    group.until(group.converged, 1)
    assert leader.consensus.change_membership(MembershipChange(add=True, member=OWN))


Log = tuple[tuple[int, bytes], ...]
HEARD: list[tuple[str, Log, Log, bool]] = [
    # (what its log says of itself, what a later leader's says instead, is it a member then)
    ("removed", ((1, OUT),), (), False),
    ("removed and added", ((1, OUT), (1, IN)), (), True),
    ("removed and added by the next leader", ((1, OUT),), ((1, OUT), (2, IN)), True),
    ("its removal was undone", ((1, OUT),), ((2, OTHER),), True),
    ("its addition was undone", ((1, OUT), (1, IN)), ((1, OUT), (2, OTHER)), False),
    ("both were undone", ((1, OUT), (1, IN)), ((2, OTHER),), True),
    ("undone and said again", ((1, OUT),), ((2, OTHER), (2, OUT)), False),
]


@pytest.mark.parametrize(
    ("said", "instead", "member"), [h[1:] for h in HEARD], ids=[h[0] for h in HEARD]
)
def test_a_member_goes_by_the_end_of_its_log(said: Log, instead: Log, member: bool) -> None:
    group, leader = led(9)
    assert leader.name != OWN
    own = group.members[OWN].consensus
    first, term = own.last_index, own.term
    for number, (sender, log) in enumerate([("n1/x", said), ("n2/x", instead)], 1):
        entries = tuple([(term + later, entry) for later, entry in log])
        own.receive(sender, Append(term + number, first, term, first, entries))
    assert own.last_index == first + len(instead or said)
    assert own.is_member is member
    assert (OWN in own.members) is member


# Leaders that are held up.


@pytest.mark.parametrize("look", range(1, 6))
def test_what_is_proposed_is_in_the_log_however_long_the_process_is_held_up(look: int) -> None:
    group, leader = led(10)
    core, real = leader.consensus.core, leader.monotonic
    looks = 0

    def clock() -> float:
        """The process is stopped at this look, for longer than a heartbeat."""
        nonlocal looks
        looks += 1
        return real() + (0.5 if looks >= look else 0.0)

    core._monotonic = clock
    before = leader.journal.last_index
    leader.propose(payload(1))
    assert leader.journal.last_index == before + 1
    leader.propose(payload(2))
    assert leader.journal.last_index == before + 2
    core._monotonic = real
    group.until(group.converged, 3)


def test_a_leader_whose_disk_hangs_resigns_and_does_not_stand_until_it_answers() -> None:
    group, old = led(11)
    old.consensus.disk_hangs(True)
    group.until(lambda: group.leader() not in (None, old), 3)
    new = group.leader()
    assert new is not None
    assert not old.consensus.is_leader
    for other in group.ids:
        if other != old.name:
            group.members[other].crash()
    asked = old.consensus.elections.asked
    group.run(3)
    assert old.consensus.elections.asked == asked
    old.consensus.disk_hangs(False)
    group.run(3)
    assert old.consensus.elections.asked > asked


def test_a_refusal_from_before_the_member_vouched_changes_nothing_that_is_known() -> None:
    group, leader = led(13)
    member = next(one for one in group.ids if one != leader.name)
    held = leader.consensus.core.match_index(member)
    leader.consensus.receive(member, AppendReply(leader.consensus.term, 1, success=False))
    assert leader.consensus.core.match_index(member) == held
    assert leader.consensus.core.next_index(member) == held + 1
    leader.propose(payload(1))
    group.until(group.converged, 1)


def test_a_refusal_that_wants_more_than_there_is_is_answered_from_the_end() -> None:
    group, leader = led(14)
    member = next(one for one in group.ids if one != leader.name)
    beyond = leader.journal.last_index + 5
    leader.consensus.receive(member, AppendReply(leader.consensus.term, beyond, success=False))
    leader.propose(payload(1))
    group.until(group.converged, 1)


def test_a_member_alone_goes_on_leading_however_long_its_disk_takes() -> None:
    group, leader = led(12, count=1)
    leader.consensus.disk_hangs(True)
    group.run(3)
    assert group.leader() is leader
    leader.propose(payload(1))
    group.until(group.converged, 1)


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
