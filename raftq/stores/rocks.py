"""RocksDB: the only module that knows the binding, and where its traps are fenced.

One column family, no write-ahead log, one WriteBatch per round: a crash loses
whole rounds from the end and nothing else. Raw mode throughout: bytes in, bytes
out, no pickle.

Rules, each paid for by a trap of the binding:

- An iterator shows the moment it was created; the binding's snapshots do not.
- Bounds are compared here, never given to the engine (it would read freed memory).
- A scan that runs out asks ``status()``: without it a bad block ends a scan early
  and silently.
- Iterators keep the database open behind ``close``. So every one that outlives a
  call is known here, and ``close`` ends it first.
- ``flush`` and ``close`` release the GIL and must not meet: one lock around them.
  Commits and reads do not take it and go on during a flush.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from rocksdict import (
    AccessType,
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    ChecksumType,
    DBCompressionType,
    Options,
    Rdict,
    RdictIter,
    WriteBatch,
    WriteOptions,
)

from raftq.disk import Disk
from raftq.stores import sst, watermark
from raftq.stores.lock import DirectoryLock
from raftq.stores.overlay import Overlay, Row
from raftq.stores.store import StoreCorruption, StoreError

MIB = 1 << 20
CACHE_BYTES = 64 * MIB
CACHED_BYTES = 8 << 10
"""What a block is taken to have: its cache, which has two shards, has a place for so many. An
LRU cache would have 64, and never keep what is larger than one: a body of a mebibyte, for one."""
LESS_URGENT = 10  # As much nicer: a tenth of what a thread of the node gets beside it.
BLOCK_BYTES = 16 << 10
"""A compaction pays for each block that it reads and writes, whatever is in it."""
# ``sst`` reads this layout to check every block, also those that no scan visits.
FORMAT_VERSION = 5
_TABLE_FILE = re.compile(r"\d{6,}\.sst")
_MANIFEST = re.compile(r"MANIFEST-\d+")


class Rocks:
    """A RocksDB directory; see ``Store``."""

    def __init__(self, disk: Disk, directory: str) -> None:
        disk.make_directory(directory)
        self._disk = disk
        self._directory = directory
        self._owner = DirectoryLock(directory)
        try:
            _require_flushed(disk, directory)
            self._db = _open(directory, AccessType.read_write())
        except BaseException:
            self._owner.release()
            raise
        self._busy = threading.Lock()  # Around the calls that release the GIL.
        self._closed = False
        self._write_options = WriteOptions()
        _attributes(self._write_options).disable_wal = True
        self._reader = _Committed(self._db)
        self._round = _Round(self._db)
        self.kv = Overlay(self._round)

    def commit(self) -> None:
        """See ``Store``."""
        ranges, keys = self.kv.take()
        self._round.end()
        if not ranges and not keys:
            return
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for low, high in ranges:
            batch.delete_range(low, high)
        for key, value in keys.items():
            if value is None:
                delete(key)
            else:
                put(key, value)
        try:
            self._db.write(batch, self._write_options)
        except Exception as error:
            _fail(error)

    def reader(self) -> _Committed:
        """See ``Store``."""
        return self._reader

    def frozen(self) -> _Frozen:
        """See ``Store``."""
        return _Frozen(self._reader)

    def flush(self) -> None:
        """See ``Store``."""
        with self._busy:
            self._flush()

    def checkpoint(self, path: str) -> None:
        """See ``Store``. Flushed first, because the checkpoint's own flush holds the GIL."""
        with self._busy:
            self._flush()
            try:
                Checkpoint(self._db).create_checkpoint(path)
            except Exception as error:
                _fail(error)
        self._disk.sync_directory(path)
        self._disk.sync_directory(os.path.dirname(path))

    def close(self) -> None:
        """See ``Store``."""
        with self._busy:
            if self._closed:
                return
            self._closed = True
            self._round.end()
            self._reader.cut_off()
            self._db.close()
        self._owner.release()

    def _flush(self) -> None:
        try:
            reached = self._db.latest_sequence_number()
            self._db.flush()
            # A write that failed in the background leaves memory and disk at odds.
            failures = self._db.property_int_value("rocksdb.background-errors")
        except Exception as error:
            _fail(error)
        if failures:
            raise StoreError(f"{failures} background errors; see LOG in {self._directory}")
        watermark.note(self._disk, self._directory, reached)


class _Cursor:
    """An engine iterator that can be taken away from the scan that walks it."""

    __slots__ = ("__weakref__", "iterator")

    def __init__(self, iterator: RdictIter) -> None:
        self.iterator: RdictIter | None = iterator

    def here(self) -> RdictIter:
        """The iterator, or an error: a scan cut off must not look like one that ended."""
        if self.iterator is None:
            raise StoreError("the scan was cut off: its store or view is closed")
        return self.iterator


