"""Everything in memory, a file at each flush.

The twin of the other engines for tests, the simulator and nodes that accept to
replay their log after a restart. What was committed after the last flush is gone
with the process, as it is with the others; the file is replaced whole or not at all.

A view does not copy the data: it is told the former value of whatever a commit
changes, and looks there first.
"""

from __future__ import annotations

import heapq
import os
import threading
import weakref
from collections.abc import Callable, Iterator

import msgspec
from sortedcontainers import SortedDict

from raftq.disk import Disk
from raftq.journal import Corruption, record_file
from raftq.stores.overlay import Overlay, Row
from raftq.stores.store import StoreCorruption, StoreError

FILE = "memory.store"


class Memory:
    """A sorted dictionary; see ``Store``."""

    def __init__(self, disk: Disk, directory: str) -> None:
        disk.make_directory(directory)
        self._disk = disk
        self._directory = directory
        self._data = SortedDict(_load(disk, directory))
        self.lookup: Callable[[bytes], bytes | None] = self._data.get
        """The committed value, or None."""
        self._committing = threading.Lock()  # A flush elsewhere must not see half a round.
        self._views: set[weakref.ref[_View]] = set()
        self._reader = _Committed(self)
        self.kv = Overlay(self._reader)
        self.version = 0
        self._flushed = -1  # The version that is on disk.
        self.closed = False

    def commit(self) -> None:
        """See ``Store``."""
        ranges, keys = self.kv.take()
        if not ranges and not keys:
            return
        with self._committing:
            self.version += 1
            views = [view for known in list(self._views) if (view := known()) is not None]
            for low, high in ranges:
                for key in list(self._data.irange(low, high, (True, False))):
                    self._set(key, None, views)
            for key, value in keys.items():
                self._set(key, value, views)

    def reader(self) -> _Committed:
        """See ``Store``."""
        return self._reader

    def frozen(self) -> _View:
        """See ``Store``."""
        view = _View(self)
        self._views.add(weakref.ref(view, self._views.discard))
        return view

    def flush(self) -> None:
        """See ``Store``."""
        if self._flushed != self.version:
            self._flushed = self._write(self._directory)

    def checkpoint(self, path: str) -> None:
        """See ``Store``."""
        self._disk.make_directory(path)
        self._write(path)

    def close(self) -> None:
        """See ``Store``."""
        self.closed = True

    def between(self, low: bytes, high: bytes) -> Iterator[bytes]:
        """Committed keys of the range, ascending; valid until the next commit."""
        keys: Iterator[bytes] = self._data.irange(low, high, (True, False))
        return keys

    def _set(self, key: bytes, value: bytes | None, views: list[_View]) -> None:
        if views:
            former = self._data.get(key)
            for view in views:
                view.former.setdefault(key, former)
        if value is None:
            self._data.pop(key, None)
        else:
            self._data[key] = value

    def _write(self, directory: str) -> int:
        with self._committing:
            version = self.version
            rows = [(key, self._data[key]) for key in self._data]
        record_file.store(self._disk, os.path.join(directory, FILE), msgspec.msgpack.encode(rows))
        return version


class _Committed:
    """A Reader of the latest commit; each scan is a view of its own."""

    def __init__(self, store: Memory) -> None:
        self._store = store
        self.get = store.lookup

    def scan(self, low: bytes, high: bytes) -> Iterator[Row]:
        """See ``Reader``."""
        return self._store.frozen().scan(low, high)


class _View:
    """Committed state as it was; see ``Frozen``."""

    def __init__(self, store: Memory) -> None:
        self._store = store
        self._closed = False
        self.former: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        """See ``Reader``."""
        self._require_open()
        if key in self.former:
            return self.former[key]
        return self._store.lookup(key)

    def scan(self, low: bytes, high: bytes) -> Iterator[Row]:
        """See ``Reader``."""
        store, former = self._store, self.former
        moved = True
        while moved:
            self._require_open()
            moved = False
            version = store.version
            for key in self._keys(low, high):
                value = former[key] if key in former else store.lookup(key)
                if value is not None:
                    yield key, value
                    self._require_open()
                    if store.version != version:
                        low, moved = key + b"\x00", True
                        break

    def close(self) -> None:
        """See ``Frozen``."""
        self._closed = True
        self.former = {}

    def _keys(self, low: bytes, high: bytes) -> Iterator[bytes]:
        gone = [key for key in self.former if low <= key < high]
        if not gone:
            return self._store.between(low, high)
        gone = [key for key in gone if self._store.lookup(key) is None]
        return heapq.merge(self._store.between(low, high), sorted(gone))

    def _require_open(self) -> None:
        if self._closed or self._store.closed:
            raise StoreError("the store or view is closed")


class MemoryCopy:
    """A flushed file, read where it lies; see ``Frozen``."""

    def __init__(self, disk: Disk, directory: str) -> None:
        if not disk.exists(os.path.join(directory, FILE)):
            raise StoreError(f"{directory} has no {FILE}")
        self._data = SortedDict(_load(disk, directory))
        self.close = self._data.clear

    def get(self, key: bytes) -> bytes | None:
        """See ``Reader``."""
        value: bytes | None = self._data.get(key)
        return value

    def scan(self, low: bytes, high: bytes) -> Iterator[Row]:
        """See ``Reader``."""
        for key in self._data.irange(low, high, (True, False)):
            yield key, self._data[key]


def _load(disk: Disk, directory: str) -> dict[bytes, bytes]:
    try:
        payload = record_file.load(disk, os.path.join(directory, FILE))
        rows = msgspec.msgpack.decode(payload, type=list[Row]) if payload is not None else []
    except (Corruption, msgspec.MsgspecError) as error:
        raise StoreCorruption(FILE, str(error)) from error
    return dict(rows)
