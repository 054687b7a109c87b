"""What happened, in order: always as a hash, and as records when somebody wants to read it.

The hash is over text and bytes that the run itself produced, so it is the same on every
machine and in every process: two runs of a seed that differ anywhere have other hashes.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple
from zlib import crc32


class Record(NamedTuple):
    """One line of a trace. ``peer`` is empty unless something went from ``node`` to it."""

    at: float  # Virtual seconds.
    kind: str
    node: str
    peer: str
    text: str
    frame: bytes
    sent_at: float


class Trace:
    """The record of one run."""

    def __init__(self, *, keep: bool) -> None:
        self.keep = keep
        self.records: list[Record] = []
        self._hash = blake2b(digest_size=16)

    def note(self, at: float, kind: str, node: str, text: str) -> None:
        """Something happened on a node, or to it."""
        self._hash.update(f"{at!r} {kind} {node} {text}\n".encode())
        if self.keep:
            self.records.append(Record(at, kind, node, "", text, b"", at))

    def frame(self, at: float, sent_at: float, source: str, target: str, frame: bytes) -> None:
        """A frame arrived."""
        self._hash.update(f"{at!r} {source}>{target} {crc32(frame)}\n".encode())
        if self.keep:
            self.records.append(Record(at, "frame", source, target, "", frame, sent_at))

    def hexdigest(self) -> str:
        """The hash so far."""
        return self._hash.hexdigest()
