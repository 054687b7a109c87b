"""How far a store was durable, remembered beside it.

Both RocksDB's MANIFEST and SQLite's log end where a record does not check out: it
may be the torn tail of a crash. A flipped byte in the middle looks the same, and
whole flushes vanish without a word. So each flush notes how far it came, and a
store that opens with less than that is refused.
"""

from __future__ import annotations

import os

from raftq.disk import Disk
from raftq.journal import Corruption, record_file
from raftq.stores.store import StoreCorruption

NAME = "FLUSHED"


def note(disk: Disk, directory: str, reached: int) -> None:
    """Everything up to ``reached`` is durable; so is this note when it returns."""
    record_file.store(disk, os.path.join(directory, NAME), reached.to_bytes(8, "big"))


def require(disk: Disk, directory: str, reached: int, *, blame: str) -> None:
    """Refuse a store that ends before its last flush; ``blame`` is the file cut short."""
    try:
        noted = record_file.load(disk, os.path.join(directory, NAME))
    except Corruption as error:
        raise StoreCorruption(NAME, str(error)) from error
    if noted is None:
        return
    wanted = int.from_bytes(noted, "big")
    if reached < wanted:
        raise StoreCorruption(blame, f"ends at {reached}, but {wanted} had been flushed")
