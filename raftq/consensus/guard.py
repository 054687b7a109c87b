"""What may reach the core, and what the core may say: Raft's rules as pure decisions.

The core (pysyncobj 0.3.17) truncates entries that match, counts commits it has not
verified, counts votes by message, and knows no terms on replies. Each function here
looks at one incoming message and at what the node knows, and answers what to do. No
IO, no clock: the caller brings the time. ``Seen`` is the node as the guard sees it.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol

from raftq.consensus.messages import (
    Append,
    AppendReply,
    PreVoteRequest,
    VoteReply,
    VoteRequest,
)


class Intervention(enum.StrEnum):
    """What the guard did that the core alone would not have done; counted in the metrics."""

    SKIPPED_MATCHING = "skipped_matching_entries"
    CAPPED_COMMIT = "capped_commit_index"
    STALE_APPEND = "refused_stale_append"
    STALE_REPLY = "dropped_stale_reply"
    FOREIGN_REPLY = "dropped_foreign_reply"
    DUPLICATE_VOTE = "dropped_duplicate_vote"
    FOREIGN_VOTE = "dropped_foreign_vote"
    STICKY_LEADER = "refused_vote_leader_alive"
    REPEATED_VOTE = "repeated_granted_vote"


class Diverged(Exception):
    """The leader's log contradicts what this node has committed: it must stop."""


class Seen(Protocol):
    """What the guard may know of its node."""

    @property
    def term(self) -> int:
        """The current term."""
        ...

    @property
    def voted_for(self) -> str | None:
        """The vote of the current term."""
        ...

    @property
    def commit_index(self) -> int:
        """The highest entry known to be committed."""
        ...

    @property
    def last_index(self) -> int:
        """The end of the log."""
        ...

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        ...

    @property
    def base_index(self) -> int:
        """The entry before the first one kept."""
        ...

    @property
    def is_leader(self) -> bool:
        """Whether it leads the current term."""
        ...

    @property
    def is_candidate(self) -> bool:
        """Whether it stands in the current term."""
        ...

    @property
    def members(self) -> frozenset[str]:
        """The membership as of the end of the log."""
        ...

    def term_at(self, index: int) -> int | None:
        """The term of a kept entry, the base included; None outside the log."""
        ...


class AppendPlan(NamedTuple):
    """How to present an append to the core.

    ``entries`` follow ``prev_index`` in the node's own log; everything up to ``verified``
    is known to equal the leader's log once they are in.
    """

    prev_index: int
    prev_term: int
    entries: tuple[tuple[int, bytes], ...]
    commit_index: int
    verified: int
    interventions: tuple[Intervention, ...]

    def cuts(self, seen: Seen) -> bool:
        """Whether entries of the log give way."""
        return self.prev_index < seen.last_index


class Mismatch(NamedTuple):
    """The log does not hold the leader's previous entry; it should send from ``next_index``."""

    next_index: int


def plan_append(seen: Seen, message: Append) -> AppendPlan | Mismatch:
    """Skip what the log holds already, cap the commit index to what the message verifies.

    Raft, figure 2, AppendEntries rules 2-5. The sender's term has been checked. Raises
    Diverged if an entry that is committed here differs from the leader's.
    """
    prev_index, prev_term, entries = message.prev_index, message.prev_term, message.entries
    base_index, last_index = seen.base_index, seen.last_index
    verified = prev_index + len(entries)
    done: list[Intervention] = []
    if prev_index < base_index:
        # What lies at or below the base is committed, hence equal.
        skip = min(base_index - prev_index, len(entries))
        entries, prev_index = entries[skip:], prev_index + skip
        if prev_index < base_index:
            return _nothing_new(seen, message, verified, [Intervention.SKIPPED_MATCHING])
        prev_term = seen.term_at(prev_index) or 0
    if prev_index > last_index:
        return Mismatch(last_index + 1)
    if seen.term_at(prev_index) != prev_term:
        _must_be_uncommitted(seen, prev_index)
        return Mismatch(_first_of_term(seen, prev_index))
    kept = 0
    while kept < len(entries) and seen.term_at(prev_index + kept + 1) == entries[kept][0]:
        kept += 1
    if kept:
        done.append(Intervention.SKIPPED_MATCHING)
    if kept == len(entries):
        return _nothing_new(seen, message, verified, done)
    start = prev_index + kept
    if start < last_index:
        _must_be_uncommitted(seen, start + 1)
    return AppendPlan(
        prev_index=start,
        prev_term=seen.term_at(start) or 0,
        entries=entries[kept:],
        commit_index=_capped(seen, message.commit_index, verified, done),
        verified=verified,
        interventions=tuple(done),
    )


