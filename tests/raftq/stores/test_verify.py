"""The offline check finds damage, names the file, and touches nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftq.disk import OsDisk
from raftq.stores.engines import ENGINES
from raftq.stores.home import Home
from raftq.stores.store import StoreBusy, StoreError
from raftq.stores.verify import verify
from statemachine.kv import Reader

DISK = OsDisk()
NAMES = sorted(ENGINES)
KEYS = 800


def machine(reader: Reader) -> str:
    """A stand-in for the machine's own record."""
    record = reader.get(b"machine")
    if record is None:
        raise ValueError("no machine record")
    return f"applied {int(record)}"


@pytest.fixture(params=NAMES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def data(tmp_path: Path, engine: str) -> str:
    home = Home(DISK, str(tmp_path), engine)
    store = home.open_current()
    store.kv.put(b"machine", b"7")
    for number in range(KEYS):
        store.kv.put(b"key%05d" % number, b"%d" % number * 50)
    store.commit()
    store.flush()
    home.close()
    return str(tmp_path)


def contents(data: str) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in Path(data).rglob("*")
        if path.is_file()
    }


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


def test_a_good_store_is_good_and_untouched(data: str, engine: str) -> None:
    before = contents(data)
    report = verify(DISK, data, machine)
    assert report.good
    assert (report.engine, report.keys, report.machine) == (engine, KEYS + 1, "applied 7")
    assert report.bytes > KEYS * 50
    assert {file.name for file in report.files} == {
        path.name for path in Path(report.directory).iterdir()
    }
    assert contents(data) == before


def test_a_damaged_file_is_named(data: str, engine: str) -> None:
    ending = {"rocksdb": ".sst", "memory": "memory.store", "sqlite": "sqlite.store"}[engine]
    (victim,) = (path for path in Path(data, "db-1").iterdir() if path.name.endswith(ending))
    flip(victim, victim.stat().st_size // 3)
    before = contents(data)
    report = verify(DISK, data, machine)
    assert [damage.file for damage in report.damage] == [victim.name]
    assert not report.good
    assert contents(data) == before


def test_every_damaged_table_is_named_where_blocks_outside_the_data_are_concerned(
    tmp_path: Path,
) -> None:
    home = Home(DISK, str(tmp_path), "rocksdb")
    store = home.open_current()
    for part in range(3):
        store.kv.put(b"key%d" % part, b".")
        store.commit()
        store.flush()
    home.close()
    tables = sorted((tmp_path / "db-1").glob("*.sst"))
    for table in tables:
        flip(table, table.stat().st_size - 60)
    report = verify(DISK, str(tmp_path), machine)
    assert {table.name for table in tables} <= {damage.file for damage in report.damage}


def test_an_unreadable_machine_record_is_damage(data: str, engine: str) -> None:
    home = Home(DISK, data, engine)
    store = home.open_current()
    store.kv.put(b"machine", b"seven")
    store.commit()
    store.flush()
    home.close()
    report = verify(DISK, data, machine)
    assert [damage.file for damage in report.damage] == [None]
    assert "ValueError" in report.damage[0].reason


def test_a_directory_without_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store was ever here"):
        verify(DISK, str(tmp_path), machine)


@pytest.mark.parametrize("name", ["rocksdb", "sqlite"])
def test_a_store_in_use_is_refused(tmp_path: Path, name: str) -> None:
    home = Home(DISK, str(tmp_path), name)
    home.open_current()
    with pytest.raises(StoreBusy):
        verify(DISK, str(tmp_path), machine)
    home.close()
