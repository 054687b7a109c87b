"""One member of the Raft group: the core, the guard, the durability gates and the pre-vote.

The rules that the core alone would break are enforced here, on every message:

* A follower vouches only for entries that are on its own disk, and only for what the
  present leader's messages verified (``_acknowledge``).
* A leader counts a member's acknowledgement only as far as its own disk goes
  (``replication``), so that "acknowledged" always means a majority of disks.
* A member stands for election only after a majority said it would vote for it.
* Whatever carries an old term or comes from a stranger never reaches the core.

Single-threaded and callback-driven: the owner calls in, ``Host`` is called back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from raftq.consensus import engine_messages, guard
from raftq.consensus.core import CANDIDATE, LEADER, Core, Timing
from raftq.consensus.election import Elections
from raftq.consensus.guard import AppendPlan, Intervention, Mismatch
from raftq.consensus.host import Host
from raftq.consensus.messages import (
    Append,
    AppendReply,
    Beat,
    Kind,
    MembershipChange,
    PreVoteReply,
    PreVoteRequest,
    RaftMessage,
    TimeoutNow,
    VoteReply,
    VoteRequest,
    membership_change,
)
from raftq.consensus.replication import Replication
from raftq.journal import Journal, TermFile
from raftq.reading import reading
from raftq.runtime import Runtime

ROUND_BYTES_MAX = 4 << 20
LONG_AGO = float("-inf")


class Consensus:
    """See the module. Members are named ``name/identity``."""

    def __init__(
        self,
        host: Host,
        *,
        self_id: str,
        members: Iterable[str],
        journal: Journal,
        terms: TermFile,
        applied_index: int,
        timing: Timing,
        window_bytes: int,
        runtime: Runtime,
    ) -> None:
        members = list(members)
        self.self_id = self_id
        self.is_member = self_id in members
        self._host = host
        self._journal = journal
        self._runtime = runtime
        self._alive_s = timing.election_timeout_min_ms / 1000
        self._role: tuple[int, str | None, int] = (0, None, 0)
        self._heard_leader_at = LONG_AGO
        self._leader_commit = (0, LONG_AGO)  # As last heard, and when.
        self._fresh_at = LONG_AGO
        self._following: tuple[int, str] = (0, "")
        self._vouched = 0
        self._vouched_sent = 0
        self._transferring = False
        self._disk_hangs = False
        self.core = Core(
            self,
            self_id=self_id,
            members=members,
            journal=journal,
            terms=terms,
            applied_index=applied_index,
            timing=timing,
            monotonic=runtime.monotonic,
            random=runtime.random,
        )
        self.elections = Elections(self, self.core, host)
        self._replication = Replication(self, self.core, journal, host, window_bytes)

    # What the guard and the node may see.

    term: int = reading("core.term")
    """The current term."""
    voted_for: str | None = reading("core.voted_for")
    """The vote of the current term."""
    commit_index: int = reading("core.commit_index")
    """The highest entry known to be committed."""
    last_index: int = reading("_journal.last_index")
    """The end of the log."""
    last_term: int = reading("_journal.last_term")
    """The term of the last entry."""
    base_index: int = reading("_journal.base_index")
    """The entry before the first one kept."""
    term_at: Callable[[int], int | None] = reading("_journal.term_at")
    """The term of a kept entry, the base included; None outside."""
    leader: str | None = reading("core.leader")
    """The leader, if one is known."""

    @property
    def is_durable(self) -> bool:
        """Whether this member's own disk holds its whole log."""
        return self._journal.durable_index == self._journal.last_index

    @property
    def is_leader(self) -> bool:
        """Whether this member leads, as far as it knows."""
        return self.core.state == LEADER

    @property
    def is_candidate(self) -> bool:
        """Whether this member is standing."""
        return self.core.state == CANDIDATE

    @property
    def members(self) -> frozenset[str]:
        """The membership as of the end of the log."""
        own = [self.self_id] if self.is_member else []
        return frozenset([*self.core.others, *own])

    def leader_alive(self) -> bool:
        """A leader was heard within the shortest election timeout, or is here and heard."""
        now = self._runtime.monotonic()
        if not self.is_leader:
            return now - self._heard_leader_at < self._alive_s
        heard = [m for m in self.core.others if now - self.core.heard_at(m) < self._alive_s]
        return 2 * (len(heard) + 1) > len(self.core.others) + 1

    def staleness_s(self) -> float:
        """Seconds since this member last knew itself up to date with a leader."""
        now = self._runtime.monotonic()
        if self.is_leader:
            heard = sorted((self.core.heard_at(m) for m in self.core.others), reverse=True)
            needed = len(self.core.others) // 2 + len(self.core.others) % 2
            return 0.0 if self.leader_alive() else now - heard[needed - 1]
        commit, heard_at = self._leader_commit
        if self.core.applied_index >= commit:
            self._fresh_at = heard_at
        return now - self._fresh_at

    def next_deadline(self) -> float:
        """When ``tick`` is due at the latest; monotonic seconds."""
        if self.is_leader:
            return self.core.heartbeat_deadline
        return self.core.election_deadline

    # What the node calls.

    def tick(self) -> None:
        """Elections, commit and apply that are due; ``flush`` sends."""
        core = self.core
        now = self._runtime.monotonic()
        if self._disk_hangs:
            self._make_room()
        standing = not self.is_leader and now > core.election_deadline
        if standing and (not self.is_member or self._disk_hangs):
            core.postpone_election()
            standing = False
        if standing and core.others and not core.transfer_pending and not self.elections.cleared:
            self.elections.ask_for_pre_votes()
        elif standing:
            self.elections.stood += 1
            self._heard_leader_at = LONG_AGO
        self._transferring = core.transfer_pending
        core.tick(now)
        self.elections.cleared = False
        self._notice_role()

    def propose(self, payload: bytes) -> int:
        """Append a regular entry and answer its index; only on a leader, and ``flush`` after."""
        self.core.propose(Kind.REGULAR, payload)
        return self._journal.last_index

    def flush(self) -> None:
        """Send what the members lack; once per turn, however much was appended."""
        if self.is_leader:
            self._replication.flush()

    def change_membership(self, change: MembershipChange) -> bool:
        """Propose a change; False when another one is still under way."""
        self._host.wake()
        return self.core.change_membership(change)

    def disk_hangs(self, hangs: bool) -> None:
        """A write is taking so long that this member can neither lead nor follow: see ``tick``."""
        if hangs != self._disk_hangs:
            self._disk_hangs = hangs
            self._host.wake()

    def _make_room(self) -> None:
        """A leader's own disk is part of every majority: while it hangs, another must lead."""
        if self.is_leader and self.core.others:
            self.core.resign()

    def synced(self) -> None:
        """The journal's durable index has moved: acknowledge and count what it allows."""
        if self.is_leader:
            self._replication.synced()
        else:
            self._acknowledge(answer=False)
        self._wake_to_apply()

    def set_connected(self, member: str, connected: bool) -> None:
        """A connection to a member came or went; what was in flight on it may be lost."""
        self.core.set_connected(member, connected)
        self._replication.set_connected(member, connected)
        if not connected and self.leader == member and not self.is_leader:
            self._leader_hung_up()
        self._host.wake()

    def adopt_snapshot(self, index: int, members: Iterable[str], sender: str, term: int) -> None:
        """The store now stands at ``index``, sent by the leader of ``term``."""
        members = list(members)
        self.is_member = self.self_id in members
        self.core.adopt_snapshot(index, members)
        if self._following == (term, sender):
            self._vouched = max(self._vouched, index)
            self._acknowledge(answer=True)
        self._host.wake()

    def set_members(self, members: Iterable[str]) -> None:
        """The membership of a cluster's first start."""
        members = list(members)
        self.is_member = self.self_id in members
        self.core.set_members(members)
        self.core.postpone_election()

    def transfer_leadership(self, targets: Iterable[str]) -> bool:
        """Ask the first of these members that is there and lacks nothing to stand; False: none."""
        assert self.is_leader
        last = self.last_index
        for member in targets:
            if self._replication.reaches(member) and self.core.match_index(member) == last:
                return self._host.send(member, TimeoutNow(self.term))
        return False

    def receive(self, sender: str, message: RaftMessage) -> None:
        """Handle one message of a member."""
        match message:
            case Append():
                self._on_append(sender, message)
            case AppendReply():
                self._replication.on_reply(sender, message)
            case _:
                self._on_other(sender, message)
                self._host.wake()
        self._notice_role()

    def _on_other(
        self,
        sender: str,
        message: Beat | VoteRequest | VoteReply | PreVoteRequest | PreVoteReply | TimeoutNow,
    ) -> None:
        match message:
            case Beat():
                self._on_beat(sender, message)
            case VoteRequest():
                self.elections.on_vote_request(sender, message)
            case VoteReply():
                self.elections.on_vote(sender, message)
            case PreVoteRequest():
                self.elections.on_pre_vote_request(sender, message)
            case PreVoteReply():
                self.elections.on_pre_vote(sender, message)
            case TimeoutNow():
                if self.is_member:
                    self.core.deliver(sender, engine_messages.timeout_now(message.term))

    def _wake_to_apply(self) -> None:
        """A tick costs as much as a message: none unless it would find something to do."""
        if min(self.commit_index, self._journal.durable_index) > self.core.applied_index:
            self._host.wake()

    # Following.

    def _on_append(self, sender: str, message: Append) -> None:
        if not self._follow(sender, message.term):
            return
        if self._is_newcomer:
            self._heed(sender, message.term)
            self._host.send(sender, AppendReply(message.term, 0, success=False))
            return
        plan = guard.plan_append(self, message)
        if isinstance(plan, Mismatch):
            self._heed(sender, message.term)
            self._host.send(sender, AppendReply(message.term, plan.next_index, success=False))
            return
        for what in plan.interventions:
            self._host.intervened(what)
        commit_index = max(plan.commit_index, self.commit_index)
        if plan.entries or plan.cuts(self):
            self._follow_membership(plan)
            self.core.deliver(sender, engine_messages.append(message.term, commit_index, plan))
        else:
            self.core.deliver(sender, engine_messages.sign_of_life(message.term, commit_index))
        self._vouched = max(self._vouched, plan.verified)
        self._leader_commit = (message.commit_index, self._heard_leader_at)
        repeated = bool(message.entries) and plan.verified <= self._journal.durable_index
        self._acknowledge(answer=message.is_heartbeat or repeated)
        self._wake_to_apply()

    def _follow_membership(self, plan: AppendPlan) -> None:
        """Whether it is a member is what the end of its log says, committed or not (section 6)."""
        cut = self._journal.slice(plan.prev_index + 1, self.last_index) if plan.cuts(self) else []
        for entry in reversed(cut):
            change = membership_change(entry.payload)
            if change is not None and change.member == self.self_id:
                self.is_member = not change.add
        for _, payload in plan.entries:
            change = membership_change(payload)
            if change is not None and change.member == self.self_id:
                self.is_member = change.add

    @property
    def _is_newcomer(self) -> bool:
        """It knows no membership: it takes a snapshot, never the log's beginning."""
        return not self.is_member and self.core.applied_index == 0

    def _on_beat(self, sender: str, message: Beat) -> None:
        if not self._follow(sender, message.term):
            return
        self._heed(sender, message.term)
        # It takes us to need a snapshot; if one was installed meanwhile, the log will do. Only
        # what is committed is sure to be the leader's as well.
        wanted = 0 if self._is_newcomer else self.commit_index + 1
        self._host.send(sender, AppendReply(message.term, wanted, success=False))

    def _follow(self, sender: str, term: int) -> bool:
        """Accept the sender as leader of ``term``, or tell it that its time is over."""
        if term < self.term:
            self._host.intervened(Intervention.STALE_APPEND)
            if self._following != (self.term, sender):  # Else it knows, and would take it amiss.
                self._host.send(sender, AppendReply(self.term, 0, success=False))
            return False
        assert not (self.is_leader and term == self.term), f"two leaders in term {term}"
        if self._following != (term, sender):
            self._following = (term, sender)
            self._vouched = self._vouched_sent = 0
        self._heard_leader_at = self._runtime.monotonic()
        self.elections.heard_leader()
        return True

    def _heed(self, sender: str, term: int) -> None:
        """Let the core know its leader, without touching the log."""
        self.core.deliver(sender, engine_messages.sign_of_life(term, self.commit_index))

    def _acknowledge(self, *, answer: bool) -> None:
        """Vouch for what is both verified and on disk; ``answer``: even if that is nothing new."""
        term, leader = self._following
        if term != self.term or self.is_leader:
            return
        held = min(self._vouched, self._journal.durable_index)
        if answer or held > self._vouched_sent:
            self._vouched_sent = held
            self._host.send(leader, AppendReply(term, held + 1, success=True))

    def _leader_hung_up(self) -> None:
        """Its process is gone, or the link is: do not wait for the whole timeout."""
        self._heard_leader_at = LONG_AGO
        soon = self._runtime.monotonic() + self._runtime.random() * self._alive_s / 2
        self.core.stand_at(min(self.core.election_deadline, soon))

    # What the core calls.

    def core_sends(self, member: str, message: dict[str, Any]) -> None:
        """See ``core.Owner``."""
        match message["type"]:
            case "request_vote":
                self._host.send(
                    member,
                    VoteRequest(
                        message["term"],
                        message["last_log_index"],
                        message["last_log_term"],
                        self._transferring,
                    ),
                )
            case "response_vote":
                self._host.send(member, VoteReply(message["term"], granted=True))
            case other:
                raise AssertionError(f"the engine must not send {other}")

    def core_applies(self, last: int) -> int:
        """See ``core.Owner``."""
        entries = self._journal.slice(self.core.applied_index + 1, last, ROUND_BYTES_MAX)
        self._host.apply(entries)
        if entries[-1].index < last:
            self._host.wake()
        return entries[-1].index

    def core_wants_to_send(self) -> None:
        """See ``core.Owner``."""
        self._replication.due = True

    def core_changed_role(self) -> None:
        """See ``core.Owner``: acted upon when the core has finished what it is doing."""
        self._replication.restart()
        self._host.wake()

    def _notice_role(self) -> None:
        role = (self.core.state, self.core.leader, self.core.term)
        if role != self._role:
            self._role = role
            self._host.role_changed()
