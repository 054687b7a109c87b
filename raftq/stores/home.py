"""Where the store lives on disk, and how another one takes its place.

    data_dir/CURRENT-DB    which engine and which number; replaced atomically
    data_dir/db-<n>        the store
    data_dir/incoming      a store being received or created; never opened by name

The pointer is the only truth: replacing it is the commit point of a switch. A
process killed at any moment leaves the old store or the new one, and a directory
that the pointer does not name is rubbish which the next start removes.
"""

from __future__ import annotations

import os

import msgspec

from raftq.disk import Disk
from raftq.journal import Corruption, record_file
from raftq.stores.engines import ENGINES, Engine
from raftq.stores.store import Store, StoreCorruption, StoreError

POINTER = "CURRENT-DB"
INCOMING = "incoming"
_PREFIX = "db-"


class Pointer(msgspec.Struct, frozen=True, array_like=True):
    """The content of the pointer file."""

    engine: str
    number: int


class Home:
    """The one store of a data directory."""

    def __init__(self, disk: Disk, data_directory: str, engine: str) -> None:
        self._disk = disk
        self._directory = data_directory
        self.engine: Engine = ENGINES[engine]
        self._number = 0
        self._store: Store | None = None

    def open_current(self) -> Store:
        """The store, created if this is the first start; rubbish is gone when it returns."""
        assert self._store is None, "the store is open already"
        self._disk.make_directory(self._directory)
        self._number = self._find() or self._create()
        for name in self._disk.list(self._directory):
            if name == INCOMING or (_number(name) and name != f"{_PREFIX}{self._number}"):
                self._disk.remove_tree(os.path.join(self._directory, name))
        self._store = self.engine.open(self._disk, self._path(self._number))
        return self._store

    def incoming(self) -> str:
        """A fresh empty directory for a store to be received into."""
        path = os.path.join(self._directory, INCOMING)
        self._disk.remove_tree(path)
        self._disk.make_directory(path)
        return path

    def switch(self) -> Store:
        """Put the complete, durable store in ``incoming`` in the place of the current one.

        The new one is opened before it counts, so that one which cannot be opened
        leaves the old one in its place. On an exception this object is done for:
        whichever store the pointer names, a new start finds it.
        """
        assert self._store is not None, "there is no store to replace"
        incoming = os.path.join(self._directory, INCOMING)
        # An engine opened for writing makes a new store where it finds none.
        self.engine.read(self._disk, incoming).close()
        old, new = self._number, self._number + 1
        self._store.close()
        self._store = None
        self._disk.remove_tree(self._path(new))
        self._disk.rename(incoming, self._path(new))
        self._disk.sync_directory(self._directory)
        self._store = store = self.engine.open(self._disk, self._path(new))
        self._point_to(new)
        self._number = new
        self._disk.remove_tree(self._path(old))
        return store

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def _find(self) -> int | None:
        """The current number; None if nothing was ever here."""
        pointer = current(self._disk, self._directory)
        if pointer is not None:
            if pointer.engine != self.engine.name:
                raise StoreError(
                    f"{self._directory} holds a {pointer.engine} store, not {self.engine.name}"
                )
            # As in ``record_file.recover``: the store that it named before may be removed now.
            self._disk.sync_directory(self._directory)
            return pointer.number
        numbers = [n for n in map(_number, self._disk.list(self._directory)) if n]
        if len(numbers) > 1:
            raise StoreError(
                f"{self._directory}: {POINTER} is missing, and several stores are there"
            )
        if not numbers:
            return None
        # A first start that was cut short; or the pointer was deleted, and this is what it named.
        self._point_to(numbers[0])
        return numbers[0]

    def _create(self) -> int:
        path = self.incoming()
        store = self.engine.open(self._disk, path)
        try:
            store.flush()
        finally:
            store.close()
        self._disk.rename(path, self._path(1))
        self._disk.sync_directory(self._directory)
        self._point_to(1)
        return 1

    def _point_to(self, number: int) -> None:
        payload = msgspec.msgpack.encode(Pointer(self.engine.name, number))
        record_file.store(self._disk, os.path.join(self._directory, POINTER), payload)

    def _path(self, number: int) -> str:
        return os.path.join(self._directory, f"{_PREFIX}{number}")


def current(disk: Disk, data_directory: str) -> Pointer | None:
    """What the pointer says; None if there is none. The store it names must be there."""
    try:
        payload = record_file.load(disk, os.path.join(data_directory, POINTER))
        pointer = msgspec.msgpack.decode(payload, type=Pointer) if payload is not None else None
    except (Corruption, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreCorruption(POINTER, str(error)) from error
    if pointer is not None and not disk.exists(location(data_directory, pointer)):
        raise StoreError(f"{location(data_directory, pointer)} is missing, but {POINTER} names it")
    return pointer


def location(data_directory: str, pointer: Pointer) -> str:
    """The directory of the store that the pointer names."""
    return os.path.join(data_directory, f"{_PREFIX}{pointer.number}")


def _number(name: str) -> int:
    """The number of a store's directory; 0 for any other name."""
    digits = name.removeprefix(_PREFIX)
    return int(digits) if name != digits and digits.isdecimal() else 0
