"""One number for the whole state: replicas that agree on it agree on everything.

BLAKE2b over all keys and values in order, each with its length before it. A digest
can be taken a slice at a time, over a reader that stands still meanwhile.
"""

from __future__ import annotations

from hashlib import blake2b
from itertools import islice
from struct import Struct

from statemachine import keys
from statemachine.kv import Reader

DIGEST_BYTES = 16
ROWS_AT_ONCE = 1_000
_size = Struct(">Q").pack


class Digest:
    """A digest under way."""

    def __init__(self, reader: Reader) -> None:
        self._rows = reader.scan(b"", keys.END)
        self._hash = blake2b(digest_size=DIGEST_BYTES)
        self._done = False

    def step(self, count: int) -> bool:
        """Take up to ``count`` more rows; True when there are none left."""
        update = self._hash.update
        taken = 0
        for key, value in islice(self._rows, count):
            taken += 1
            update(b"".join((_size(len(key)), key, _size(len(value)), value)))
        self._done = taken < count
        return self._done

    def result(self) -> bytes:
        """The digest; only once it is complete."""
        assert self._done, "the digest is not complete"
        return self._hash.digest()


def digest(reader: Reader) -> bytes:
    """The digest of what the reader sees, in one go."""
    whole = Digest(reader)
    while not whole.step(ROWS_AT_ONCE):
        pass
    return whole.result()
