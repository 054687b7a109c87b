"""The engine's own faults brought back, one remedy switched off at a time, and a stage for them.

Each ``without_*`` replaces, in this process and while it is entered, the one function of the
product that keeps a fault of stock pysyncobj from happening, by what the engine does on its own.
The product has no switches for this. ``Stage`` is a group whose messages and elections are
driven by hand, and whose checks say by name what was broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest import mock

import pytest

from group import HOP_S, Group, Member
from raftq import snapshots
from raftq.consensus import core, engine_messages, guard
from raftq.consensus.consensus import Consensus
from raftq.consensus.core import NEVER, Core
from raftq.consensus.election import Elections
from raftq.consensus.guard import AppendPlan, Intervention, Mismatch, Seen, VoteVerdict
from raftq.consensus.messages import (
    Append,
    AppendReply,
    Beat,
    PreVoteReply,
    RaftMessage,
    VoteReply,
    VoteRequest,
)
from raftq.consensus.replication import Progress, Replication
from raftq.disk import Disk
from raftq.journal import LogEntry, record_file
from raftq.replica.replica import Replica
from raftq.replica.submitter import Submitter
from simulation.node import Violation

UNLIMITED = 1 << 62

Switch = Callable[[], AbstractContextManager[Any]]
"""Enters one of the ``without_*``, or ``nullcontext``."""

Tap = Callable[[str, str, RaftMessage], bool]
"""(sender, receiver, message): whether it is to go its way."""
Row = tuple[int, Callable[[Switch], None], Switch, str]
"""The number of a fault, its scenario, the remedy switched off, and what breaks then."""


def shows_only_without(scenario: Callable[[Switch], None], fault: Switch, violation: str) -> None:
    """Play a scenario with the remedy, then without it: only then something is broken."""
    scenario(nullcontext)
    with pytest.raises(Violation, match=violation):
        scenario(fault)


def each_of(rows: Sequence[Row]) -> pytest.MarkDecorator:
    """Run a test of ``scenario``, ``fault`` and ``violation`` on each row, named by its fault."""
    return pytest.mark.parametrize(
        ("scenario", "fault", "violation"),
        [row[1:] for row in rows],
        ids=[f"{number}-{scenario.__name__}" for number, scenario, *_ in rows],
    )


class Stage(Group):
    """A group that is told what to do, and says by name what it broke."""

    def __init__(self, count: int = 3) -> None:
        super().__init__(1, count)
        self.commit_index = 0  # The highest that any member has claimed.
        self.tap: Tap = lambda _sender, _receiver, _message: True
        for member in self.members.values():
            self._tap(member)
        self.start()
        self.hush()

    def _tap(self, member: Member) -> None:
        send = member.send

        def tapped(receiver: str, message: RaftMessage) -> bool:
            return send(receiver, message) if self.tap(member.name, receiver, message) else True

        member.send = tapped

    def hush(self) -> None:
        """Nobody stands on its own until it hears a leader again."""
        for member in self.members.values():
            if member.up:
                member.consensus.core.stand_at(NEVER)

    def stand(self, name: str) -> None:
        """A member campaigns now, as if a majority had cleared it."""
        member = self.members[name]
        member.consensus.elections.cleared = True
        member.consensus.core.stand_at(-1.0)
        member.wake()
        self.run(5 * HOP_S)

    def lead(self, name: str) -> Member:
        """A member is elected and has committed its first entry."""
        self.stand(name)
        member = self.members[name]
        self.until(lambda: member.applied_index == member.journal.last_index > 0, 1)
        return member

    def forget_the_leader(self) -> None:
        """So much silence that nobody takes the leader for alive any more."""
        self.run(5 * HOP_S)
        self.hush()
        self.run(0.6)
        self.hush()

    def propose(self, name: str, count: int, size: int = 10) -> None:
        """A leader appends regular entries that differ from all others."""
        member = self.members[name]
        for number in range(count):
            index = member.journal.last_index + 1
            member.propose(f"{name} {index} {number}".encode().ljust(size, b"."))

    def split(self, *sides: str) -> None:
        """Cut every link between members of different sides, each written like ``"12"``."""
        self.heal()
        side_of = {f"n{digit}/x": side for side in sides for digit in side}
        for one in self.ids:
            for other in self.ids:
                if one != other and side_of.get(one, one) != side_of.get(other, other):
                    self.cut.add((one, other))

    def lose_power(self, name: str) -> None:
        """Everything goes that was not synced; the member is back at once."""
        member = self.members[name]
        found = member.disk.at_worst("d")
        member.crash()
        member.disk = found
        member.start()
        self.hush()

    def deliver(self, sender: str, receiver: str, message: RaftMessage) -> None:
        """A message arrives, whoever sent it and when."""
        target = self.members[receiver]
        target.consensus.receive(sender, message)
        target.sync()
        self.check()

    def check(self) -> None:
        """What must hold after every step."""
        for member in self.members.values():
            if not member.up:
                continue
            consensus, journal = member.consensus, member.journal
            if consensus.commit_index > journal.last_index:
                raise Violation(f"{member.name} commits beyond its log")
            if consensus.commit_index > self.commit_index:
                self.commit_index = consensus.commit_index
                self._check_commit(member)
            if consensus.is_leader:
                self._check_leader(member)

    def _check_commit(self, member: Member) -> None:
        index = member.consensus.commit_index
        term = member.journal.term_at(index)
        holders = [
            one.name
            for one in self.members.values()
            if one.journal.durable_index >= index and one.journal.term_at(index) == term
        ]
        if 2 * len(holders) <= len(self.ids):
            raise Violation(f"entry {index} is committed, on disk with {holders}")

    def _check_leader(self, member: Member) -> None:
        term, journal = member.consensus.term, member.journal
        if term not in self.leaders:
            self.leaders[term] = member.name
            if any(journal.term_at(index) != fact[0] for index, fact in self.committed.items()):
                raise Violation(f"{member.name} leads without a committed entry")
        if self.leaders[term] != member.name:
            raise Violation(f"two leaders in term {term}")

    def applied(self, member: Member, entry: LogEntry) -> None:
        """See ``Group``."""
        index, fact = entry.index, (entry.term, entry.payload)
        if self.committed.setdefault(index, fact) != fact:
            raise Violation(f"{member.name} applies another entry at {index}")
        if member.journal.durable_index < index:
            raise Violation(f"{member.name} applies what its own disk does not hold")


# Remedies of the log.


def _next_index_as_acknowledged(self: Replication, member: str, progress: Progress) -> None:
    held = min(progress.acknowledged, self._journal.durable_index)
    self._core.deliver(member, engine_messages.append_reply(held + 1, success=True))
    self._host.wake()


def without_keeping_next_index() -> Any:
    """1: what was sent already is sent again from the acknowledged index."""
    return mock.patch.object(Replication, "_count", _next_index_as_acknowledged)


def _plan_as_sent(seen: Seen, message: Append) -> AppendPlan | Mismatch:
    if not seen.base_index <= message.prev_index <= seen.last_index:
        return Mismatch(seen.last_index + 1)
    if seen.term_at(message.prev_index) != message.prev_term:
        return Mismatch(message.prev_index)
    verified = message.prev_index + len(message.entries)
    commit_index = min(message.commit_index, verified)
    at = (message.prev_index, message.prev_term)
    return AppendPlan(*at, message.entries, commit_index, verified, ())


def without_skipping_what_matches() -> Any:
    """2: everything after the previous entry is cut before the message's entries are added."""
    return mock.patch.object(guard, "plan_append", _plan_as_sent)


