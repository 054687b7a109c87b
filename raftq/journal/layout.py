"""The bytes of a segment: encoding, decoding, and finding where valid records end. No IO.

A segment is a header and then records, one after the other; what is not written is
zeros. Little-endian throughout. Everything is append-only: nothing that was written
is ever overwritten, except that recovery turns a torn tail back into zeros.

A record's CRC32C starts from its place (segment and offset), so bytes that belong
elsewhere never verify, and covers the CRC of the record before it, so a record that
follows something else than what its writer saw is found out. Because both are in
the record itself, one record can be verified alone, also behind a damaged one: that
is what makes a seal findable as evidence (see DESIGN.md).

Golden bytes in the tests freeze all of this; a change is a new ``VERSION``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import google_crc32c
import msgspec

MAGIC = b"RAFTQLOG"
VERSION = 1
FLAG_START = 1  # The history begins here: earlier segments are leftovers of a reset.

ENTRY = 1  # payload: the entry's bytes
TRUNCATE = 2  # entries at or above ``index`` are void; ``term`` is the term just below it
SEAL = 3  # payload: SEAL_MAGIC and the position up to which all was durable

# Magic, version, flags, sequence, base index, base term, CRC of the record before, CRC.
_HEADER = struct.Struct("<8sIIQQQII")
_HEADER_START = struct.Struct("<8sI")
# CRC, then what it covers: payload length, CRC of the record before, kind, index, term.
_RECORD = struct.Struct("<IIIIQQ")
_RECORD_COVERED = struct.Struct("<IIIQQ")
_CRC = struct.Struct("<I")
_SEAL_BODY = struct.Struct("<8sQ")
_SEAL_MAGIC = b"\xa5SEALED\x5a"

HEADER_BYTES = _HEADER.size
RECORD_BYTES = _RECORD.size
SEAL_BYTES = RECORD_BYTES + _SEAL_BODY.size
PAYLOAD_BYTES_MAX = 1 << 30
_CRC_BYTES = _CRC.size


class Header(NamedTuple):
    """The start of a segment."""

    sequence: int
    base_index: int  # The last entry before this segment was begun.
    base_term: int
    previous_crc: int  # Of the last record in the segment before; 0 at a start.
    start: bool


class Record(msgspec.Struct, frozen=True):
    """One verified record."""

    kind: int
    index: int
    term: int
    payload: bytes
    offset: int
    end: int
    crc: int


class Scan(NamedTuple):
    """The valid records of a segment and what stopped the reading, None for plain zeros."""

    records: list[Record]
    end: int
    reason: str | None


class BadHeader(NamedTuple):
    """Why a header cannot be used."""

    reason: str
    foreign: bool = False  # Of another format version: never the result of a crash.


def position(sequence: int, offset: int) -> int:
    """A place in the whole log; places compare like the order of writing."""
    return sequence << 32 | offset


def split(place: int) -> tuple[int, int]:
    """Sequence and offset of a ``position``."""
    return place >> 32, place & 0xFFFFFFFF


def salt(sequence: int) -> int:
    """What ties a record's CRC to its segment; combined with the offset it ties it to its place."""
    return int(google_crc32c.value(sequence.to_bytes(8, "little")))


def encode_header(header: Header) -> bytes:
    """Bytes for the start of a segment."""
    flags = FLAG_START if header.start else 0
    body = _HEADER.pack(
        MAGIC,
        VERSION,
        flags,
        header.sequence,
        header.base_index,
        header.base_term,
        header.previous_crc,
        0,
    )[:-_CRC_BYTES]
    return body + _CRC.pack(google_crc32c.value(body))


def decode_header(data: bytes, sequence: int) -> Header | BadHeader:
    """Inverse of ``encode_header`` for the segment that is named ``sequence``."""
    if len(data) < HEADER_BYTES or data[: len(MAGIC)] != MAGIC:
        return BadHeader("no segment header")
    _, version = _HEADER_START.unpack_from(data)
    if version != VERSION:
        reason = f"format version {version}, this program reads version {VERSION}"
        return BadHeader(reason, foreign=True)
    _, _, flags, named, base_index, base_term, previous_crc, crc = _HEADER.unpack_from(data)
    if crc != google_crc32c.value(data[: HEADER_BYTES - _CRC_BYTES]):
        return BadHeader("the segment header does not match its checksum")
    if named != sequence:
        return BadHeader(f"the header is that of segment {named}")
    return Header(named, base_index, base_term, previous_crc, bool(flags & FLAG_START))


def encode_record(
    seed: int, previous_crc: int, kind: int, index: int, term: int, payload: bytes
) -> tuple[bytes, int]:
    """A record and its CRC. ``seed`` is the segment's salt xor the record's offset."""
    covered = _RECORD_COVERED.pack(len(payload), previous_crc, kind, index, term) + payload
    crc: int = google_crc32c.extend(seed, covered)
    return _CRC.pack(crc) + covered, crc


def seal_payload(durable: int) -> bytes:
    """What a SEAL says: everything before this position had been synced."""
    return _SEAL_BODY.pack(_SEAL_MAGIC, durable)


def sealed_position(record: Record) -> int:
    """Inverse of ``seal_payload``."""
    durable: int = _SEAL_BODY.unpack(record.payload)[1]
    return durable


def read_record(data: bytes, offset: int, segment_salt: int) -> tuple[Record, int] | str:
    """The record at ``offset`` and the CRC of the one before it; or why there is none."""
    if offset + RECORD_BYTES > len(data):
        return "the record is cut off"
    crc, length, previous_crc, kind, index, term = _RECORD.unpack_from(data, offset)
    end = offset + RECORD_BYTES + length
    if length > PAYLOAD_BYTES_MAX or end > len(data):
        return "the record's length is impossible"
    if crc != google_crc32c.extend(segment_salt ^ offset, data[offset + _CRC_BYTES : end]):
        return "the record does not match its checksum"
    payload = data[offset + RECORD_BYTES : end]
    return Record(kind, index, term, payload, offset, end, crc), previous_crc


def scan(data: bytes, header: Header) -> Scan:
    """All records that follow the header, each verified and chained to the one before."""
    segment_salt = salt(header.sequence)
    previous_crc = header.previous_crc
    records: list[Record] = []
    offset = HEADER_BYTES
    while True:
        if _is_blank(data, offset, RECORD_BYTES):
            blank = _is_blank(data, offset, len(data))
            return Scan(records, offset, None if blank else "bytes after the end of the log")
        found = read_record(data, offset, segment_salt)
        if isinstance(found, str):
            return Scan(records, offset, found)
        record, before = found
        if before != previous_crc:
            return Scan(records, offset, "the record does not follow the one before it")
        records.append(record)
        offset = record.end
        previous_crc = record.crc


def seals(data: bytes, sequence: int) -> Iterator[int]:
    """Durable positions in every intact SEAL, wherever it stands: also behind damage."""
    segment_salt = salt(sequence)
    at = data.find(_SEAL_MAGIC)
    while at >= 0:
        found = read_record(data, at - RECORD_BYTES, segment_salt) if at >= RECORD_BYTES else ""
        if not isinstance(found, str) and found[0].kind == SEAL:
            yield sealed_position(found[0])
        at = data.find(_SEAL_MAGIC, at + 1)


def _is_blank(data: bytes, offset: int, count: int) -> bool:
    part = data[offset : offset + count]
    return part == bytes(len(part))
