"""A disk in memory that loses and tears what was not synced, by a seeded choice.

At ``crash`` each 512-byte sector written since its file's last sync keeps any one of the
contents it had, each changed size is the old or the new one, and each change of a name
since its directory's last sync happened or did not. Earlier handles then refuse work, as
a dead process would. ``kill`` ends the process only: what was written stays.

Failures are asked for by the number of further changes (writes, syncs, names) that are
still to succeed: ``power_fails_after`` raises PowerLoss there, ``fails_after`` an OSError. A
write that fails is half done; what a failed sync did not write looks clean from then on.
While the disk is ``full``, no file grows and none is made.
"""

from __future__ import annotations

import errno
import os
import random
from collections import defaultdict
from collections.abc import Callable
from functools import cache

from raftq.disk import Ended

SECTOR_BYTES = 512

_directory_of = cache(os.path.dirname)


class PowerLoss(BaseException):
    """The machine is gone; nothing may catch this but the test."""


class _Inode:
    def __init__(self, durable: bytes = b"") -> None:
        self.data = bytearray(durable)
        self.durable = durable
        self.lost: set[int] = set()  # Sectors that seem clean and never reached the disk.
        self._clean = durable  # The content at the last sync; since then:
        self._changes: list[tuple[int, bytes | None]] = []  # Written at, what; or resized to.
        self._sizes: list[int] = []

    def write(self, data: bytes, offset: int) -> None:
        if offset + len(data) > len(self.data):
            self.resize(offset + len(data))
        self._change(offset, bytes(data))

    def resize(self, size: int) -> None:
        self._sizes.append(size)
        self._change(size, None)

    def sync(self) -> None:
        if not (self._changes or self._sizes or self.lost):
            return
        before = self.durable
        self.durable = self._clean = bytes(self.data)
        if self.lost:
            durable = bytearray(self.data)
            for number in self.lost:
                start = number * SECTOR_BYTES
                durable[start : start + SECTOR_BYTES] = _sector(before, number)
            self.durable = bytes(durable[: len(self.data)])
        self._changes.clear()
        self._sizes.clear()

    def fail_sync(self) -> None:
        """As kernels do: the pages count as clean afterwards, and the next sync succeeds."""
        self.lost.update(self._versions())
        self._clean = bytes(self.data)
        self._changes.clear()

    def flip(self, at: int, mask: int) -> None:
        """One bit of what is there and of what would be found after a crash."""
        self.data[at] ^= mask
        self.durable, self._clean = (_flipped(one, at, mask) for one in (self.durable, self._clean))

    def crash(self, chance: random.Random) -> None:
        sectors = self._versions()
        size = chance.choice([len(self.durable), *self._sizes])
        missing = chance.choice([*sectors, -1]) if chance.random() < 0.3 else None
        if missing is not None and self._sizes:
            size = self._sizes[-1]
        data = bytearray(self.durable.ljust(size, b"\0")[:size])
        for number, versions in sectors.items():
            start = number * SECTOR_BYTES
            if start < size:
                old = _sector(self.durable, number)
                if missing is None:
                    kept = chance.choice([old, *versions])
                else:  # The disk was nearly done: one sector alone had not been written.
                    kept = old if number == missing else versions[-1]
                data[start : min(start + SECTOR_BYTES, size)] = kept[: size - start]
        self.data = data
        self.lost.clear()
        self.sync()

    def _change(self, place: int, content: bytes | None) -> None:
        self._changes.append((place, content))
        touched = _apply_to(self.data, place, content)
        if self.lost:
            self.lost.difference_update(touched)

    def _versions(self) -> dict[int, list[bytes]]:
        """By sector that has changed since the last sync: what it was after each change.

        Played again, and only when it is asked for: most of what is written is soon synced.
        """
        data, versions = bytearray(self._clean), defaultdict(list)
        for place, content in self._changes:
            for number in _apply_to(data, place, content):
                versions[number].append(_sector(data, number))
        return versions


