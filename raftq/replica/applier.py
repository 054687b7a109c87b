"""The store, the state machine over it, and the rounds in which committed entries are applied.

An entry's outcomes are known when it is applied. Its rows go to the store with those of the
entries after it, in one round: what each of them changes, the records of queues, accounts and
sessions, is written once. Nothing is lost by that which the log does not have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from raftq.consensus.messages import Kind
from raftq.journal import Journal, LogEntry
from raftq.replica.stamps import Stamps
from raftq.runtime import Runtime
from raftq.stores.home import Home
from statemachine import commands
from statemachine.commands import Command, Entry, TakeDigest
from statemachine.kv import Reader
from statemachine.machine import BatchResult, Machine

ROUND_ENTRIES_MAX = 64
ROUND_BYTES_MAX = 256 << 10
ROUND_S = 0.1
"""When a round ends at the latest, so that a quiet node does not wait for one more entry."""


class StoreBehindJournal(Exception):
    """The store lacks entries that the journal no longer holds."""


class RoundLost(Exception):
    """A round broke off: what the state machine knows is not what the store can be given."""


class UnknownKind(Exception):
    """A later version wrote this entry: this replica must not guess what it means."""


class Applied(NamedTuple):
    """One batch of a round: what it was answered, and what it had asked."""

    result: BatchResult
    commands: tuple[Command, ...]


class Listener(Protocol):
    """What applying an entry means outside the state machine."""

    def membership_applied(self, entry: LogEntry) -> None:
        """A change of membership is committed."""
        ...

    def digest_wanted(self, index: int) -> None:
        """The store stands at ``index``, committed: digest it."""
        ...


class Applier:
    """The materialised state of one node; ``store`` has what was applied before ``settle``."""

    def __init__(self, home: Home, runtime: Runtime, listener: Listener) -> None:
        self._home = home
        self._runtime = runtime
        self._listener = listener
        self.store = home.open_current()
        self.machine = Machine(self.store.kv)
        self._stamps: Stamps | None = None
        self._live_after = 0
        self._open_entries = self._open_bytes = 0  # In the round at hand.
        self._settles_later = self._is_broken = False

    def reconcile(self, journal: Journal) -> None:
        """Bring journal and store together after a crash between two steps of an installation."""
        index, term = self.machine.applied_index, self.machine.applied_term
        if index < journal.base_index:
            raise StoreBehindJournal(
                f"the store stands at index {index}, the journal begins after "
                f"{journal.base_index}: remove the data directory to fetch a snapshot"
            )
        if journal.term_at(index) != term:
            journal.reset(index, term)

    def follow_time(self, stamps: Stamps, live_after: int) -> None:
        """Show ``stamps`` every entry; those after ``live_after`` are written in our lifetime."""
        self._stamps, self._live_after = stamps, live_after
        stamps.observe(self.machine.stamp_ms, live=False)

    def switch(self) -> None:
        """Take over the store that was received into ``home.incoming``."""
        self.store = self._home.switch()
        self.machine = Machine(self.store.kv)
        self._open_entries = self._open_bytes = 0

    def apply(
        self, entries: list[LogEntry], take: Callable[[int, int], Entry | None]
    ) -> list[Applied]:
        """Apply these; an exception is fatal. ``take``: entries known decoded."""
        applied: list[Applied] = []
        self._begin()
        for entry in entries:
            self._open_entries += 1
            self._open_bytes += len(entry.payload)
            match entry.payload[0]:
                case Kind.REGULAR:
                    self._apply_regular(entry, take(entry.index, entry.term), applied)
                case Kind.NO_OP:
                    self.machine.apply(entry.index, entry.term, None)
                case Kind.MEMBERSHIP:
                    self.machine.apply(entry.index, entry.term, None)
                    self._listener.membership_applied(entry)
                case kind:
                    raise UnknownKind(f"entry {entry.index} is of kind {kind}")
        if self._open_entries >= ROUND_ENTRIES_MAX or self._open_bytes >= ROUND_BYTES_MAX:
            self._end_round()
        self._is_broken = False
        if self._open_entries and not self._settles_later:
            self._settles_later = True
            self._runtime.call_later(ROUND_S, self._settle_late)
        return applied

    def reader(self) -> Reader:
        """All that was applied."""
        self.settle()
        return self.store.reader()

    def settle(self) -> None:
        """See to it that the store has all that was applied; an exception is fatal."""
        if self._open_entries:
            self._begin()
            self._end_round()
            self._is_broken = False

    def _settle_late(self) -> None:
        self._settles_later = False
        self.settle()

    def _begin(self) -> None:
        """A step that is done to its end, or nothing is done any more: see ``_is_broken``.

        Not every caller is one whose exceptions stop the node at once: a reader settles as well.
        """
        if self._is_broken:
            raise RoundLost("an earlier step of this round has failed")
        self._is_broken = True

    def _apply_regular(self, entry: LogEntry, known: Entry | None, applied: list[Applied]) -> None:
        decoded = known or commands.decode_entry(memoryview(entry.payload)[1:])
        results = self.machine.apply(entry.index, entry.term, decoded)
        if self._stamps is not None:
            self._stamps.observe(decoded.stamp_ms, live=entry.index > self._live_after)
        applied.extend(map(Applied, results, [batch.commands for batch in decoded.batches]))
        if _takes_digest(decoded):
            self._end_round()
            self._listener.digest_wanted(entry.index)

    def _end_round(self) -> None:
        self.machine.end_round()
        self.store.commit()
        self._open_entries = self._open_bytes = 0


def _takes_digest(entry: Entry) -> bool:
    return any(
        batch.session == 0 and any(isinstance(command, TakeDigest) for command in batch.commands)
        for batch in entry.batches
    )