def _nothing_new(
    seen: Seen, message: Append, verified: int, done: list[Intervention]
) -> AppendPlan:
    """A heartbeat or a repetition: point the core at its own last entry, so it cuts nothing."""
    return AppendPlan(
        prev_index=seen.last_index,
        prev_term=seen.last_term,
        entries=(),
        commit_index=_capped(seen, message.commit_index, verified, done),
        verified=verified,
        interventions=tuple(done),
    )


def _capped(seen: Seen, commit_index: int, verified: int, done: list[Intervention]) -> int:
    if commit_index <= verified:
        return commit_index
    if seen.last_index > verified:
        done.append(Intervention.CAPPED_COMMIT)
    return verified


def _must_be_uncommitted(seen: Seen, index: int) -> None:
    if index <= seen.commit_index:
        raise Diverged(
            f"the leader's entry {index} differs from the one committed here "
            f"(commit index {seen.commit_index})"
        )


def _first_of_term(seen: Seen, index: int) -> int:
    """Where the term of a conflicting entry begins: one round trip per term, not per entry."""
    term = seen.term_at(index)
    while index > seen.commit_index + 1 and seen.term_at(index - 1) == term:
        index -= 1
    return index


class VoteVerdict(enum.Enum):
    """What to do with a request for a vote."""

    TO_CORE = "to core"
    REFUSE = "refuse"
    GRANT_AGAIN = "grant again"


def judge_vote_request(
    seen: Seen, sender: str, message: VoteRequest, *, leader_alive: bool
) -> tuple[VoteVerdict, Intervention | None]:
    """Whether the core should see a request for a vote.

    Whoever asks is judged by his log alone: the voter may not have heard yet that he is a
    member, or that it is one itself (Ongaro's dissertation, section 4.1).
    ``leader_alive``: a leader was heard within the shortest election timeout, or this node
    is one that hears its majority (leader stickiness, Ongaro's dissertation, section 4.2.3).
    """
    if message.term < seen.term:
        return VoteVerdict.REFUSE, None
    if message.term == seen.term:
        if seen.voted_for == sender:
            return VoteVerdict.GRANT_AGAIN, Intervention.REPEATED_VOTE
        if seen.voted_for is not None:
            return VoteVerdict.REFUSE, None
    if leader_alive and not message.transfer:
        return VoteVerdict.REFUSE, Intervention.STICKY_LEADER
    return VoteVerdict.TO_CORE, None


def up_to_date(seen: Seen, last_index: int, last_term: int) -> bool:
    """Whether a candidate's log is at least as new as ours (Raft, section 5.4.1)."""
    return (last_term, last_index) >= (seen.last_term, seen.last_index)


def grant_pre_vote(seen: Seen, message: PreVoteRequest, *, leader_alive: bool) -> bool:
    """Whether this node would vote for the sender; changes nothing."""
    return (
        message.term > seen.term
        and not leader_alive
        and up_to_date(seen, message.last_index, message.last_term)
    )


def refuse_vote(
    seen: Seen, sender: str, message: VoteReply, counted: frozenset[str]
) -> Intervention | None:
    """Why a granted vote must not be counted, or None; one per member and term."""
    if sender not in seen.members:
        return Intervention.FOREIGN_VOTE
    if message.term != seen.term or not seen.is_candidate:
        return Intervention.STALE_REPLY
    if sender in counted:
        return Intervention.DUPLICATE_VOTE
    return None


def refuse_append_reply(seen: Seen, sender: str, message: AppendReply) -> Intervention | None:
    """Why a reply must not reach the core, or None: only members, only of this very term."""
    if sender not in seen.members:
        return Intervention.FOREIGN_REPLY
    if message.term != seen.term or not seen.is_leader:
        return Intervention.STALE_REPLY
    return None
