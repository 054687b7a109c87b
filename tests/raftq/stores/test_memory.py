"""What the twin in memory has of its own: its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftq.disk import OsDisk
from raftq.stores.memory import FILE, Memory
from raftq.stores.store import StoreCorruption

END = b"\xff" * 4


def test_what_was_not_flushed_is_gone_with_the_process(tmp_path: Path) -> None:
    store = Memory(OsDisk(), str(tmp_path))
    store.kv.put(b"a", b"flushed")
    store.commit()
    store.flush()
    store.kv.put(b"a", b"later")
    store.kv.put(b"b", b"later")
    store.commit()
    again = Memory(OsDisk(), str(tmp_path))
    assert list(again.reader().scan(b"", END)) == [(b"a", b"flushed")]


def test_no_byte_of_the_file_can_change_unnoticed(tmp_path: Path) -> None:
    store = Memory(OsDisk(), str(tmp_path))
    store.kv.put(b"a", b"value")
    store.commit()
    store.flush()
    path = tmp_path / FILE
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(StoreCorruption) as caught:
            Memory(OsDisk(), str(tmp_path))
        assert caught.value.file == FILE
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(StoreCorruption):
            Memory(OsDisk(), str(tmp_path))
