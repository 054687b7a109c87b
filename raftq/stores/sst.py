"""RocksDB table files, checked block by block without the engine.

A scan visits every data block and every part of the index, but not the filter (a bad
one is silently not used), and an engine that cannot open one table tends to blame the
MANIFEST. Here the rest is checked: footer, the index of the index, and all that the meta
index names; of a filter in parts each part. The layout is that of format version 5 with
CRC32C, which ``rocks`` asks for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import google_crc32c

from raftq.disk import Disk, File
from raftq.stores.store import StoreCorruption

_FOOTER_BYTES = 53
_HANDLES_END = 41
_MAGIC = 0x88E241B785F4CFF7
_VERSION = 5
_CRC32C = 1
_TRAILER_BYTES = 5  # Compression type, checksum.
_MASK_DELTA = 0xA282EAD8
_IN_PARTS = b"partitionedfilter."

Handle = tuple[int, int]


def check(disk: Disk, path: str) -> None:
    """StoreCorruption names the file and the place if a block is not as written."""
    file = disk.open(path)
    try:
        for handle in _meta_handles(file):
            _block(file, handle)
    except (ValueError, IndexError) as error:
        raise StoreCorruption(os.path.basename(path), str(error)) from error
    finally:
        file.close()


def _meta_handles(file: File) -> Iterator[Handle]:
    """The index, what the meta index points to, and the parts of the filter."""
    meta_index, index = _footer(file)
    yield index
    for key, handle in _named(_block(file, meta_index)):
        yield handle
        if key.startswith(_IN_PARTS):
            yield from _parts(_block(file, handle))


def _footer(file: File) -> tuple[Handle, Handle]:
    footer = file.pread(_FOOTER_BYTES, max(file.size() - _FOOTER_BYTES, 0))
    if len(footer) < _FOOTER_BYTES or int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise ValueError("the footer is missing or damaged")
    version = int.from_bytes(footer[_HANDLES_END:-8], "little")
    if (version, footer[0]) != (_VERSION, _CRC32C):
        raise ValueError(f"format version {version} with checksum {footer[0]} is not ours")
    meta_index, position = _handle(footer, 1)
    index, position = _handle(footer, position)
    if any(footer[position:_HANDLES_END]):
        raise ValueError("the footer's padding is damaged")
    return meta_index, index


def _block(file: File, handle: Handle) -> bytes:
    """The stored bytes of a block whose checksum is right."""
    offset, count = handle
    stored = file.pread(count + _TRAILER_BYTES, offset)
    if len(stored) < count + _TRAILER_BYTES:
        raise ValueError(f"the block at {offset} with {count} bytes is cut short")
    crc: int = google_crc32c.value(stored[:-4])
    masked = (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF
    if masked != int.from_bytes(stored[-4:], "little"):
        raise ValueError(f"checksum mismatch in the block at {offset} with {count} bytes")
    return stored[:count]


def _named(block: bytes) -> Iterator[tuple[bytes, Handle]]:
    """The handles that a meta index holds, and of what."""
    position, end, key = 0, _entries_end(block), b""
    while position < end:
        shared, position = _varint(block, position)  # Bytes of the key before.
        key_bytes, position = _varint(block, position)
        value_bytes, position = _varint(block, position)
        key = key[:shared] + block[position : position + key_bytes]
        position += key_bytes
        yield key, _handle(block, position)[0]
        position += value_bytes


def _parts(block: bytes) -> Iterator[Handle]:
    """The handles in the index of a filter, which is not compressed: each is a restart."""
    position, end = 0, _entries_end(block)
    while position < end:
        shared, position = _varint(block, position)
        if shared:
            raise ValueError("an index of a filter that shares keys is not ours")
        key_bytes, position = _varint(block, position)
        handle, position = _handle(block, position + key_bytes)
        yield handle


def _entries_end(block: bytes) -> int:
    restarts = int.from_bytes(block[-4:], "little")
    return len(block) - 4 - 4 * restarts


def _handle(data: bytes, position: int) -> tuple[Handle, int]:
    offset, position = _varint(data, position)
    count, position = _varint(data, position)
    return (offset, count), position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
