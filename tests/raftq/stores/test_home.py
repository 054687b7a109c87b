"""A data directory holds one store; a kill at any moment leaves the old or the new."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftq.disk import Disk, File, OsDisk
from raftq.stores.engines import ENGINES
from raftq.stores.home import INCOMING, POINTER, Home, current
from raftq.stores.store import Store, StoreCorruption, StoreError

NAMES = sorted(ENGINES)


class Killed(BaseException):
    """The process ends here."""


class MortalDisk:
    """The real disk, until it is asked to change something for the n-th time."""

    def __init__(self, changes: int) -> None:
        self._disk = OsDisk()
        self._left = changes

    def open(self, path: str, *, create: bool = False) -> File:
        if create:
            self._change()
        return MortalFile(self._disk.open(path, create=create), self)

    def exists(self, path: str) -> bool:
        return self._disk.exists(path)

    def list(self, path: str) -> list[str]:
        return self._disk.list(path)

    def make_directory(self, path: str) -> None:
        self._change()
        self._disk.make_directory(path)

    def rename(self, source: str, target: str) -> None:
        self._change()
        self._disk.rename(source, target)

    def unlink(self, path: str) -> None:
        self._change()
        self._disk.unlink(path)

    def remove_tree(self, path: str) -> None:
        """Dies also in the middle, with some of the files gone."""
        if self._left == 1 and Path(path).is_dir():
            for entry in sorted(Path(path).iterdir())[::2]:
                entry.unlink()
        self._change()
        self._disk.remove_tree(path)

    def sync_directory(self, path: str) -> None:
        self._change()
        self._disk.sync_directory(path)

    def _change(self) -> None:
        self._left -= 1
        if self._left <= 0:
            raise Killed

    change = _change


class MortalFile:
    """A file that dies with its disk, half a write done."""

    def __init__(self, file: File, disk: MortalDisk) -> None:
        self._file = file
        self._disk = disk
        self.pread = file.pread
        self.size = file.size
        self.close = file.close

    def pwrite(self, data: bytes, offset: int) -> None:
        self._file.pwrite(data[: len(data) // 2], offset)
        self._disk.change()
        self._file.pwrite(data, offset)

    def truncate(self, size: int) -> None:
        self._disk.change()
        self._file.truncate(size)

    def sync(self) -> None:
        self._disk.change()
        self._file.sync()


def fill(store: Store, value: bytes) -> None:
    store.kv.put(b"which", value)
    store.commit()
    store.flush()


def which(store: Store) -> bytes | None:
    return store.reader().get(b"which")


def receive(home: Home, disk: Disk, engine: str, value: bytes) -> None:
    """Another store, complete and durable, in ``incoming``."""
    store = ENGINES[engine].open(disk, home.incoming())
    fill(store, value)
    store.close()


@pytest.mark.parametrize("engine", NAMES)
def test_what_was_flushed_is_there_at_the_next_start(tmp_path: Path, engine: str) -> None:
    for expected in (None, b"1", b"2"):
        home = Home(OsDisk(), str(tmp_path / "data"), engine)
        store = home.open_current()
        assert which(store) == expected
        fill(store, b"%d" % (int(expected or 0) + 1))
        home.close()


@pytest.mark.parametrize("engine", NAMES)
def test_stores_take_each_others_place_many_times_over(tmp_path: Path, engine: str) -> None:
    home = Home(OsDisk(), str(tmp_path), engine)
    store = home.open_current()
    for number in range(6):
        receive(home, OsDisk(), engine, b"%d" % number)
        scan = store.reader().scan(b"", b"z")
        store = home.switch()
        assert which(store) == b"%d" % number
        with pytest.raises(StoreError):
            list(scan)
        assert len(list(tmp_path.iterdir())) == 2
    home.close()


@pytest.mark.parametrize("engine", NAMES)
def test_a_kill_at_any_step_of_a_switch_leaves_the_old_or_the_new(
    tmp_path: Path, engine: str
) -> None:
    outcomes: list[bytes | None] = []
    finished = False
    while not finished:
        data = str(tmp_path / f"{len(outcomes)}")
        home = Home(OsDisk(), data, engine)
        fill(home.open_current(), b"old")
        home.close()
        disk = MortalDisk(len(outcomes) + 1)
        victim = Home(disk, data, engine)
        try:
            victim.open_current()
            receive(victim, OsDisk(), engine, b"new")
            victim.switch()
            finished = True
        except Killed:
            pass
        victim.close()  # A process that ends drops its locks.
        outcomes.append(_restart(data, engine))
        assert sum(path.is_dir() for path in Path(data).iterdir()) == 1, "rubbish was left"
    switched = outcomes.index(b"new")
    assert switched > 5
    assert outcomes == [b"old"] * switched + [b"new"] * (len(outcomes) - switched)


@pytest.mark.parametrize("engine", NAMES)
def test_a_kill_at_any_step_of_the_first_start_is_forgotten(tmp_path: Path, engine: str) -> None:
    for steps in range(1, 100):
        data = str(tmp_path / f"{steps}")
        victim = Home(MortalDisk(steps), data, engine)
        try:
            victim.open_current()
        except Killed:
            assert _restart(data, engine) is None
        else:
            break
        finally:
            victim.close()
    assert 5 < steps < 99


def _restart(data: str, engine: str) -> bytes | None:
    home = Home(OsDisk(), data, engine)
    found = which(home.open_current())
    home.close()
    return found


def test_something_else_than_a_store_does_not_replace_one(tmp_path: Path) -> None:
    for engine in NAMES:
        home = Home(OsDisk(), str(tmp_path / engine), engine)
        store = home.open_current()
        fill(store, b"old")
        (Path(home.incoming()) / "note").write_text("not a store")
        with pytest.raises(StoreError):
            home.switch()
        assert which(store) == b"old"
        home.close()


def test_another_engine_than_the_one_that_wrote_is_refused(tmp_path: Path) -> None:
    Home(OsDisk(), str(tmp_path), "memory").open_current()
    with pytest.raises(StoreError, match="holds a memory store, not sqlite"):
        Home(OsDisk(), str(tmp_path), "sqlite").open_current()


def test_a_damaged_pointer_is_refused(tmp_path: Path) -> None:
    Home(OsDisk(), str(tmp_path), "memory").open_current()
    pointer = tmp_path / POINTER
    data = pointer.read_bytes()
    for position in range(len(data)):
        pointer.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(StoreCorruption, match=POINTER):
            Home(OsDisk(), str(tmp_path), "memory").open_current()


def test_a_lost_pointer_is_made_again_if_there_is_no_doubt(tmp_path: Path) -> None:
    home = Home(OsDisk(), str(tmp_path), "memory")
    fill(home.open_current(), b"old")
    (tmp_path / POINTER).unlink()
    assert _restart(str(tmp_path), "memory") == b"old"
    (tmp_path / POINTER).unlink()
    (tmp_path / "db-2").mkdir()
    with pytest.raises(StoreError, match="several stores"):
        Home(OsDisk(), str(tmp_path), "memory").open_current()


def test_a_store_that_the_pointer_names_must_be_there(tmp_path: Path) -> None:
    Home(OsDisk(), str(tmp_path), "memory").open_current()
    OsDisk().remove_tree(str(tmp_path / "db-1"))
    with pytest.raises(StoreError, match="missing"):
        Home(OsDisk(), str(tmp_path), "memory").open_current()


def test_only_rubbish_of_its_own_is_removed(tmp_path: Path) -> None:
    Home(OsDisk(), str(tmp_path), "memory").open_current()
    for name in ("db-7", "db-x", "db-", "journal", INCOMING):
        (tmp_path / name).mkdir()
    home = Home(OsDisk(), str(tmp_path), "memory")
    home.open_current()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        POINTER,
        "db-",
        "db-1",
        "db-x",
        "journal",
    ]
    assert current(OsDisk(), str(tmp_path)) is not None
