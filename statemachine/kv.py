"""The only door between the state machine and storage.

Keys and values are bytes; keys compare as bytes. One *round* is everything that
is written between two commits of the engine: reads within a round see the
round's own writes, and the engine makes a round durable whole or not at all.
``raftq.stores`` implements this; ``tests/conformance`` drives every engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class Reader(Protocol):
    """Read access to ordered keys."""

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        ...

    def scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) with ``low <= key < high``, ascending.

        The caller may stop early, and must not write between two steps.
        """
        ...


class KV(Reader, Protocol):
    """Read and write access, within one round."""

    def put(self, key: bytes, value: bytes) -> None:
        """Insert or replace."""
        ...

    def put_new(self, key: bytes, value: bytes) -> None:
        """Insert what never was there before, nor will be again once it is removed.

        If it is removed within the round there is nothing to be written of it.
        """
        ...

    def delete(self, key: bytes) -> None:
        """Remove; an absent key is fine."""
        ...

    def delete_range(self, low: bytes, high: bytes) -> None:
        """Remove every key with ``low <= key < high``; cheap however many there are."""
        ...
