"""The journal and the term file as the engine asks for them."""

from __future__ import annotations

from pysyncobj.journal import Journal as EngineJournal

from raftq.consensus.messages import Kind
from raftq.journal import Journal, LogEntry, TermFile

_UNREAD = bytes((Kind.NO_OP,))


class CoreLog(EngineJournal):  # type: ignore[misc]  # the engine is untyped
    """The journal as the engine asks for it: positions count from the base entry."""

    def __init__(self, journal: Journal, terms: TermFile, applied_index: int) -> None:
        self._journal = journal
        self._terms = terms
        self._applied_index = applied_index

    def __len__(self) -> int:
        return self._journal.last_index - self._journal.base_index + 1

    def __getitem__(self, position: int) -> LogEntry:
        journal = self._journal
        return self.at(position + (journal.base_index if position >= 0 else journal.last_index + 1))

    def at(self, index: int) -> LogEntry:
        """An entry of which the engine reads index and term, never its payload."""
        term = self._journal.term_at(index)
        if term is None:
            raise IndexError(index)
        return LogEntry(_UNREAD, index, term)

    def add(self, payload: bytes, index: int, term: int) -> None:
        """Append one entry."""
        self._journal.append(payload, index, term)

    def deleteEntriesFrom(self, position: int) -> None:
        """Void the entries from a position on; the guard has shown that none is committed."""
        self._journal.truncate_from(self._journal.base_index + position)

    def setRaftCommitIndex(self, index: int) -> None:
        """Not kept: after a restart the applied index is what is known to be committed."""

    def getRaftCommitIndex(self) -> int:
        """What the store has applied is committed."""
        return self._applied_index

    def setCurrentTerm(self, term: int, vote: str | None) -> None:
        """On disk when it returns."""
        if (term, vote) != (self._terms.term, self._terms.voted_for):
            self._terms.store(term, vote)

    def getCurrentTerm(self) -> int:
        """From disk."""
        return self._terms.term

    def getVotedForNodeId(self) -> str | None:
        """From disk."""
        return self._terms.voted_for

    def _destroy(self) -> None:
        """The owner closes the journal."""
