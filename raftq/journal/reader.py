"""Reading single records back from segments, each verified again.

One file stays open: a follower that catches up reads one segment from end to end.
"""

from __future__ import annotations

from raftq.disk import Disk, File
from raftq.journal import layout
from raftq.journal.faults import Corruption
from raftq.journal.segment import Segment


class Reader:
    """Payloads that are no longer in memory."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._open: tuple[int, File] | None = None

    def payload(self, place: Segment, offset: int, end: int, index: int, term: int) -> bytes:
        """Of the entry at ``offset``, which is known to end before ``end``; or Corruption."""
        data = self._file(place).pread(end - offset, offset)
        # The CRC starts from the record's offset; here the record stands at 0.
        found = layout.read_record(data, 0, place.salt ^ offset)
        if isinstance(found, str):
            raise Corruption(place.path, offset, found)
        record, _ = found
        # A record verifies in its own place only, so any other is our own mistake.
        assert (record.kind, record.index, record.term) == (layout.ENTRY, index, term), record
        return record.payload

    def forget(self) -> None:
        """Close what is open: segments went away, or the journal closes."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _file(self, place: Segment) -> File:
        if self._open is None or self._open[0] != place.sequence:
            self.forget()
            self._open = place.sequence, self._disk.open(place.path)
        return self._open[1]