def _uncapped(_seen: Seen, commit_index: int, _verified: int, _done: list[Intervention]) -> int:
    return commit_index


def without_capping_the_commit_index() -> Any:
    """3: the commit index goes as far as the whole log, verified or not."""
    return mock.patch.object(guard, "_capped", _uncapped)


def without_terms_on_replies() -> Any:
    """4: a reply of an earlier leadership counts."""
    return _letting_pass("refuse_append_reply", Intervention.STALE_REPLY)


def without_membership_of_replies() -> Any:
    """22: a reply counts whoever sent it."""
    return _letting_pass("refuse_append_reply", Intervention.FOREIGN_REPLY)


def without_counting_voters() -> Any:
    """5: a vote counts each time it arrives."""
    return _letting_pass("refuse_vote", Intervention.DUPLICATE_VOTE)


def without_membership_of_voters() -> Any:
    """22: a vote counts whoever gave it."""
    return _letting_pass("refuse_vote", Intervention.FOREIGN_VOTE)


def _letting_pass(name: str, what: Intervention) -> Any:
    honest = getattr(guard, name)

    def lenient(*arguments: Any) -> Intervention | None:
        refusal: Intervention | None = honest(*arguments)
        return None if refusal is what else refusal

    return mock.patch.object(guard, name, lenient)


