"""Nodes of two builds of the program in one world.

There is one released version so far. The newer one is made here: while a node of it has its
turn, a few functions of the program are others. It knows a command, an entry version and a
kind of entry that the older does not, or adds a field at the end of everything it writes.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import msgspec

from raftq.journal import record_file
from raftq.replica import sequencer, wire
from raftq.replica.applier import Applier
from simulation.disk import FaultyDisk
from simulation.node import DATA, Node
from simulation.world import World
from statemachine import commands
from statemachine.commands import Barrier, Command, Entry
from statemachine.machine import BatchResult, Machine

LATER_TAG = 99
LATER_ENTRY_VERSION = commands.ENTRY_VERSION + 1
LATER_KIND = 77
LATER_FIELD = "of a later version"
RECORD_FILES = ("identity", "term", "members", "CURRENT-DB")


class Build(enum.Enum):
    """What a node runs."""

    OLDER = "older"
    NEWER = "newer"  # Knows more, and writes as the older does unless asked.
    NEWER_ENTRIES = "newer entries"  # Gives entries the later version.
    LONGER = "longer"  # Adds a field at the end of every frame.


class Later(Barrier, frozen=True, array_like=True, tag=LATER_TAG):
    """A command that only the newer build knows. It does nothing, in order."""

    number: int = 0


class _Batch(msgspec.Struct, frozen=True, array_like=True):
    session: int
    seq: int
    floor: int
    commands: tuple[Command | Later, ...]


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    version: int
    stamp_ms: int
    batches: tuple[_Batch, ...]


_entries = msgspec.msgpack.Decoder(_Entry)
_batches = msgspec.msgpack.Decoder(_Batch)
_OLDER: dict[str, Callable[..., Any]] = {
    "decode_entry": commands.decode_entry,
    "decode_batch": commands.decode_batch,
    "encode": wire.encode,
    "machine": Machine.apply,
    "applier": Applier.apply,
}


def _decode_batch(data: bytes) -> commands.Batch:
    batch = _batches.decode(data)
    return commands.Batch(batch.session, batch.seq, batch.floor, batch.commands)


def _decode_entry(data: bytes | memoryview) -> Entry:
    entry = _entries.decode(data)
    batches = tuple(commands.Batch(*msgspec.structs.astuple(one)) for one in entry.batches)
    return Entry(entry.version, entry.stamp_ms, batches)


def _apply(self: Machine, index: int, term: int, entry: Entry | None) -> list[BatchResult]:
    if entry is not None and entry.version == LATER_ENTRY_VERSION:
        entry = msgspec.structs.replace(entry, version=commands.ENTRY_VERSION)
    results: list[BatchResult] = _OLDER["machine"](self, index, term, entry)
    return results


def _apply_round(self: Applier, entries: list[Any], take: Any) -> Any:
    known = [
        entry._replace(payload=b"\x01") if entry.payload[0] == LATER_KIND else entry
        for entry in entries
    ]
    return _OLDER["applier"](self, known, take)


def longer(data: bytes) -> bytes:
    """A frame, and every structure within it, with one more field at its end."""
    frame = msgspec.msgpack.decode(data)
    tag = frame[0]
    if tag == 2:  # Raft: the message within.
        frame[-1].append(LATER_FIELD)
    elif tag == 3:  # Propose: a batch and its commands, encoded.
        frame[2] = _longer_batch(frame[2])
    elif tag == 5:  # SnapshotOffer: the manifest, its files, and the membership in it.
        frame[3] = _longer_manifest(frame[3])
    return msgspec.msgpack.encode([*frame, LATER_FIELD])


def _longer_batch(data: bytes) -> bytes:
    batch = msgspec.msgpack.decode(data)
    for command in batch[3]:
        command.append(LATER_FIELD)
        if command[0] == 1:  # Enqueue: its messages.
            for message in command[3]:
                message.append(LATER_FIELD)
    return msgspec.msgpack.encode([*batch, LATER_FIELD])


def _longer_manifest(data: bytes) -> bytes:
    manifest = msgspec.msgpack.decode(data)
    for file in manifest[4]:
        file.append(LATER_FIELD)
    manifest[5] = longer_array(manifest[5])
    return msgspec.msgpack.encode([*manifest, LATER_FIELD])


def longer_array(data: bytes) -> bytes:
    """An encoded structure with one more field at its end."""
    return msgspec.msgpack.encode([*msgspec.msgpack.decode(data), LATER_FIELD])


def lengthen_files(disk: FaultyDisk) -> list[str]:
    """Add a field at the end of every small file, as a later version would have left them."""
    changed = []
    for name in RECORD_FILES:
        path = f"{DATA}/{name}"
        data = record_file.load(disk, path)
        if data is not None:
            record_file.store(disk, path, longer_array(data))
            changed.append(name)
    return changed


@contextmanager
def running(build: Build) -> Iterator[None]:
    """The program is that build."""
    newer = build is not Build.OLDER
    places: list[tuple[Any, str, Any]] = [
        (commands, "decode_entry", _decode_entry if newer else _OLDER["decode_entry"]),
        (commands, "decode_batch", _decode_batch if newer else _OLDER["decode_batch"]),
        (Machine, "apply", _apply if newer else _OLDER["machine"]),
        (Applier, "apply", _apply_round if newer else _OLDER["applier"]),
        (
            sequencer,
            "ENTRY_VERSION",
            LATER_ENTRY_VERSION if build is Build.NEWER_ENTRIES else commands.ENTRY_VERSION,
        ),
        (
            wire,
            "encode",
            (lambda frame: longer(_OLDER["encode"](frame)))
            if build is Build.LONGER
            else _OLDER["encode"],
        ),
    ]
    with ExitStack() as stack:
        for owner, name, value in places:
            stack.enter_context(patch.object(owner, name, value))
        yield


class BuiltNode(Node):
    """A node of a build; another one from its next start on."""

    build = Build.OLDER

    def start(self) -> None:
        with running(self.build):
            super().start()

    def run(self, life: int, callback: Callable[[], None]) -> None:
        with running(self.build):
            super().run(life, callback)


def world_of(seed: int) -> World:
    """A world whose nodes have builds."""
    world = World(seed)
    for name in world.names:
        world.nodes[name] = BuiltNode(world, name)
    return world


def build(node: Node, which: Build) -> None:
    """What a node runs from its next start on."""
    assert isinstance(node, BuiltNode)
    assert not node.is_up
    node.build = which
