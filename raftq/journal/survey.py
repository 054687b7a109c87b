"""Reading a journal as it lies on disk and judging what is wrong with it. Changes nothing.

``Journal.open`` repairs and starts from a survey; ``inspect`` prints one. The rules
for telling a torn tail from corruption are in DESIGN.md; in short: whatever stands
before a position that any intact seal names was durable and must be intact, and so
must be what a crash cannot have touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from raftq.disk import Disk
from raftq.journal import layout, segment
from raftq.journal.entries import Entries


class Fault(NamedTuple):
    """The first place where the log cannot be followed."""

    sequence: int
    offset: int
    reason: str
    impossible: bool = False  # No crash leaves this behind, whatever was synced.

    @property
    def position(self) -> int:
        """Its place in the log."""
        return layout.position(self.sequence, self.offset)


class SegmentView(NamedTuple):
    """What one segment's file holds, read by itself."""

    path: str
    sequence: int
    size: int
    end: int  # Where its valid records end.
    header: layout.Header | layout.BadHeader
    records: list[layout.Record]
    reason: str | None  # Why reading stopped, unless at plain zeros.


class SegmentFacts(NamedTuple):
    """What is kept of a view: everything but the payloads."""

    path: str
    sequence: int
    size: int
    end: int
    base_index: int
    reason: str | None
    records: int
    seals: int
    indexes: tuple[int, int] | None  # Lowest and highest, void entries included.
    terms: tuple[int, int] | None


class Survey:
    """The log as far as it can be followed, and the first fault if there is one."""

    def __init__(self, disk: Disk, directory: str, cache_bytes: int) -> None:
        self._disk = disk
        self._directory = directory
        self._cache_bytes = cache_bytes
        self._stopped: Fault | None = None  # Damage that the next segment may yet excuse.
        self._expected = 0
        self.entries = Entries(0, 0, cache_bytes)
        self.previous_crc = 0
        self.sealed = 0  # The furthest position known to have been durable.
        self.segments: list[SegmentFacts] = []
        self.fault: Fault | None = None
        self.superseded, present = self._present()
        for sequence in present:
            self._take(_view(disk, directory, sequence))
        self.fault = self.fault or self._stopped
        if self.fault is not None:
            self._gather_evidence(present)

    @property
    def corrupt(self) -> bool:
        """Whether durable bytes are gone; a fault that is not corruption is a torn tail."""
        fault = self.fault
        return fault is not None and (fault.impossible or self.sealed > fault.position)

    def _present(self) -> tuple[list[int], list[int]]:
        """Sequences that a reset left behind, and those that count."""
        found = segment.sequences(self._disk, self._directory)
        for place in range(len(found) - 1, 0, -1):
            path = segment.path_of(self._directory, found[place])
            header = layout.decode_header(_read_start(self._disk, path), found[place])
            if isinstance(header, layout.Header) and header.start:
                return found[:place], found[place:]
        return [], found

    def _take(self, view: SegmentView) -> None:
        if self.fault is None:
            self.fault = self._cannot_follow(view)
        if self.fault is None:
            self._replay(view)
        self.segments.append(_facts(view))

    def _cannot_follow(self, view: SegmentView) -> Fault | None:
        """Why this segment does not continue the ones before it."""
        first = not self.segments
        if not first and view.sequence != self._expected:
            return self._stopped or Fault(self._expected, 0, "the segment is missing")
        if isinstance(view.header, layout.BadHeader):
            impossible = first or view.header.foreign
            fault = Fault(view.sequence, 0, view.header.reason, impossible)
            return fault if impossible else self._stopped or fault
        if first:
            return None
        if view.header.previous_crc != self.previous_crc:
            before = self.segments[-1]
            lost = "the log ends here, but the next segment continues a longer one"
            return self._stopped or Fault(before.sequence, before.end, lost)
        if (view.header.base_index, view.header.base_term) != self._last():
            return Fault(view.sequence, 0, "the header names another last entry", True)
        return None

    def _replay(self, view: SegmentView) -> None:
        assert isinstance(view.header, layout.Header)
        if not self.segments:
            header = view.header
            self.entries = Entries(header.base_index, header.base_term, self._cache_bytes)
            self.previous_crc = header.previous_crc
        # The header chains to the last record read, so that one was the last written: what
        # stopped the reading of the segment before is damage to its unused space.
        self._stopped = None
        self._expected = view.sequence + 1
        for record in view.records:
            if not self._apply(view.sequence, record):
                self.fault = Fault(view.sequence, record.offset, "a record out of order", True)
                return
            self.previous_crc = record.crc
        if view.reason is not None:
            self._stopped = Fault(view.sequence, view.end, view.reason)

    def _apply(self, sequence: int, record: layout.Record) -> bool:
        entries = self.entries
        here = layout.position(sequence, record.offset)
        match record.kind:
            case layout.ENTRY if self._may_append(record):
                entries.append(record.payload, record.term, here)
            case layout.TRUNCATE if self._may_truncate(record):
                entries.truncate_from(record.index, record.term)
            case layout.SEAL if layout.sealed_position(record) <= here:
                self.sealed = max(self.sealed, layout.sealed_position(record))
            case _:
                return False
        return True

    def _may_append(self, record: layout.Record) -> bool:
        last_index, last_term = self._last()
        return record.index == last_index + 1 and record.term >= last_term

    def _may_truncate(self, record: layout.Record) -> bool:
        known = self.entries.term_at(record.index - 1)
        return 0 < record.index <= self.entries.last_index and known in (None, record.term)

    def _gather_evidence(self, present: list[int]) -> None:
        """Look for seals behind the fault: they may prove that what is missing was durable."""
        assert self.fault is not None
        for sequence in present:
            if sequence >= self.fault.sequence:
                data = segment.read(self._disk, segment.path_of(self._directory, sequence))
                self.sealed = max([self.sealed, *layout.seals(data, sequence)])

    def _last(self) -> tuple[int, int]:
        return self.entries.last_index, self.entries.last_term


def _view(disk: Disk, directory: str, sequence: int) -> SegmentView:
    path = segment.path_of(directory, sequence)
    data = segment.read(disk, path)
    header = layout.decode_header(data, sequence)
    if isinstance(header, layout.BadHeader):
        return SegmentView(path, sequence, len(data), 0, header, [], header.reason)
    records, end, reason = layout.scan(data, header)
    return SegmentView(path, sequence, len(data), end, header, records, reason)


def _facts(view: SegmentView) -> SegmentFacts:
    entries = [record for record in view.records if record.kind == layout.ENTRY]
    return SegmentFacts(
        view.path,
        view.sequence,
        view.size,
        view.end,
        view.header.base_index if isinstance(view.header, layout.Header) else 0,
        view.reason,
        len(view.records),
        sum(record.kind == layout.SEAL for record in view.records),
        _range(record.index for record in entries),
        _range(record.term for record in entries),
    )


def _range(values: Iterator[int]) -> tuple[int, int] | None:
    found = list(values)
    return (min(found), max(found)) if found else None


def _read_start(disk: Disk, path: str) -> bytes:
    file = disk.open(path)
    try:
        return file.pread(layout.HEADER_BYTES, 0)
    finally:
        file.close()
