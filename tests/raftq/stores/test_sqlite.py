"""SQLite has no page checksums, and its log ends silently where it is damaged: ours must not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from raftq.disk import OsDisk
from raftq.stores.sqlite import FILE, Sqlite, SqliteCopy
from raftq.stores.store import StoreBusy, StoreCorruption

DISK = OsDisk()
END = b"\xff" * 4
ROWS = {b"key%05d" % n: b"%d" % n * 40 for n in range(500)}


@pytest.fixture
def directory(tmp_path: Path) -> str:
    path = str(tmp_path / "store")
    store = Sqlite(DISK, path)
    for key, value in ROWS.items():
        store.kv.put(key, value)
    store.commit()
    store.flush()
    store.close()
    return path


def test_a_second_owner_is_refused(directory: str) -> None:
    store = Sqlite(DISK, directory)
    with pytest.raises(StoreBusy):
        Sqlite(DISK, directory)
    store.close()


def test_a_flipped_byte_of_a_value_raises(directory: str) -> None:
    path = Path(directory) / FILE
    data = path.read_bytes()
    position = data.index(b"123123123123")
    path.write_bytes(data[:position] + b"9" + data[position + 1 :])
    copy = SqliteCopy(DISK, directory)
    with pytest.raises(StoreCorruption, match=FILE):
        list(copy.scan(b"", END))
    with pytest.raises(StoreCorruption, match=FILE):
        list(map(copy.get, ROWS))
    copy.close()


def test_a_flipped_byte_never_gives_other_values(directory: str) -> None:
    path = Path(directory) / FILE
    data = path.read_bytes()
    noticed = 0
    for position in random.Random(1).sample(range(len(data)), 60):
        path.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
        try:
            copy = SqliteCopy(DISK, directory)
            try:
                assert dict(copy.scan(b"", END)).items() <= ROWS.items()
            finally:
                copy.close()
        except StoreCorruption:
            noticed += 1
    assert noticed > 30


def test_a_log_cut_short_before_its_last_flush_is_refused(directory: str, tmp_path: Path) -> None:
    store = Sqlite(DISK, directory)
    view = store.frozen()  # Keeps the log from being moved into the table.
    store.kv.put(b"later", b"")
    store.commit()
    store.flush()
    cut = tmp_path / "cut"
    cut.mkdir()
    for path in Path(directory).iterdir():
        data = path.read_bytes()
        keep = len(data) if not path.name.endswith("-wal") else len(data) // 2
        (cut / path.name).write_bytes(data[:keep])
    view.close()
    store.close()
    with pytest.raises(StoreCorruption, match="had been flushed"):
        Sqlite(DISK, str(cut))
