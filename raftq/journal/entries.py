"""Which entries are live, where they stand, and the recent ones' bytes. No IO.

Sixteen bytes an entry are kept for all, the payloads for a bounded tail. The journal
changes it as it writes, recovery as it reads: the same records give the same state.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left


class Entries:
    """The log between a base (exclusive) and its last entry."""

    def __init__(self, base_index: int, base_term: int, cache_bytes: int) -> None:
        self.base_index = base_index
        self.base_term = base_term
        self.last_index = base_index
        self.last_term = base_term
        self._cache_bytes_max = cache_bytes
        self._terms = array("Q")
        self._positions = array("Q")
        self._cache: dict[int, bytes] = {}
        self._cache_bytes = 0
        self._cache_first = base_index + 1

    def append(self, payload: bytes, term: int, position: int) -> None:
        """The entry after the last one."""
        self.last_index += 1
        self.last_term = term
        self._terms.append(term)
        self._positions.append(position)
        self._cache[self.last_index] = payload
        self._cache_bytes += len(payload)
        while self._cache_bytes > self._cache_bytes_max:
            self._forget(self._cache_first)

    def truncate_from(self, index: int, term_before: int) -> None:
        """Void ``index`` and all after it; it may reach below the base (see DESIGN.md)."""
        for void in range(max(index, self._cache_first), self.last_index + 1):
            self._cache_bytes -= len(self._cache.pop(void))
        keep = max(0, index - 1 - self.base_index)
        del self._terms[keep:]
        del self._positions[keep:]
        self.last_index = index - 1
        self.last_term = term_before
        if self.last_index < self.base_index:
            self.base_index = self.last_index
            self.base_term = term_before
        self._cache_first = min(self._cache_first, index)

    def drop_through(self, index: int) -> None:
        """Move the base up to ``index``."""
        count = index - self.base_index
        if count <= 0:
            return
        while self._cache_first <= index:
            self._forget(self._cache_first)
        self.base_term = self._terms[count - 1]
        self.base_index = index
        del self._terms[:count]
        del self._positions[:count]

    def term_at(self, index: int) -> int | None:
        """The entry's term, the base's at the base, None outside."""
        if self.base_index < index <= self.last_index:
            return self._terms[index - self.base_index - 1]
        return self.base_term if index == self.base_index else None

    def position_at(self, index: int) -> int:
        """Where the live entry's record stands."""
        return self._positions[index - self.base_index - 1]

    def cached(self, index: int) -> bytes | None:
        """The payload if it is in memory."""
        return self._cache.get(index)

    def last_before(self, position: int) -> int:
        """The last live entry that stands before ``position``; the base if none does."""
        return self.base_index + bisect_left(self._positions, position)

    def _forget(self, index: int) -> None:
        self._cache_first = index + 1
        self._cache_bytes -= len(self._cache.pop(index, b""))
