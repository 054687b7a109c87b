"""Leadership given away in order: to a zone that is preferred, or because the node stops.

The leader appends nothing more, waits until the member it has chosen lacks nothing, and asks
it to stand at once. Nobody's request is lost: what the leader has not appended, its senders
send to the next one. If the member does not lead in time, the leader goes on.
"""

from __future__ import annotations

from collections.abc import Callable

from raftq.config import Config
from raftq.consensus.consensus import Consensus
from raftq.replica.identity import node_of
from raftq.replica.meter import Log
from raftq.replica.peers import Peers
from raftq.replica.placement import Placement, Standing
from raftq.replica.sequencer import Sequencer
from raftq.replica.syncing import Syncing
from raftq.runtime import Runtime

RETRY_S = 0.02


class Handover:
    """One node's ways to lead no more."""

    def __init__(
        self,
        consensus: Consensus,
        sequencer: Sequencer,
        config: Config,
        *,
        peers: Peers,
        syncing: Syncing,
        runtime: Runtime,
        log: Log,
    ) -> None:
        self._consensus, self._sequencer = consensus, sequencer
        self._peers, self._syncing = peers, syncing
        self._runtime, self._log = runtime, log
        self._patience_s = config.raft.election_timeout_max_ms / 1000
        self._placement = Placement(
            config.cluster.leader_zones,
            config.node.zone,
            hold_s=config.raft.move_hold_ms / 1000,
            pause_s=config.raft.move_pause_ms / 1000,
        )
        self._moving_to: str | None = None
        self._leaving = False
        self.moves = 0
        self.moves_failed = 0

    def look(self) -> None:
        """Now and then, on the leader: move to a better zone if it is time to."""
        if self._leaving or self._moving_to is not None:
            return
        target = self._placement.look(
            self._standings(),
            last_index=self._consensus.last_index,
            own_sync_s=self._syncing.lately_s(),
            now=self._runtime.monotonic(),
        )
        if target is not None:
            self._log.info("moving the leadership", to=node_of(target))
            self._moving_to = target
            self._move(target, self._runtime.monotonic() + self._patience_s, asked=False)

    def leadership_changed(self) -> None:
        """Another leader, another term, or none."""
        consensus, now = self._consensus, self._runtime.monotonic()
        if not consensus.is_leader and not self._leaving:
            self._sequencer.hold(False)
        if consensus.leader is not None:
            self._placement.led_by(consensus.leader, consensus.term, now)
            self._settle(consensus.leader)

    def disconnected(self, member: str) -> None:
        """A member cannot be reached."""
        self._placement.disconnected(member)

    def leave(self, deadline: float, pending: Callable[[], int], done: Callable[[], None]) -> None:
        """Give the leadership to whom it fits best, see ``pending`` through, then ``done``."""
        self._leaving = True
        self._leave(deadline, pending, done, asked=False)

    def _standings(self) -> list[Standing]:
        found = []
        for member in self._consensus.core.others:
            peer = self._peers.by_name.get(node_of(member))
            if peer is None or peer.hello is None or peer.state is None or peer.member != member:
                continue
            match_index = self._consensus.core.match_index(member)
            found.append(Standing(member, peer.hello.zone, match_index, peer.state.sync_us / 1e6))
        return found

    def _move(self, target: str, deadline: float, *, asked: bool) -> None:
        if self._leaving or self._moving_to != target or not self._consensus.is_leader:
            return  # ``leadership_changed`` hears how it ends.
        if self._runtime.monotonic() > deadline:
            self._sequencer.hold(False)
            self._settle(None)
            return
        self._sequencer.hold(True)
        asked = asked or self._consensus.transfer_leadership([target])
        self._runtime.call_later(RETRY_S, lambda: self._move(target, deadline, asked=asked))

    def _settle(self, leader: str | None) -> None:
        """A move that is under way has ended: with this leader, or by its deadline."""
        if self._moving_to is None:
            return
        moved = leader == self._moving_to
        self._moving_to = None
        self.moves += moved
        self.moves_failed += not moved
        self._placement.tried(self._runtime.monotonic(), moved=moved)
        if not moved:
            self._log.warning("the leadership could not be moved")

    def _leave(
        self, deadline: float, pending: Callable[[], int], done: Callable[[], None], *, asked: bool
    ) -> None:
        others = self._consensus.core.others
        leading = self._consensus.is_leader and bool(others)
        if self._runtime.monotonic() > deadline or not (leading or pending()):
            self._runtime.call_soon(done)
            return
        if leading and not asked:
            self._sequencer.hold(True)
            asked = self._consensus.transfer_leadership(self._by_preference())
        self._runtime.call_later(RETRY_S, lambda: self._leave(deadline, pending, done, asked=asked))

    def _by_preference(self) -> list[str]:
        def weight(member: str) -> int:
            peer = self._peers.by_name.get(node_of(member))
            hello = None if peer is None else peer.hello
            return 0 if hello is None else self._placement.weight(hello.zone)

        return sorted(self._consensus.core.others, key=weight, reverse=True)
