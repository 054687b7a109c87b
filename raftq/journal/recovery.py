"""From what a crash left on disk to a journal that can be written to.

Everything found is made durable before anything is built on it: a read after a
restart may come from the page cache, and after a failed sync those pages may claim to
be clean. So all that no seal covers is written again and synced, a torn tail becomes
zeros again, and leftovers are removed. A crash in here leaves something that is
recovered the same way.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from raftq.disk import Disk
from raftq.journal import layout, segment
from raftq.journal.entries import Entries
from raftq.journal.faults import Corruption
from raftq.journal.segment import Segment
from raftq.journal.survey import Fault, Survey


class Cut(msgspec.Struct, frozen=True):
    """A torn tail that was cut off at open; nothing in it had been durable."""

    path: str
    offset: int
    bytes_cut: int  # From there to the last byte that was not zero.
    segments_dropped: int  # Later ones, deleted whole.
    reason: str


class Recovered(NamedTuple):
    """What ``Journal`` starts from; all of it is durable."""

    entries: Entries
    segments: list[Segment]
    previous_crc: int
    sealed: int
    cut: Cut | None


def recover(disk: Disk, directory: str, *, segment_bytes: int, cache_bytes: int) -> Recovered:
    """Survey, refuse corruption, repair the rest; an empty directory becomes a new journal."""
    disk.make_directory(directory)
    for path in segment.temporaries(disk, directory):
        disk.unlink(path)
    if not segment.sequences(disk, directory):
        path = f"{directory}/first{segment.TEMPORARY_SUFFIX}"
        spare = segment.allocate(disk, path, segment_bytes)
        segment.start_history(disk, directory, spare, 1, (0, 0))
        spare.file.close()
    survey = Survey(disk, directory, cache_bytes)
    if survey.fault is not None and survey.corrupt:
        fault = survey.fault
        path = segment.path_of(directory, fault.sequence)
        raise Corruption(path, fault.offset, fault.reason)
    return _repair(disk, directory, survey)


def _repair(disk: Disk, directory: str, survey: Survey) -> Recovered:
    fault = survey.fault
    last = _last_kept(survey)
    segments = [
        Segment(
            facts.path,
            facts.sequence,
            base_index=facts.base_index,
            end=facts.end,
            capacity=facts.size,
        )
        for facts in survey.segments
        if facts.sequence <= last
    ]
    dropped = [facts.sequence for facts in survey.segments if facts.sequence > last]
    bytes_cut = _make_durable(disk, segments, survey.sealed)
    for sequence in [*survey.superseded, *dropped]:
        disk.unlink(segment.path_of(directory, sequence))
    disk.sync_directory(directory)
    cut = _cut(directory, fault, bytes_cut, len(dropped)) if fault else None
    return Recovered(survey.entries, segments, survey.previous_crc, survey.sealed, cut)


def _last_kept(survey: Survey) -> int:
    """The segment that will be appended to."""
    fault = survey.fault
    if fault is None:
        return survey.segments[-1].sequence
    # A fault at the very start of a segment means that it has no header: it goes too.
    return fault.sequence if fault.offset else fault.sequence - 1


def _make_durable(disk: Disk, segments: list[Segment], sealed: int) -> int:
    """Write again and sync what no seal covers, and clear the last segment's unused space."""
    sealed_sequence, sealed_offset = layout.split(sealed)
    bytes_cut = 0
    for place in segments:
        last = place is segments[-1]
        if place.sequence < sealed_sequence and not last:
            continue
        file = disk.open(place.path)
        try:
            start = sealed_offset if place.sequence == sealed_sequence else 0
            if start < place.end:
                file.pwrite(file.pread(place.end - start, start), start)
            if last:
                rest = file.pread(place.capacity - place.end, place.end).rstrip(b"\0")
                bytes_cut = len(rest)
                segment.fill_with_zeros(file, place.end, place.end + len(rest))
            file.sync()
        finally:
            file.close()
    return bytes_cut


def _cut(directory: str, fault: Fault, bytes_cut: int, dropped: int) -> Cut:
    path = segment.path_of(directory, fault.sequence)
    return Cut(path, fault.offset, bytes_cut, dropped, fault.reason)
