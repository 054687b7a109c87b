"""A crash's torn tail is cut; damage to what was durable stops the node."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from raftq.journal import Corruption, Journal, LogEntry, layout
from simulation.disk import FaultyDisk

DIRECTORY = "/log"
Damage = Callable[[FaultyDisk, "Written"], None]


class Written:
    """A log of three kinds of entries: sealed, durable without a seal, only written."""

    def __init__(self, disk: FaultyDisk) -> None:
        self.offsets: dict[int, tuple[str, int]] = {}
        self.journal = opened(disk)
        for index in range(1, 26):
            self.append(index)
        self.sync()
        self.append(26)  # Behind the seal for what is before it.
        self.sync()
        self.durable = 26
        self.sealed = 25

    def append(self, index: int) -> None:
        self.journal.append(payload(index), index, 1)
        # Where the record starts is where it ends, less its length.
        place = self.journal._active
        start = place.end - layout.RECORD_BYTES - len(payload(index))
        self.offsets[index] = place.path, start

    def sync(self) -> None:
        work = self.journal.begin_sync()
        assert work is not None
        work.run()
        self.journal.end_sync(work)


def opened(disk: FaultyDisk) -> Journal:
    return Journal.open(disk, DIRECTORY, segment_bytes=1024, cache_bytes=1 << 20)


def payload(index: int) -> bytes:
    return b"%d." % index * 20


def entries(through: int) -> list[LogEntry]:
    return [LogEntry(payload(index), index, 1) for index in range(1, through + 1)]


def contents(journal: Journal) -> list[LogEntry]:
    return journal.slice(1, journal.last_index) if journal.last_index else []


def flip(disk: FaultyDisk, path: str, offset: int) -> None:
    disk.bytes_of(path)[offset] ^= 0x10


def segment_path(sequence: int) -> str:
    return f"{DIRECTORY}/{sequence:08x}.segment"


# --- torn tails -------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [0, 4, 12, layout.RECORD_BYTES, layout.RECORD_BYTES + 30])
def test_a_bad_last_record_above_the_seal_is_cut_and_said_so(where: int) -> None:
    disk = FaultyDisk()
    written = Written(disk)
    written.append(27)
    path, offset = written.offsets[27]
    flip(disk, path, offset + where)
    disk.kill()
    journal = opened(disk)
    assert contents(journal) == entries(26)
    assert journal.recovery is not None
    assert journal.recovery.path == path
    assert journal.recovery.offset == offset
    assert journal.recovery.bytes_cut > 0
    assert journal.recovery.reason


def test_a_later_record_that_survived_without_an_earlier_one_goes_with_it() -> None:
    disk = FaultyDisk()
    written = Written(disk)
    written.append(27)
    written.append(28)
    path, offset = written.offsets[27]
    end = written.offsets[28][1]
    disk.bytes_of(path)[offset:end] = bytes(end - offset)
    disk.kill()
    journal = opened(disk)
    assert contents(journal) == entries(26)
    # Where 28 stood there are zeros now: it cannot come back behind another 27.
    journal.append(payload(27), 27, 1)
    disk.kill()
    assert contents(opened(disk)) == entries(27)


def test_a_torn_end_of_one_segment_takes_the_next_segments_with_it() -> None:
    disk = FaultyDisk()
    written = Written(disk)
    for index in range(27, 50):
        written.append(index)
    path, offset = written.offsets[27]
    assert len({path for path, _ in written.offsets.values()}) > 3
    flip(disk, path, offset)
    disk.kill()
    journal = opened(disk)
    assert contents(journal) == entries(26)
    assert journal.recovery is not None
    assert journal.recovery.segments_dropped >= 1
    for index in range(27, 50):
        journal.append(payload(index), index, 1)
    disk.kill()
    assert contents(opened(disk)) == entries(49)


def test_an_unsynced_new_segment_without_its_header_is_dropped() -> None:
    disk = FaultyDisk()
    written = Written(disk)
    last = written.journal.segments()[-1].path
    while written.journal.segments()[-1].path == last:
        written.append(written.journal.last_index + 1)
    path = written.journal.segments()[-1].path
    disk.bytes_of(path)[:512] = bytes(512)
    disk.kill()
    journal = opened(disk)
    assert contents(journal) == entries(written.journal.last_index - 1)
    assert journal.recovery is not None
    assert (journal.recovery.path, journal.recovery.offset) == (path, 0)
    assert not disk.exists(path)


def test_an_unsynced_new_segment_missing_before_another_is_a_torn_tail() -> None:
    disk = FaultyDisk()
    written = Written(disk)
    known = {info.path for info in written.journal.segments()}
    while len(written.journal.segments()) < len(known) + 2:
        written.append(written.journal.last_index + 1)
    missing, _ = [info for info in written.journal.segments() if info.path not in known]
    disk.unlink(missing.path)
    disk.kill()
    journal = opened(disk)
    assert contents(journal) == entries(missing.first_index - 1)
    assert journal.recovery is not None
    assert journal.recovery.reason == "the segment is missing"


def test_a_record_written_beside_the_sync_that_a_seal_speaks_of_may_be_torn() -> None:
    disk = FaultyDisk()
    written = Written(disk)
    written.append(27)
    work = written.journal.begin_sync()
    assert work is not None
    written.append(28)
    work.run()
    written.journal.end_sync(work)
    written.append(29)
    path, offset = written.offsets[28]
    flip(disk, path, offset + 20)
    disk.kill()
    assert contents(opened(disk)) == entries(27)


def test_rotten_unused_space_in_an_older_segment_is_harmless() -> None:
    disk = FaultyDisk()
    written = Written(disk)
    disk.bytes_of(segment_path(1))[-1] ^= 1
    disk.kill()
    journal = opened(disk)
    assert contents(journal) == entries(written.durable)
    assert journal.recovery is None


def test_leftovers_of_an_interrupted_reset_and_of_preparing_are_removed() -> None:
    disk = FaultyDisk()
    written = Written(disk)
    old = {info.path: bytes(disk.bytes_of(info.path)) for info in written.journal.segments()}
    written.journal.reset(90, 5)
    written.journal.close()
    for path, data in [*old.items(), (f"{DIRECTORY}/spare-1.tmp", b"?" * 700)]:
        file = disk.open(path, create=True)
        file.pwrite(data, 0)
        file.close()
    journal = opened(disk)
    assert (journal.base_index, journal.base_term, journal.last_index) == (90, 5, 90)
    assert disk.list(DIRECTORY) == [journal.segments()[0].path.rpartition("/")[2]]


# --- corruption -------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [1, 7, 15, 24, 25])
def test_a_bad_record_below_a_seal_is_corruption_at_its_offset(index: int) -> None:
    disk = FaultyDisk()
    written = Written(disk)
    path, offset = written.offsets[index]
    flip(disk, path, offset + 7)
    disk.kill()
    before = bytes(disk.bytes_of(path))
    with pytest.raises(Corruption) as caught:
        opened(disk)
    assert (caught.value.path, caught.value.offset) == (path, offset)
    assert str(caught.value) == f"{path}: offset {offset}: {caught.value.reason}"
    assert bytes(disk.bytes_of(path)) == before, "a refused log is left as it is"


def test_sealed_records_that_read_as_zeros_are_corruption() -> None:
    """A lost write: the sectors are as blank as unwritten ones."""
    disk = FaultyDisk()
    written = Written(disk)
    path, offset = written.offsets[24]
    disk.bytes_of(path)[offset : written.offsets[25][1]] = bytes(written.offsets[25][1] - offset)
    disk.kill()
    with pytest.raises(Corruption) as caught:
        opened(disk)
    assert caught.value.offset == offset


def test_a_seal_in_a_later_segment_covers_the_end_of_an_earlier_one() -> None:
    disk = FaultyDisk()
    written = Written(disk)
    first = [index for index, (path, _) in written.offsets.items() if path == segment_path(1)]
    offset = written.offsets[first[-1]][1]
    disk.bytes_of(segment_path(1))[offset:] = bytes(1024 - offset)
    disk.kill()
    with pytest.raises(Corruption) as caught:
        opened(disk)
    assert (caught.value.path, caught.value.offset) == (segment_path(1), offset)


def test_sealed_damage_is_corruption_also_before_a_segment_that_a_crash_lost() -> None:
    disk = FaultyDisk()
    written = Written(disk)
    known = {info.path for info in written.journal.segments()}
    while len(written.journal.segments()) < len(known) + 2:
        written.append(written.journal.last_index + 1)
    lost, _ = [info for info in written.journal.segments() if info.path not in known]
    disk.unlink(lost.path)
    path, offset = written.offsets[25]
    flip(disk, path, offset)
    disk.kill()
    with pytest.raises(Corruption) as caught:
        opened(disk)
    assert (caught.value.path, caught.value.offset) == (path, offset)


def test_the_idle_seal_covers_the_very_last_entry() -> None:
    disk = FaultyDisk()
    written = Written(disk)
    written.journal.seal()
    path, offset = written.offsets[26]
    flip(disk, path, offset + 40)
    disk.kill()
    with pytest.raises(Corruption) as caught:
        opened(disk)
    assert caught.value.offset == offset


def test_an_idle_journal_is_sealed_once_and_not_synced_for_it() -> None:
    disk = FaultyDisk()
    written = Written(disk)
    written.journal.seal()
    writes = disk.changes["write"]
    written.journal.seal()
    assert disk.changes["write"] == writes
    assert written.journal.begin_sync() is None


def test_what_a_start_found_is_durable_and_sealed_by_the_next_write() -> None:
    disk = FaultyDisk()
    written = Written(disk)
    written.append(27)
    disk.kill()
    journal = opened(disk)
    assert journal.durable_index == 27
    disk.crash()
    journal = opened(disk)
    journal.append(payload(28), 28, 1)
    path, offset = written.offsets[27]
    flip(disk, path, offset)
    disk.kill()
    with pytest.raises(Corruption):
        opened(disk)


def test_a_missing_segment_in_the_middle_is_corruption() -> None:
    disk = FaultyDisk()
    Written(disk)
    disk.unlink(segment_path(2))
    disk.kill()
    with pytest.raises(Corruption) as caught:
        opened(disk)
    assert (caught.value.path, caught.value.reason) == (segment_path(2), "the segment is missing")


@pytest.mark.parametrize("sequence", [1, 2, 3])
def test_a_bad_header_is_corruption(sequence: int) -> None:
    disk = FaultyDisk()
    Written(disk).journal.close()
    flip(disk, segment_path(sequence), 20)
    with pytest.raises(Corruption) as caught:
        opened(disk)
    assert (caught.value.path, caught.value.offset) == (segment_path(sequence), 0)


def test_a_first_segment_without_a_header_is_never_a_torn_tail() -> None:
    disk = FaultyDisk()
    opened(disk)
    data = disk.bytes_of(segment_path(1))
    data[:] = bytes(len(data))
    with pytest.raises(Corruption):
        opened(disk)


def test_a_bad_header_after_a_reset_does_not_bring_the_old_log_back() -> None:
    disk = FaultyDisk()
    written = Written(disk)
    old = {info.path: bytes(disk.bytes_of(info.path)) for info in written.journal.segments()}
    written.journal.reset(90, 5)
    reset = written.journal.segments()[0].path
    for path, data in old.items():
        file = disk.open(path, create=True)
        file.pwrite(data, 0)
        file.close()
    flip(disk, reset, 20)
    disk.kill()
    with pytest.raises(Corruption) as caught:
        opened(disk)
    assert caught.value.path == reset


def test_another_format_version_is_refused_readably() -> None:
    disk = FaultyDisk()
    Written(disk).journal.close()
    disk.bytes_of(segment_path(3))[8] = 9
    with pytest.raises(Corruption, match="format version 9, this program reads version 1"):
        opened(disk)


def test_a_segment_under_another_ones_name_is_refused() -> None:
    disk = FaultyDisk()
    Written(disk).journal.close()
    disk.bytes_of(segment_path(2))[:] = disk.bytes_of(segment_path(1))
    with pytest.raises(Corruption, match="the header is that of segment 1"):
        opened(disk)


def test_a_disk_that_rots_under_a_running_journal_is_noticed_on_reading() -> None:
    disk = FaultyDisk()
    written = Written(disk)
    journal = Journal.open(disk, DIRECTORY, segment_bytes=1024, cache_bytes=0)
    path, offset = written.offsets[9]
    assert journal.get(9) == entries(9)[-1]
    flip(disk, path, offset + 50)
    with pytest.raises(Corruption) as caught:
        journal.slice(8, 10)
    assert (caught.value.path, caught.value.offset) == (path, offset)
    neighbour, start = written.offsets[8]
    assert neighbour == path
    other = written.offsets[10][1]
    data = disk.bytes_of(path)
    data[offset:other] = data[start : start + other - offset]
    with pytest.raises(Corruption):
        journal.get(9)


@pytest.mark.parametrize("seed", range(8))
def test_no_single_flipped_bit_in_a_closed_journal_makes_a_wrong_entry(seed: int) -> None:
    """It is refused, or what was hit says nothing: unused space or the seal at the very end."""
    chance = random.Random(seed)
    disk = FaultyDisk()
    written = Written(disk)
    written.journal.truncate_from(20)
    for index in range(20, 30):
        written.append(index)
    written.journal.close()
    expected = entries(29)
    clean = {info.path: bytes(disk.bytes_of(info.path)) for info in written.journal.segments()}
    last_path, last_offset = written.offsets[29]
    for _ in range(150):
        path = chance.choice(sorted(clean))
        offset = chance.randrange(len(clean[path]))
        disk.bytes_of(path)[offset] ^= 1 << chance.randrange(8)
        unused = offset >= len(clean[path].rstrip(b"\0"))
        final_seal = path == last_path and offset >= last_offset + 32 + len(payload(29))
        if unused or final_seal:
            assert contents(opened(disk)) == expected
        else:
            with pytest.raises(Corruption) as caught:
                opened(disk)
            assert caught.value.path == path
        for name, data in clean.items():
            disk.bytes_of(name)[:] = data
