"""What must hold after every step, whatever has gone wrong (Raft, figure 3, and more).

A check sees the product from outside: what a node's log holds and claims is compared with
what every node has ever claimed; what must be on disk is looked up on the disk itself, as
it would be found if power failed now.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from zlib import crc32

from raftq.consensus.core import CANDIDATE, LEADER
from raftq.consensus.messages import MembershipChange, membership_change
from raftq.journal import Journal, LogEntry
from raftq.journal.faults import Corruption
from raftq.replica import wire
from raftq.replica.identity import node_of
from raftq.snapshots import Manifest
from simulation import agreement
from simulation.durability import Durability
from simulation.echoes import Echoes
from simulation.elections import Elections
from simulation.gate import Gate
from simulation.look import NONE_YET, look_at
from simulation.moments import begun, interrupted, leads, leads_no_more
from simulation.node import DATA, Node, Violation
from simulation.oracle import Oracle, key_of
from simulation.progress import Progress
from simulation.world import World
from statemachine.commands import Batch, Entry
from statemachine.digest import digest
from statemachine.machine import BatchResult, Machine

__all__ = ["Checks", "Violation"]

JOURNAL = f"{DATA}/journal"
DIGEST_EVERY = 32  # Entries.
AGREES_EVERY = 64
DISK_EVERY = 40
ROUNDING_MS = 5
STOPS_WITHIN_S = 0.05
RAFT, OFFER = 2, 5  # Tags; where they stand in an encoded frame is fixed.
LISTENED_TO = {(RAFT, tag) for tag in (1, 3, 5, 7, 8)}


class Seen:
    """What a node looked like when it was last looked at, in one life."""

    def __init__(self, life: int) -> None:
        self.life = life
        self.state = -1
        self.term = 0
        self.commit = 0
        self.applied = 0
        self.last = 0
        self.last_term = 0
        self.machine: Machine | None = None
        self.fetching: Manifest | None = None
        self.installed = 0
        self.vote: str | None = None
        self.sync_failed_at = math.inf
        self.look = NONE_YET


class Taken:
    """A command that leaders have taken: since when, and in which term last."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.term = 0


