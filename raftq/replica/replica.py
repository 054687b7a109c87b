"""One node: log, consensus, state machine and store behind one door.

Everything runs on the thread of the runtime. The way of a command: ``submit`` ->
``Submitter`` (a batch) -> ``Sequencer`` on the leader (an entry) -> ``Consensus`` ->
``apply`` here, on every node -> the outcome to whoever waits on this one.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from raftq import snapshots
from raftq.config import Config
from raftq.consensus.consensus import Consensus
from raftq.consensus.guard import Intervention
from raftq.consensus.messages import RaftMessage, membership_change
from raftq.disk import Disk
from raftq.journal import Journal, LogEntry, TermFile
from raftq.replica import wire
from raftq.replica.applier import Applier
from raftq.replica.digests import Digests
from raftq.replica.duties import Duties
from raftq.replica.handover import Handover
from raftq.replica.identity import load_identity, member_id, node_of
from raftq.replica.links import Links
from raftq.replica.membership import Membership, MembershipFile, cluster_id, decode_membership
from raftq.replica.meter import Log, Meter
from raftq.replica.sequencer import Sequencer
from raftq.replica.stamps import Stamps
from raftq.replica.storekeeper import StoreKeeper
from raftq.replica.submitter import Submitter
from raftq.replica.syncing import Syncing
from raftq.replica.transfer import Fetching, Serving
from raftq.replica.upkeep import Upkeep
from raftq.replica.waiters import Waiters
from raftq.replica.wire import GROUP
from raftq.runtime import Runtime, Timer
from raftq.snapshots import Manifest, Snapshot
from raftq.stores.home import Home
from raftq.transport.network import Network
from statemachine import queries
from statemachine.commands import Batch, Command, OpenSession, ReportDigest
from statemachine.kv import Reader
from statemachine.machine import BatchResult, Machine
from statemachine.outcomes import Outcome, Swept

GOSSIP_S = 1.0
TIMER_SLACK_S = 0.001


class Replica:
    """See the module. Construct, then ``start``."""

    def __init__(
        self,
        config: Config,
        *,
        runtime: Runtime,
        disk: Disk,
        network: Network,
        home: Home,
        meter: Meter,
        log: Log,
        bootstrap: bool = False,
    ) -> None:
        node = config.node
        self.config = config
        self.name = node.name
        self._runtime, self._disk = runtime, disk
        self._home, self._meter, self._log = home, meter, log
        disk.make_directory(node.data_dir)
        identity = load_identity(disk, self._path("identity"), node.name, runtime)
        self.identity = identity
        self.self_id = member_id(node.name, identity)
        self._membership = MembershipFile(disk, self._path("members"))
        self.journal = Journal.open(
            disk,
            self._path("journal"),
            segment_bytes=config.storage.segment_bytes,
            cache_bytes=config.storage.journal_cache_bytes,
        )
        self._applier = Applier(home, runtime, self)
        self._applier.reconcile(self.journal)
        self.stamps = Stamps(runtime)
        self._applier.follow_time(self.stamps, self.journal.last_index)
        self.consensus = self._make_consensus()
        self.sequencer = self._make_sequencer()
        self.links = self._make_links(network, bootstrap=bootstrap)
        self.waiters = Waiters()
        self.submitter = self._make_submitter()
        self.submit, self.submit_all = self.submitter.submit, self.submitter.submit_all
        self._keeper = StoreKeeper(runtime)
        self._digests = Digests(runtime, self._digest_done)
        self._serving = Serving(self, disk, runtime, self.links.send)
        self._fetching = Fetching(disk, home, runtime, self.links.send, self._install_soon)
        self._upkeep = self._make_upkeep()
        self._syncing = Syncing(self.journal, runtime, meter, self._synced)
        self._duties = Duties(
            self.consensus, lambda: self.machine, self.sequencer, self.stamps, runtime, log
        )
        self.handover = self._make_handover()
        self._tick_is_due = False
        self._deadline_timer: tuple[float, Timer] | None = None
        self._leadership_known: tuple[str | None, int] = (None, 0)
        self.snapshots_installed = 0
        self.stopping = False

    def _make_consensus(self) -> Consensus:
        return Consensus(
            self,
            self_id=self.self_id,
            members=self._membership.at_end_of(self.journal),
            journal=self.journal,
            terms=TermFile(self._disk, self._path("term")),
            applied_index=self.machine.applied_index,
            timing=self.config.raft,
            window_bytes=self.config.raft.peer_window_bytes,
            runtime=self._runtime,
        )

    def _make_sequencer(self) -> Sequencer:
        return Sequencer(
            self.consensus,
            self._runtime,
            self.stamps,
            self.wake,
            entry_bytes_max=self.config.raft.entry_bytes_max,
            entries_in_flight_max=self.config.raft.inflight_entries_max,
            meter=self._meter,
        )

    def _make_submitter(self) -> Submitter:
        return Submitter(
            self,
            self._runtime,
            self._meter,
            name=self.name,
            pending_max=self.config.api.pending_max,
            pending_bytes_max=self.config.api.pending_bytes_max,
            timeout_s=self.config.raft.request_timeout_ms / 1000,
            expect=lambda command: self.waiters.expect(command, self.machine),
        )

    def _make_links(self, network: Network, *, bootstrap: bool) -> Links:
        return Links(
            self,
            self.config,
            network=network,
            identity=self.identity,
            membership=self._membership,
            log=self._log,
            monotonic=self._runtime.monotonic,
            bootstrap=bootstrap,
        )

    def _make_handover(self) -> Handover:
        return Handover(
            self.consensus,
            self.sequencer,
            self.config,
            peers=self.links.peers,
            syncing=self._syncing,
            runtime=self._runtime,
            log=self._log,
        )

    def _make_upkeep(self) -> Upkeep:
        return Upkeep(
            self.config.storage,
            runtime=self._runtime,
            journal=self.journal,
            applier=self._applier,
            membership=self._membership,
            keeper=self._keeper,
            sequencer=self.sequencer,
            held_from=self._serving.needed_from,
            log=self._log,
        )

    # Starting.

    def start(self) -> None:
        """Listen to the others and begin."""
        self.links.start()
        self._log.info(
            "replica started",
            identity=self.identity,
            applied=self.machine.applied_index,
            last=self.journal.last_index,
            term=self.consensus.term,
            members=sorted(self.consensus.members),
        )
        self._gossip()
        self._upkeep.start()
        self.wake()

    def _path(self, name: str) -> str:
        return os.path.join(self.config.node.data_dir, name)

    @property
    def machine(self) -> Machine:
        """The state machine."""
        return self._applier.machine

    @property
    def formed(self) -> bool:
        """Whether this node belongs to a cluster."""
        return self._membership.current is not None

    @property
    def cluster_id(self) -> str:
        """The cluster's name, or empty."""
        return self._membership.cluster_id

    # What front ends ask for.

    def reader(self) -> Reader:
        """The applied state."""
        return self._applier.reader()

    @property
    def snapshots_sent(self) -> int:
        """Snapshots that another node has fetched whole."""
        return self._serving.sent

    @property
    def role(self) -> str:
        """``leader``, ``candidate``, ``follower`` or ``joining``."""
        if self.consensus.is_leader:
            return "leader"
        if not self.consensus.is_member:
            return "joining"
        return "candidate" if self.consensus.is_candidate else "follower"

    @property
    def leader(self) -> str | None:
        """The leader's node name, if one is known."""
        return None if self.consensus.leader is None else node_of(self.consensus.leader)

    # What the other nodes say (``links.Inside``).

    def raft_received(self, member: str, message: RaftMessage) -> None:
        """See ``links.Inside``."""
        self.consensus.receive(member, message)
        self._syncing.go_on()

    def batch_received(
        self, peer: str, batch: Batch, encoded: bytes, *, tell: bool, requests: int
    ) -> None:
        """See ``links.Inside``."""
        # When this node does not lead, the sender hears of the new leader and sends it there.
        if self.consensus.is_leader and self.sequencer.add(batch, encoded, requests) and tell:
            self.links.send(peer, wire.Accepted(GROUP, batch.session, batch.seq))

    def batch_accepted(self, session: int, seq: int) -> None:
        """See ``links.Inside``."""
        self.submitter.accepted(session, seq)

    def snapshot_offered(self, peer: str, member: str, term: int, manifest: Manifest) -> None:
        """See ``links.Inside``."""
        following = self.consensus.leader == member and term == self.consensus.term
        if following and manifest.engine != self._home.engine.name:
            self._log.warning("snapshot is of another engine", engine=manifest.engine, peer=peer)
        elif following and manifest.index > self.machine.applied_index:
            self._fetching.on_offer(peer, term, manifest)

    def chunk_wanted(self, peer: str, fetch: wire.SnapshotFetch) -> None:
        """See ``links.Inside``."""
        self._serving.on_fetch(peer, fetch)

    def chunk_received(self, peer: str, chunk: wire.SnapshotChunk) -> None:
        """See ``links.Inside``."""
        self._fetching.on_chunk(peer, chunk)

    def linked(self, member: str, *, connected: bool) -> None:
        """See ``links.Inside``."""
        self.consensus.set_connected(member, connected)
        if not connected:
            self.handover.disconnected(member)
        if connected and member == self.consensus.leader:
            self.submitter.leader_changed()

    def founded(self, members: tuple[str, ...]) -> None:
        """See ``links.Inside``."""
        self._log.info("cluster founded", members=list(members))
        self._membership.store(Membership(cluster_id(members), 0, members))
        self.consensus.set_members(members)
        self.wake()

    # What the consensus asks for (``consensus.Host``).

    def send(self, member: str, message: RaftMessage) -> bool:
        """See ``consensus.Host``."""
        return self.links.send(node_of(member), wire.Raft(GROUP, message))

    def needs_snapshot(self, member: str) -> None:
        """See ``consensus.Host``."""
        self._serving.offer(node_of(member), self.consensus.term, self.journal.base_index)

    def intervened(self, what: Intervention) -> None:
        """See ``consensus.Host``."""
        self._meter.intervened(what)

    def wake(self) -> None:
        """See ``consensus.Host``."""
        if not self._tick_is_due:
            self._tick_is_due = True
            self._runtime.call_soon(self._tick)

    def role_changed(self) -> None:
        """See ``consensus.Host``."""
        if not self.consensus.is_leader:
            self.sequencer.clear()
            self._duties.leads_no_more()
        leader, term = self.consensus.leader, self.consensus.term
        # The same leader in another term has forgotten what it had queued in the first.
        if (leader, term) == self._leadership_known:
            return
        self._leadership_known = (leader, term)
        self.handover.leadership_changed()
        self._log.info("leader changed", leader=leader, term=term, role=self.role)
        if leader is not None:
            self._meter.leader_changed()
            self._runtime.call_soon(self.submitter.leader_changed)
        if self.consensus.is_leader:
            self._runtime.call_soon(self._duties.arm)

    def apply(self, entries: list[LogEntry]) -> None:
        """See ``consensus.Host``."""
        if not self.sequencer.has_more:  # Else the news goes with what is appended next.
            self.consensus.flush()
            self.links.flush()  # The others answer their clients while this node does.
        started = self._runtime.monotonic()
        applied = self._applier.apply(entries, self.sequencer.take)
        for result, batch in applied:
            self._settle(result, batch)
        self.waiters.applied(self.machine)
        self._duties.arm()
        count = sum([len(batch) for _, batch in applied])
        self._meter.applied(len(entries), count, self._runtime.monotonic() - started)

    def membership_applied(self, entry: LogEntry) -> None:
        """See ``applier.Listener``."""
        change = membership_change(entry.payload)
        assert change is not None
        self._membership.applied(entry)
        at, member = entry.index, change.member
        self._log.info("membership changed", add=change.add, member=member, index=at)

    def digest_wanted(self, index: int) -> None:
        """See ``applier.Listener``."""
        self._digests.take(index, self._applier.store)

    def _settle(self, result: BatchResult, batch: tuple[Command, ...]) -> None:
        if result.session:
            self.submitter.applied(result.session, result.seq, result.outcomes)
            return
        for command, outcome in zip(batch, result.outcomes, strict=True):
            self._settle_own(command, outcome)

    def _settle_own(self, command: Command, outcome: Outcome) -> None:
        match command:
            case OpenSession():
                self.submitter.session_opened(command.node, outcome)
            case ReportDigest():
                self._digests.reported(command.index, command.digest)
            case _:
                self._duties.applied(command)
        if isinstance(outcome, Swept) and outcome.count:
            self._log.debug("swept", count=outcome.count, more=outcome.more)

    # The submitter's way to the leader (``submitter.Leader``).

    def offer(self, batch: Batch, encoded: bytes, *, tell: bool, requests: int) -> bool:
        """See ``submitter.Leader``."""
        if self.consensus.is_leader:
            taken = self.sequencer.add(batch, encoded, requests)
            if taken and tell:
                session, seq = batch.session, batch.seq
                self._runtime.call_soon(lambda: self.submitter.accepted(session, seq))
            return taken
        leader = self.leader
        frame = wire.Propose(GROUP, encoded, tell, requests)
        return leader is not None and self.links.send(leader, frame)

    # The loop.

    def _synced(self) -> None:
        self.consensus.synced()
        self.sequencer.synced()

    def _tick(self) -> None:
        self._tick_is_due = False
        self.consensus.tick()
        self.sequencer.pump()
        self.consensus.flush()
        self._syncing.go_on_soon()
        self._arm_deadline()

    def _arm_deadline(self) -> None:
        """Deadlines mostly move away: a timer that fires early finds nothing due."""
        deadline = self.consensus.next_deadline() + TIMER_SLACK_S
        if self._deadline_timer is not None:
            if self._deadline_timer[0] <= deadline:
                return
            self._deadline_timer[1].cancel()
        delay = max(TIMER_SLACK_S, deadline - self._runtime.monotonic())
        self._deadline_timer = (deadline, self._runtime.call_later(delay, self._deadline_passed))

    def _deadline_passed(self) -> None:
        self._deadline_timer = None
        if self.consensus.is_leader or self._runtime.monotonic() > self.consensus.next_deadline():
            self.wake()
        else:
            self._arm_deadline()

    # Housekeeping.

    def _gossip(self) -> None:
        """About once a second: tell the others, and see whether the members are all there."""
        consensus = self.consensus
        self.stamps.now_ms()  # So that it follows the wall clock also while nothing is written.
        consensus.disk_hangs(self._syncing.hangs(self.config.raft.leader_fallback_ms / 1000))
        applied, sync_s = self.machine.applied_index, self._syncing.lately_s()
        self.links.tell(self.role, consensus.term, applied, sync_s)
        if consensus.is_leader:
            self.handover.look()
            change = self.links.peers.change(consensus.members, self.cluster_id)
            if change is not None and consensus.change_membership(change):
                self._log.info("changing membership", add=change.add, member=change.member)
        self._runtime.call_later(GOSSIP_S, self._gossip)

    def _digest_done(self, index: int, digest: bytes) -> None:
        self._log.debug("digest taken", index=index, digest=digest.hex())
        if self.consensus.is_leader:
            self.sequencer.propose_own(ReportDigest(index, digest))

    # Snapshots.

    def make_snapshot(self, done: Callable[[Snapshot], None]) -> None:
        """See ``transfer.Maker``."""

        def work() -> Snapshot:
            return snapshots.make(
                self._home.engine,
                self._applier.store,
                self._disk,
                self._path("snapshots"),
                applied=queries.applied,
                # Asked after the copy is taken: a newer membership does no harm, an older would.
                extra=lambda _index: msgspec.msgpack.encode(self._membership.current),
            )

        self._applier.settle()
        self._keeper.run(work, done)

    def _install_soon(self, manifest: Manifest, sender: str, term: int) -> None:
        self._keeper.run_on_loop(lambda: self._install(manifest, sender, term))

    def _install(self, manifest: Manifest, sender: str, term: int) -> None:
        """Switch to the received store, in an order that any crash between two steps survives."""
        self._fetching.installing_is_over()
        if manifest.index <= self.machine.applied_index:
            return
        self._digests.cancel()
        membership = decode_membership(manifest.extra)
        self._membership.store(membership)
        self._applier.switch()
        assert self.machine.applied_index == manifest.index, manifest.index
        if self.journal.term_at(manifest.index) != manifest.term:
            self.journal.reset(manifest.index, manifest.term)
        self.stamps.observe(self.machine.stamp_ms, live=True)
        members = self._membership.at_end_of(self.journal)
        self.snapshots_installed += 1
        self._log.info("snapshot installed", index=manifest.index, members=members)
        member = self.links.peers.by_name[sender].member or ""
        self.consensus.adopt_snapshot(manifest.index, members, member, term)
        self.links.greet_all()
        self.submitter.leader_changed()
        self.waiters.wake_everybody(self.machine.applied_index)

    # Stopping.

    def stop(self, done: Callable[[], None]) -> None:
        """Take nothing more, hand over leadership, finish what is under way, then ``done``."""
        self.stopping = True
        self.submitter.stop()
        self.waiters.wake_everybody(self.machine.applied_index)  # To hear that we stop.
        self.waiters.stopping()
        deadline = self._runtime.monotonic() + self.config.raft.request_timeout_ms / 2000
        self.handover.leave(deadline, lambda: self.submitter.pending, done)

    def close(self) -> None:
        """Release files; the network is the caller's to close."""
        self._digests.cancel()
        self._home.close()
        self.journal.close()
