"""New segment files, made ahead of need.

``prepare`` hands out work for another thread; ``take`` is called by the owner. The only
thing that passes between the two is one reference, assigned when the file is ready.
"""

from __future__ import annotations

from collections.abc import Callable

from raftq.disk import Disk
from raftq.journal import segment
from raftq.journal.segment import Spare


class Spares:
    """At most one spare, and new files made on the spot when there is none."""

    def __init__(self, disk: Disk, directory: str, size: int) -> None:
        self._disk = disk
        self._directory = directory
        self._size = size
        self._ready: Spare | None = None
        self._preparing = False
        self._count = 0

    def prepare(self) -> Callable[[], None] | None:
        """Work that makes a spare; None when there is one or it is being made.

        It raises OSError when there is no room, and may then be asked for again.
        """
        if self._ready is not None or self._preparing:
            return None
        self._preparing = True
        path = self._temporary()

        def make() -> None:
            try:
                self._ready = self._make(path, self._size)
            finally:
                self._preparing = False

        return make

    def take(self, size: int) -> Spare:
        """The spare if it is large enough, else a new file; OSError when there is no room."""
        spare = self._ready
        if spare is not None and spare.size >= size:
            self._ready = None
            return spare
        return self._make(self._temporary(), max(size, self._size))

    def close(self) -> None:
        """Give up the spare."""
        if self._ready is not None:
            self._ready.file.close()
            segment.discard(self._disk, self._ready.path)
            self._ready = None

    def _make(self, path: str, size: int) -> Spare:
        return segment.allocate(self._disk, path, size)

    def _temporary(self) -> str:
        self._count += 1
        return f"{self._directory}/spare-{self._count}{segment.TEMPORARY_SUFFIX}"