class Checks:
    """The watcher of a world; ``Violation`` comes out of the step that broke something."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.oracle = Oracle(world.sometimes)
        self.committed: list[tuple[int, int]] = [(0, 0)]  # By index: term, checksum.
        self._committed_in = [0]  # By index: the term in which that was first seen.
        self.leaders: dict[int, str] = {}
        self._seen: dict[str, Seen] = {}
        self._entries: dict[tuple[int, int], tuple[int, int]] = {}  # To checksum, term before.
        self._elections = Elections(world)
        self._progress = Progress(world, self._elections)
        self._gate = Gate(self._refuse)
        self._echoes = Echoes()
        self._durability = Durability(self._refuse)
        self._stamps: dict[tuple[str, int, int], tuple[float, int]] = {}  # Each tenure's first.
        self._newest_ms = 0
        self._durable: dict[str, tuple[int, int]] = {}  # What members had on disk when they died.
        self._terms: dict[str, int] = {}  # Of each member, over its lives.
        self._results: dict[int, list[BatchResult]] = {}
        self.taken: dict[bytes, Taken] = {}  # Commands, by what they are.
        self._digests: dict[int, tuple[bytes, str]] = {}
        self._agreed = 0  # The index of the state that was last held against the model.
        self.died: Callable[[Node], None] = lambda _node: None
        self.lost_power: Callable[[Node], None] = lambda _node: None
        self.failed: Callable[[Node, Exception], bool] = lambda _node, _error: False
        world.watcher = self

    # ``world.Watcher``.

    def logged(self, node: Node, event: str, fields: dict[str, object]) -> None:
        """See ``Watcher``."""
        self.world.sometimes(f"log: {event}")
        seen = self._seen.get(node.name)
        if event == "snapshot installed" and seen is not None and seen.applied:
            self.world.sometimes("a snapshot came to a node that had a log")

    def dying(self, node: Node) -> None:
        """See ``Watcher``: which interesting moment is being interrupted."""
        interrupted(self.world, node)
        self._gate.dying(node)
        journal = node.running.journal
        index = journal.durable_index
        self._durable[node.running.self_id] = (index, journal.term_at(index) or 0)

    def delivered(self, node: Node, peer: str, frame: bytes) -> None:
        """See ``Watcher``."""
        if len(frame) < 5 or not (frame[1] == OFFER or (frame[1], frame[4]) in LISTENED_TO):
            return
        member = node.running.links.peers.by_name[peer].member
        if member is None:
            return  # Nobody has said yet who speaks.
        match wire.decode(frame):
            case wire.Raft(message=message):
                self._elections.heard(node, member, message)
                self._gate.heard(node, message)
                self._echoes.heard(node, member, message)
            case wire.SnapshotOffer() as offer:
                self._echoes.offered(node, peer, offer)
            case other:
                raise AssertionError(other)

    def appended(self, node: Node, commands: int) -> None:
        """See ``Watcher``."""
        if commands > 1:
            self.world.sometimes("commands shared an entry")
        self._stamped(node)

    def watched(self, node: Node) -> None:
        """See ``Watcher``."""
        seen = self._seen.get(node.name)
        if seen is None or seen.life != node.life:
            seen = self._begun(node)
        if node.disk.sync_failed:
            self._must_stop(node, seen)
        look = look_at(node)
        if look == seen.look:
            if seen.state == CANDIDATE or self._gate.handles(node):
                self._heard(node, seen)
            return
        (store, log, _), seen.look = seen.look, look
        if store != look[0]:
            self._store_changed(node, seen)
        if log != look[1]:
            self._refuse(node, self._durability.watched(node, node.running.journal))
        self._compared(node, seen)
        if (applied := node.running.machine.applied_index) != seen.applied:
            self._applied_moved(node, seen, applied)

    def _begun(self, node: Node) -> Seen:
        seen = self._seen[node.name] = Seen(node.life)
        begun(self.world, node)
        self._takes(node)
        self._gate.begun(node)
        self._durability.begun(node)
        self._found_again(node)
        return seen

    def _compared(self, node: Node, seen: Seen) -> None:
        """The log, and what the consensus makes of it."""
        core, journal = node.running.consensus.core, node.running.journal
        last, last_term = journal.last_index, journal.last_term
        if last != seen.last or last_term != seen.last_term:
            self._log_changed(node, journal, seen)
            seen.last, seen.last_term = last, last_term
        state, term, vote = core.state, core.term, core.voted_for
        if state != seen.state or term != seen.term or vote != seen.vote:
            self._role_changed(node, seen)
            if seen.state == LEADER:
                leads_no_more(self.world, node, same_term=term == seen.term)
            seen.state, seen.term, seen.vote = state, term, vote
        self._heard(node, seen)
        if (commit := core.commit_index) != seen.commit:
            self._commit_moved(node, seen, commit)
        if state == LEADER:
            self._refuse(node, self._progress.watched(node, core))

    def _heard(self, node: Node, seen: Seen) -> None:
        wrong = self._gate.watched(node, seen.commit)
        self._refuse(node, wrong or self._echoes.watched(node, seen.state, seen.term, seen.look))

    def _store_changed(self, node: Node, seen: Seen) -> None:
        machine = node.running.machine
        if machine is not seen.machine:
            seen.machine = machine
            self._listen(node, machine)
        self._fetches(node, seen)

    # The log.

    def _log_changed(self, node: Node, journal: Journal, seen: Seen) -> None:
        """Log matching: the same index and term, the same entry and the same before it."""
        first = seen.last
        while first > journal.base_index and (
            first > journal.last_index or not self._is_known(journal, first)
        ):
            first -= 1
        if first < seen.last:
            self.world.sometimes("a log's uncommitted tail was cut")
        first = max(first, journal.base_index)
        if first >= journal.last_index:
            return
        before = journal.term_at(first) or 0
        for entry in journal.slice(first + 1, journal.last_index):
            if membership_change(entry.payload) is not None:
                self._membership_changes(node, entry)
            fact = (crc32(entry.payload), before)
            known = self._entries.setdefault((entry.index, entry.term), fact)
            if known != fact:
                self._broken(node, f"log matching: entry {entry.index} of term {entry.term}")
            before = entry.term

    def _membership_changes(self, node: Node, entry: LogEntry) -> None:
        """Changes come one at a time, and after the leader has committed in its own term."""
        consensus, journal = node.running.consensus, node.running.journal
        if not consensus.is_leader or entry.term != consensus.term:
            return
        if journal.term_at(consensus.commit_index) != consensus.term:
            self._broken(node, f"changes the members at {entry.index}, before its own first commit")
        first = max(consensus.commit_index, journal.base_index) + 1
        changes = [membership_change(one.payload) for one in journal.slice(first, entry.index)]
        if sum(change is not None for change in changes) > 1:
            self._broken(node, f"changes the members twice at once, up to {entry.index}")

    def _is_known(self, journal: Journal, index: int) -> bool:
        return (index, journal.term_at(index) or 0) in self._entries

    # Terms, votes and leaders.

    def _role_changed(self, node: Node, seen: Seen) -> None:
        replica = node.running
        member, core = replica.self_id, replica.consensus.core
        if core.term < self._terms.get(member, 0):
            self._broken(node, f"term {core.term} after {self._terms[member]}")
        self._terms[member] = core.term
        if core.voted_for is not None:
            self._refuse(node, self._elections.voted(node, core.term, core.voted_for))
        if core.state == CANDIDATE and (seen.state != CANDIDATE or seen.term != core.term):
            self._refuse(node, self._elections.stands(node))
        if core.state == LEADER and (seen.state != LEADER or seen.term != core.term):
            self._refuse(node, self._elections.leads(node))
            self._leads(node)

    def _leads(self, node: Node) -> None:
        replica = node.running
        term, journal = replica.consensus.term, replica.journal
        leads(self.world, node)
        self._changes_nothing_yet(node)
        if self.leaders.setdefault(term, replica.self_id) != replica.self_id:
            self._broken(node, f"two leaders in term {term}")
        # Of what was committed before its term: a candidate may hear late that it has won.
        last = len(self.committed) - 1
        while last and self._committed_in[last] >= term:
            last -= 1
        if journal.last_index < last:
            self._broken(node, f"leader completeness: leads without entry {last}")
        if last > journal.base_index and journal.term_at(last) != self.committed[last][0]:
            self._broken(node, f"leader completeness: leads with another entry {last}")

    def _changes_nothing_yet(self, node: Node) -> None:
        """Asked to change the members when it has only just been elected, a leader declines."""
        core, journal = node.running.consensus.core, node.running.journal
        if core.others and journal.term_at(core.applied_index) != core.term:
            change = MembershipChange(add=False, member=core.others[0])
            if core.change_membership(change):
                self._broken(node, f"agrees to {change}, before its own first commit")

    # Commits.

    def _commit_moved(self, node: Node, seen: Seen, commit: int) -> None:
        if commit < seen.commit:
            self._broken(node, f"the commit index fell from {seen.commit} to {commit}")
        journal = node.running.journal
        if node.disk.sync_failed:
            return  # Nothing can be read of it any more; see ``_must_stop``.
        if commit > journal.last_index:
            self._broken(node, f"commits {commit}, beyond its log")
        first = max(seen.commit, journal.base_index) + 1
        if first > len(self.committed):
            self._broken(node, f"commits from {first} on what nobody knows of")
        if commit >= first:
            for entry in journal.slice(first, commit):
                self._commits(node, entry.index, entry.term, crc32(entry.payload))
        elif commit >= len(self.committed):
            self._broken(node, f"commits {commit}, which nobody knows of")
        core = node.running.consensus.core
        if seen.state == core.state == LEADER and journal.term_at(commit) != core.term:
            self._broken(node, f"commits {commit}, which is of an older term, by counting")
        seen.commit = commit

    def _commits(self, node: Node, index: int, term: int, checksum: int) -> None:
        if index < len(self.committed):
            if self.committed[index] != (term, checksum):
                self._broken(node, f"state machine safety: entry {index} was committed otherwise")
            return
        self.committed.append((term, checksum))
        self._committed_in.append(node.running.consensus.term)
        if term < node.running.consensus.term and node.running.consensus.is_leader:
            self.world.sometimes("an entry of an older term was committed by a later leader")
        if index % DISK_EVERY == 0:
            self._on_most_disks(node, index, term)

    def _on_most_disks(self, node: Node, index: int, term: int) -> None:
        """A committed entry would be found on a majority's disks if power failed now."""
        members = sorted(node.running.consensus.members)
        holders: list[str] = []
        for member in members:
            if self._on_disk(member, index, term):
                holders.append(member)
                if 2 * len(holders) > len(members):
                    return
        self._broken(node, f"entry {index} is committed, on disk with {holders} of {members}")

    def _on_disk(self, member: str, index: int, term: int) -> bool:
        node = self.world.nodes[node_of(member)]
        if node.is_up and node.running.self_id != member:
            return False
        try:
            # A journal that is not there is a new one, of one small segment.
            disk, path = node.disk.at_worst(JOURNAL), JOURNAL
            journal = Journal.open(disk, path, segment_bytes=node.storage.segment_bytes)
        except Corruption:
            return False
        return journal.base_index >= index or journal.term_at(index) == term

    # Applying.

    def _listen(self, node: Node, machine: Machine) -> None:
        honest, born, store = machine.apply, machine.applied_index, agreement.Store(machine)

        def apply(index: int, term: int, entry: Entry | None) -> list[BatchResult]:
            results = honest(index, term, entry)
            if index > self.oracle.index:
                self._results[index] = results
                try:
                    self.oracle.applied((index, term), entry, results, store, born)
                except AssertionError as error:
                    self._broken(node, f"entry {index} means something else: {results} {error!r}")
            elif self._results[index] != results:
                self._broken(node, f"entry {index} has two outcomes: {results}")
            return results

        replaced: Any = machine
        replaced.apply = apply
        self._durability.opened(node)

    def _takes(self, node: Node) -> None:
        """Note what a leader takes: it may be told before it has happened."""
        sequencer, consensus = node.running.sequencer, node.running.consensus
        honest = sequencer.add

        def add(batch: Batch, encoded: bytes, requests: int) -> bool:
            is_taken = honest(batch, encoded, requests)
            if is_taken and consensus.is_leader:
                for command in batch.commands:
                    taken = self.taken.setdefault(key_of(command), Taken(self.world.now))
                    taken.term = max(taken.term, consensus.term)
            return is_taken

        replaced: Any = sequencer
        replaced.add = add

    def _applied_moved(self, node: Node, seen: Seen, applied: int) -> None:
        if applied < seen.applied:
            self._broken(node, f"the state went back from {seen.applied} to {applied}")
        if applied >= len(self.committed):
            self._broken(node, f"applied {applied}, which is not committed")
        replica = node.running
        if applied > replica.journal.last_index:
            self._broken(node, f"applied {applied}, beyond its log")
        seen.applied = applied
        if applied % DISK_EVERY == 1 and not self._on_disk(
            replica.self_id, applied, self.committed[applied][0]
        ):
            self._broken(node, f"applied {applied}, which is not on its disk")
        if applied % DIGEST_EVERY == 0:
            self.digest(node, thorough=applied % AGREES_EVERY == 0)

    def digest(self, node: Node, *, thorough: bool = True) -> None:
        """Equal state at equal index, and, if ``thorough``, the one that the log says."""
        replica = node.running
        index = replica.machine.applied_index
        mine = digest(replica.reader())
        known, whose = self._digests.setdefault(index, (mine, node.name))
        if known != mine:
            self._broken(node, f"the state at {index} is another than that of {whose}")
        if thorough and index == self.oracle.index != self._agreed:
            self._agreed = index  # For every node whose digest is this one.
            self._agrees(node, index)

    def _agrees(self, node: Node, index: int) -> None:
        reader, oracle = node.running.reader(), self.oracle
        try:
            agreement.agrees(reader, oracle.model, oracle.told, self.world.sometimes)
        except AssertionError as error:
            self._broken(node, f"the state at {index} is not what the log says: {error!r}")

    # Time, and lives.

    def _stamped(self, node: Node) -> None:
        """Log time goes with the leader's clock, a tenth faster at most, whatever the wall says."""
        replica, now = node.running, self.world.now
        stamp_ms = replica.sequencer._last_stamp_ms
        self._newest_ms = max(self._newest_ms, stamp_ms)
        if not replica.stamps._live:
            return
        # It may go up at once to what a faster clock has stamped before it led.
        tenure = (node.name, node.life, replica.consensus.term)
        since, first_ms = self._stamps.setdefault(tenure, (now, self._newest_ms))
        elapsed_ms = (now - since) * 1000 * node.clock_rate
        if stamp_ms - first_ms > 1.1 * elapsed_ms + ROUNDING_MS:
            gone_ms = stamp_ms - first_ms
            self._broken(node, f"log time went on by {gone_ms} ms in {elapsed_ms:.0f} ms")

    def _must_stop(self, node: Node, seen: Seen) -> None:
        """After a failed fsync nobody knows what is on disk: the process has to end."""
        seen.sync_failed_at = min(seen.sync_failed_at, self.world.now)
        if self.world.now - seen.sync_failed_at > STOPS_WITHIN_S:
            self._broken(node, "goes on after a failed fsync")

    def _fetches(self, node: Node, seen: Seen) -> None:
        """A snapshot is worth fetching if it is ahead of what a node has applied."""
        replica = node.running
        if replica.snapshots_installed != seen.installed:
            seen.installed = replica.snapshots_installed
            self._echoes.installed(node)
        manifest = replica._fetching._manifest
        if manifest is seen.fetching:
            return
        seen.fetching, applied = manifest, replica.machine.applied_index
        if manifest is not None and manifest.index <= applied:
            self._broken(node, f"fetches a snapshot of {manifest.index}, has applied {applied}")

    def _found_again(self, node: Node) -> None:
        """What was on disk when a member died is there when it starts."""
        journal = node.running.journal
        if (applied := node.running.machine.applied_index) and not node.running.formed:
            self._broken(node, f"starts with the state at {applied} and without a membership")
        index, term = self._durable.get(node.running.self_id, (0, 0))
        if journal.base_index < index and journal.term_at(index) != term:
            self._broken(node, f"has lost entry {index} of term {term}, which was on its disk")

    def _refuse(self, node: Node, what: str | None) -> None:
        if what is not None:
            self._broken(node, what)

    def _broken(self, node: Node, what: str) -> None:
        self.world.note("violation", node.name, what)
        raise Violation(f"{self.world.now:.4f} {node.name}: {what}")
