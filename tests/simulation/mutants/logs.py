"""Mutants of the journal: what is on disk, and what a start finds there."""

from __future__ import annotations

from raftq.journal import recovery, segment
from raftq.journal.journal import Journal
from raftq.journal.survey import Survey
from raftq.journal.sync import SyncWork
from raftq.replica.upkeep import Upkeep
from simulation.mutants.damage import Edit, Mutant, mutant

# Not here: a ``reset`` that does not sync the new name before the old segments go. If a crash
# takes both, the store, which was switched before, is ahead: ``Applier.reconcile`` resets again.

MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "journal-not-synced",
        "What was written to the journal counts as durable without a sync.",
        Edit(SyncWork, "run", "file.sync()", "pass"),
    ),
    mutant(
        "segment-name-not-synced",
        "A new segment's name may be lost with all that was synced into it.",
        Edit(SyncWork, "run", "if self._sync_names is not None:", "if False:"),
    ),
    mutant(
        "failed-sync-swallowed",
        "A sync that failed counts as one that succeeded.",
        Edit(SyncWork, "run", "self._failed(error)\n        raise", "pass"),
    ),
    mutant(
        "failed-sync-repeated",
        "A sync that failed is repeated, and believed when it succeeds.",
        Edit(
            SyncWork,
            "run",
            "self._failed(error)\n        raise",
            "[file.sync() for file in self.files]",
        ),
    ),
    mutant(
        "seal-before-durable",
        "A seal says that all which was written is durable, synced or not.",
        Edit(
            Journal,
            "_encode_seal",
            "layout.seal_payload(self._durable)",
            "layout.seal_payload(self._written)",
        ),
    ),
    mutant(
        "truncation-not-written",
        "Entries are voided in memory and not on disk.",
        Edit(
            Journal,
            "truncate_from",
            'self._write(layout.TRUNCATE, index, term_before, b"")',
            "pass",
        ),
    ),
    mutant(
        "durable-index-outlives-truncation",
        "What takes the place of voided entries counts as durable at once.",
        Edit(
            Journal,
            "truncate_from",
            "self.durable_index = min(self.durable_index, index - 1)\n"
            "    self._in_flight_index = min(self._in_flight_index, index - 1)",
            "pass",
        ),
    ),
    mutant(
        "sync-outlives-truncation",
        "A sync under way when entries are voided makes those in their place durable.",
        Edit(
            Journal,
            "truncate_from",
            "self._in_flight_index = min(self._in_flight_index, index - 1)",
            "pass",
        ),
    ),
    mutant(
        "torn-tail-takes-more",
        "Where a torn tail is cut off, the last whole entry goes too.",
        Edit(
            Journal,
            "open",
            "return cls(disk, directory, segment_bytes=segment_bytes, cache_bytes=cache_bytes)",
            "opened = cls(disk, directory, segment_bytes=segment_bytes, cache_bytes=cache_bytes)\n"
            "    if opened.recovery is not None and opened.last_index > opened.base_index:\n"
            "        opened.truncate_from(opened.last_index)\n"
            "    return opened",
        ),
    ),
    mutant(
        "rot-taken-for-torn",
        "Damage below a seal is cut off like a torn tail.",
        Edit(Survey, "corrupt", "fault.impossible or self.sealed > fault.position", "False"),
    ),
    mutant(
        "segment-filled-again-too-early",
        "The file of a cut segment is used again before its name is surely gone.",
        Edit(Journal, "_delete_oldest", "self._disk.sync_directory(self._directory)", "pass"),
    ),
    mutant(
        "recovery-not-synced",
        "What a start finds in the page cache is taken to be on disk.",
        Edit(recovery, "_make_durable", "file.sync()", "pass"),
    ),
    mutant(
        "reset-not-synced",
        "A journal begun anew is renamed into its place before its content is on disk.",
        Edit(segment, "start_history", "spare.file.sync()", "pass"),
    ),
    mutant(
        "journal-cut-beyond-the-store",
        "The journal is cut up to what the store has applied, durable or not.",
        Edit(
            Upkeep,
            "_flush",
            "self._truncate(applied)",
            "self._truncate(self._applier.machine.applied_index)",
        ),
    ),
    mutant(
        "store-not-flushed",
        "The journal is cut behind a store that was never flushed.",
        Edit(Upkeep, "_flush", "lambda: self._applier.store.flush()", "lambda: None"),
    ),
)
