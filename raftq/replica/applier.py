"""The store, the state machine over it, and the rounds in which committed entries are applied."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from raftq.consensus.messages import Kind
from raftq.journal import Journal, LogEntry
from raftq.replica.stamps import Stamps
from raftq.stores.home import Home
from statemachine import commands
from statemachine.commands import Command, Entry, TakeDigest
from statemachine.machine import BatchResult, Machine


class StoreBehindJournal(Exception):
    """The store lacks entries that the journal no longer holds."""


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
    """The materialised state of one node."""

    def __init__(self, home: Home, listener: Listener) -> None:
        self._home = home
        self._listener = listener
        self.store = home.open_current()
        self.machine = Machine(self.store.kv)
        self._stamps: Stamps | None = None
        self._live_after = 0

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

    def apply(
        self, entries: list[LogEntry], take: Callable[[int, int], Entry | None]
    ) -> list[Applied]:
        """One round, committed to the store when it returns. ``take``: entries known decoded."""
        applied: list[Applied] = []
        for entry in entries:
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
        self._end_round()
        return applied

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


def _takes_digest(entry: Entry) -> bool:
    return any(
        batch.session == 0 and any(isinstance(command, TakeDigest) for command in batch.commands)
        for batch in entry.batches
    )
