"""A store as files: made into a snapshot, sent in pieces, received and checked.

    directory/making/                       a snapshot being made; rubbish after a crash
    directory/snapshot-<index>-<term>/      a complete one
        MANIFEST                            what ``Manifest`` says, under a CRC
        files/                              an openable copy of the store

A snapshot is complete when its directory has that name: the rename is the last step.
Received files are believed when size and SHA-256 are what the manifest says, and the
manifest's names are single path components, because they come from the network.

``make`` and ``Sink.finish`` sync and hash: run them off the node's thread.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable

import msgspec

from raftq.disk import Disk, File
from raftq.journal import Corruption, record_file
from raftq.stores.engines import Engine
from raftq.stores.store import Store
from statemachine.kv import Reader

KEPT = 2  # A peer may still be reading the one before the newest.
FILES_MAX = 100_000
_MAKING = "making"
_MANIFEST = "MANIFEST"
_FILES = "files"
_CHUNK_BYTES = 1 << 20
_SNAPSHOT = re.compile(r"snapshot-(\d{20})-(\d{20})")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


class Damaged(Exception):
    """What arrived is not what was sent; ``file`` says where, or is "manifest"."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason


class FileSpec(msgspec.Struct, frozen=True, array_like=True):
    """One file of a snapshot."""

    name: str
    size_bytes: int
    sha256: bytes


class Manifest(msgspec.Struct, frozen=True, array_like=True):
    """What a snapshot is, for whoever is to receive it."""

    engine: str
    index: int
    term: int
    stamp_ms: int
    files: tuple[FileSpec, ...]
    extra: bytes  # The caller's own: the membership at that index.

    @property
    def total_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self.files)


class Snapshot(msgspec.Struct, frozen=True):
    """A complete snapshot on this disk."""

    path: str
    manifest: Manifest


def encode(manifest: Manifest) -> bytes:
    """Bytes for the wire."""
    return msgspec.msgpack.encode(manifest)


def decode(data: bytes) -> Manifest:
    """Inverse of ``encode``; Damaged if it is not a manifest that can be followed safely."""
    try:
        manifest = msgspec.msgpack.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Damaged("manifest", str(error)) from error
    if len(manifest.files) > FILES_MAX:
        raise Damaged("manifest", f"{len(manifest.files)} files")
    for file in manifest.files:
        if not _NAME.fullmatch(file.name):
            raise Damaged("manifest", f"the name {file.name!r} is not allowed")
        if file.size_bytes < 0 or len(file.sha256) != hashlib.sha256().digest_size:
            raise Damaged("manifest", f"size or digest of {file.name} is not allowed")
    if len({file.name for file in manifest.files}) < len(manifest.files):
        raise Damaged("manifest", "a name occurs twice")
    return manifest


def make(
    engine: Engine,
    store: Store,
    disk: Disk,
    directory: str,
    *,
    applied: Callable[[Reader], tuple[int, int, int]],
    extra: Callable[[int], bytes],
) -> Snapshot:
    """A snapshot of what is committed now or a little later; older ones are removed.

    Rounds go on meanwhile. So ``applied`` reads index, term and stamp out of the copy,
    and ``extra`` is asked for what belongs to that index.
    """
    making = os.path.join(directory, _MAKING)
    disk.remove_tree(making)
    disk.make_directory(making)
    files = os.path.join(making, _FILES)
    store.flush()
    store.checkpoint(files)
    copy = engine.read(disk, files)
    try:
        index, term, stamp_ms = applied(copy)
    finally:
        copy.close()
    specs = tuple(_spec(disk, files, name) for name in disk.list(files))
    manifest = Manifest(engine.name, index, term, stamp_ms, specs, extra(index))
    record_file.store(disk, os.path.join(making, _MANIFEST), encode(manifest))
    target = os.path.join(directory, f"snapshot-{index:020}-{term:020}")
    disk.remove_tree(target)
    disk.rename(making, target)
    disk.sync_directory(directory)
    for name in _names(disk, directory)[:-KEPT]:
        disk.remove_tree(os.path.join(directory, name))
    return Snapshot(target, manifest)