def _apply_to(data: bytearray, place: int, content: bytes | None) -> range:
    """Write ``content`` at a place, or make the place the end; which sectors that changes."""
    if content is not None:
        start, end = place, place + len(content)
        data[start:end] = content
    else:
        start, end = sorted((len(data), place))
        data[start:] = bytes(place - start)  # Nothing, if it became shorter.
    return range(start // SECTOR_BYTES, -(-end // SECTOR_BYTES))


def _sector(data: bytes | bytearray, number: int) -> bytes:
    part = bytes(data[number * SECTOR_BYTES : (number + 1) * SECTOR_BYTES])
    return part.ljust(SECTOR_BYTES, b"\0")


def _below(chance: random.Random, end: int) -> int:
    """``chance.randrange(end)``, without what that looks at before it draws."""
    drawn = chance.getrandbits(end.bit_length())
    while drawn >= end:
        drawn = chance.getrandbits(end.bit_length())
    return drawn


def _flipped(data: bytes, at: int, mask: int) -> bytes:
    return data[:at] + bytes((data[at] ^ mask,)) + data[at + 1 :] if at < len(data) else data


class FaultyFile:
    """See ``raftq.disk.File``."""

    def __init__(self, disk: FaultyDisk, inode: _Inode) -> None:
        self._disk = disk
        self._inode = inode
        self._epoch = disk.epoch
        self._open = True
        disk.open_files += 1

    def pread(self, count: int, offset: int) -> bytes:
        self._alive()
        return bytes(self._inode.data[offset : offset + count])

    def pwrite(self, data: bytes, offset: int) -> None:
        self._alive()
        if offset + len(data) > len(self._inode.data):
            self._disk.need_room()
        half = _below(self._disk.chance, len(data) + 1)
        self._disk.change("write", lambda: self._inode.write(data[:half], offset))
        self._inode.write(data, offset)

    def size(self) -> int:
        self._alive()
        return len(self._inode.data)

    def truncate(self, size: int) -> None:
        self._alive()
        if size > len(self._inode.data):
            self._disk.need_room()
        self._disk.change("write")
        self._inode.resize(size)

    def begin_sync(self, _ended: Ended) -> bool:
        """See ``raftq.disk.File``: nothing here goes on by itself."""
        return False

    def sync(self) -> None:
        self._alive()
        self._disk.change("sync", self._inode.fail_sync)
        self._inode.sync()

    def close(self) -> None:
        assert self._open, "closed twice"
        self._open = False
        self._disk.open_files -= 1

    def _alive(self) -> None:
        assert self._open, "used after close"
        assert self._epoch == self._disk.epoch, "used after a crash"


class FaultyDisk:
    """See ``raftq.disk.Disk``."""

    def __init__(self, seed: int = 0) -> None:
        self.chance = random.Random(seed)
        self.epoch = 0
        self.changes: dict[str, int] = {"write": 0, "sync": 0, "name": 0}
        self.open_files = 0
        self.fails_after: int | None = None
        self.fails_with = errno.EIO
        self.fails_once = False  # Or again and again.
        self.sync_failed = False  # In this life of the process.
        self.fails_on: tuple[str, ...] = ("write", "sync", "name")
        self.power_fails_after: int | None = None
        self.full = False
        # Once this is renamed, or something is made in it, power fails so many changes later.
        self.rename_fuses: dict[str, int] = {}
        self.making_fuses: dict[str, int] = {}
        self._directories: set[str] = {"/"}
        self._names: dict[str, _Inode] = {}
        self._durable_names: dict[str, _Inode] = {}
        # Per change: the names it sets (None: removes), applied as one, and whose sync it awaits.
        self._pending: list[tuple[dict[str, _Inode | None], set[str]]] = []

    def open(self, path: str, *, create: bool = False) -> FaultyFile:
        inode = self._names.get(path)
        if inode is None:
            if not create or _directory_of(path) not in self._directories:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            self.need_room()
            if _directory_of(path) in self.making_fuses:
                self.power_fails_after = self.making_fuses.pop(_directory_of(path))
            self.change("name")
            inode = _Inode()
            self._rename({path: inode})
        return FaultyFile(self, inode)

    def exists(self, path: str) -> bool:
        return path in self._names or path in self._directories

    def list(self, path: str) -> list[str]:
        if path not in self._directories:
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)
        known = [*self._names, *self._directories]
        return sorted(os.path.basename(name) for name in known if _directory_of(name) == path)

    def make_directory(self, path: str) -> None:
        while path not in self._directories:
            self._directories.add(path)
            path = _directory_of(path)

    def rename(self, source: str, target: str) -> None:
        if source in self.rename_fuses:
            self.power_fails_after = self.rename_fuses.pop(source)
        if source in self._directories:
            self._rename_directory(source, target)
            return
        inode = self._existing(source)
        self.change("name")
        self._rename({source: None, target: inode})

    def unlink(self, path: str) -> None:
        self._existing(path)
        self.change("name")
        self._rename({path: None})

    def remove_tree(self, path: str) -> None:
        inside = path + "/"
        for name in [name for name in self._names if name.startswith(inside)]:
            self.unlink(name)
        self._directories = {
            name for name in self._directories if name != path and not name.startswith(inside)
        }

    def sync_directory(self, path: str) -> None:
        self.change("sync")
        kept = []
        for change, awaits in self._pending:
            if path in awaits:
                _apply(change, self._durable_names)
            else:
                kept.append((change, awaits))
        self._pending = kept

    def crash(self) -> None:
        """Lose power, and come back with one of the states that may then be found."""
        self._restart()
        for change, _ in self._pending:
            if self.chance.random() < 0.5:
                _apply(change, self._durable_names)
        self._pending = []
        self._names = dict(self._durable_names)
        for name in self._names:
            self.make_directory(_directory_of(name))
        for inode in self._names.values():
            inode.crash(self.chance)

    def kill(self) -> None:
        """End the process; the operating system keeps what was written."""
        self._restart()

    def need_room(self) -> None:
        """Something is about to grow: OSError if the disk is full."""
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def at_worst(self, path: str) -> FaultyDisk:
        """A copy of a file or directory, as if power failed now and left what it must."""
        copy = FaultyDisk()
        for name, inode in self._durable_names.items():
            if name != path and not name.startswith(path + "/"):
                continue
            kept = _Inode(inode.durable)
            copy._names[name] = copy._durable_names[name] = kept
            copy.make_directory(_directory_of(name))
        return copy

    def keeps(self, path: str, size: int) -> bool:
        """Whether a file's first bytes would be what they are if power failed now."""
        inode = self._existing(path)
        durable = self._durable_names.get(path) is inode
        return durable and inode.durable[:size] == inode.data[:size]

    def files(self) -> list[str]:
        """Every file there is."""
        return sorted(self._names)

    def flip(self, path: str, bit: int) -> None:
        """Rot: one bit of a file is another than was written, also on the platter."""
        inode = self._existing(path)
        inode.flip(bit // 8, 1 << bit % 8)

    def bytes_of(self, path: str) -> bytearray:
        """The file's content, to look at or to damage."""
        return self._existing(path).data

    def change(self, kind: str, half: Callable[[], None] | None = None) -> None:
        """Count a change, or fail in its place, leaving ``half`` of it behind."""
        self.changes[kind] += 1
        if self.power_fails_after is not None:
            self.power_fails_after -= 1
            if self.power_fails_after < 0:
                if half is not None:
                    half()
                raise PowerLoss
        if self.fails_after is not None and kind in self.fails_on:
            self.fails_after -= 1
            if self.fails_after < 0:
                if self.fails_once:
                    self.fails_after = None
                self.sync_failed |= kind == "sync"
                if half is not None:
                    half()
                raise OSError(self.fails_with, os.strerror(self.fails_with))

    def _restart(self) -> None:
        self.epoch += 1
        self.open_files = 0
        self.fails_after = None
        self.fails_once = False
        self.sync_failed = False
        self.power_fails_after = None
        self.rename_fuses.clear()
        self.making_fuses.clear()

    def _rename(self, change: dict[str, _Inode | None], awaits: set[str] | None = None) -> None:
        _apply(change, self._names)
        self._pending.append((change, awaits or {_directory_of(name) for name in change}))

    def _rename_directory(self, source: str, target: str) -> None:
        """As one change: all files in it are found under the new name after a crash, or none.

        Except for those whose names nobody had synced in the directory itself: its own
        rename does not make them durable.
        """
        self.change("name")
        inside = source + "/"
        names = [name for name in self._names if name.startswith(inside)]
        # What once was in a directory of the new name is gone with that directory.
        there = [name for name in self._durable_names if name.startswith(target + "/")]
        change: dict[str, _Inode | None] = dict.fromkeys([*names, *there])
        late: dict[str, _Inode | None] = {}
        for name in names:
            inode = self._names[name]
            is_durable = self._durable_names.get(name) is inode
            (change if is_durable else late)[target + "/" + name.removeprefix(inside)] = inode
        for earlier, _ in self._pending:
            for name in [one for one in earlier if one.startswith((inside, target + "/"))]:
                del earlier[name]
        moved = [d for d in self._directories if d == source or d.startswith(inside)]
        self._directories -= set(moved)
        self._directories |= {target + directory.removeprefix(source) for directory in moved}
        self._rename(change, {_directory_of(source), _directory_of(target)})
        self._rename(late)

    def _existing(self, path: str) -> _Inode:
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return self._names[path]


def _apply(change: dict[str, _Inode | None], names: dict[str, _Inode]) -> None:
    for name, inode in change.items():
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode
