"""Bytes that are already on somebody's disk. Add cases; never change one."""

from __future__ import annotations

import pytest

from raftq.journal import Journal, TermFile, layout
from simulation.disk import FaultyDisk

HEADER = (
    "52414654514c4f47010000000100000001000000000000000000000000000000"
    "00000000000000000000000063283ec5"
)
START_SEAL = (
    "4f6eb30d10000000000000000300000000000000000000000000000000000000"
    "a55345414c45445a3000000001000000"
)
FIRST_SEAL = (
    "27197571100000004f6eb30d0300000000000000000000000000000000000000"
    "a55345414c45445a6000000001000000"
)
FIRST = "03dc3f53050000002719757101000000010000000000000001000000000000006669727374"
EMPTY = "b57349130000000003dc3f530100000002000000000000000100000000000000"
SECOND_SEAL = (
    "d1eb9e8710000000b57349130300000002000000000000000000000000000000"
    "a55345414c45445ad500000001000000"
)
TRUNCATION = "68032a2d00000000d1eb9e870200000002000000000000000100000000000000"
SECOND = "edd55bed0600000068032a2d01000000020000000000000003000000000000007365636f6e64"
TERM = "524146545152454301000000050000004e011bac9207a26e31"


def test_the_format_is_frozen() -> None:
    disk = FaultyDisk()
    journal = Journal.open(disk, "/log", segment_bytes=512)
    journal.append(b"first", 1, 1)
    journal.append(b"", 2, 1)
    work = journal.begin_sync()
    assert work is not None
    work.run()
    journal.end_sync(work)
    journal.truncate_from(2)
    journal.append(b"second", 2, 3)
    parts = [HEADER, START_SEAL, FIRST_SEAL, FIRST, EMPTY, SECOND_SEAL, TRUNCATION, SECOND]
    expected = bytes.fromhex("".join(parts))
    found = bytes(disk.bytes_of("/log/00000001.segment"))
    assert found == expected.ljust(512, b"\0")
    disk.kill()
    again = Journal.open(disk, "/log", segment_bytes=512)
    assert again.slice(1, 2) == [(b"first", 1, 1), (b"second", 2, 3)]


def test_the_term_files_format_is_frozen() -> None:
    disk = FaultyDisk()
    TermFile(disk, "/term").store(7, "n1")
    assert bytes(disk.bytes_of("/term")).hex() == TERM


def test_a_record_verifies_only_in_its_place() -> None:
    data, _ = layout.encode_record(layout.salt(3) ^ 48, 5, layout.ENTRY, 9, 2, b"body")
    found = layout.read_record(bytes(48) + data, 48, layout.salt(3))
    assert not isinstance(found, str)
    record, previous_crc = found
    assert (record.index, record.term, record.payload, previous_crc) == (9, 2, b"body", 5)
    assert isinstance(layout.read_record(bytes(49) + data, 49, layout.salt(3)), str)
    assert isinstance(layout.read_record(bytes(48) + data, 48, layout.salt(4)), str)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", None),
        (bytes(7), None),
        (bytes(100), None),
        (bytes(31) + b"x", "the record does not match its checksum"),
        (bytes(32) + b"x", "bytes after the end of the log"),
        (b"x", "the record is cut off"),
        (b"\xff" * 32, "the record's length is impossible"),
        (bytes(4) + b"\x09" + bytes(27), "the record's length is impossible"),
    ],
)
def test_where_records_end_is_told_with_a_reason(data: bytes, reason: str | None) -> None:
    header = layout.Header(1, 0, 0, 0, start=True)
    found = layout.scan(layout.encode_header(header) + data, header)
    assert (found.records, found.end, found.reason) == ([], layout.HEADER_BYTES, reason)


def test_a_record_that_follows_another_than_its_writer_saw_ends_the_log() -> None:
    header = layout.Header(1, 0, 0, 77, start=False)
    seed = layout.salt(1) ^ layout.HEADER_BYTES
    data, _ = layout.encode_record(seed, 78, layout.ENTRY, 1, 1, b"")
    found = layout.scan(layout.encode_header(header) + data, header)
    assert found.reason == "the record does not follow the one before it"


def test_a_seal_is_found_behind_damage_and_a_forged_one_is_not() -> None:
    body = layout.seal_payload(layout.position(2, 700))
    seal, _ = layout.encode_record(layout.salt(2) ^ 500, 1, layout.SEAL, 0, 0, body)
    lookalike, _ = layout.encode_record(layout.salt(2) ^ 300, 1, layout.ENTRY, 1, 1, body)
    data = bytearray(600)
    data[3:19] = body
    data[100:116] = body
    data[300 : 300 + len(lookalike)] = lookalike
    data[500 : 500 + len(seal)] = seal
    assert list(layout.seals(bytes(data), 2)) == [layout.position(2, 700)]
    assert list(layout.seals(bytes(data), 3)) == []
