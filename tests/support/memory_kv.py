"""Stores for tests of the state machine alone: strict about the contract of ``kv``.

``CountingKV`` behaves as a log-structured engine does: what was deleted stays in
the way of scans, also behind their ends, and every step over it is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sortedcontainers import SortedDict


class MemoryKV:
    """A sorted dictionary. A scan that goes on after a write fails."""

    def __init__(self, rows: dict[bytes, bytes] | None = None) -> None:
        self._data = SortedDict(rows or {})
        self._deleted: set[bytes] = set()
        self._writes = 0

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._data.get(key)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        assert type(value) is bytes
        self._writes += 1
        self._data[key] = value

    def put_new(self, key: bytes, value: bytes) -> None:
        assert key not in self._data, key
        assert key not in self._deleted, f"{key!r} was there before"
        self.put(key, value)

    def delete(self, key: bytes) -> None:
        self._deleted.add(key)
        self._writes += 1
        self._data.pop(key, None)

    def delete_range(self, low: bytes, high: bytes) -> None:
        self._writes += 1
        for key in list(self._data.irange(low, high, (True, False))):
            del self._data[key]

    def scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        writes = self._writes
        for key in self._data.irange(low, high, (True, False)):
            assert self._writes == writes, "a write between two steps of a scan"
            yield key, self._data[key]

    def rows(self) -> dict[bytes, bytes]:
        """A copy of everything, in order."""
        return dict(self._data)


class CountingKV:
    """Counts calls by name, and rows and tombstones that scans step over."""

    def __init__(self) -> None:
        self._data = SortedDict()  # None: a tombstone.
        self.calls: Counter[str] = Counter()

    def get(self, key: bytes) -> bytes | None:
        self.calls["get"] += 1
        value: bytes | None = self._data.get(key)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        self.calls["put"] += 1
        self._data[key] = value

    put_new = put

    def delete(self, key: bytes) -> None:
        self.calls["delete"] += 1
        self._data[key] = None

    def delete_range(self, low: bytes, high: bytes) -> None:
        self.calls["delete_range"] += 1
        for key in list(self._data.irange(low, high, (True, False))):
            del self._data[key]

    def scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        self.calls["scan"] += 1
        for key in self._data.irange(low):
            self.calls["step"] += 1
            value = self._data[key]
            if value is not None and key >= high:
                return  # The engine is given no bound: it looks for what is there.
            if value is not None:
                yield key, value

    def present(self) -> list[bytes]:
        """The keys that are there."""
        return [key for key, value in self._data.items() if value is not None]