def latest(disk: Disk, directory: str) -> Snapshot | None:
    """The newest snapshot that is there; None if there is none."""
    for name in reversed(_names(disk, directory)):
        path = os.path.join(directory, name)
        try:
            data = record_file.load(disk, os.path.join(path, _MANIFEST))
            if data is not None:
                return Snapshot(path, decode(data))
        except (Corruption, Damaged):
            continue  # Another can be made at any time; this one is only not sent.
    return None


class Source:
    """Reads a snapshot's files; they stay readable when the snapshot is removed meanwhile."""

    def __init__(self, disk: Disk, snapshot: Snapshot) -> None:
        self.manifest = snapshot.manifest
        self.total_bytes = snapshot.manifest.total_bytes
        self._files: list[File] = []
        try:
            for file in self.manifest.files:
                self._files.append(disk.open(os.path.join(snapshot.path, _FILES, file.name)))
        except BaseException:
            self.close()
            raise

    def read(self, file_number: int, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes of a file; fewer only at its end."""
        return self._files[file_number].pread(count, offset)

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files:
            file.close()
        self._files.clear()


class Sink:
    """Receives a snapshot's files, in order, into an empty directory.

    When the stream breaks, ``position`` is where the next one has to go on. A sink
    lives in memory: after a restart of the process receiving starts anew.
    """

    def __init__(self, disk: Disk, directory: str, manifest: Manifest) -> None:
        self._disk = disk
        self._directory = directory
        self._specs = manifest.files
        self._open: list[File] = []  # Until synced, so that no error of the disk goes unseen.
        self._number = 0
        self._offset = 0
        self._hash = hashlib.sha256()
        self._settle()

    @property
    def position(self) -> tuple[int, int]:
        """The file number and offset expected next; one past the last file when complete."""
        return self._number, self._offset

    @property
    def complete(self) -> bool:
        """Whether every byte has arrived and every file is what it should be."""
        return self._number == len(self._specs)

    def write(self, file_number: int, offset: int, data: bytes) -> None:
        """Take the next bytes; Damaged if they are not next, or a finished file is wrong."""
        if self.complete or (file_number, offset) != self.position:
            raise Damaged("stream", f"{(file_number, offset)} came instead of {self.position}")
        spec = self._specs[file_number]
        if not data:
            raise Damaged(spec.name, f"shorter than {spec.size_bytes} bytes")
        if offset + len(data) > spec.size_bytes:
            raise Damaged(spec.name, f"longer than {spec.size_bytes} bytes")
        self._open[file_number].pwrite(data, offset)
        self._hash.update(data)
        self._offset += len(data)
        self._settle()

    def finish(self) -> None:
        """Make it durable; the directory is a store afterwards."""
        if not self.complete:
            raise Damaged("stream", f"ended at {self.position}")
        for file in self._open:
            file.sync()
        self.close()
        self._disk.sync_directory(self._directory)

    def close(self) -> None:
        """Let go of the files, finished or not."""
        for file in self._open:
            file.close()
        self._open.clear()

    def _settle(self) -> None:
        """Check files that have all their bytes, be it none, and open the next."""
        while not self.complete:
            spec = self._specs[self._number]
            if len(self._open) == self._number:
                path = os.path.join(self._directory, spec.name)
                self._open.append(self._disk.open(path, create=True))
                self._open[-1].truncate(0)
            if self._offset < spec.size_bytes:
                return
            if self._hash.digest() != spec.sha256:
                raise Damaged(spec.name, "its SHA-256 is not the manifest's")
            self._hash = hashlib.sha256()
            self._number, self._offset = self._number + 1, 0


def _spec(disk: Disk, directory: str, name: str) -> FileSpec:
    file = disk.open(os.path.join(directory, name))
    try:
        file.sync()
        size_bytes = file.size()
        digest = hashlib.sha256()
        for offset in range(0, size_bytes, _CHUNK_BYTES):
            digest.update(file.pread(_CHUNK_BYTES, offset))
    finally:
        file.close()
    return FileSpec(name, size_bytes, digest.digest())


def _names(disk: Disk, directory: str) -> list[str]:
    """Complete snapshots, oldest first: the names sort as index and term do."""
    if not disk.exists(directory):
        return []
    return [name for name in disk.list(directory) if _SNAPSHOT.fullmatch(name)]
