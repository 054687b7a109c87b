"""Faults of stock pysyncobj 0.3.17: each is seen with its remedy switched off, and only then.

==  ==============================================================  ==========================
 #  fault                                                           here
==  ==============================================================  ==========================
 1  an acknowledgement sets ``nextIndex`` back                      ``sends_each_entry_once``
 2  entries that match are truncated                                ``a_late_heartbeat``
 3  the commit index passes what was verified                       ``a_tail_below_the_commit``
 4  replies carry no term                                           ``a_late_reply``
 5  a vote counts as often as it arrives                            ``a_vote_arrives_twice``
 6  no answer to a repeated request, no refusals, no pre-vote       ``the_answer_was_lost``,
                                                                    ``an_outdated_term``,
                                                                    ``a_member_cut_off``
 7  nothing is on disk when it is acknowledged                      ``a_slow_disk`` (two)
 8  term and vote are not synced                                    ``a_vote_forgotten``
 9  the commit index may exceed the log                             ``committed_beyond`` (two)
10  an exception while applying is tried again for ever             ``a_poisoned_entry``
11  pickle and commands from any peer                               impossible: the engine's
                                                                    pickle refuses, and its
                                                                    transport is not there
12  Fernet with a fixed salt                                        impossible: own handshake
13  every message is compressed, buffers grow                       impossible: own transport
14  a leader that is cut off believes in itself for 30 s            ``a_leader_cut_off``,
                                                                    ``reads_of_a_leader``
15  a backlog to one member starves the tick                        ``a_backlog``
16  a snapshot on its way commits a deposed leader's tail           ``a_tail_under_a_snapshot``
17  a snapshot skips who waits                                      ``a_skipped_waiter``
18  a snapshot that cannot be loaded counts as received             ``a_damaged_snapshot``
19  compaction rewrites the log in place                            impossible: own journal
                                                                    deletes whole segments
20  the last chunk of a large entry is not recognised               impossible: an entry is
                                                                    never cut; the branch that
                                                                    does is replaced, and
                                                                    pickles, which is refused
21  an old leader is not told of the newer term                     ``an_old_leader``
22  replies and votes of strangers count                            ``a_strangers_vote``,
                                                                    ``a_removed_members_reply``
23  a member that returns deposes the leader                        ``a_member_returns``,
                                                                    ``a_chain``
==  ==============================================================  ==========================

Of 7 and 9 only the rules that our own journal cannot give are shown; the file formats are
gone. 10, 14, 16, 17, 18 and 21 are in ``test_stock_faults_of_nodes``. Foreign votes (22)
cannot come about between nodes that run this program: who asks for votes does not change
its membership in the same term. So the scenario makes one up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from group import Group
from raftq.consensus import replication
from raftq.consensus.messages import (
    Append,
    AppendReply,
    MembershipChange,
    RaftMessage,
    VoteReply,
    VoteRequest,
)
from simulation import stock
from simulation.stock import Row, Stage, Switch, Violation, each_of, shows_only_without

A, B, C = "n1/x", "n2/x", "n3/x"

# Groups: consensus and journal, driven by hand. ``fault()`` is entered where the fault matters.


def sends_each_entry_once(fault: Switch) -> None:
    with fault():
        stage = Stage()
        leader = stage.lead(A)
        sent: Counter[tuple[str, int]] = Counter()

        def tap(_sender: str, receiver: str, message: RaftMessage) -> bool:
            if isinstance(message, Append):
                first = message.prev_index + 1
                sent.update((receiver, first + at) for at in range(len(message.entries)))
            return True

        stage.tap = tap
        for _ in range(100):
            stage.propose(A, 3)
            stage.run(0.0003)
        stage.until(stage.converged, 5)
    assert leader.journal.last_index > 300
    twice = [at for at, count in sent.items() if count > 1]
    if twice:
        raise Violation(f"{len(twice)} entries were sent again over a healthy link")


def a_late_heartbeat(fault: Switch) -> None:
    """It cuts entries that this follower has acknowledged and that are committed."""
    with fault():
        stage = Stage()
        stage.lead(A)
        beats: list[Append] = []

        def tap(_sender: str, receiver: str, message: RaftMessage) -> bool:
            if isinstance(message, Append) and message.is_heartbeat and receiver == B:
                beats.append(message)
            return True

        stage.tap = tap
        stage.run(0.3)
        stage.split("12", "3")
        stage.propose(A, 3)
        stage.run(0.02)
        assert max(stage.committed) == beats[0].prev_index + 3
        stage.split("1", "2", "3")
        stage.run(0.02)
        stage.deliver(A, B, beats[0])
        stage.split("1", "23")
        stage.forget_the_leader()
        stage.stand(C)
        stage.forget_the_leader()
        stage.stand(B)
        stage.run(1)
        stage.heal()
        stage.until(stage.converged, 10)


def a_tail_below_the_commit(fault: Switch) -> None:
    """A deposed leader's own entries lie below the commit index that it hears."""
    with fault(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(replication, "APPEND_BYTES_MAX", 1)
        stage = Stage()
        old = stage.lead(A)
        stage.propose(A, 2)
        stage.until(stage.converged, 1)
        stage.cut |= {(B, A), (C, A)}
        stage.propose(A, 2)
        stage.run(0.01)
        stage.split("1", "23")
        stage.propose(A, 5)
        assert old.consensus.commit_index == old.journal.last_index - 7
        stage.forget_the_leader()
        stage.lead(B)
        stage.propose(B, 10)
        stage.run(0.1)
        stage.heal()
        stage.until(stage.converged, 5)


def a_late_reply(fault: Switch) -> None:
    """A member's word from an earlier leadership of the same leader, about entries since gone."""
    with fault():
        stage = Stage(5)
        stage.lead(A)
        stage.until(stage.converged, 1)
        held: list[AppendReply] = []

        def tap(sender: str, receiver: str, message: RaftMessage) -> bool:
            if isinstance(message, AppendReply) and (sender, receiver) == (B, A):
                held.append(message)
                return False
            return True

        stage.split("12", "345")
        stage.tap = tap
        stage.propose(A, 5)
        stage.forget_the_leader()
        stage.tap = lambda _sender, _receiver, _message: True
        stage.split("12", "345")
        stage.lead(C)
        stage.heal()
        stage.until(stage.converged, 5)
        stage.split("3", "1245")
        stage.forget_the_leader()
        stage.lead(A)
        stage.split("13", "2", "45")
        stage.propose(A, 4)
        stage.run(0.01)
        stage.deliver(B, A, max(held, key=lambda reply: reply.next_index))
        stage.run(0.05)


def a_vote_arrives_twice(fault: Switch) -> None:
    with fault():
        stage = Stage(5)
        stage.split("12", "345")

        def tap(sender: str, receiver: str, message: RaftMessage) -> bool:
            if isinstance(message, VoteReply) and receiver == A:
                stage.at(0.002, lambda: stage.deliver(sender, receiver, message))
            return True

        stage.tap = tap
        stage.stand(A)
        stage.stand(C)


def a_strangers_vote(fault: Switch) -> None:
    with fault():
        stage = Stage(5)
        stage.split("12", "345")
        stage.stand(A)
        stage.deliver("n9/y", A, VoteReply(1, granted=True))
        stage.stand(C)


def a_removed_members_reply(fault: Switch) -> None:
    """It was under way when the leader took the member out: the engine knows nothing of it."""
    with fault():
        stage = Stage()
        leader = stage.lead(A)
        stage.propose(A, 1)
        leader.consensus.flush()
        assert leader.consensus.change_membership(MembershipChange(add=False, member=C))
        try:
            stage.run(0.1)
        except KeyError as error:
            raise Violation(f"the leader's process ends over the reply of {error}") from error


def the_answer_was_lost(fault: Switch) -> None:
    """The request arrives twice, the first answer never: there is still a leader in this term."""
    with fault():
        stage = Stage()
        stage.split("12", "3")
        requests: list[VoteRequest] = []
        answers: list[VoteReply] = []

        def tap(_sender: str, receiver: str, message: RaftMessage) -> bool:
            if isinstance(message, VoteRequest) and receiver == B:
                requests.append(message)
            if isinstance(message, VoteReply) and receiver == A:
                answers.append(message)
                return len(answers) > 1
            return True

        stage.tap = tap
        stage.stand(A)
        assert not stage.leaders
        stage.deliver(A, B, requests[0])
        stage.run(0.05)
        if stage.leaders != {1: A}:
            raise Violation("the vote was given and there is no leader in term 1")


def an_outdated_term(fault: Switch) -> None:
    """Of two members that are left, the one that could win knows only an old term."""
    with fault():
        stage = Stage()
        stage.lead(A)
        stage.split("1", "23")
        stage.propose(A, 3)
        stage.forget_the_leader()
        stage.run(1)
        assert stage.leader() is None
        stage.members[C].crash()
        stage.members[B].consensus.core.observe_term(50)
        stage.heal()
        for name in (A, B):
            stage.members[name].consensus.core.postpone_election()
        stage.run(10)
        if stage.leader() is None:
            raise Violation("no leader in ten election timeouts, though a majority is there")


def a_member_cut_off(fault: Switch) -> None:
    with fault():
        stage = Stage()
        term = stage.lead(A).consensus.term
        stage.split("12", "3")
        stage.run(10)
        found = stage.members[C].consensus.term
        if found != term:
            raise Violation(f"a member that was cut off went from term {term} to {found}")


def a_member_returns(fault: Switch) -> None:
    with fault():
        stage = Stage()
        leader = stage.lead(A)
        term = leader.consensus.term
        stage.split("12", "3")
        stage.run(10)
        stage.heal()
        stage.run(3)
        _still_leads(stage, leader.name, term)


def a_chain(fault: Switch) -> None:
    """Two members hear each other only through the third, and one of them leads."""
    with fault():
        stage = Stage()
        leader = stage.lead(A)
        term = leader.consensus.term
        stage.cut |= {(A, C), (C, A)}
        stage.run(20)
        _still_leads(stage, leader.name, term)


def _still_leads(group: Group, name: str, term: int) -> None:
    leader = group.leader()
    if leader is None or (leader.name, leader.consensus.term) != (name, term):
        raise Violation(f"a healthy leader was deposed {len(group.leaders) - 1} times")


def a_slow_disk_of_a_follower(fault: Switch) -> None:
    with fault():
        stage = Stage()
        stage.lead(A)
        stage.until(stage.converged, 1)
        stage.split("12", "3")
        stage.members[B].sync = lambda: None
        stage.propose(A, 1)
        stage.run(0.1)


def a_slow_disk_of_the_leader(fault: Switch) -> None:
    with fault():
        stage = Stage()
        leader = stage.lead(A)
        stage.until(stage.converged, 1)
        stage.split("12", "3")
        leader.sync = lambda: None
        stage.propose(A, 1)
        stage.run(0.1)


def a_vote_forgotten(fault: Switch) -> None:
    with fault():
        stage = Stage()
        stage.split("12", "3")
        stage.tap = lambda _sender, _receiver, message: not isinstance(message, Append)
        stage.stand(A)
        assert stage.leaders == {1: A}
        stage.lose_power(B)
        stage.split("1", "23")
        stage.stand(C)


def committed_beyond_the_log(fault: Switch) -> None:
    """What a follower took for committed was not on its own disk when power failed."""
    with fault():
        stage = Stage()
        stage.lead(A)
        stage.until(stage.converged, 1)
        follower = stage.members[B]
        follower.sync = lambda: None
        stage.propose(A, 3)
        stage.run(0.1)
        assert follower.consensus.commit_index > follower.journal.durable_index
        del follower.sync
        stage.split("1", "2", "3")
        stage.lose_power(B)
        stage.check()
        stage.heal()
        stage.until(stage.converged, 5)


def a_backlog(fault: Switch) -> None:
    """What a member lacks is far more than fits a window."""
    with fault(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(replication, "APPEND_BYTES_MAX", 1 << 14)
        stage = Stage()
        stage.lead(A)
        stage.until(stage.converged, 1)
        stage.members[C].crash()
        for _ in range(100):
            stage.propose(A, 1, size=1 << 13)
            stage.run(0.01)
        sent: Counter[float] = Counter()

        def tap(_sender: str, receiver: str, message: RaftMessage) -> bool:
            if isinstance(message, Append) and receiver == C:
                sent[stage.now] += sum(len(payload) for _, payload in message.entries)
            return True

        stage.tap = tap
        stage.members[C].start()
        stage.until(stage.converged, 5)
    assert sum(sent.values()) > 800_000
    if max(sent.values()) > (1 << 16) + (1 << 14):
        raise Violation(f"{max(sent.values())} bytes to one member in one turn")


SCENARIOS: list[Row] = [
    (1, sends_each_entry_once, stock.without_keeping_next_index, "sent again"),
    (2, a_late_heartbeat, stock.without_skipping_what_matches, "without a committed entry"),
    (3, a_tail_below_the_commit, stock.without_capping_the_commit_index, "another entry"),
    (4, a_late_reply, stock.without_terms_on_replies, "committed, on disk with"),
    (5, a_vote_arrives_twice, stock.without_counting_voters, "two leaders in term 1"),
    (6, the_answer_was_lost, stock.without_repeating_a_vote, "no leader in term 1"),
    (6, an_outdated_term, stock.without_refusals, "no leader in ten election timeouts"),
    (6, a_member_cut_off, stock.without_pre_vote, "from term 1 to"),
    (
        7,
        a_slow_disk_of_a_follower,
        stock.without_waiting_for_the_followers_disk,
        "committed, on disk with",
    ),
    (
        7,
        a_slow_disk_of_the_leader,
        stock.without_waiting_for_the_leaders_disk,
        "committed, on disk with",
    ),
    (8, a_vote_forgotten, stock.without_syncing_the_vote, "two leaders in term 1"),
    (9, committed_beyond_the_log, stock.without_deriving_the_commit_index, "beyond its log"),
    (
        9,
        committed_beyond_the_log,
        stock.without_applying_only_what_is_durable,
        "own disk does not hold",
    ),
    (15, a_backlog, stock.without_a_window, "bytes to one member in one turn"),
    (22, a_strangers_vote, stock.without_membership_of_voters, "two leaders in term 1"),
    (22, a_removed_members_reply, stock.without_membership_of_replies, "process ends"),
    (23, a_member_returns, stock.without_pre_vote, "was deposed"),
    (23, a_chain, stock.without_stickiness, "was deposed"),
]


@each_of(SCENARIOS)
def test_a_fault_of_the_engine_shows_only_without_its_remedy(
    scenario: Callable[[Switch], None], fault: Switch, violation: str
) -> None:
    shows_only_without(scenario, fault, violation)
