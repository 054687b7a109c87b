"""The offline check tells good, torn and corrupt apart and changes nothing."""

from __future__ import annotations

import pytest

from raftq.journal import Journal, TermFile, record_file
from raftq.journal.inspect import inspect
from simulation.disk import FaultyDisk

LOG = "/data/log"


def written(disk: FaultyDisk) -> Journal:
    """Three segments; two entries behind the last seal."""
    journal = Journal.open(disk, LOG, segment_bytes=512)
    while len(journal.segments()) < 3:
        journal.append(bytes(100), journal.last_index + 1, 1 + journal.last_index // 4)
    work = journal.begin_sync()
    assert work is not None
    work.run()
    journal.end_sync(work)
    journal.append(b"x" * 40, journal.last_index + 1, 5)
    journal.append(b"y" * 40, journal.last_index + 1, 5)
    return journal


def snapshot(disk: FaultyDisk) -> dict[str, bytes]:
    return {name: bytes(disk.bytes_of(f"{LOG}/{name}")) for name in disk.list(LOG)}


def test_a_good_log_is_described_segment_by_segment() -> None:
    disk = FaultyDisk()
    journal = written(disk)
    before = snapshot(disk)
    report = inspect(disk, LOG)
    assert report.state == "good"
    assert (report.base_index, report.last_index, report.last_term) == (0, journal.last_index, 5)
    firsts = [info.first_index for info in journal.segments()]
    assert [segment.first_index for segment in report.segments] == firsts
    lasts = [*(first - 1 for first in firsts[1:]), journal.last_index]
    assert [segment.last_index for segment in report.segments] == lasts
    assert [segment.path for segment in report.segments] == [p for p, _, _ in journal.segments()]
    assert {segment.state for segment in report.segments} == {"good"}
    assert (report.segments[0].first_term, report.segments[-1].last_term) == (1, 5)
    assert [segment.seals for segment in report.segments] == [2, 0, 1]
    assert [s.bytes for s in report.segments] == [512, 512, 512]
    assert report.segments[2].records == lasts[2] - firsts[2] + 2
    assert snapshot(disk) == before


def test_a_torn_tail_is_told_with_its_offset_and_left_alone() -> None:
    disk = FaultyDisk()
    journal = written(disk)
    end = journal._active.end
    disk.bytes_of(journal.segments()[-1].path)[end - 1] ^= 1
    before = snapshot(disk)
    report = inspect(disk, LOG)
    assert report.state == "torn tail"
    assert [segment.state for segment in report.segments] == ["good", "good", "torn tail"]
    assert report.segments[2].offset == end - 72
    assert report.segments[2].reason == "the record does not match its checksum"
    assert report.last_index == journal.last_index - 1
    assert snapshot(disk) == before


def test_segments_behind_a_torn_record_are_torn_too() -> None:
    disk = FaultyDisk()
    journal = written(disk)
    end = journal._active.end
    while len(journal.segments()) < 5:
        journal.append(bytes(100), journal.last_index + 1, 5)
    disk.bytes_of(journal.segments()[2].path)[end - 1] ^= 1
    report = inspect(disk, LOG)
    states = [segment.state for segment in report.segments]
    assert states == ["good", "good", *["torn tail"] * 3]
    assert report.segments[4].reason == "follows a torn record: a start deletes it"


def test_corruption_is_told_with_its_offset_and_what_follows_is_judged_by_itself() -> None:
    disk = FaultyDisk()
    journal = written(disk)
    disk.bytes_of(journal.segments()[1].path)[60] ^= 1
    report = inspect(disk, LOG)
    assert report.state == "corrupt"
    assert [segment.state for segment in report.segments] == ["good", "corrupt", "good"]
    assert report.segments[1].offset == 48
    assert report.last_index == report.segments[0].last_index


def test_a_missing_segment_is_listed_as_corrupt() -> None:
    disk = FaultyDisk()
    journal = written(disk)
    path = journal.segments()[1].path
    disk.unlink(path)
    report = inspect(disk, LOG)
    assert [segment.state for segment in report.segments] == ["good", "corrupt", "good"]
    assert (report.segments[1].path, report.segments[1].reason) == (path, "the segment is missing")


def test_another_version_is_corrupt_with_a_readable_reason() -> None:
    disk = FaultyDisk()
    journal = written(disk)
    disk.bytes_of(journal.segments()[2].path)[8] = 3
    report = inspect(disk, LOG)
    assert report.segments[2].state == "corrupt"
    assert report.segments[2].reason == "format version 3, this program reads version 1"


@pytest.mark.parametrize("present", [True, False])
def test_a_directory_without_a_log_is_absent_and_is_not_created(present: bool) -> None:
    disk = FaultyDisk()
    if present:
        disk.make_directory(LOG)
    report = inspect(disk, LOG)
    assert report.state == "absent"
    assert disk.exists(LOG) == present


def test_record_files_and_the_term_file_are_checked() -> None:
    disk = FaultyDisk()
    written(disk).close()
    TermFile(disk, "/data/term").store(4, "n3")
    record_file.store(disk, "/data/identity", b"12345")
    record_file.store(disk, "/data/rotten", b"12345")
    disk.bytes_of("/data/rotten")[-1] ^= 1
    names = ["/data/identity", "/data/rotten", "/data/none"]
    report = inspect(disk, LOG, term_file="/data/term", record_files=names)
    assert report.state == "corrupt"
    assert [(file.path, file.state, file.detail) for file in report.files] == [
        ("/data/identity", "good", "5 bytes"),
        ("/data/rotten", "corrupt", "the file does not match its checksum"),
        ("/data/none", "absent", "never stored"),
        ("/data/term", "good", "term 4, voted for n3"),
    ]
    good = inspect(disk, LOG, term_file="/data/term", record_files=["/data/none"])
    assert good.state == "good"


@pytest.mark.parametrize("payload", [b"nonsense"])
def test_a_term_file_with_other_content_is_corrupt(payload: bytes) -> None:
    disk = FaultyDisk()
    disk.make_directory("/data")
    record_file.store(disk, "/data/term", payload)
    report = inspect(disk, LOG, term_file="/data/term")
    assert report.files[0].state == "corrupt"
