"""A round's pending writes, laid over what is committed.

The state machine lives on these calls, so their costs are the design: a put is
a dict write and, for a new key, an append; a get of a pending key is one lookup.
Only what asks for an order brings new keys into one, by an append or ``insort``
into the sorted list of their first byte (they mostly arrive ascending within a
key space); a scan merges the two orders as it goes. Most rounds never ask.

Keys that never were in the base before are kept apart: what of them is deleted again in
the round is forgotten, and the engine never hears of it.

A range delete takes the round's own keys out at once and is remembered as a
range for the committed ones. So the order within a round reduces to: first the
ranges, then the keys. ``take`` hands them over in that form.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from itertools import chain
from operator import itemgetter

from statemachine.kv import Reader

Range = tuple[bytes, bytes]
Row = tuple[bytes, bytes]


class Overlay:
    """A KV over ``base``; None among the pending values means deleted."""

    def __init__(self, base: Reader) -> None:
        self._base = base
        self._pending: dict[bytes, bytes | None] = {}
        self._born: dict[bytes, bytes] = {}  # Pending as well: of ``put_new``.
        self._new: list[bytes] = []  # Pending keys that are not sorted yet.
        self._sorted: dict[bytes, list[bytes]] = {}
        self._ranges: list[Range] = []  # Disjoint, ascending.

    def get(self, key: bytes) -> bytes | None:
        """See ``KV``."""
        if key in self._pending:
            return self._pending[key]
        if key in self._born:
            return self._born[key]
        if self._ranges and self._covered(key):
            return None
        return self._base.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """See ``KV``."""
        if key not in self._pending:
            if key in self._born:
                self._born[key] = value
                return
            self._new.append(key)
        self._pending[key] = value

    def put_new(self, key: bytes, value: bytes) -> None:
        """See ``KV``."""
        self._new.append(key)
        self._born[key] = value

    def delete(self, key: bytes) -> None:
        """See ``KV``."""
        if self._born.pop(key, None) is not None:
            return  # Its place among the sorted keys is passed over.
        if key not in self._pending:
            self._new.append(key)
        self._pending[key] = None

    def delete_range(self, low: bytes, high: bytes) -> None:
        """See ``KV``."""
        if low >= high:
            return
        for keys in self._buckets(low, high):
            start, stop = bisect_left(keys, low), bisect_left(keys, high)
            for key in keys[start:stop]:
                if self._born.pop(key, None) is None:
                    self._pending.pop(key, None)
            del keys[start:stop]
        self._ranges = _united([*self._ranges, (low, high)])

    def scan(self, low: bytes, high: bytes) -> Iterator[Row]:
        """See ``KV``."""
        buckets = self._buckets(low, high)
        # Over several key spaces: rare within a round, so a copy will do.
        keys = buckets[0] if len(buckets) == 1 else list(chain.from_iterable(buckets))
        position = bisect_left(keys, low)
        if position < len(keys) and keys[position] < high:
            return self._merged(low, high, keys, position)
        return self._committed(low, high)

    def take(self) -> tuple[list[Range], dict[bytes, bytes | None]]:
        """What the round wrote, ranges before keys; the overlay is empty afterwards."""
        self._pending.update(self._born)
        taken = self._ranges, self._pending
        self._ranges, self._pending, self._born = [], {}, {}
        self._new.clear()
        self._sorted.clear()
        return taken

    def _sort(self) -> None:
        for key in self._new:
            keys = self._sorted.setdefault(key[:1], [])
            if not keys or keys[-1] < key:
                keys.append(key)
            else:
                insort(keys, key)
        self._new.clear()

    def _buckets(self, low: bytes, high: bytes) -> list[list[bytes]]:
        """The sorted lists that may hold keys of the range, in order."""
        self._sort()
        first = low[:1]
        if first and high.startswith(first):
            keys = self._sorted.get(first)
            return [keys] if keys else []
        return [self._sorted[name] for name in sorted(self._sorted) if first <= name <= high[:1]]

    def _merged(self, low: bytes, high: bytes, keys: list[bytes], position: int) -> Iterator[Row]:
        """Committed rows with the pending ``keys``, from ``position`` on, among them."""
        pending, born = self._pending, self._born
        rows = self._committed(low, high)
        row = next(rows, None)
        while position < len(keys):
            key = keys[position]
            if key >= high:
                break
            while row is not None and row[0] < key:
                yield row
                row = next(rows, None)
            if row is not None and row[0] == key:
                row = next(rows, None)
            value = born[key] if key in born else pending.get(key)
            if value is not None:
                yield key, value
            position += 1
        if row is not None:
            yield row
            yield from rows

    def _committed(self, low: bytes, high: bytes) -> Iterator[Row]:
        """The base's rows without those in deleted ranges."""
        if not self._ranges:
            return self._base.scan(low, high)
        return self._between_ranges(low, high)

    def _between_ranges(self, low: bytes, high: bytes) -> Iterator[Row]:
        for gone_low, gone_high in self._ranges:
            if gone_high <= low:
                continue
            if gone_low >= high:
                break
            if low < gone_low:
                yield from self._base.scan(low, gone_low)
            low = gone_high
        if low < high:
            yield from self._base.scan(low, high)

    def _covered(self, key: bytes) -> bool:
        position = bisect_right(self._ranges, key, key=itemgetter(0)) - 1
        return position >= 0 and key < self._ranges[position][1]


def _united(ranges: list[Range]) -> list[Range]:
    """The same keys as disjoint ascending ranges."""
    united: list[Range] = []
    for low, high in sorted(ranges):
        if united and low <= united[-1][1]:
            united[-1] = united[-1][0], max(united[-1][1], high)
        else:
            united.append((low, high))
    return united
