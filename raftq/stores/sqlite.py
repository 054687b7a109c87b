"""SQLite: a third engine, slower than RocksDB, so that the interface stays honest.

One table without row ids, one transaction per round. Commits go to SQLite's own
log unsynced; a flush commits a counter with a sync, which covers all before it.
SQLite does not checksum its pages, so every row carries a CRC32C of key and value.

Several connections, because a connection sees its own later commits in the middle
of a scan: one writes, one flushes, and each reader's scan borrows one that keeps
its read transaction until the scan is over.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

import google_crc32c

from raftq.disk import Disk
from raftq.stores import watermark
from raftq.stores.lock import DirectoryLock
from raftq.stores.overlay import Overlay, Row
from raftq.stores.store import StoreCorruption, StoreError

T = TypeVar("T")

FILE = "sqlite.store"
BUSY_S = 60.0  # A commit waits for the flush's sync, not for ever.
_CRC_BYTES = 4
_SCAN = "SELECT key, value FROM kv WHERE key >= ? AND key < ? ORDER BY key"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS kv (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS flushes (one INTEGER PRIMARY KEY, number INTEGER NOT NULL);
INSERT OR IGNORE INTO flushes VALUES (1, 0);
"""
_FLUSHES = "SELECT number FROM flushes"


class Sqlite:
    """A SQLite file; see ``Store``."""

    def __init__(self, disk: Disk, directory: str) -> None:
        disk.make_directory(directory)
        self._disk = disk
        self._directory = directory
        self._path = os.path.join(directory, FILE)
        self._owner = DirectoryLock(directory)
        self._busy = threading.Lock()  # One flush or checkpoint at a time.
        try:
            self._writer = _prepared(self._path)
            _require_flushed(disk, directory, self._writer)
            self._flusher = _connection(self._path, "PRAGMA synchronous = FULL")
            disk.sync_directory(directory)
        except BaseException:
            self._owner.release()
            raise
        self._committed = _Committed(self._path)
        self.kv = Overlay(_Table(self._writer))

    def commit(self) -> None:
        """See ``Store``."""
        ranges, keys = self.kv.take()
        if not ranges and not keys:
            return
        removed = ((key,) for key, value in keys.items() if value is None)
        written = (
            (key, value + _crc(key, value)) for key, value in keys.items() if value is not None
        )

        def write() -> None:
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.executemany("DELETE FROM kv WHERE key >= ? AND key < ?", ranges)
            self._writer.executemany("DELETE FROM kv WHERE key = ?", removed)
            self._writer.executemany("REPLACE INTO kv VALUES (?, ?)", written)
            self._writer.execute("COMMIT")

        _guarded(write)

    def reader(self) -> _Committed:
        """See ``Store``."""
        return self._committed

    def frozen(self) -> _Frozen:
        """See ``Store``."""
        return self._committed.frozen()

    def flush(self) -> None:
        """See ``Store``."""
        with self._busy:
            number = _guarded(self._count_flush)
            watermark.note(self._disk, self._directory, number)
            # Moves the log into the table as far as open readers allow.
            _guarded(lambda: self._flusher.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall())

    def checkpoint(self, path: str) -> None:
        """See ``Store``."""
        self._disk.make_directory(path)
        target = os.path.join(path, FILE)
        with self._busy:
            _guarded(lambda: self._flusher.execute("VACUUM INTO ?", (target,)))
        copy = self._disk.open(target)
        copy.sync()
        copy.close()
        self._disk.sync_directory(path)

    def close(self) -> None:
        """See ``Store``."""
        with self._busy:
            self._committed.close()
            self._writer.close()
            self._flusher.close()
        self._owner.release()

    def _count_flush(self) -> int:
        self._flusher.execute("UPDATE flushes SET number = number + 1")
        number: int = self._flusher.execute(_FLUSHES).fetchone()[0]
        return number