# Remedies of elections.


def without_repeating_a_vote() -> Any:
    """6: who asks again for the vote that he has gets no answer."""
    honest = guard.judge_vote_request

    def judge(
        seen: Seen, sender: str, message: VoteRequest, *, leader_alive: bool
    ) -> tuple[VoteVerdict, Intervention | None]:
        verdict, what = honest(seen, sender, message, leader_alive=leader_alive)
        # The core says nothing to him it has voted for already.
        return (VoteVerdict.TO_CORE if verdict is VoteVerdict.GRANT_AGAIN else verdict), what

    return mock.patch.object(guard, "judge_vote_request", judge)


class _OnlyGrants:
    """A host that keeps every refusal to itself."""

    def __init__(self, host: Any) -> None:
        self._host = host

    def send(self, member: str, message: RaftMessage) -> bool:
        if isinstance(message, VoteReply | PreVoteReply) and not message.granted:
            return True
        sent: bool = self._host.send(member, message)
        return sent

    def intervened(self, what: Intervention) -> None:
        self._host.intervened(what)


@contextmanager
def without_refusals() -> Iterator[None]:
    """6: who does not get a vote hears nothing, not even of a newer term."""

    def silenced(honest: Callable[..., None]) -> Callable[..., None]:
        def answer(self: Elections, sender: str, message: RaftMessage) -> None:
            host = self._host
            self._host = _OnlyGrants(host)
            try:
                honest(self, sender, message)
            finally:
                self._host = host

        return answer

    with (
        mock.patch.object(Elections, "on_vote_request", silenced(Elections.on_vote_request)),
        mock.patch.object(
            Elections, "on_pre_vote_request", silenced(Elections.on_pre_vote_request)
        ),
    ):
        yield


def without_pre_vote() -> Any:
    """6, 23: who hears no leader stands at once, whether or not anybody would vote for him."""
    return mock.patch.object(Elections, "ask_for_pre_votes", return_value=None)


def without_stickiness() -> Any:
    """23: a vote is given away while a healthy leader is heard."""
    return mock.patch.object(Consensus, "leader_alive", return_value=False)


# Remedies of the disk.


def _acknowledge_at_once(self: Consensus, *, answer: bool) -> None:
    term, leader = self._following
    if term == self.term and not self.is_leader and (answer or self._vouched > self._vouched_sent):
        self._vouched_sent = self._vouched
        self._host.send(leader, AppendReply(term, self._vouched + 1, success=True))


def without_waiting_for_the_followers_disk() -> Any:
    """7: a follower vouches for what it has only written."""
    return mock.patch.object(Consensus, "_acknowledge", _acknowledge_at_once)


def without_waiting_for_the_leaders_disk() -> Any:
    """7: a leader counts an acknowledgement of what it has only written itself."""

    def count(self: Replication, member: str, progress: Progress) -> None:
        reply = engine_messages.append_reply(progress.acknowledged + 1, success=True)
        self._core.deliver(member, reply)
        self._core.set_next_index(member, self._seen.last_index + 1)
        self._host.wake()

    return mock.patch.object(Replication, "_count", count)


def _store_without_sync(disk: Disk, path: str, payload: bytes) -> None:
    file = disk.open(path, create=True)
    file.truncate(0)
    covered = record_file._HEADER.pack(record_file.MAGIC, record_file.VERSION, len(payload), 0)
    covered = covered[: record_file._COVERED_BYTES]
    crc = record_file.google_crc32c.value(covered + payload)
    file.pwrite(covered + crc.to_bytes(4, "little") + payload, 0)
    file.close()


def without_syncing_the_vote() -> Any:
    """8: term and vote are with the operating system when the vote is given."""
    return mock.patch.object(record_file, "store", _store_without_sync)