class _Committed:
    """A Reader for front ends: every scan has an iterator of its own."""

    def __init__(self, db: Rdict) -> None:
        self._db = db
        self._get: Callable[[bytes], bytes | None] = db.get
        self._cursors: weakref.WeakSet[_Cursor] = weakref.WeakSet()

    def get(self, key: bytes) -> bytes | None:
        """See ``Reader``."""
        try:
            return self._get(key)
        except Exception as error:
            _fail(error)

    def scan(self, low: bytes, high: bytes) -> Iterator[Row]:
        """See ``Reader``."""
        return _rows(self.cursor(), low, high, [])

    def cursor(self) -> _Cursor:
        """A cursor that ``cut_off`` knows."""
        return self.known(_cursor(self._db))

    def known(self, cursor: _Cursor) -> _Cursor:
        """The same cursor, which ``cut_off`` knows from now on."""
        self._cursors.add(cursor)
        return cursor

    def cut_off(self) -> None:
        """Take the iterators away from whoever still holds a scan or a view."""
        for cursor in tuple(self._cursors):
            cursor.iterator = None


class _Round:
    """A Reader for the round: between two commits one iterator serves many scans."""

    def __init__(self, db: Rdict) -> None:
        self._db = db
        self._get: Callable[[bytes], bytes | None] = db.get
        self._cursors: list[_Cursor] = []
        self._idle: list[_Cursor] = []

    def get(self, key: bytes) -> bytes | None:
        """See ``Reader``."""
        try:
            return self._get(key)
        except Exception as error:
            _fail(error)

    def scan(self, low: bytes, high: bytes) -> Iterator[Row]:
        """See ``Reader``."""
        # The next round has another list, so a stale cursor cannot get into it.
        idle = self._idle
        if idle:
            cursor = idle.pop()
        else:
            cursor = _cursor(self._db)
            self._cursors.append(cursor)
        return _rows(cursor, low, high, idle)

    def end(self) -> None:
        """Drop the iterators: they show what was committed before this round."""
        for cursor in self._cursors:
            cursor.iterator = None
        self._cursors, self._idle = [], []


class _Frozen:
    """Two iterators made at one moment: one for scans, one for gets."""

    def __init__(self, reader: _Committed) -> None:
        self._reader = reader
        self._scanning, self._pointing = reader.cursor(), reader.cursor()

    def get(self, key: bytes) -> bytes | None:
        """See ``Reader``."""
        iterator = self._pointing.here()
        iterator.seek(key)
        if not iterator.valid():
            _check(iterator)
            return None
        value: bytes | None = iterator.value() if iterator.key() == key else None
        return value

    def scan(self, low: bytes, high: bytes) -> Iterator[Row]:
        """See ``Reader``; the scan before it is cut off."""
        iterator = self._scanning.here()
        self._scanning.iterator = None
        self._scanning = self._reader.known(_Cursor(iterator))
        return _rows(self._scanning, low, high, [])

    def close(self) -> None:
        """See ``Frozen``."""
        self._scanning.iterator = self._pointing.iterator = None


class RocksCopy:
    """A directory nobody writes, opened without touching a byte of it; see ``Frozen``.

    The binding writes its configuration into whatever it opens, even read-only.
    So it is given a directory of links to the real files.
    """

    def __init__(self, disk: Disk, directory: str) -> None:
        self._links = tempfile.TemporaryDirectory(prefix="raftq-")
        try:
            for name in disk.list(directory):
                if not name.startswith("rocksdict"):
                    source = os.path.abspath(os.path.join(directory, name))
                    os.symlink(source, os.path.join(self._links.name, name))
            self._db = _open(self._links.name, AccessType.read_only(False))
        except BaseException:
            self._links.cleanup()
            raise
        self._reader = _Committed(self._db)
        try:
            watermark.require(disk, directory, self._db.latest_sequence_number(), blame="MANIFEST")
        except BaseException:
            self.close()
            raise

    def get(self, key: bytes) -> bytes | None:
        """See ``Reader``."""
        return self._reader.get(key)

    def scan(self, low: bytes, high: bytes) -> Iterator[Row]:
        """See ``Reader``."""
        return self._reader.scan(low, high)

    def close(self) -> None:
        """See ``Frozen``."""
        self._reader.cut_off()
        self._db.close()
        self._links.cleanup()


def examine(disk: Disk, directory: str) -> list[StoreCorruption]:
    """What is wrong with single files; see ``Engine``."""
    found = []
    for name in disk.list(directory):
        if _TABLE_FILE.fullmatch(name):
            try:
                sst.check(disk, os.path.join(directory, name))
            except StoreCorruption as damage:
                found.append(damage)
    return found


