"""What the log answers while it runs, on a disk in memory and on a real one."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from raftq.disk import Disk, Ended, OsDisk
from raftq.journal import Journal, JournalFailure, LogEntry
from raftq.journal.sync import SyncWork
from simulation.disk import FaultyDisk, PowerLoss


@pytest.fixture(params=["memory", "os"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Disk, str]:
    if request.param == "memory":
        return FaultyDisk(), "/data/log"
    return OsDisk(), f"{tmp_path}/data/log"


def opened(disk: Disk, directory: str, *, cache_bytes: int = 1 << 20) -> Journal:
    return Journal.open(disk, directory, segment_bytes=1024, cache_bytes=cache_bytes)


def payload(index: int, term: int = 1) -> bytes:
    return f"entry {index} of term {term}".encode() + bytes(index % 7 * 20)


def entry(index: int, term: int = 1) -> LogEntry:
    return LogEntry(payload(index, term), index, term)


def extend(journal: Journal, through: int, term: int = 1) -> None:
    for index in range(journal.last_index + 1, through + 1):
        journal.append(payload(index, term), index, term)


def sync(journal: Journal) -> None:
    work = journal.begin_sync()
    assert work is not None
    work.run()
    journal.end_sync(work)


def compact(journal: Journal, index: int) -> None:
    for _ in journal.compact_to(index):
        pass


def contents(journal: Journal) -> list[LogEntry]:
    if journal.base_index == journal.last_index:
        return []
    return journal.slice(journal.base_index + 1, journal.last_index)


def files(disk: Disk, directory: str, suffix: str) -> list[str]:
    return [f"{directory}/{name}" for name in disk.list(directory) if name.endswith(suffix)]


def test_a_new_journal_is_empty_and_durable(place: tuple[Disk, str]) -> None:
    journal = opened(*place)
    assert (journal.base_index, journal.base_term) == (0, 0)
    assert (journal.last_index, journal.last_term, journal.durable_index) == (0, 0, 0)
    assert [journal.term_at(index) for index in (-1, 0, 1)] == [None, 0, None]
    assert journal.begin_sync() is None
    assert journal.recovery is None
    journal.close()


@pytest.mark.parametrize("cache_bytes", [0, 100, 1 << 20])
def test_entries_come_back_from_memory_from_disk_and_after_a_restart(
    place: tuple[Disk, str], cache_bytes: int
) -> None:
    journal = opened(*place, cache_bytes=cache_bytes)
    extend(journal, 30)
    extend(journal, 60, term=4)
    expected = [entry(i) for i in range(1, 31)] + [entry(i, 4) for i in range(31, 61)]
    assert len(journal.segments()) > 3
    assert contents(journal) == expected
    assert journal.get(17) == entry(17)
    assert [journal.term_at(index) for index in (30, 31, 60, 61)] == [1, 4, 4, None]
    journal.close()
    again = opened(*place, cache_bytes=cache_bytes)
    assert contents(again) == expected
    assert (again.last_index, again.last_term, again.durable_index) == (60, 4, 60)
    assert again.recovery is None
    again.close()


def test_recent_entries_are_read_from_memory_and_old_ones_are_not_kept() -> None:
    disk = FaultyDisk()
    journal = opened(disk, "/log", cache_bytes=500)
    extend(journal, 60)
    for name in disk.list("/log"):
        disk.bytes_of(f"/log/{name}")[200:] = bytes(len(disk.bytes_of(f"/log/{name}")) - 200)
    assert journal.get(60) == entry(60)
    with pytest.raises(Exception, match="checksum"):
        journal.get(3)


@pytest.mark.parametrize(
    ("first", "last", "max_bytes", "count"),
    [
        (1, 5, None, 5),
        (2, 2, None, 1),
        (1, 5, 0, 1),
        (1, 5, 99, 1),
        (1, 5, 200, 2),
        (1, 5, 299, 2),
        (1, 5, 300, 3),
        (4, 5, 10_000, 2),
    ],
)
def test_a_slice_stays_within_its_bytes_but_holds_one_entry(
    first: int, last: int, max_bytes: int | None, count: int
) -> None:
    journal = opened(FaultyDisk(), "/log")
    for index in range(1, 6):
        journal.append(bytes(100), index, 1)
    found = journal.slice(first, last, max_bytes)
    assert [item.index for item in found] == list(range(first, first + count))


def test_an_entry_larger_than_a_segment_gets_a_segment_of_its_size(
    place: tuple[Disk, str],
) -> None:
    journal = opened(*place)
    large = bytes(range(256)) * 20
    journal.append(b"small", 1, 1)
    journal.append(large, 2, 1)
    journal.append(b"small", 3, 1)
    journal.close()
    assert [item.payload for item in contents(opened(*place))] == [b"small", large, b"small"]


def test_truncated_entries_are_gone_and_the_new_ones_stand_in_their_place(
    place: tuple[Disk, str],
) -> None:
    journal = opened(*place, cache_bytes=100)
    extend(journal, 40)
    sync(journal)
    journal.truncate_from(13)
    assert (journal.last_index, journal.last_term, journal.durable_index) == (12, 1, 12)
    assert journal.term_at(13) is None
    extend(journal, 20, term=2)
    expected = [entry(i) for i in range(1, 13)] + [entry(i, 2) for i in range(13, 21)]
    assert contents(journal) == expected
    assert journal.durable_index == 12
    sync(journal)
    assert journal.durable_index == 20
    journal.close()
    assert contents(opened(*place)) == expected


def test_a_truncation_alone_is_worth_a_sync() -> None:
    journal = opened(FaultyDisk(), "/log")
    extend(journal, 3)
    sync(journal)
    journal.truncate_from(3)
    sync(journal)
    assert journal.begin_sync() is None


def test_appends_go_on_beside_a_sync_and_are_not_counted_as_durable() -> None:
    journal = opened(FaultyDisk(), "/log")
    extend(journal, 3)
    work = journal.begin_sync()
    assert work is not None
    extend(journal, 40)
    work.run()
    assert journal.durable_index == 0
    journal.end_sync(work)
    assert journal.durable_index == 3
    sync(journal)
    assert journal.durable_index == 40


def test_what_a_truncation_voids_beside_a_sync_does_not_count_as_durable() -> None:
    journal = opened(FaultyDisk(), "/log")
    extend(journal, 9)
    work = journal.begin_sync()
    assert work is not None
    journal.truncate_from(5)
    extend(journal, 9, term=2)
    work.run()
    journal.end_sync(work)
    assert journal.durable_index == 4


def test_a_reset_beside_a_sync_is_not_undone_by_it() -> None:
    disk = FaultyDisk()
    journal = opened(disk, "/log")
    extend(journal, 40)
    work = journal.begin_sync()
    assert work is not None
    journal.reset(3, 1)
    work.run()
    journal.end_sync(work)
    assert (journal.last_index, journal.durable_index) == (3, 3)
    extend(journal, 5)
    sync(journal)
    assert journal.durable_index == 5
    assert disk.open_files == 1


def test_only_one_sync_is_in_flight() -> None:
    journal = opened(FaultyDisk(), "/log")
    extend(journal, 1)
    journal.begin_sync()
    with pytest.raises(AssertionError, match="in flight already"):
        journal.begin_sync()


def test_compaction_deletes_whole_segments_and_moves_the_base(place: tuple[Disk, str]) -> None:
    disk, directory = place
    journal = opened(disk, directory)
    extend(journal, 50)
    compact(journal, 50)
    assert journal.base_index == 0, "nothing is durable yet"
    sync(journal)
    before = journal.segments()
    compact(journal, before[2].first_index - 2)
    assert journal.base_index == before[1].first_index - 1
    compact(journal, before[2].first_index - 1)
    assert journal.base_index == before[2].first_index - 1
    assert journal.segments() == before[2:]
    assert journal.size_bytes == sum(info.bytes for info in before[2:])
    assert files(disk, directory, ".segment") == [p for p, _, _ in before[2:]]
    base = journal.base_index
    assert journal.term_at(base) == journal.base_term == 1
    assert journal.term_at(base - 1) is None
    assert contents(journal) == [entry(i) for i in range(base + 1, 51)]
    journal.close()
    again = opened(disk, directory)
    assert (again.base_index, again.base_term) == (base, 1)
    assert contents(again) == [entry(i) for i in range(base + 1, 51)]
    again.close()


def test_a_log_that_was_truncated_below_a_segments_base_is_compacted_rightly() -> None:
    disk = FaultyDisk()
    journal = opened(disk, "/log")
    extend(journal, 20)
    journal.truncate_from(2)
    compact(journal, 1)
    extend(journal, 30, term=2)
    sync(journal)
    compact(journal, 1)
    assert (journal.base_index, journal.base_term) == (1, 1)
    expected = [entry(i, 2) for i in range(2, 31)]
    assert contents(journal) == expected
    disk.crash()
    again = opened(disk, "/log")
    assert (again.base_index, again.base_term) == (1, 1)
    assert contents(again) == expected


def test_a_reset_forgets_all_and_is_durable(place: tuple[Disk, str]) -> None:
    disk, directory = place
    journal = opened(disk, directory)
    extend(journal, 30)
    journal.reset(100, 7)
    assert (journal.base_index, journal.base_term, journal.durable_index) == (100, 7, 100)
    assert (journal.last_index, journal.last_term) == (100, 7)
    assert journal.begin_sync() is None
    assert len(disk.list(directory)) == 1
    extend(journal, 103, term=8)
    journal.close()
    again = opened(disk, directory)
    assert (again.base_index, again.base_term, again.last_term) == (100, 7, 8)
    assert contents(again) == [entry(i, 8) for i in (101, 102, 103)]
    again.close()


def test_no_append_pays_for_a_segment_that_was_prepared() -> None:
    disk = FaultyDisk()
    journal = opened(disk, "/log")
    while (work := journal.prepare()) is None:
        extend(journal, journal.last_index + 1)
    assert journal.prepare() is None, "it is being made"
    work()
    assert journal.prepare() is None, "it is there"
    assert len(journal.segments()) == 1
    before = disk.changes["sync"]
    while len(journal.segments()) == 1:
        extend(journal, journal.last_index + 1)
    assert disk.changes["sync"] == before
    while (work := journal.prepare()) is None:
        extend(journal, journal.last_index + 1)
    while len(journal.segments()) == 2:
        extend(journal, journal.last_index + 1)
    assert disk.changes["sync"] > before, "not ready in time: made on the spot"
    work()
    journal.close()
    assert contents(opened(disk, "/log")) == [entry(i) for i in range(1, journal.last_index + 1)]
    assert all(name.endswith(".segment") for name in disk.list("/log"))


def test_a_segment_is_made_long_before_it_is_needed() -> None:
    disk = FaultyDisk()
    journal = Journal.open(disk, "/log", segment_bytes=1 << 20, cache_bytes=1 << 20)
    assert journal.prepare() is None, "what is idle needs none"
    journal.append(bytes(1 << 16), 1, 1)
    assert journal.prepare() is not None
    journal.close()


def test_a_segment_is_made_in_pieces_that_the_logs_syncs_can_wait_for() -> None:
    disk = FaultyDisk()
    Journal.open(disk, "/log", segment_bytes=1 << 20, cache_bytes=1 << 20).close()
    before = disk.changes["sync"]
    journal = Journal.open(disk, "/log", segment_bytes=1 << 20, cache_bytes=1 << 20)
    journal.append(bytes(1 << 19), 1, 1)
    work = journal.prepare()
    assert work is not None
    work()
    assert disk.changes["sync"] - before >= 2, "of 512 KiB each"


def fill(journal: Journal, segments: int) -> None:
    """Until there are so many."""
    while len(journal.segments()) < segments:
        extend(journal, journal.last_index + 1)


def test_a_busy_log_goes_on_in_the_files_that_it_no_longer_needs() -> None:
    disk = FaultyDisk()
    journal = opened(disk, "/log")
    fill(journal, 4)
    sync(journal)
    compact(journal, journal.segments()[-1].first_index - 1)
    assert len(journal.segments()) == 1
    assert len(files(disk, "/log", ".tmp")) == 3
    disk.full = True  # Nothing may grow, and nothing has to.
    while (work := journal.prepare()) is None:
        extend(journal, journal.last_index + 1)
    work()
    fill(journal, 4)
    disk.full = False
    assert files(disk, "/log", ".tmp") == []
    sync(journal)
    expected = contents(journal)
    disk.crash()
    again = opened(disk, "/log")
    assert again.recovery is None
    assert contents(again) == expected


def test_what_is_behind_the_end_of_a_used_file_is_zeros() -> None:
    disk = FaultyDisk()
    journal = opened(disk, "/log")
    fill(journal, 3)
    sync(journal)
    compact(journal, journal.segments()[-1].first_index - 1)
    fill(journal, 2)
    newest = bytes(disk.bytes_of(journal.segments()[-1].path))
    assert newest.count(b"entry") == 1
    assert not any(newest[newest.index(b"entry") + 64 :])


def test_files_are_kept_for_as_long_as_the_log_is_busy() -> None:
    disk = FaultyDisk()
    journal = opened(disk, "/log")
    fill(journal, 4)
    sync(journal)
    compact(journal, journal.segments()[-1].first_index - 1)
    fill(journal, 2)
    sync(journal)
    compact(journal, journal.segments()[-1].first_index - 1)
    assert len(files(disk, "/log", ".tmp")) == 1, "one segment was begun"
    compact(journal, journal.base_index)
    assert files(disk, "/log", ".tmp") == []


def test_a_segment_that_is_given_up_is_whole_until_its_name_is_gone() -> None:
    for seed in range(40):
        disk = FaultyDisk(seed)
        journal = opened(disk, "/log")
        fill(journal, 3)
        sync(journal)
        through = journal.segments()[-1].first_index - 1
        disk.power_fails_after = seed % 6
        with pytest.raises(PowerLoss):  # noqa: PT012  # Where, is the seed's.
            compact(journal, through)
            fill(journal, 3)
        disk.crash()
        again = opened(disk, "/log")
        assert again.base_index in (0, *(info.first_index - 1 for info in again.segments()))
        assert again.last_index >= through
        assert contents(again) == [
            entry(i) for i in range(again.base_index + 1, again.last_index + 1)
        ]


def test_a_full_disk_refuses_the_append_that_needs_a_segment_and_nothing_else() -> None:
    disk = FaultyDisk()
    journal = opened(disk, "/log")
    disk.fails_with = errno.ENOSPC
    disk.fails_on = ("write",)
    with pytest.raises(OSError, match="No space"):  # noqa: PT012  # Which one needs it is not the point.
        while True:
            end = journal.last_index
            disk.fails_after = 1 if len(journal.segments()) == 1 else None
            extend(journal, end + 1)
            assert len(journal.segments()) == 1
    assert (journal.last_index, journal.durable_index) == (end, 0)
    disk.fails_after = None
    extend(journal, 40)
    sync(journal)
    assert contents(journal) == [entry(i) for i in range(1, 41)]
    assert all(name.endswith(".segment") for name in disk.list("/log"))
    assert disk.open_files == 1


def test_no_room_for_a_spare_changes_nothing() -> None:
    disk = FaultyDisk()
    journal = opened(disk, "/log")
    while (work := journal.prepare()) is None:
        extend(journal, journal.last_index + 1)
    disk.fails_after = 0
    with pytest.raises(OSError, match="error"):
        work()
    disk.fails_after = None
    again = journal.prepare()
    assert again is not None
    again()
    extend(journal, 40)
    sync(journal)
    assert journal.durable_index == 40


def refusals(journal: Journal) -> list[str]:
    """The operations that a stopped journal refuses."""
    refused = []
    for operation in (
        lambda: journal.append(b"", journal.last_index + 1, 9),
        lambda: journal.truncate_from(journal.last_index),
        lambda: journal.get(1),
        lambda: compact(journal, 1),
        lambda: journal.reset(1, 1),
        journal.begin_sync,
        journal.seal,
        journal.prepare,
    ):
        with pytest.raises(JournalFailure) as caught:
            operation()
        refused.append(str(caught.value))
    return refused


def test_a_failed_write_stops_the_journal_and_leaves_no_half_record_behind() -> None:
    disk = FaultyDisk(3)
    journal = opened(disk, "/log")
    extend(journal, 3)
    sync(journal)
    disk.fails_after = 0
    with pytest.raises(OSError, match="error"):
        journal.append(payload(4), 4, 1)
    disk.fails_after = None
    assert set(refusals(journal)) == {"the journal stopped: OSError(5, 'Input/output error')"}
    journal.close()
    journal.close()
    assert disk.open_files == 0
    assert contents(opened(disk, "/log"))[:3] == [entry(1), entry(2), entry(3)]


@pytest.mark.parametrize("successes", [0, 1, 2])
def test_a_failed_sync_stops_the_journal_at_once(successes: int) -> None:
    disk = FaultyDisk()
    journal = opened(disk, "/log")
    extend(journal, 12)
    work = journal.begin_sync()
    assert len(journal.segments()) == 2
    assert work is not None
    disk.fails_after = successes
    with pytest.raises(OSError, match="error"):
        work.run()
    disk.fails_after = None
    refusals(journal)
    with pytest.raises(JournalFailure):
        journal.end_sync(work)
    assert journal.durable_index == 0
    journal.close()
    assert disk.open_files == 0


def test_what_a_failed_sync_lost_is_written_again_at_the_next_start() -> None:
    disk = FaultyDisk()
    journal = opened(disk, "/log")
    extend(journal, 30)
    work = journal.begin_sync()
    assert work is not None
    disk.fails_after = 1
    with pytest.raises(OSError, match="error"):
        work.run()
    disk.kill()
    assert opened(disk, "/log").durable_index == 30
    disk.crash()
    assert contents(opened(disk, "/log")) == [entry(i) for i in range(1, 31)]


def test_a_failed_reset_stops_the_journal() -> None:
    disk = FaultyDisk()
    journal = opened(disk, "/log")
    extend(journal, 12)
    disk.fails_after = 6
    with pytest.raises(OSError, match="error"):
        journal.reset(50, 2)
    disk.fails_after = None
    refusals(journal)
    journal.close()


def begun(begins: list[Ended], directory: Path) -> tuple[Journal, SyncWork]:
    """A sync on its way of a disk that syncs by itself."""

    def begin(_descriptor: int, ended: Ended) -> bool:
        begins.append(ended)
        return True

    journal = opened(OsDisk(begin), f"{directory}/log")
    extend(journal, 1)
    work = journal.begin_sync()
    assert work is not None
    return journal, work


def test_a_sync_that_goes_on_by_itself_counts_when_it_has_ended(tmp_path: Path) -> None:
    begins: list[Ended] = []
    told: list[BaseException | None] = []
    journal, work = begun(begins, tmp_path)
    assert work.begin(told.append)
    assert journal.durable_index == 0
    assert not work.done
    (ended,) = begins
    ended(None)
    assert told == [None]
    journal.end_sync(work)
    assert journal.durable_index == 1


def test_a_sync_that_fails_by_itself_stops_the_journal_at_once(tmp_path: Path) -> None:
    begins: list[Ended] = []
    told: list[BaseException | None] = []
    journal, work = begun(begins, tmp_path)
    assert work.begin(told.append)
    failure = OSError(errno.EIO, "the disk is gone")
    begins[0](failure)
    assert told == [failure]
    refusals(journal)
    with pytest.raises(JournalFailure):
        journal.end_sync(work)


def test_only_one_file_goes_on_by_itself(tmp_path: Path) -> None:
    begins: list[Ended] = []
    journal, work = begun(begins, tmp_path)
    work.run()
    journal.end_sync(work)
    while len(journal.segments()) == 1:
        extend(journal, journal.last_index + 1)
    work = journal.begin_sync()
    assert work is not None
    assert not work.begin(pytest.fail), "two files and their names: they are done in order"
    assert not begins
    work.run()
    journal.end_sync(work)
    assert journal.durable_index == journal.last_index


def test_closing_beside_a_sync_leaves_its_files_to_it() -> None:
    disk = FaultyDisk()
    journal = opened(disk, "/log")
    extend(journal, 12)
    work = journal.begin_sync()
    assert work is not None
    journal.close()
    work.run()
    with pytest.raises(JournalFailure, match="closed"):
        journal.end_sync(work)
    assert disk.open_files == 0
    assert contents(opened(disk, "/log")) == [entry(i) for i in range(1, 13)]


@pytest.mark.parametrize("how", ["compact", "reset"])
def test_no_deleted_segment_is_kept_open(how: str) -> None:
    disk = FaultyDisk()
    journal = opened(disk, "/log", cache_bytes=0)
    extend(journal, 50)
    sync(journal)
    assert journal.get(1) == entry(1)
    if how == "compact":
        compact(journal, 50)
    else:
        journal.reset(60, 1)
    assert disk.open_files == 1


def test_a_running_journal_does_not_gather_open_files() -> None:
    disk = FaultyDisk()
    journal = opened(disk, "/log", cache_bytes=0)
    for through in range(10, 200, 10):
        extend(journal, through)
        assert journal.get(journal.base_index + 1).index == journal.base_index + 1
        sync(journal)
        compact(journal, through - 20)
        assert disk.open_files <= 2, "the one written to and the one read from"
    journal.close()
    assert disk.open_files == 0