@contextmanager
def without_deriving_the_commit_index() -> Iterator[None]:
    """9: the commit index is kept on its own, and believed after a restart."""
    kept: dict[str, int] = {}
    honest = Core.__init__

    def construct(self: Core, *arguments: Any, **named: Any) -> None:
        honest(self, *arguments, **named)
        name = named["self_id"]
        log = self._SyncObj__raftLog
        log.setRaftCommitIndex = lambda index: kept.__setitem__(name, index)
        if name in kept:
            self._SyncObj__raftCommitIndex = kept[name]

    with mock.patch.object(Core, "__init__", construct):
        yield


def _apply_all(self: Core) -> bool:
    last = min(self.commit_index, self._journal.last_index)
    if last > self.applied_index:
        self._SyncObj__raftLastApplied = self._owner.core_applies(last)
    return False


def without_applying_only_what_is_durable() -> Any:
    """9: what is committed is applied, whether or not this node's disk holds it."""
    return mock.patch.object(Core, "_SyncObj__applyLogEntries", _apply_all)


# Remedies of the node.


def without_stopping_on_an_exception() -> Any:
    """10: an exception while applying is logged, and the same entry tried again."""
    honest = Replica._tick

    def tick(self: Replica) -> None:
        try:
            honest(self)
        except RuntimeError as error:
            self._log.warning("failed to apply", error=repr(error))
            self._applier._is_broken = False  # The second defence.
            self._arm_deadline()

    return mock.patch.object(Replica, "_tick", tick)


def without_a_window() -> Any:
    """15: whatever a member lacks is sent in one turn."""
    honest = Replication.__init__

    def construct(self: Replication, *arguments: Any) -> None:
        honest(self, *arguments[:-1], UNLIMITED)

    return mock.patch.object(Replication, "__init__", construct)


def _believe_beat(self: Consensus, sender: str, message: Beat) -> None:
    if self._follow(sender, message.term):
        sign = engine_messages.sign_of_life(message.term, self.last_index)
        self.core.deliver(sender, sign)
        self._host.send(sender, AppendReply(message.term, self.last_index + 1, success=False))


def without_an_own_commit_index_while_a_snapshot_is_due() -> Any:
    """16: the new leader's commit index counts for the old one's tail, cut off at its end."""
    return mock.patch.object(Consensus, "_on_beat", _believe_beat)


@contextmanager
def without_asking_again() -> Iterator[None]:
    """17: who waits for an entry that a snapshot skips is never called."""
    with (
        mock.patch.object(Submitter, "leader_changed", return_value=None),
        mock.patch.object(Submitter, "_watch", return_value=None),
    ):
        yield


def _settle_unread(self: snapshots.Sink) -> None:
    while not self.complete:
        spec = self._specs[self._number]
        if len(self._open) == self._number:
            path = f"{self._directory}/{spec.name}"
            self._open.append(self._disk.open(path, create=True))
            self._open[-1].truncate(0)
        if self._offset < spec.size_bytes:
            return
        self._number, self._offset = self._number + 1, 0


def without_checking_a_snapshot() -> Any:
    """18: a snapshot that arrived damaged is taken for received."""
    return mock.patch.object(snapshots.Sink, "_settle", _settle_unread)


def _follow_without_telling(self: Consensus, sender: str, term: int) -> bool:
    return False if term < self.term else _honest_follow(self, sender, term)


_honest_follow = Consensus._follow


def without_telling_an_old_leader() -> Any:
    """21: a leader of an older term is ignored."""
    return mock.patch.object(Consensus, "_follow", _follow_without_telling)


def without_a_short_fallback() -> Any:
    """14: a leader believes in itself for as long as the engine's default says."""
    honest = core._conf

    def conf(*arguments: Any) -> Any:
        made = honest(*arguments)
        made.leaderFallbackTimeout = 30.0
        return made

    return mock.patch.object(core, "_conf", conf)


def without_knowing_how_stale() -> Any:
    """14: a leader takes what it has applied for the present state."""
    honest = Consensus.staleness_s

    def staleness_s(self: Consensus) -> float:
        return 0.0 if self.is_leader else honest(self)

    return mock.patch.object(Consensus, "staleness_s", staleness_s)
