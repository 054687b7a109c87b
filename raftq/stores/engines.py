"""The engines by name: the one table that knows them all."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from raftq.disk import Disk
from raftq.stores import memory, rocks, sqlite
from raftq.stores.store import Frozen, Store, StoreCorruption


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """How to use one kind of store directory."""

    name: str
    open: Callable[[Disk, str], Store]
    # A directory that nobody writes, without changing it.
    read: Callable[[Disk, str], Frozen]
    # What is wrong with single files, beyond what opening and scanning would find.
    examine: Callable[[Disk, str], list[StoreCorruption]]


def _nothing_more(_disk: Disk, _directory: str) -> list[StoreCorruption]:
    return []


ENGINES = {
    engine.name: engine
    for engine in (
        Engine(name="rocksdb", open=rocks.Rocks, read=rocks.RocksCopy, examine=rocks.examine),
        Engine(name="memory", open=memory.Memory, read=memory.MemoryCopy, examine=_nothing_more),
        Engine(name="sqlite", open=sqlite.Sqlite, read=sqlite.SqliteCopy, examine=sqlite.examine),
    )
}
