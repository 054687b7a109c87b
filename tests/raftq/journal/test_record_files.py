"""Small files replaced as a whole: the old or the new, never neither, never silently empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftq.disk import OsDisk
from raftq.journal import Corruption, TermFile, record_file
from simulation.disk import FaultyDisk, PowerLoss

PATH = "/data/term"


def disk_with(payload: bytes) -> FaultyDisk:
    disk = FaultyDisk()
    disk.make_directory("/data")
    record_file.store(disk, PATH, payload)
    return disk


@pytest.mark.parametrize("payload", [b"", b"x", bytes(5000)])
def test_what_was_stored_is_loaded_also_after_a_crash(payload: bytes) -> None:
    disk = disk_with(b"before")
    record_file.store(disk, PATH, payload)
    disk.crash()
    assert record_file.load(disk, PATH) == payload


def test_a_file_that_was_never_stored_is_absent() -> None:
    assert record_file.load(FaultyDisk(), "/term") is None


def test_a_real_file_is_replaced(tmp_path: Path) -> None:
    path = f"{tmp_path}/identity"
    disk = OsDisk()
    record_file.store(disk, path, b"a longer first content")
    record_file.store(disk, path, b"second")
    assert record_file.load(disk, path) == b"second"
    assert disk.list(str(tmp_path)) == ["identity"]


@pytest.mark.parametrize("changes", range(8))
@pytest.mark.parametrize("seed", range(12))
def test_a_crash_while_storing_leaves_the_old_or_the_new(changes: int, seed: int) -> None:
    disk = disk_with(b"old" * 300)
    disk.chance.seed(seed)
    disk.power_fails_after = changes
    new = b"the new one, " * 100
    try:
        record_file.store(disk, PATH, new)
        stored = True
    except PowerLoss:
        stored = False
    disk.crash()
    found = record_file.load(disk, PATH)
    assert found == new if stored else found in (b"old" * 300, new)
    record_file.store(disk, PATH, b"again")
    assert record_file.load(disk, PATH) == b"again"


def test_every_flipped_bit_is_corruption() -> None:
    disk = disk_with(b"payload")
    data = disk.bytes_of(PATH)
    for bit in range(len(data) * 8):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corruption):
            record_file.load(disk, PATH)
        data[bit // 8] ^= 1 << bit % 8
    assert record_file.load(disk, PATH) == b"payload"


@pytest.mark.parametrize("size", [0, 1, 19, 20, 26])
def test_a_shortened_file_is_corruption_and_never_empty(size: int) -> None:
    disk = disk_with(b"payload")
    del disk.bytes_of(PATH)[size:]
    with pytest.raises(Corruption) as caught:
        record_file.load(disk, PATH)
    assert caught.value.path == PATH


def test_a_lengthened_file_is_corruption() -> None:
    disk = disk_with(b"payload")
    disk.bytes_of(PATH).append(0)
    with pytest.raises(Corruption, match="length"):
        record_file.load(disk, PATH)


def test_another_version_is_refused_readably() -> None:
    disk = disk_with(b"payload")
    disk.bytes_of(PATH)[8] = 2
    with pytest.raises(Corruption, match="format version 2, this program reads version 1"):
        record_file.load(disk, PATH)


def test_term_and_vote_are_durable_when_stored() -> None:
    disk = FaultyDisk()
    disk.make_directory("/data")
    terms = TermFile(disk, PATH)
    assert (terms.term, terms.voted_for) == (0, None)
    terms.store(3, None)
    terms.store(3, "n2")
    assert (terms.term, terms.voted_for) == (3, "n2")
    disk.crash()
    terms = TermFile(disk, PATH)
    assert (terms.term, terms.voted_for) == (3, "n2")


def test_storing_the_same_again_costs_nothing() -> None:
    disk = FaultyDisk()
    terms = TermFile(disk, "/term")
    terms.store(3, "n2")
    before = dict(disk.changes)
    terms.store(3, "n2")
    assert disk.changes == before


@pytest.mark.parametrize(("term", "voted_for"), [(2, None), (3, "n1"), (3, None)])
def test_a_term_never_goes_back_and_a_vote_is_never_changed(
    term: int, voted_for: str | None
) -> None:
    terms = TermFile(FaultyDisk(), "/term")
    terms.store(3, "n2")
    with pytest.raises(AssertionError):
        terms.store(term, voted_for)
    assert (terms.term, terms.voted_for) == (3, "n2")


def test_a_vote_that_could_not_be_stored_is_not_held() -> None:
    disk = FaultyDisk()
    terms = TermFile(disk, "/term")
    terms.store(3, "n2")
    disk.fails_after = 1
    with pytest.raises(OSError, match="error"):
        terms.store(4, "n1")
    assert (terms.term, terms.voted_for) == (3, "n2")


@pytest.mark.parametrize("payload", [b"", b"\x93\x01", b"\x92\xa1x\xc0"])
def test_a_term_file_with_other_content_is_corruption(payload: bytes) -> None:
    disk = disk_with(payload)
    with pytest.raises(Corruption, match="not a term and vote"):
        TermFile(disk, PATH)


@pytest.mark.parametrize("seed", range(8))
def test_a_vote_whose_name_could_not_be_synced_is_durable_once_it_is_read_again(seed: int) -> None:
    disk = FaultyDisk(seed)
    disk.make_directory("/data")
    file = TermFile(disk, PATH)
    file.store(1, "n1")
    disk.fails_on, disk.fails_after = ("sync",), 1  # Not of the file: of its directory.
    with pytest.raises(OSError, match="Input/output"):
        file.store(2, "n2")
    disk.kill()
    found = TermFile(disk, PATH)
    disk.crash()
    again = TermFile(disk, PATH)
    assert (again.term, again.voted_for) == (found.term, found.voted_for) == (2, "n2")
