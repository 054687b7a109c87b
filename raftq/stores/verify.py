"""The offline check of a node's store: every byte that can be read is, nothing is written.

The node must be down. Damage is reported by file, not repaired: a replica with a
damaged store is given a new one by its peers.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from raftq.disk import Disk
from raftq.stores import home, lock
from raftq.stores.engines import ENGINES, Engine
from raftq.stores.store import StoreCorruption, StoreError
from statemachine.kv import Reader

# Above every key: the state machine's key spaces are letters.
_END = b"\xff" * 16


class FileSize(msgspec.Struct, frozen=True):
    """One file of the store."""

    name: str
    size_bytes: int


class Damage(msgspec.Struct, frozen=True):
    """One thing that is wrong; ``file`` is None if it could not be told which is to blame."""

    file: str | None
    reason: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    engine: str
    directory: str
    files: tuple[FileSize, ...]
    keys: int
    bytes: int  # Of keys and values, as far as they could be read.
    machine: str  # What the machine's own record says; empty if it could not be read.
    damage: tuple[Damage, ...]

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damage


def verify(disk: Disk, data_directory: str, machine: Callable[[Reader], object]) -> Report:
    """Check the current store of a data directory; ``machine`` reads the machine's record.

    A damaged store is a report. StoreError is raised only if there is none to look at,
    or if it is in use.
    """
    pointer = home.current(disk, data_directory)
    if pointer is None:
        raise StoreError(f"{data_directory} has no {home.POINTER}: no store was ever here")
    if pointer.engine not in ENGINES:
        raise StoreError(f"{data_directory} holds a store of the unknown engine {pointer.engine}")
    directory = home.location(data_directory, pointer)
    lock.require_free(directory)
    return examine(ENGINES[pointer.engine], disk, directory, machine)


def examine(
    engine: Engine, disk: Disk, directory: str, machine: Callable[[Reader], object]
) -> Report:
    """Check one store directory."""
    found = [Damage(damage.file, damage.reason) for damage in engine.examine(disk, directory)]
    keys = size = 0
    says = ""
    try:
        copy = engine.read(disk, directory)
        try:
            for key, value in copy.scan(b"", _END):
                keys += 1
                size += len(key) + len(value)
            says = str(machine(copy))
        finally:
            copy.close()
    except StoreCorruption as error:
        found.append(Damage(error.file, error.reason))
    except Exception as error:
        # Whatever the machine's record makes its decoder raise: it is damage.
        found.append(Damage(None, f"{type(error).__name__}: {error}"))
    return Report(
        engine=engine.name,
        directory=directory,
        files=_files(disk, directory),
        keys=keys,
        bytes=size,
        machine=says,
        damage=tuple(_one_per_file(found)),
    )


def _files(disk: Disk, directory: str) -> tuple[FileSize, ...]:
    sizes = []
    for name in disk.list(directory):
        file = disk.open(os.path.join(directory, name))
        sizes.append(FileSize(name, file.size()))
        file.close()
    return tuple(sizes)


def _one_per_file(found: list[Damage]) -> list[Damage]:
    """The first word about each file: what follows is the same damage seen again."""
    return list({damage.file: damage for damage in reversed(found)}.values())[::-1]
