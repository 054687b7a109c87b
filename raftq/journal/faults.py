"""How a journal refuses to go on.

Both are for the node to stop on: neither can be handled by trying again.
"""

from __future__ import annotations


class Corruption(Exception):
    """Bytes that were durable are not what was written; the node must not start or go on."""

    def __init__(self, path: str, offset: int, reason: str) -> None:
        super().__init__(path, offset, reason)
        self.path = path
        self.offset = offset
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: offset {self.offset}: {self.reason}"


class JournalFailure(Exception):
    """An earlier write or sync failed: what is on disk is unknown until the next start."""
