"""One owner per store directory.

The engines have locks of their own, but RocksDB's binding rewrites a file before
it asks for the lock, so ours is taken first. The kernel drops it with the process.
"""

from __future__ import annotations

import fcntl
import os

from raftq.stores.store import StoreBusy

NAME = "OWNER"


class DirectoryLock:
    """Held from construction to ``release``; a second holder is refused at once."""

    def __init__(self, directory: str) -> None:
        path = os.path.join(directory, NAME)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(self._descriptor, directory)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let others in; harmless when done already."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def require_free(directory: str) -> None:
    """StoreBusy if somebody has it open; leaves no trace."""
    path = os.path.join(directory, NAME)
    if not os.path.exists(path):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _lock(descriptor, directory)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise StoreBusy(f"{directory} is open elsewhere (lock on {NAME})") from error
