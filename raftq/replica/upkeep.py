"""What a node does now and then: flush the store, cut the journal behind it, ask for digests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from raftq.config.schema import StorageConfig
from raftq.journal import Journal
from raftq.replica.applier import Applier
from raftq.replica.membership import MembershipFile
from raftq.replica.meter import Log
from raftq.replica.sequencer import Sequencer
from raftq.replica.storekeeper import StoreKeeper, compaction_point
from raftq.runtime import Runtime
from statemachine.commands import TakeDigest

STEP_S = 0.01
"""From one segment of the journal that is given up to the next: each takes a sync of the names,
which others who want the disk make long."""


class Upkeep:
    """The node's own timers on its storage."""

    def __init__(
        self,
        config: StorageConfig,
        *,
        runtime: Runtime,
        journal: Journal,
        applier: Applier,
        membership: MembershipFile,
        keeper: StoreKeeper,
        sequencer: Sequencer,
        held_from: Callable[[], int | None],
        log: Log,
    ) -> None:
        self._config, self._runtime, self._log = config, runtime, log
        self._journal, self._applier, self._membership = journal, applier, membership
        self._keeper, self._sequencer = keeper, sequencer
        self._held_from = held_from  # The journal is needed after this index, for a snapshot.

    def start(self) -> None:
        """Begin with the timers."""
        self._flush_later()
        self._digest_later()

    def _flush_later(self) -> None:
        self._runtime.call_later(self._config.flush_interval_ms / 1000, self._flush)

    def _flush(self) -> None:
        self._applier.settle()
        applied = self._applier.machine.applied_index

        def done(_result: None) -> None:
            self._truncate(applied)

        # Looked up when its turn comes: a snapshot may have been installed by then.
        self._keeper.run(lambda: self._applier.store.flush(), done)

    def _truncate(self, applied_durable: int) -> None:
        point = compaction_point(self._journal, applied_durable, self._config.journal_keep_bytes)
        held_from = self._held_from()
        point = point if held_from is None else min(point, held_from)
        before = self._journal.base_index
        if point > before:
            self._membership.advance(applied_durable)
        # Even if that is nothing: files that were kept for a busier log may go.
        self._compact(self._journal.compact_to(point), before)

    def _compact(self, steps: Iterator[None], before: int) -> None:
        """A segment in a turn of the loop: a busy log has a hundred to give up at a time."""
        for _ in steps:
            self._runtime.call_later(STEP_S, lambda: self._compact(steps, before))
            return
        if self._journal.base_index > before:
            self._log.debug("journal truncated", base=self._journal.base_index)
        self._flush_later()

    def _digest_later(self) -> None:
        self._runtime.call_later(self._config.digest_interval_ms / 1000, self._ask_for_digest)

    def _ask_for_digest(self) -> None:
        self._sequencer.propose_own(TakeDigest())  # Goes nowhere unless this node leads.
        self._digest_later()
