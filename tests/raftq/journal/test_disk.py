"""The real disk and the one that loses things agree on everything that is not lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftq.disk import Disk, OsDisk
from simulation.disk import FaultyDisk


@pytest.fixture(params=["memory", "os"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Disk, str]:
    if request.param == "memory":
        return FaultyDisk(), "/data"
    return OsDisk(), f"{tmp_path}/data"


def test_files_are_read_and_written_at_any_offset(place: tuple[Disk, str]) -> None:
    disk, root = place
    disk.make_directory(f"{root}/a/b")
    file = disk.open(f"{root}/a/b/f", create=True)
    file.pwrite(b"hello", 3)
    assert (file.size(), file.pread(100, 0)) == (8, b"\0\0\0hello")
    file.pwrite(b"J", 3)
    file.truncate(10)
    assert (file.pread(4, 3), file.pread(9, 8), file.pread(1, 10)) == (b"Jell", b"\0\0", b"")
    file.truncate(4)
    file.sync()
    file.close()
    again = disk.open(f"{root}/a/b/f")
    assert again.pread(100, 0) == b"\0\0\0J"
    again.close()


def test_names_are_listed_renamed_and_removed(place: tuple[Disk, str]) -> None:
    disk, root = place
    disk.make_directory(f"{root}/inner")
    disk.make_directory(f"{root}/inner")
    for name, content in (("b", b"1"), ("a", b"2"), ("inner/c", b"3")):
        file = disk.open(f"{root}/{name}", create=True)
        file.pwrite(content, 0)
        file.close()
    assert disk.list(root) == ["a", "b", "inner"]
    disk.rename(f"{root}/a", f"{root}/b")
    disk.sync_directory(root)
    file = disk.open(f"{root}/b")
    assert file.pread(9, 0) == b"2"
    file.close()
    disk.unlink(f"{root}/b")
    assert disk.list(root) == ["inner"]
    assert (disk.exists(f"{root}/b"), disk.exists(f"{root}/inner")) == (False, True)
    disk.remove_tree(root)
    disk.remove_tree(root)
    assert not disk.exists(root)
    assert not disk.exists(f"{root}/inner/c")


def test_what_is_not_there_is_said_to_be_missing(place: tuple[Disk, str]) -> None:
    disk, root = place
    disk.make_directory(root)
    for operation in (
        lambda: disk.open(f"{root}/none"),
        lambda: disk.open(f"{root}/none/f", create=True),
        lambda: disk.list(f"{root}/none"),
        lambda: disk.unlink(f"{root}/none"),
        lambda: disk.rename(f"{root}/none", f"{root}/other"),
    ):
        with pytest.raises(FileNotFoundError):
            operation()
