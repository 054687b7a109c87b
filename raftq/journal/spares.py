"""Segment files made ahead of need, from segments that are no longer needed or of new space.

A file that was in use has its blocks, and often its pages in memory: to fill it with zeros
costs a fraction of what a new one does. As many are kept as segments were begun since the
last time that any could be, so an idle log keeps none.

``prepare`` hands out work for another thread; ``take`` is called by the owner. The only
thing that passes between the two is one reference, assigned when the file is ready.
"""

from __future__ import annotations

from collections.abc import Callable

from raftq.disk import Disk
from raftq.journal import segment
from raftq.journal.segment import Segment, Spare


class Spares:
    """At most one spare, and files made on the spot when there is none."""

    def __init__(self, disk: Disk, directory: str, size: int) -> None:
        self._disk = disk
        self._directory = directory
        self._size = size
        self._ready: Spare | None = None
        self._preparing = False
        self._count = 0
        self._used: list[str] = []
        self._begun = 0
        self._wanted = 0  # So many used files are worth keeping.

    def prepare(self) -> Callable[[], None] | None:
        """Work that makes a spare; None when there is one or it is being made.

        It raises OSError when there is no room, and may then be asked for again.
        """
        if self._ready is not None or self._preparing:
            return None
        self._preparing = True
        path = self._path()

        def make() -> None:
            try:
                self._ready = segment.allocate(self._disk, path, self._size)
            finally:
                self._preparing = False

        return make

    def take(self, size: int) -> Spare:
        """The spare if it is large enough, else another file; OSError when there is no room."""
        self._begun += 1
        spare = self._ready
        if spare is not None and spare.size >= size:
            self._ready = None
            return spare
        return segment.allocate(self._disk, self._path(), max(size, self._size))

    def begin_round(self) -> None:
        """Files are about to be given up: how many are kept, and away with what is too much."""
        self._wanted, self._begun = self._begun, 0
        for path in self._used[self._wanted :]:
            segment.discard(self._disk, path)
        del self._used[self._wanted :]

    def give_up(self, old: Segment) -> None:
        """Take the name from a segment's file, and keep the file if it is wanted.

        The caller syncs the directory before anything else: until then a crash can bring the
        segment back, and it must come back whole.
        """
        if old.capacity == self._size and len(self._used) < self._wanted:
            path = self._temporary()
            self._disk.rename(old.path, path)
            self._used.append(path)
        else:
            self._disk.unlink(old.path)

    def close(self) -> None:
        """Give up everything."""
        if self._ready is not None:
            self._ready.file.close()
            segment.discard(self._disk, self._ready.path)
            self._ready = None
        self._begun = 0
        self.begin_round()

    def _path(self) -> str:
        return self._used.pop() if self._used else self._temporary()

    def _temporary(self) -> str:
        self._count += 1
        return f"{self._directory}/spare-{self._count}{segment.TEMPORARY_SUFFIX}"
