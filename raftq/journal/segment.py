"""Segment files: their names, and making one that costs nothing to write to later.

A file is made under a temporary name, filled with zeros and synced before it gets a
segment's name. So its blocks are allocated (a full disk shows here, not in the middle
of a record), an append's sync need not write metadata, and unwritten space is zeros.
"""

from __future__ import annotations

import contextlib
import re
from typing import NamedTuple

from raftq.disk import Disk, File
from raftq.journal import layout

TEMPORARY_SUFFIX = ".tmp"
_NAME = re.compile(r"([0-9a-f]{8})\.segment")
_ZEROS = bytes(1 << 19)  # No more at once: while a file is made, the log's syncs wait for as much.


class Spare(NamedTuple):
    """A file of synced zeros under a temporary name."""

    path: str
    file: File
    size: int


class Segment:
    """A segment that exists; ``end`` is where its records end, ``capacity`` its file's size."""

    __slots__ = ("base_index", "capacity", "end", "path", "salt", "sequence")

    def __init__(
        self, path: str, sequence: int, *, base_index: int, end: int, capacity: int
    ) -> None:
        self.path = path
        self.sequence = sequence
        self.base_index = base_index
        self.end = end
        self.capacity = capacity
        self.salt = layout.salt(sequence)

    @property
    def first_position(self) -> int:
        """Where its first record stands."""
        return layout.position(self.sequence, layout.HEADER_BYTES)


def path_of(directory: str, sequence: int) -> str:
    """The segment's file."""
    return f"{directory}/{sequence:08x}.segment"


def sequences(disk: Disk, directory: str) -> list[int]:
    """Sequence numbers of the segments there, ascending."""
    matches = (_NAME.fullmatch(name) for name in disk.list(directory))
    return sorted(int(match[1], 16) for match in matches if match)


def temporaries(disk: Disk, directory: str) -> list[str]:
    """Files that never became segments."""
    names = disk.list(directory)
    return [f"{directory}/{name}" for name in names if name.endswith(TEMPORARY_SUFFIX)]


def read(disk: Disk, path: str) -> bytes:
    """The whole file."""
    file = disk.open(path)
    try:
        return file.pread(file.size(), 0)
    finally:
        file.close()


def allocate(disk: Disk, path: str, size: int) -> Spare:
    """A spare, new or of a file that was in use; nothing is left behind when there is no room."""
    file = disk.open(path, create=True)
    try:
        for offset in range(0, size, len(_ZEROS)):
            file.pwrite(_ZEROS[: size - offset], offset)
            file.sync()
    except OSError:
        file.close()
        discard(disk, path)
        raise
    return Spare(path, file, size)


def fill_with_zeros(file: File, start: int, end: int) -> None:
    """Write zeros over a range."""
    for offset in range(start, end, len(_ZEROS)):
        file.pwrite(_ZEROS[: end - offset], offset)


def discard(disk: Disk, path: str) -> None:
    """Remove a temporary file if that is possible; the next start removes what stays."""
    with contextlib.suppress(OSError):
        disk.unlink(path)


def start_history(
    disk: Disk, directory: str, spare: Spare, sequence: int, base: tuple[int, int]
) -> tuple[Segment, int]:
    """A durable first segment whose history begins after ``base``; also its last CRC.

    It seals itself, so that a damaged header is known to have been a good one.
    """
    here = Segment(
        path_of(directory, sequence),
        sequence,
        base_index=base[0],
        end=layout.HEADER_BYTES + layout.SEAL_BYTES,
        capacity=spare.size,
    )
    header = layout.encode_header(layout.Header(sequence, *base, previous_crc=0, start=True))
    body = layout.seal_payload(here.first_position)
    seed = here.salt ^ layout.HEADER_BYTES
    seal, crc = layout.encode_record(seed, 0, layout.SEAL, *base, body)
    spare.file.pwrite(header + seal, 0)
    spare.file.sync()
    disk.rename(spare.path, here.path)
    disk.sync_directory(directory)
    return here, crc
