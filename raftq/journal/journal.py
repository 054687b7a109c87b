"""The log: append, read, cut, compact, and know how far it is durable.

All methods are called from one thread, the owner's. What takes time is handed out as
work (``begin_sync``, ``prepare``) that may run on another thread while the owner goes
on appending.

A write or sync that fails leaves the disk in an unknown state: the journal then refuses
everything, and the node must stop. The one failure that changes nothing is having no
room for a new segment; that append raises OSError and may be tried again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, Self

from raftq.disk import Disk, File
from raftq.journal import layout, segment
from raftq.journal.entries import Entries
from raftq.journal.faults import JournalFailure
from raftq.journal.reader import Reader
from raftq.journal.recovery import Cut, recover
from raftq.journal.segment import Segment
from raftq.journal.spares import Spares
from raftq.journal.sync import SyncWork
from raftq.reading import reading

SEGMENT_BYTES = 16 << 20
CACHE_BYTES = 32 << 20
PREPARED_PARTS = 16
"""Of a segment, one has to be in use before the next is made: to make it takes a busy node 0.2 to
0.35 s, in which 10 MiB may come; if it is not there in time, all waits for 0.1 s."""


class LogEntry(NamedTuple):
    """One entry, in the order of fields that the consensus core uses."""

    payload: bytes
    index: int  # type: ignore[assignment]  # Hides tuple.index, which nobody calls.
    term: int


class SegmentInfo(NamedTuple):
    """One segment, for metrics."""

    path: str
    first_index: int
    bytes: int


class Journal:
    """A segmented, append-only log; ``open`` makes one."""

    def __init__(self, disk: Disk, directory: str, *, segment_bytes: int, cache_bytes: int) -> None:
        assert segment_bytes >= layout.HEADER_BYTES + layout.SEAL_BYTES
        found = recover(disk, directory, segment_bytes=segment_bytes, cache_bytes=cache_bytes)
        self.recovery: Cut | None = found.cut
        self._disk = disk
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._cache_bytes = cache_bytes
        self._reader = Reader(disk)
        self._spares = Spares(disk, directory, segment_bytes)
        self._entries = found.entries
        self._segments = found.segments
        self._active = found.segments[-1]
        self._file = disk.open(self._active.path)
        self._previous_crc = found.previous_crc
        self.durable_index = self._entries.last_index
        # Positions in the log, which only grow: up to where it is durable, and a seal says
        # so; where the last entry or truncation ends (a seal alone is not worth a sync), and
        # where the last truncation does.
        self._durable = layout.position(self._active.sequence, self._active.end)
        self._sealed = found.sealed
        self._written = self._durable
        self._truncated = 0
        self._dirty: dict[int, File] = {}
        self._names_dirty = False
        self._retired: list[File] = []  # No longer written to, perhaps not yet synced.
        self._in_flight: SyncWork | None = None
        self._in_flight_index = 0
        self._failure: BaseException | None = None
        self._closed = False

    @classmethod
    def open(
        cls,
        disk: Disk,
        directory: str,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        cache_bytes: int = CACHE_BYTES,
    ) -> Self:
        """Recover what is there, or begin with base (0, 0); Corruption if neither may be.

        All that was found is durable when this returns. ``recovery`` tells of a torn tail.
        """
        return cls(disk, directory, segment_bytes=segment_bytes, cache_bytes=cache_bytes)

    base_index: int = reading("_entries.base_index")
    """The entry just before the first one kept; 0 on a new journal."""
    base_term: int = reading("_entries.base_term")
    """Its term."""
    last_index: int = reading("_entries.last_index")
    """The last entry, or the base."""
    last_term: int = reading("_entries.last_term")
    """Its term."""
    term_at: Callable[[int], int | None] = reading("_entries.term_at")
    """Of an entry its term; the base's at the base; None outside."""

    @property
    def size_bytes(self) -> int:
        """What the segments occupy."""
        return sum(place.capacity for place in self._segments)

    def segments(self) -> list[SegmentInfo]:
        """Oldest first."""
        return [SegmentInfo(p.path, p.base_index + 1, p.capacity) for p in self._segments]

    def append(self, payload: bytes, index: int, term: int) -> None:
        """Write the entry after the last one; durable only after a sync."""
        entries = self._entries
        assert index == entries.last_index + 1, (index, entries.last_index)
        assert term >= entries.last_term, (term, entries.last_term)
        assert len(payload) <= layout.PAYLOAD_BYTES_MAX
        entries.append(payload, term, self._write(layout.ENTRY, index, term, payload))

    def truncate_from(self, index: int) -> None:
        """Void ``index`` and all after it; durable only after a sync."""
        entries = self._entries
        assert entries.base_index < index <= entries.last_index, (index, entries.last_index)
        term_before = entries.term_at(index - 1)
        assert term_before is not None
        self._write(layout.TRUNCATE, index, term_before, b"")
        self._truncated = self._written
        entries.truncate_from(index, term_before)
        self.durable_index = min(self.durable_index, index - 1)
        self._in_flight_index = min(self._in_flight_index, index - 1)

    def get(self, index: int) -> LogEntry:
        """One entry."""
        return self.slice(index, index)[0]

    def slice(self, first: int, last: int, max_bytes: int | None = None) -> list[LogEntry]:
        """Entries ``first`` to ``last``; fewer, but one at least, to stay in ``max_bytes``."""
        self._refuse_after_failure()
        entries = self._entries
        assert entries.base_index < first <= last <= entries.last_index, (first, last)
        result: list[LogEntry] = []
        total = 0
        for index in range(first, last + 1):
            term = entries.term_at(index)
            assert term is not None
            payload = entries.cached(index)
            if payload is None:
                payload = self._read(index, term)
            total += len(payload)
            if max_bytes is not None and total > max_bytes and result:
                break
            result.append(LogEntry(payload, index, term))
        return result

    def compact_to(self, index: int) -> Iterator[None]:
        """Delete segments that hold nothing above ``index``, one a step; the base follows.

        Only what is durable goes, oldest first, and each deletion is made durable before
        the next: a gap then always means that somebody else deleted a segment. The files
        of a busy log are kept to be used again; those kept before go when it no longer is.

        Each step waits for the disk; anything else may be done to the journal between two.
        """
        self._refuse_after_failure()
        self._spares.begin_round()
        while self._delete_oldest(index):
            yield

    def _delete_oldest(self, index: int) -> bool:
        self._refuse_after_failure()
        # Until a truncation is durable, a crash can bring the voided entries back.
        if len(self._segments) < 2 or self._truncated > self._durable:
            return False
        following = self._segments[1].first_position
        through = self._entries.last_before(following)
        if through > index or self._durable < following:
            return False
        assert through <= self.durable_index, (through, self.durable_index)
        with self._failure_is_final():
            self._spares.give_up(self._segments[0])
            self._disk.sync_directory(self._directory)
        del self._segments[0]
        self._entries.drop_through(through)
        self._reader.forget()
        return True

    def reset(self, index: int, term: int) -> None:
        """Forget everything; the log goes on after (index, term). Durable on return.

        The new segment's appearance under its name is the commit point: before it the old
        log is whole, after it the old segments are leftovers that a start removes.
        """
        self._refuse_after_failure()
        spare = self._spares.take(self._segment_bytes)
        with self._failure_is_final():
            started, crc = segment.start_history(
                self._disk, self._directory, spare, self._active.sequence + 1, (index, term)
            )
            for place in self._segments:
                self._disk.unlink(place.path)
            self._disk.sync_directory(self._directory)
        self._retired.append(self._file)
        self._dirty = {}
        self._names_dirty = False
        self._reader.forget()
        self._entries = Entries(index, term, self._cache_bytes)
        self._segments = [started]
        self._active = started
        self._file = spare.file
        self._previous_crc = crc
        self.durable_index = index
        self._in_flight_index = 0
        self._durable = self._written = layout.position(started.sequence, started.end)
        self._sealed = self._durable  # Its own first seal says enough.
        self._close_retired()

    def begin_sync(self) -> SyncWork | None:
        """Work that makes everything written so far durable; None when it is already.

        One at a time: ``end_sync`` takes it back before the next.
        """
        self._refuse_after_failure()
        assert self._in_flight is None, "a sync is in flight already"
        if self._written <= self._durable:
            return None
        names = partial(self._disk.sync_directory, self._directory) if self._names_dirty else None
        here = layout.position(self._active.sequence, self._active.end)
        work = SyncWork(tuple(self._dirty.values()), names, here, self._fail)
        self._dirty = {}
        self._names_dirty = False
        self._in_flight = work
        self._in_flight_index = self._entries.last_index
        return work

    def end_sync(self, work: SyncWork) -> None:
        """Take back work that has run; raises ``durable_index``. Owner's thread."""
        assert work is self._in_flight, "not the sync that is in flight"
        self._in_flight = None
        self._close_retired()
        self._refuse_after_failure()
        assert work.done, "the sync has not run"
        # A truncation or reset meanwhile has lowered the index: what it voided does not count.
        self.durable_index = max(self.durable_index, self._in_flight_index)
        self._durable = max(self._durable, work.position)

    def seal(self) -> None:
        """Record how far the log is durable, unless the last seal says so. For idle times.

        It needs no sync: should it be lost, the next write seals again.
        """
        self._refuse_after_failure()
        active = self._active
        if self._sealed < self._durable and active.end + layout.SEAL_BYTES <= active.capacity:
            self._put(self._encode_seal())

    def prepare(self) -> Callable[[], None] | None:
        """Work that makes the next segment ahead of need; None when there is no need.

        When it raises OSError there is no room for it; nothing else has changed.
        """
        self._refuse_after_failure()
        if self._active.end * PREPARED_PARTS < self._active.capacity:
            return None
        return self._spares.prepare()

    def close(self) -> None:
        """Sync, seal and release; after a failure only release. No prepared work may be running.

        With a sync in flight it cannot seal, and leaves that sync's files to ``end_sync``.
        """
        if self._closed:
            return
        self._closed = True
        if self._failure is None and self._in_flight is None:
            work = self.begin_sync()
            if work is not None:
                work.run()
                self.end_sync(work)
            self.seal()
            self._file.sync()
        self._fail(ValueError("the journal is closed"))
        self._reader.forget()
        self._spares.close()
        self._retired.append(self._file)
        self._dirty = {}
        self._close_retired()

    def _write(self, kind: int, index: int, term: int, payload: bytes) -> int:
        """Append a record, and before it the seal that is due; its position."""
        if self._failure is not None:
            self._refuse_after_failure()
        needed = layout.SEAL_BYTES + layout.RECORD_BYTES + len(payload)
        if self._active.end + needed > self._active.capacity:
            self._roll(needed)
        active = self._active
        seal = self._encode_seal() if self._sealed < self._durable else b""
        offset = active.end + len(seal)
        data, self._previous_crc = layout.encode_record(
            active.salt ^ offset, self._previous_crc, kind, index, term, payload
        )
        self._put(seal + data if seal else data)
        self._written = layout.position(active.sequence, active.end)
        return layout.position(active.sequence, offset)

    def _encode_seal(self) -> bytes:
        data, self._previous_crc = layout.encode_record(
            self._active.salt ^ self._active.end,
            self._previous_crc,
            layout.SEAL,
            self.durable_index,
            0,
            layout.seal_payload(self._durable),
        )
        self._sealed = self._durable
        return data

    def _put(self, data: bytes) -> None:
        active = self._active
        try:
            self._file.pwrite(data, active.end)
        except BaseException as error:
            # Half a record may be there, or a whole one that nobody was told of.
            self._fail(error)
            raise
        active.end += len(data)
        self._dirty[active.sequence] = self._file

    def _roll(self, needed: int) -> None:
        """Go on in a new segment. Not synced: the next sync covers it, name included."""
        sequence = self._active.sequence + 1
        entries = self._entries
        header = layout.Header(
            sequence, entries.last_index, entries.last_term, self._previous_crc, start=False
        )
        spare = self._spares.take(layout.HEADER_BYTES + needed)
        following = Segment(
            segment.path_of(self._directory, sequence),
            sequence,
            base_index=entries.last_index,
            end=layout.HEADER_BYTES,
            capacity=spare.size,
        )
        try:
            spare.file.pwrite(layout.encode_header(header), 0)
            self._disk.rename(spare.path, following.path)
        except OSError:
            spare.file.close()
            segment.discard(self._disk, spare.path)
            raise
        self._retired.append(self._file)
        self._names_dirty = True
        self._segments.append(following)
        self._active = following
        self._file = spare.file

    def _read(self, index: int, term: int) -> bytes:
        entries = self._entries
        sequence, offset = layout.split(entries.position_at(index))
        found = bisect_left(self._segments, sequence, key=lambda place: place.sequence)
        place = self._segments[found]
        end = place.end
        if index < entries.last_index:
            next_sequence, next_offset = layout.split(entries.position_at(index + 1))
            end = next_offset if next_sequence == sequence else end
        return self._reader.payload(place, offset, end, index, term)

    def _close_retired(self) -> None:
        """Close old files that no sync needs any more."""
        needed = [*self._dirty.values(), *(self._in_flight.files if self._in_flight else ())]
        for file in self._retired:
            if file not in needed:
                file.close()
        self._retired = [file for file in self._retired if file in needed]

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error

    def _refuse_after_failure(self) -> None:
        if self._failure is not None:
            raise JournalFailure(f"the journal stopped: {self._failure!r}") from self._failure

    @contextmanager
    def _failure_is_final(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._fail(error)
            raise
