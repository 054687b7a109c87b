"""The guard's decisions, one table per rule."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftq.consensus import guard
from raftq.consensus.guard import AppendPlan, Diverged, Intervention, Mismatch, VoteVerdict
from raftq.consensus.messages import (
    Append,
    AppendReply,
    PreVoteRequest,
    VoteReply,
    VoteRequest,
)


@dataclass
class Node:
    """What the guard may see; ``terms`` are those of the entries after the base."""

    terms: list[int] = field(default_factory=list)
    base_index: int = 0
    base_term: int = 0
    commit_index: int = 0
    term: int = 5
    voted_for: str | None = None
    is_leader: bool = False
    is_candidate: bool = False
    members: frozenset[str] = frozenset({"a", "b", "c"})

    @property
    def last_index(self) -> int:
        return self.base_index + len(self.terms)

    @property
    def last_term(self) -> int:
        return self.terms[-1] if self.terms else self.base_term

    def term_at(self, index: int) -> int | None:
        if index == self.base_index:
            return self.base_term
        if self.base_index < index <= self.last_index:
            return self.terms[index - self.base_index - 1]
        return None


def append(prev: int, prev_term: int, terms: list[int], commit: int = 0) -> Append:
    return Append(5, prev, prev_term, commit, tuple((term, b"\0") for term in terms))


PLANS = [
    # (log terms, commit here, message) -> (prev presented, terms presented, commit, verified)
    ("new entries at the end", [1, 1], 0, append(2, 1, [2], 1), (2, [2], 1, 3)),
    ("all known: nothing is cut", [1, 1, 1], 0, append(1, 1, [1], 0), (3, [], 0, 2)),
    ("known prefix is skipped", [1, 1, 1], 0, append(1, 1, [1, 1, 2], 0), (3, [2], 0, 4)),
    ("a late heartbeat cuts nothing", [1, 1, 1], 3, append(1, 1, [], 1), (3, [], 1, 1)),
    ("a conflict is cut from there", [1, 1, 3], 2, append(1, 1, [1, 4], 2), (2, [4], 2, 3)),
    ("commit is capped to what is verified", [1, 3, 3], 0, append(1, 1, [], 3), (3, [], 1, 1)),
    ("commit beyond the message is capped", [1], 0, append(1, 1, [1], 9), (1, [1], 2, 2)),
]


@pytest.mark.parametrize(("terms", "commit", "message", "expected"), [p[1:] for p in PLANS])
def test_plan_append(
    terms: list[int], commit: int, message: Append, expected: tuple[int, list[int], int, int]
) -> None:
    node = Node(terms=terms, commit_index=commit)
    plan = guard.plan_append(node, message)
    assert isinstance(plan, AppendPlan)
    presented = (plan.prev_index, [t for t, _ in plan.entries], plan.commit_index, plan.verified)
    assert presented == expected
    assert plan.prev_term == node.term_at(plan.prev_index)


MISMATCHES = [
    ("the log is too short", Node(terms=[1, 1]), append(5, 2, []), 3),
    ("the previous entry is another", Node(terms=[1, 2]), append(2, 3, []), 2),
    ("a whole term is skipped back", Node(terms=[1, 2, 2, 2]), append(4, 3, []), 2),
    ("but never below what is committed", Node(terms=[2, 2, 2], commit_index=2), None, 3),
]


@pytest.mark.parametrize(("node", "message", "next_index"), [m[1:] for m in MISMATCHES])
def test_a_mismatch_says_where_to_go_on(
    node: Node, message: Append | None, next_index: int
) -> None:
    found = guard.plan_append(node, message or append(3, 9, []))
    assert found == Mismatch(next_index)


@pytest.mark.parametrize(
    "message", [append(1, 9, []), append(2, 9, [9]), append(0, 0, [1, 9])], ids=str
)
def test_a_leader_that_contradicts_a_committed_entry_halts_the_node(message: Append) -> None:
    with pytest.raises(Diverged, match="commit index 2"):
        guard.plan_append(Node(terms=[1, 1], commit_index=2), message)


def test_entries_below_the_base_are_taken_as_equal() -> None:
    node = Node(terms=[2], base_index=10, base_term=1, commit_index=10)
    plan = guard.plan_append(node, append(8, 1, [1, 1, 2, 3], 12))
    assert isinstance(plan, AppendPlan)
    assert (plan.prev_index, [t for t, _ in plan.entries], plan.verified) == (11, [3], 12)
    below = guard.plan_append(node, append(3, 1, [1], 4))
    assert isinstance(below, AppendPlan)
    assert (below.prev_index, below.entries, below.verified) == (11, (), 4)


LOGS = st.lists(st.integers(1, 4), max_size=8).map(sorted)


@given(mine=LOGS, leader=LOGS, data=st.data())
def test_a_plan_never_cuts_an_entry_that_matches_nor_commits_what_it_did_not_verify(
    mine: list[int], leader: list[int], data: st.DataObject
) -> None:
    """Two logs that agree up to some point, as Raft guarantees; any message of the leader."""
    common = 0
    while common < min(len(mine), len(leader)) and mine[common] == leader[common]:
        common += 1
    mine = [term if at < common else term + 100 for at, term in enumerate(mine)]
    node = Node(terms=mine, commit_index=data.draw(st.integers(0, common)), term=200)
    prev = data.draw(st.integers(0, len(leader)))
    count = data.draw(st.integers(0, len(leader) - prev))
    prev_term = leader[prev - 1] if prev else 0
    message = append(prev, prev_term, leader[prev : prev + count], len(leader))
    plan = guard.plan_append(node, message)
    if isinstance(plan, Mismatch):
        assert node.commit_index < plan.next_index <= prev
        return
    result = mine[: plan.prev_index] + [term for term, _ in plan.entries]
    if not plan.entries:
        assert plan.prev_index == len(mine)
    assert result[: plan.verified] == leader[: plan.verified]
    assert result[:common] == mine[:common]
    assert plan.commit_index <= plan.verified == prev + count


VOTES = [
    ("an older term", Node(), "b", VoteRequest(4, 9, 9), False, VoteVerdict.REFUSE, None),
    ("a newer term", Node(), "b", VoteRequest(6, 9, 9), False, VoteVerdict.TO_CORE, None),
    (
        "somebody it has not heard of yet",
        Node(),
        "x",
        VoteRequest(6, 9, 9),
        False,
        VoteVerdict.TO_CORE,
        None,
    ),
    (
        "while a leader is heard",
        Node(),
        "b",
        VoteRequest(6, 9, 9),
        True,
        VoteVerdict.REFUSE,
        Intervention.STICKY_LEADER,
    ),
    (
        "unless the leader asked for it",
        Node(),
        "b",
        VoteRequest(6, 9, 9, transfer=True),
        True,
        VoteVerdict.TO_CORE,
        None,
    ),
    (
        "the same vote again",
        Node(voted_for="b"),
        "b",
        VoteRequest(5, 9, 9),
        False,
        VoteVerdict.GRANT_AGAIN,
        Intervention.REPEATED_VOTE,
    ),
    (
        "voted for another",
        Node(voted_for="c"),
        "b",
        VoteRequest(5, 9, 9),
        False,
        VoteVerdict.REFUSE,
        None,
    ),
]


@pytest.mark.parametrize("row", VOTES, ids=[row[0] for row in VOTES])
def test_judge_vote_request(
    row: tuple[str, Node, str, VoteRequest, bool, VoteVerdict, Intervention | None],
) -> None:
    _, node, sender, message, alive, verdict, intervention = row
    judged = guard.judge_vote_request(node, sender, message, leader_alive=alive)
    assert judged == (verdict, intervention)


COUNTED = [
    ("the first", "b", 5, frozenset[str](), None),
    ("a repetition", "b", 5, frozenset({"b"}), Intervention.DUPLICATE_VOTE),
    ("of another term", "b", 4, frozenset[str](), Intervention.STALE_REPLY),
    ("of a stranger", "x", 5, frozenset[str](), Intervention.FOREIGN_VOTE),
]


@pytest.mark.parametrize(
    ("sender", "term", "counted", "refusal"),
    [row[1:] for row in COUNTED],
    ids=[r[0] for r in COUNTED],
)
def test_a_vote_counts_once_per_member_and_term(
    sender: str, term: int, counted: frozenset[str], refusal: Intervention | None
) -> None:
    node = Node(is_candidate=True)
    assert guard.refuse_vote(node, sender, VoteReply(term, granted=True), counted) == refusal


@pytest.mark.parametrize(
    ("sender", "term", "leads", "refusal"),
    [
        ("b", 5, True, None),
        ("b", 4, True, Intervention.STALE_REPLY),
        ("b", 5, False, Intervention.STALE_REPLY),
        ("x", 5, True, Intervention.FOREIGN_REPLY),
    ],
)
def test_an_append_reply_counts_only_in_its_own_term(
    sender: str, term: int, leads: bool, refusal: Intervention | None
) -> None:
    node = Node(is_leader=leads)
    assert guard.refuse_append_reply(node, sender, AppendReply(term, 3, success=True)) == refusal


@pytest.mark.parametrize(
    ("terms", "request_", "alive", "granted"),
    [
        ([1, 2], PreVoteRequest(6, 2, 2), False, True),
        ([1, 2], PreVoteRequest(6, 2, 2), True, False),
        ([1, 2], PreVoteRequest(5, 2, 2), False, False),
        ([1, 2], PreVoteRequest(6, 1, 2), False, False),
        ([1, 2], PreVoteRequest(6, 9, 1), False, False),
    ],
)
def test_a_pre_vote_is_granted_only_to_one_who_could_win(
    terms: list[int], request_: PreVoteRequest, alive: bool, granted: bool
) -> None:
    assert guard.grant_pre_vote(Node(terms=terms), request_, leader_alive=alive) is granted
