"""pysyncobj 0.3.17 behind its seams: with ``core_log`` all of the project that touches it.

What is taken from it: elections, the commit rule, membership changes, leadership
transfer, and the follower's append. What is replaced here, each name once:

    seam                                  by
    -----------------------------------   ------------------------------------------------
    createJournal, createPoller           ours (``CoreLog``), one that does nothing
    Serializer, PIPE_NOTIFIER_ENABLED     never used: snapshots travel outside the core
    pickle                                one that refuses: nothing is ever unpickled
    monotonicTime                         the runtime of the core that is being called
    __generateRaftTimeout                 the runtime's randomness
    __parseChangeClusterRequest           our encoding of membership changes
    __applyLogEntries                     rounds, applied through the owner, gated on fsync
    __sendAppendEntries                   a window per member, one send per tick
    __sendNextNodeIdx                     nothing: the owner answers, once it is on disk
    __getCurrentLogIndex                  the journal's answer, without an entry around it
    __getEntries                          the same
    _checkCommandsToApply                 nothing: ``propose`` sees to its command at once
    __tryLogCompaction                    nothing: the owner truncates the journal

``tests/raftq/consensus/test_core_contract.py`` fails if an upgrade moves any of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any, NoReturn, Protocol, Self

import pysyncobj.syncobj as engine
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node as EngineNode
from pysyncobj.transport import Transport as EngineTransport

from raftq.consensus.core_log import CoreLog
from raftq.consensus.messages import (
    Kind,
    MembershipChange,
    membership_change,
    membership_payload,
)
from raftq.journal import Journal, LogEntry, TermFile
from raftq.reading import reading

FOLLOWER, CANDIDATE, LEADER = 0, 1, 2
NEVER = float("inf")


class _Refusing:
    """Stands where the engine keeps pickle."""

    def loads(self, data: bytes) -> NoReturn:
        raise AssertionError("the engine must never unpickle anything")

    def dumps(self, value: object) -> NoReturn:
        raise AssertionError("the engine must never pickle anything")


class _NoPoller:
    """Our transport is not polled."""

    def poll(self, timeout: float) -> None:
        """Nothing to wait for."""


class _NoSerializer:
    """Snapshots are made, sent and installed outside the engine."""

    def __init__(self, *_: object) -> None:
        pass

    def cancelTransmisstion(self, member: object) -> None:
        """Nothing is being transmitted. (The name is the engine's.)"""


engine.createJournal = lambda journal: journal
engine.createPoller = lambda _kind: _NoPoller()
engine.Serializer = _NoSerializer
engine.PIPE_NOTIFIER_ENABLED = False
engine.pickle = _Refusing()


class MemberNode(int, EngineNode):  # type: ignore[misc]  # the engine is untyped
    """A member as the engine knows it: a number, the same in every process, with an id.

    The engine's dictionaries ask for its hash forty times an entry, and get it without a call.
    """

    __repr__ = EngineNode.__repr__
    __str__ = EngineNode.__str__
    id: str = reading("_id")

    def __new__(cls, id: str) -> Self:
        """The member of this id."""
        return super().__new__(cls, zlib.crc32(id.encode()))

    def __init__(self, id: str) -> None:
        EngineNode.__init__(self, id)


class _Nodes(dict[str, MemberNode]):
    """The one object for each member, made when it is first asked for."""

    def __missing__(self, member: str) -> MemberNode:
        node = MemberNode(member)
        assert node not in self.values(), f"{member} has the number of another member"
        self[member] = node
        return node


_nodes = _Nodes()


class Owner(Protocol):
    """What the core tells its owner (``consensus.Consensus``)."""

    def core_sends(self, member: str, message: dict[str, Any]) -> None:
        """The engine wants to send one of its own messages."""
        ...

    def core_applies(self, last: int) -> int:
        """Apply entries up to ``last``; return the last one applied."""
        ...

    def core_wants_to_send(self) -> None:
        """Appends or heartbeats are due."""
        ...

    def core_changed_role(self) -> None:
        """Leader, candidate or follower: it is another than before."""
        ...


class _Outlet(EngineTransport):  # type: ignore[misc]  # the engine is untyped
    """Where the engine's messages leave it and the owner's enter."""

    def __init__(self, owner: Owner) -> None:
        super().__init__(None, None, [])
        self._owner = owner
        self.membership_changed = True  # Since the core last looked.

    ready = True

    def send(self, node: EngineNode, message: dict[str, Any]) -> None:
        self._owner.core_sends(node.id, message)

    def addNode(self, node: EngineNode) -> None:
        """The owner connects by name, not by membership; but the membership has changed."""
        self.membership_changed = True

    def dropNode(self, node: EngineNode) -> None:
        """As ``addNode``."""
        self.membership_changed = True

    def destroy(self) -> None:
        """Nothing is held."""


class Timing(Protocol):
    """The part of the configuration that the core needs, in milliseconds."""

    @property
    def heartbeat_ms(self) -> int:
        """How often a leader speaks."""
        ...

    @property
    def election_timeout_min_ms(self) -> int:
        """The shortest silence after which a member stands."""
        ...

    @property
    def election_timeout_max_ms(self) -> int:
        """The longest."""
        ...

    @property
    def leader_fallback_ms(self) -> int:
        """How long a leader believes in itself without a majority."""
        ...


def _conf(timing: Timing, log: CoreLog, on_state: Callable[[int, int], None]) -> SyncObjConf:
    return SyncObjConf(
        autoTick=False,
        appendEntriesUseBatch=False,
        appendEntriesPeriod=timing.heartbeat_ms / 1000,
        raftMinTimeout=timing.election_timeout_min_ms / 1000,
        raftMaxTimeout=timing.election_timeout_max_ms / 1000,
        leaderFallbackTimeout=timing.leader_fallback_ms / 1000,
        connectionTimeout=NEVER,
        dynamicMembershipChange=True,
        commandsWaitLeader=False,
        journalFile=log,
        onStateChanged=on_state,
    )


class Core(SyncObj):  # type: ignore[misc]  # the engine is untyped
    """One member's Raft state. Every public method runs to its end on the caller's thread."""

    # The engine's constructor looks at every attribute, properties included, before it sets this.
    _SyncObj__newAppendEntriesTime = 0.0

    def __init__(
        self,
        owner: Owner,
        *,
        self_id: str,
        members: Iterable[str],
        journal: Journal,
        terms: TermFile,
        applied_index: int,
        timing: Timing,
        monotonic: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._owner = owner
        self._journal = journal
        self._monotonic = monotonic
        self._random = random
        self._timeout_range_s = (
            timing.election_timeout_min_ms / 1000,
            timing.election_timeout_max_ms / 1000,
        )
        self._enter()
        self._outlet = _Outlet(owner)
        self._others: list[str] = []
        log = self._log = CoreLog(journal, terms, applied_index)
        super().__init__(
            _nodes[self_id],
            [_nodes[member] for member in sorted(members) if member != self_id],
            conf=_conf(timing, log, lambda _old, _new: owner.core_changed_role()),
            nodeClass=MemberNode,
            transport=self._outlet,
        )
        self._SyncObj__raftLastApplied = applied_index
        self._SyncObj__raftCommitIndex = applied_index

    def _enter(self, now: float | None = None) -> None:
        """Stop the engine's clock for one call: it reads it often, and must not disagree with
        itself, nor with the caller, when the process is held up in between."""
        at = self._monotonic() if now is None else now
        engine.monotonicTime = repeat(at).__next__

    # What the engine calls, replaced.

    def _SyncObj__generateRaftTimeout(self) -> float:
        low, high = self._timeout_range_s
        return low + (high - low) * self._random()

    def _SyncObj__parseChangeClusterRequest(self, payload: bytes) -> list[Any] | None:
        change = membership_change(payload)
        if change is None:
            return None
        return ["add" if change.add else "rem", change.member, _nodes[change.member]]

    def _SyncObj__applyLogEntries(self) -> bool:
        # No node applies what its own disk does not hold: see DESIGN.md beside this file.
        last = min(self._SyncObj__raftCommitIndex, self._journal.durable_index)
        if last > self._SyncObj__raftLastApplied:
            self._SyncObj__raftLastApplied = self._owner.core_applies(last)
        return False

    def _SyncObj__sendAppendEntries(self) -> None:
        self._SyncObj__newAppendEntriesTime = self._monotonic() + self.conf.appendEntriesPeriod
        self._owner.core_wants_to_send()

    def _SyncObj__sendNextNodeIdx(
        self,
        node: EngineNode,
        reset: bool = False,
        nextNodeIdx: int | None = None,
        success: bool = False,
    ) -> None:
        assert success, "the guard let a mismatch through"

    def _SyncObj__getCurrentLogIndex(self) -> int:
        return self._journal.last_index

    def _SyncObj__getEntries(
        self, fromIDx: int, count: int | None = None, maxSizeBytes: int | None = None
    ) -> list[LogEntry]:
        """Of the first one the engine reads only the term, of the others what it undoes."""
        journal = self._journal
        last = journal.last_index
        if not journal.base_index <= fromIDx <= last:
            return []
        first = [self._log.at(fromIDx)]
        return first if count == 1 or fromIDx == last else first + journal.slice(fromIDx + 1, last)

    def _checkCommandsToApply(self) -> None:
        """On every tick the engine looks for commands, of which there are none by then."""

    def _SyncObj__tryLogCompaction(self) -> None:
        """The owner truncates the journal behind a durable snapshot of the state."""

    # What the owner reads.

    state: int = reading("_SyncObj__raftState")
    """FOLLOWER, CANDIDATE or LEADER."""
    term: int = reading("_SyncObj__raftCurrentTerm")
    """The current term, on disk."""
    voted_for: str | None = reading("_SyncObj__votedForNodeId")
    """The vote of the current term, on disk."""
    commit_index: int = reading("_SyncObj__raftCommitIndex")
    """The highest entry known to be committed."""
    applied_index: int = reading("_SyncObj__raftLastApplied")
    """The highest entry applied."""
    election_deadline: float = reading("_SyncObj__raftElectionDeadline")
    """When a follower stands; monotonic seconds."""
    heartbeat_deadline: float = reading("_SyncObj__newAppendEntriesTime")
    """When a leader speaks next; monotonic seconds."""

    @property
    def leader(self) -> str | None:
        """The member believed to lead the current term."""
        leader = self._SyncObj__raftLeader
        return None if leader is None else str(leader.id)

    @property
    def others(self) -> list[str]:
        """The other members, in order."""
        if self._outlet.membership_changed:
            self._outlet.membership_changed = False
            self._others = sorted(node.id for node in self._SyncObj__otherNodes)
        return self._others

    @property
    def transfer_pending(self) -> bool:
        """The leader has asked this member to stand."""
        return bool(self._SyncObj__transferInProgress)

    def next_index(self, member: str) -> int:
        """Where the leader goes on sending to a member."""
        return int(self._SyncObj__raftNextIndex.get(_nodes[member], 0))

    def match_index(self, member: str) -> int:
        """What a member is known to hold on disk, as far as this leader's own disk goes."""
        return int(self._SyncObj__raftMatchIndex.get(_nodes[member], 0))

    def heard_at(self, member: str) -> float:
        """When this leader last heard a member; monotonic seconds."""
        return float(self._SyncObj__lastResponseTime.get(_nodes[member], 0.0))

    # What the owner does.

    def tick(self, now: float) -> None:
        """Elections, commit, apply: whatever is due ``now``, in monotonic seconds."""
        self._enter(now)
        self.doTick(0.0)

    def deliver(self, member: str, message: dict[str, Any]) -> None:
        """Hand the engine one of its own messages."""
        self._enter()
        self._SyncObj__onMessageReceived(_nodes[member], message)

    def propose(self, kind: Kind, payload: bytes) -> None:
        """Append an entry; only on a leader."""
        assert self.state == LEADER
        before = self._journal.last_index
        self._enter()
        self._applyCommand(payload, None, int(kind))
        super()._checkCommandsToApply()
        assert self._journal.last_index == before + 1, "the engine kept the entry to itself"

    def change_membership(self, change: MembershipChange) -> bool:
        """Propose one member in or out; False while another change may be under way.

        Two majorities that share nobody are ruled out only if each change is committed before
        the next is appended, and only a leader that has committed an entry of its own term
        knows that (Ongaro's note of 2015 on single-server changes). The engine sees to the
        second and denies until that entry is applied; nobody but this sees to the first.
        """
        applied, last = self.applied_index, self._journal.last_index
        if self._journal.term_at(applied) != self.term:
            return False
        pending = self._journal.slice(applied + 1, last) if applied < last else []
        if any(membership_change(entry.payload) for entry in pending):
            return False
        self.propose(Kind.MEMBERSHIP, membership_payload(change))
        return True

    def set_members(self, members: Iterable[str]) -> None:
        """The membership as a snapshot or the first start says."""
        self._enter()
        self._SyncObj__updateClusterConfiguration(
            [_nodes[m] for m in sorted(members) if m != self.selfNode.id]
        )

    def adopt_snapshot(self, index: int, members: Iterable[str]) -> None:
        """The store and the journal now start at ``index``."""
        self._enter()
        self._SyncObj__raftLastApplied = index
        self._SyncObj__raftCommitIndex = max(self.commit_index, index)
        self.set_members(members)

    def set_next_index(self, member: str, index: int) -> None:
        """Go on sending to a member from there."""
        self._SyncObj__raftNextIndex[_nodes[member]] = index

    def observe_term(self, term: int) -> None:
        """A higher term exists: follow it (Raft, section 5.1)."""
        if term <= self.term:
            return
        self._enter()
        self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__raftLeader = None
        self._SyncObj__setState(FOLLOWER)

    def resign(self) -> None:
        """Lead no more; somebody else should, in another term."""
        self._enter()
        self._SyncObj__raftLeader = None
        self._SyncObj__setState(FOLLOWER)

    def postpone_election(self) -> None:
        """As if a leader had been heard now."""
        self._enter()
        self._SyncObj__raftElectionDeadline = (
            self._monotonic() + self._SyncObj__generateRaftTimeout()
        )

    def stand_at(self, deadline: float) -> None:
        """Campaign at the first tick after ``deadline``; monotonic seconds."""
        self._SyncObj__raftElectionDeadline = deadline

    def set_connected(self, member: str, connected: bool) -> None:
        """The engine asks only whether anybody is connected before it campaigns."""
        if connected:
            self._SyncObj__onNodeConnected(_nodes[member])
        else:
            self._SyncObj__onNodeDisconnected(_nodes[member])
