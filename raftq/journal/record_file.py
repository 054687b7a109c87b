"""A small file that is replaced as a whole, and never mistaken for empty when damaged.

Written beside its place, synced, renamed over the old one, the directory synced: a
crash leaves the old content or the new. Absent means never stored; anything else that
does not verify is Corruption.
"""

from __future__ import annotations

import os.path
import struct

import google_crc32c

from raftq.disk import Disk
from raftq.journal.faults import Corruption

MAGIC = b"RAFTQREC"
VERSION = 1
# Magic, version, payload length, CRC32C of all that is before it and of the payload.
_HEADER = struct.Struct("<8sIII")
_COVERED_BYTES = _HEADER.size - 4
_TEMPORARY_SUFFIX = ".tmp"


def load(disk: Disk, path: str) -> bytes | None:
    """What was stored last; None when nothing ever was; or Corruption."""
    if not disk.exists(path):
        return None
    file = disk.open(path)
    try:
        data = file.pread(file.size(), 0)
    finally:
        file.close()
    reason = _damage(data)
    if reason is not None:
        raise Corruption(path, 0, reason)
    return data[_HEADER.size :]


def recover(disk: Disk, path: str) -> bytes | None:
    """``load`` at a start, for whoever goes on from what is there: durable when this returns.

    A process that ended because it could not sync a directory has left the file's new name in
    the cache alone, where the next one finds it, and a power failure takes it back.
    """
    payload = load(disk, path)
    if payload is not None:
        disk.sync_directory(os.path.dirname(path) or ".")
    return payload


def store(disk: Disk, path: str, payload: bytes) -> None:
    """Replace the content; durable when this returns, old or new when it raises."""
    temporary = path + _TEMPORARY_SUFFIX
    covered = _HEADER.pack(MAGIC, VERSION, len(payload), 0)[:_COVERED_BYTES]
    crc: int = google_crc32c.value(covered + payload)
    file = disk.open(temporary, create=True)
    try:
        file.truncate(0)  # A crash may have left another one there.
        file.pwrite(covered + crc.to_bytes(4, "little") + payload, 0)
        file.sync()
    finally:
        file.close()
    disk.rename(temporary, path)
    disk.sync_directory(os.path.dirname(path) or ".")


def _damage(data: bytes) -> str | None:
    if len(data) < _HEADER.size or data[: len(MAGIC)] != MAGIC:
        return "not a record file, or cut off"
    _, version, length, crc = _HEADER.unpack_from(data)
    if version != VERSION:
        return f"format version {version}, this program reads version {VERSION}"
    if length != len(data) - _HEADER.size:
        return "the file's length does not match its header"
    if crc != google_crc32c.value(data[:_COVERED_BYTES] + data[_HEADER.size :]):
        return "the file does not match its checksum"
    return None