class _Table:
    """A Reader over one connection; what it shows is up to the connection's transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, key: bytes) -> bytes | None:
        """See ``Reader``."""
        query = "SELECT value FROM kv WHERE key = ?"
        row = _guarded(lambda: self._connection.execute(query, (key,)).fetchone())
        return _checked(key, row[0]) if row else None

    def scan(self, low: bytes, high: bytes) -> Iterator[Row]:
        """See ``Reader``."""
        rows = _guarded(lambda: self._connection.execute(_SCAN, (low, high)))
        while (row := _guarded(rows.fetchone)) is not None:
            yield row[0], _checked(row[0], row[1])


class _Frozen(_Table):
    """A read transaction held open; see ``Frozen``."""

    def __init__(self, path: str) -> None:
        super().__init__(_connection(path, "PRAGMA query_only = 1"))
        self._connection.execute("BEGIN")
        self.get(b"")  # The transaction starts with its first read.

    def close(self) -> None:
        """See ``Frozen``."""
        self._connection.close()


class _Committed:
    """A Reader of the latest commit; each scan holds a transaction of its own."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._latest = _connection(path, "PRAGMA query_only = 1")
        self._views: weakref.WeakSet[_Frozen] = weakref.WeakSet()
        self.get = _Table(self._latest).get

    def scan(self, low: bytes, high: bytes) -> Iterator[Row]:
        """See ``Reader``."""
        return self._scan(self.frozen(), low, high)

    def frozen(self) -> _Frozen:
        """See ``Store``."""
        view = _guarded(lambda: _Frozen(self._path))
        self._views.add(view)
        return view

    def close(self) -> None:
        """End every transaction; scans still held raise from now on."""
        for view in tuple(self._views):
            view.close()
        self._latest.close()

    def _scan(self, view: _Frozen, low: bytes, high: bytes) -> Iterator[Row]:
        try:
            yield from view.scan(low, high)
        finally:
            view.close()


class SqliteCopy(_Table):
    """A directory nobody writes, read without touching a byte of it; see ``Frozen``."""

    def __init__(self, disk: Disk, directory: str) -> None:
        if not disk.exists(os.path.join(directory, FILE)):
            raise StoreError(f"{directory} has no {FILE}")
        # Reading what is only in the log so far means to replay it, so work on a copy.
        self._copy = tempfile.TemporaryDirectory(prefix="raftq-")
        try:
            for name in (FILE, f"{FILE}-wal"):
                if disk.exists(os.path.join(directory, name)):
                    shutil.copy(os.path.join(directory, name), self._copy.name)
            path = os.path.join(self._copy.name, FILE)
            super().__init__(_connection(path, "PRAGMA query_only = 1"))
            _require_flushed(disk, directory, self._connection)
        except BaseException:
            self._copy.cleanup()
            raise

    def integrity(self) -> list[str]:
        """What SQLite finds wrong with the file's structure."""
        rows = _guarded(lambda: self._connection.execute("PRAGMA integrity_check").fetchall())
        return [text for (text,) in rows if text != "ok"]

    def close(self) -> None:
        """See ``Frozen``."""
        self._connection.close()
        self._copy.cleanup()


def examine(disk: Disk, directory: str) -> list[StoreCorruption]:
    """What is wrong with single files; see ``Engine``."""
    try:
        copy = SqliteCopy(disk, directory)
    except StoreCorruption as damage:
        return [damage]
    try:
        return [StoreCorruption(FILE, text) for text in copy.integrity()]
    except StoreCorruption as damage:
        return [damage]
    finally:
        copy.close()


def _require_flushed(disk: Disk, directory: str, connection: sqlite3.Connection) -> None:
    row = _guarded(lambda: connection.execute(_FLUSHES).fetchone())
    watermark.require(disk, directory, row[0] if row else 0, blame=FILE)


def _prepared(path: str) -> sqlite3.Connection:
    connection = _connection(path, "PRAGMA journal_mode = WAL")

    def prepare() -> sqlite3.Connection:
        connection.execute("PRAGMA synchronous = NORMAL")
        # Only a flush moves the log into the table: that syncs, and rounds must not wait for it.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.executescript(_SCHEMA)
        return connection

    return _guarded(prepare)


def _connection(path: str, pragma: str) -> sqlite3.Connection:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        connection.execute(pragma)
        return connection

    return _guarded(connect)


def _crc(key: bytes, value: bytes) -> bytes:
    crc: int = google_crc32c.extend(google_crc32c.value(key), value)
    return crc.to_bytes(_CRC_BYTES, "big")


def _checked(key: bytes, stored: bytes) -> bytes:
    value = stored[:-_CRC_BYTES]
    if stored[-_CRC_BYTES:] != _crc(key, value):
        raise StoreCorruption(FILE, f"checksum mismatch at key {key.hex()}")
    return value


def _guarded(call: Callable[[], T]) -> T:
    try:
        return call()
    except sqlite3.Error as error:
        _fail(error)


def _fail(error: sqlite3.Error) -> NoReturn:
    # The module's own errors (a closed connection) have no code.
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        raise StoreCorruption(FILE, str(error)) from error
    raise StoreError(str(error)) from error
