"""The file system as journal, term file and snapshots use it, and nothing more.

``OsDisk`` is the real one; the simulator has a twin that loses, tears and rots
what was not synced. Errors are ``OSError``. Paths are plain strings.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

Ended = Callable[[OSError | None], None]
"""Told of a sync that began: what went wrong, if anything did."""


class File(Protocol):
    """An open file; positions are absolute."""

    def pread(self, count: int, offset: int) -> bytes:
        """Up to ``count`` bytes; fewer only at the end of the file."""
        ...

    def pwrite(self, data: bytes, offset: int) -> None:
        """All of ``data``, or OSError."""
        ...

    def size(self) -> int:
        """Bytes in the file."""
        ...

    def truncate(self, size: int) -> None:
        """Cut or extend with zeros."""
        ...

    def sync(self) -> None:
        """fdatasync: may run off the loop's thread. A failure is fatal for the node."""
        ...

    def begin_sync(self, ended: Ended) -> bool:
        """Begin what ``sync`` does and go on; ``ended`` is called on the loop, and must not raise.

        False, with nothing begun and nobody called, where that is not to be had. Belongs to the
        loop's thread.
        """
        ...

    def close(self) -> None:
        """Release it; does not sync."""
        ...


class Disk(Protocol):
    """Files and directories."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open for reading and writing; FileNotFoundError unless it exists or ``create``."""
        ...

    def exists(self, path: str) -> bool:
        """Whether a file or directory is there."""
        ...

    def list(self, path: str) -> list[str]:
        """Names in a directory, sorted."""
        ...

    def make_directory(self, path: str) -> None:
        """Create it with its parents; fine if it exists. Parents are synced."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Atomically replace ``target``; durable only after ``sync_directory``."""
        ...

    def unlink(self, path: str) -> None:
        """Remove a file; durable only after ``sync_directory``."""
        ...

    def remove_tree(self, path: str) -> None:
        """Remove a directory with everything in it; fine if absent."""
        ...

    def sync_directory(self, path: str) -> None:
        """Make the names in it durable."""
        ...


BeginSync = Callable[[int, Ended], bool]
"""See ``File.begin_sync``; of a file by its descriptor."""


class OsFile:
    """A file of the operating system."""

    def __init__(self, descriptor: int, begin_sync: BeginSync | None) -> None:
        self._descriptor = descriptor
        self._begin_sync = begin_sync

    def pread(self, count: int, offset: int) -> bytes:
        """See ``File``."""
        parts = []
        while count > 0:
            part = os.pread(self._descriptor, count, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            count -= len(part)
        return b"".join(parts)

    def pwrite(self, data: bytes, offset: int) -> None:
        """See ``File``."""
        written = os.pwrite(self._descriptor, data, offset)
        while written < len(data):
            written += os.pwrite(self._descriptor, data[written:], offset + written)

    def size(self) -> int:
        """See ``File``."""
        return os.fstat(self._descriptor).st_size

    def truncate(self, size: int) -> None:
        """See ``File``."""
        os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        """See ``File``."""
        os.fdatasync(self._descriptor)

    def begin_sync(self, ended: Ended) -> bool:
        """See ``File``."""
        return self._begin_sync is not None and self._begin_sync(self._descriptor, ended)

    def close(self) -> None:
        """See ``File``."""
        os.close(self._descriptor)


class OsDisk:
    """The operating system's file system; ``begin_sync`` if it can sync on its own."""

    def __init__(self, begin_sync: BeginSync | None = None) -> None:
        self._begin_sync = begin_sync

    def open(self, path: str, *, create: bool = False) -> OsFile:
        """See ``Disk``."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        return OsFile(os.open(path, flags, 0o600), self._begin_sync)

    def exists(self, path: str) -> bool:
        """See ``Disk``."""
        return os.path.exists(path)

    def list(self, path: str) -> list[str]:
        """See ``Disk``."""
        return sorted(os.listdir(path))

    def make_directory(self, path: str) -> None:
        """See ``Disk``."""
        if os.path.isdir(path):
            return
        parent = os.path.dirname(os.path.abspath(path))
        self.make_directory(parent)
        os.mkdir(path, 0o700)
        self.sync_directory(parent)

    def rename(self, source: str, target: str) -> None:
        """See ``Disk``."""
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        """See ``Disk``."""
        os.unlink(path)

    def remove_tree(self, path: str) -> None:
        """See ``Disk``."""
        if not os.path.isdir(path):
            return
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    self.remove_tree(entry.path)
                else:
                    os.unlink(entry.path)
        os.rmdir(path)

    def sync_directory(self, path: str) -> None:
        """See ``Disk``."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
