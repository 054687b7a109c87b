"""What the node asks of a storage engine.

One thread writes: it works on ``kv`` and ends each round with ``commit``. Only
``flush`` and ``checkpoint`` may run on another thread, while rounds go on.
A commit is atomic but not durable; ``flush`` makes it so. After a crash an
engine comes back as it was after some commit at or after the last flush, whole.

Any exception from an engine is fatal for the node: the log has the truth, and
a store that failed once is not asked again. Damage is never answered with fewer
or other bytes; it raises ``StoreCorruption``.
"""

from __future__ import annotations

from typing import Protocol

from statemachine.kv import KV, Reader


class StoreError(Exception):
    """The engine cannot go on; the message says why."""


class StoreBusy(StoreError):
    """Another process, or another handle in this one, has the directory open."""


class StoreCorruption(StoreError):
    """Bytes on disk are not what was written; ``file`` names the damaged file if known."""

    def __init__(self, file: str | None, reason: str) -> None:
        super().__init__(f"{file}: {reason}" if file else reason)
        self.file = file
        self.reason = reason


class Frozen(Reader, Protocol):
    """Committed state as of one moment, for as long as it is held open.

    It pins files and memory: hold it for the length of a scan, not for ever. One
    scan at a time: a second one may cut off the first, which then raises.
    """

    def close(self) -> None:
        """Let go; harmless when done already."""
        ...


class Store(Protocol):
    """One open engine."""

    @property
    def kv(self) -> KV:
        """The round's view: what is committed, and over it the round's own writes."""
        ...

    def commit(self) -> None:
        """End the round: its writes become visible and crash-atomic together."""
        ...

    def reader(self) -> Reader:
        """Committed state; a scan is consistent as of its start, whatever is committed later."""
        ...

    def frozen(self) -> Frozen:
        """Committed state pinned at this moment; asked for by the thread that writes."""
        ...

    def flush(self) -> None:
        """All that was committed before the call is durable when it returns; any thread."""
        ...

    def checkpoint(self, path: str) -> None:
        """A consistent, openable, durable copy in the new directory ``path``; any thread."""
        ...

    def close(self) -> None:
        """Release everything; scans and views still held raise from now on.

        Commits that were not flushed may be lost.
        """
        ...