def _require_flushed(disk: Disk, directory: str) -> None:
    """Refuse a database cut short. Opening it for writing would delete what it forgot."""
    if not disk.exists(os.path.join(directory, "CURRENT")):
        watermark.require(disk, directory, 0, blame="CURRENT")
        return
    RocksCopy(disk, directory).close()


def _cursor(db: Rdict) -> _Cursor:
    try:
        return _Cursor(db.iter())
    except Exception as error:
        _fail(error)


def _rows(cursor: _Cursor, low: bytes, high: bytes, home: list[_Cursor]) -> Iterator[Row]:
    """The cursor's rows in the range; it goes ``home`` however the scan ends.

    While the caller has a row only the cursor holds the iterator, so that it can be taken.
    """
    try:
        iterator: RdictIter | None = cursor.here()
        assert iterator is not None
        iterator.seek(low)
        while iterator.valid():
            key = iterator.key()
            if key >= high:
                return
            row = key, iterator.value()
            iterator = None
            yield row
            # Not before the yield: beyond the last row wanted there may be many tombstones.
            iterator = cursor.iterator or cursor.here()
            iterator.next()
        _check(iterator)
    finally:
        home.append(cursor)


def _check(iterator: RdictIter) -> None:
    try:
        iterator.status()
    except Exception as error:
        _fail(error)


def _open(directory: str, access: AccessType) -> Rdict:
    """Opened by a thread of low priority: those that flush and compact are its children.

    Where a machine is busy they must not come before entries that somebody waits for. They are
    made when the first store is opened, and inherit their priority (setpriority(2)).
    """
    options = _options()
    opened: list[Rdict] = []
    failed: list[Exception] = []

    def open_it() -> None:
        with contextlib.suppress(OSError):  # A sandbox may forbid it.
            me = threading.get_native_id()
            priority = min(os.getpriority(os.PRIO_PROCESS, me) + LESS_URGENT, 19)
            os.setpriority(os.PRIO_PROCESS, me, priority)
        try:
            # Without the explicit family the binding would take options from the directory.
            opened.append(Rdict(directory, options, {"default": options}, access))
        except Exception as error:  # Of the engine, which has no other type for any.
            failed.append(error)

    thread = threading.Thread(target=open_it)
    thread.start()
    thread.join()
    if failed:
        _fail(failed[0])
    return opened[0]


def _options() -> Options:
    tables = BlockBasedOptions()
    tables.set_block_cache(Cache.new_hyper_clock_cache(CACHE_BYTES, CACHED_BYTES))
    tables.set_block_size(BLOCK_BYTES)
    tables.set_cache_index_and_filter_blocks(True)
    tables.set_pin_l0_filter_and_index_blocks_in_cache(True)
    # In parts, or of a large table they would take the whole cache.
    tables.set_index_type(BlockBasedIndexType.two_level_index_search())
    tables.set_partition_filters(True)
    tables.set_bloom_filter(10, False)
    tables.set_format_version(FORMAT_VERSION)
    tables.set_checksum_type(ChecksumType.crc32c())
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_paranoid_checks(True)
    options.set_block_based_table_factory(tables)
    options.set_compression_type(DBCompressionType.lz4())
    _bound_stalls(options)
    options.set_bytes_per_sync(MIB)
    options.set_keep_log_file_num(3)
    options.set_max_log_file_size(8 * MIB)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options


def _bound_stalls(options: Options) -> None:
    """A stalled write holds the GIL: make room instead (worst 15 ms; defaults 189 ms).

    The first level is merged into the next when it has as much (eight write buffers) as that
    may have: each merge rewrites both. Deleted keys do not hasten it but by the room that they
    would free, as RocksDB estimates it: no scan of the state machine walks over them.
    """
    options.set_write_buffer_size(32 * MIB)
    options.set_max_write_buffer_number(8)
    options.set_max_background_jobs(4)
    options.set_level_zero_file_num_compaction_trigger(8)
    options.set_level_zero_slowdown_writes_trigger(40)
    options.set_level_zero_stop_writes_trigger(80)
    options.set_soft_pending_compaction_bytes_limit(0)
    options.set_hard_pending_compaction_bytes_limit(0)


def _attributes(options: WriteOptions) -> Any:
    """The stub says that ``disable_wal`` is a method; it is an attribute."""
    return options


def _fail(error: Exception) -> NoReturn:
    """The engine's errors are plain exceptions with a text: give them a type."""
    text = " ".join(str(error).split())
    if "Corruption" in text:
        # The engine blames the MANIFEST as well when it means a table.
        found = _TABLE_FILE.search(text) or _MANIFEST.search(text)
        raise StoreCorruption(found[0] if found else None, text) from error
    raise StoreError(text) from error
