"""One flipped bit in one file of one node: every kind of file, and every field in it.

A ``Scene`` is a cluster at rest whose victim holds every kind of file there is. The victim
goes down, a bit of it flips, it starts again: either it refuses and names the file (and the
place in it), or it goes on and is the same as the others. Damage in these tests is to a
minority, as it has to be: nothing that was acknowledged may be lost, or answered wrongly.

``python -m simulation.bit_flips`` plays all of it and counts.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from raftq.journal import Corruption, layout
from raftq.journal.layout import split
from raftq.replica.identity import node_of
from raftq.stores.store import StoreCorruption
from simulation.checks import Checks
from simulation.node import DATA, Node
from simulation.world import World
from statemachine.commands import Ack, Claim, Command, Enqueue, NewMessage
from statemachine.outcomes import Claimed, Enqueued, Outcome, Settled
from statemachine.records import decode_message

ACCOUNT, QUEUE = "a", "q"
SEGMENT_BYTES = 2_048
SHORT_BYTES = 40
SEEDS = 5  # Played by ``RAFTQ_SIMULATION=full``.

RECORD_FILE = (("magic", 8), ("version", 4), ("length", 4), ("checksum", 4))
SEGMENT_HEADER = (
    ("magic", 8),
    ("version", 4),
    ("flags", 4),
    ("sequence", 8),
    ("base index", 8),
    ("base term", 8),
    ("previous", 4),
    ("checksum", 4),
)
RECORD_HEADER = (
    ("checksum", 4),
    ("length", 4),
    ("previous", 4),
    ("kind", 4),
    ("index", 8),
    ("term", 8),
)
RECORD_KINDS = {layout.ENTRY: "entry", layout.TRUNCATE: "truncation", layout.SEAL: "seal"}

KINDS = (
    "closed segment",
    "active segment",
    "term file",
    "membership file",
    "identity",
    "store pointer",
    "store file",
    "snapshot manifest",
    "snapshot file",
)
HARMLESS = ("unused space", "last seal", "snapshot")
"""Begins of fields that a start does not need: it goes on, with what they said or without."""


class Field(NamedTuple):
    """A part of a file, and what a refusal must name: the offset of its record."""

    name: str
    start: int
    end: int
    named: int = 0


class Seen(NamedTuple):
    """What a start on a flipped bit came to."""

    refusal: Exception | None
    cut: bool  # Whether a torn tail was found and cut.


class Scene:
    """Three nodes that have been through something, all quiet now."""

    def __init__(self, seed: int, **tuning: int) -> None:
        self.world = World(seed)
        self.checks = Checks(self.world)
        self.checks.failed = self._failed
        self.acknowledged: list[bytes] = []
        self.refusals: list[Exception] = []
        settings = {
            "segment_bytes": SEGMENT_BYTES,
            "journal_keep_bytes": 3 * SEGMENT_BYTES,
            "flush_interval_ms": 700,
            **tuning,
        }
        for node in self.world.nodes.values():
            node.tune(**settings)
        self.world.start()
        self.world.until(self.world.settled, 10, "first leader")

    @property
    def leader(self) -> Node:
        """Whoever leads."""
        self.world.until(self.world.settled, 20, "a leader")
        leader = self.world.leader()
        assert leader is not None
        return leader

    def follower(self) -> Node:
        """One who does not."""
        leader = self.leader
        return next(node for node in self.world.alive if node is not leader)

    def put(self, count: int, size: int = 40) -> None:
        """Put messages, one after the other."""
        for _ in range(count):
            body = b"%d " % len(self.acknowledged) + bytes(size)
            new = NewMessage(body, "text/plain")
            assert isinstance(self.ask(Enqueue(ACCOUNT, QUEUE, (new,))), Enqueued)
            self.acknowledged.append(body)

    def ask(self, command: Command) -> object:
        """Ask the leader."""
        answers = self.leader.submit(command)
        self.world.until(lambda: bool(answers), 15, "an answer")
        return answers[0]

    def equal(self) -> None:
        """All nodes are up, members, and hold the same."""
        world = self.world

        def whole() -> bool:
            return (
                len(world.alive) == len(world.names)
                and world.settled()
                and all(node.running.consensus.is_member for node in world.alive)
                and world.converged()
            )

        world.until(whole, 30, "all nodes to be members and equal")
        for node in world.alive:
            self.checks.digest(node)

    def drained(self) -> None:
        """What was acknowledged can be had, once, in its order, and nothing else."""
        self.equal()
        bodies: list[bytes] = []
        while True:
            claimed = self.ask(Claim(ACCOUNT, QUEUE, 100, 60_000))
            assert isinstance(claimed, Claimed)
            if not claimed.messages:
                break
            bodies += [bytes(decode_message(one.record).body) for one in claimed.messages]
            done: Outcome = Settled(len(claimed.messages))
            assert self.ask(Ack(ACCOUNT, QUEUE, claimed.claim)) == done
        assert bodies == self.acknowledged
        self.equal()

    def replace_disk(self, node: Node) -> None:
        """What an operator does with a node that refuses to start."""
        assert not node.is_up
        node.wipe()
        node.start()
        self.equal()

    def restart_on(self, node: Node, path: str, bit: int) -> Seen:
        """Start a node that is down on a flipped bit."""
        node.disk.flip(path, bit)
        before = len(self.refusals)
        durable = self.checks._durable  # What was on a disk that is well is found again on it.
        for member in [member for member in durable if node_of(member) == node.name]:
            del durable[member]
        node.start()
        if len(self.refusals) > before:
            assert not node.is_up
            return Seen(self.refusals[-1], cut=False)
        return Seen(None, cut=node.running.journal.recovery is not None)

    def _failed(self, node: Node, error: Exception) -> bool:
        self.refusals.append(error)
        return isinstance(error, Corruption | StoreCorruption)


def at_rest(seed: int) -> tuple[Scene, Node]:
    """A scene whose victim, a follower, is down and holds every kind of file."""
    scene = Scene(seed)
    scene.put(45)
    victim = scene.follower()
    made: list[object] = []
    victim.run(victim.life, lambda: victim.running.make_snapshot(made.append))
    scene.world.until(lambda: bool(made), 5, "a snapshot")
    scene.world.run(1.0)
    scene.put(3)
    scene.world.run(0.2)  # For the seal.
    victim.crash()
    return scene, victim


def kind_of(path: str, paths: list[str]) -> str:
    """Which of ``KINDS`` a file is; empty for one of no consequence."""
    name = path.removeprefix(f"{DATA}/")
    small = {
        "term": "term file",
        "members": "membership file",
        "identity": "identity",
        "CURRENT-DB": "store pointer",
    }
    if name in small:
        return small[name]
    if name.endswith(".segment"):
        return "active segment" if path == segments(paths)[-1] else "closed segment"
    if name.startswith("snapshots/"):
        return "snapshot manifest" if name.endswith("MANIFEST") else "snapshot file"
    return "store file" if name.startswith("db-") else ""


def segments(paths: list[str]) -> list[str]:
    """The journal, oldest first."""
    return sorted(path for path in paths if path.endswith(".segment"))


def files_of(node: Node, kind: str) -> list[str]:
    """The node's files of a kind."""
    paths = node.disk.files()
    return [path for path in paths if kind_of(path, paths) == kind]


def fields(node: Node, path: str) -> list[Field]:
    """All fields of a file, from its first byte to its last."""
    data = bytes(node.disk.bytes_of(path))
    if path.endswith(".segment"):
        return list(_segment_fields(data, int(path[-16:-8], 16), _last_seal(node)))
    about = "snapshot " if "/snapshots/" in path else ""
    found = list(_laid_out(RECORD_FILE, 0, about, 0))
    return [*found, Field(f"{about}payload", found[-1].end, len(data))]


def _laid_out(
    parts: tuple[tuple[str, int], ...], start: int, about: str, named: int
) -> Iterator[Field]:
    for name, size in parts:
        yield Field(f"{about}{name}", start, start + size, named)
        start += size


def _segment_fields(data: bytes, sequence: int, last_seal: int) -> Iterator[Field]:
    yield from _laid_out(SEGMENT_HEADER, 0, "header ", 0)
    header = layout.decode_header(data, sequence)
    assert isinstance(header, layout.Header)
    scan = layout.scan(data, header)
    for record in scan.records:
        place = layout.position(sequence, record.offset)
        kind = RECORD_KINDS[record.kind]
        if place == last_seal:
            about = "last seal: "
        elif place > last_seal:
            about = f"unsealed {kind}: "
        else:
            about = f"{kind}: "
        found = list(_laid_out(RECORD_HEADER, record.offset, about, record.offset))
        yield from found
        if record.payload:
            yield Field(f"{about}payload", found[-1].end, record.end, record.offset)
    if scan.end < len(data):
        yield Field("unused space", scan.end, len(data), scan.end)


def _last_seal(node: Node) -> int:
    """Where the journal's last seal stands."""
    last = 0
    for path in segments(node.disk.files()):
        data = bytes(node.disk.bytes_of(path))
        sequence = int(path[-16:-8], 16)
        header = layout.decode_header(data, sequence)
        assert isinstance(header, layout.Header)
        for record in layout.scan(data, header).records:
            if record.kind == layout.SEAL:
                last = layout.position(sequence, record.offset)
    return last


class Tally(NamedTuple):
    """Fields flipped, by what came of it."""

    refused: Counter[str]
    went_on: Counter[str]


def flip_kind(seed: int, kind: str, *, full: bool) -> Tally:
    """Flip bits of every field of one kind of file; asserts all that is promised."""
    scene, victim = at_rest(seed)
    chance = random.Random(f"{kind} {seed}")
    tally = Tally(Counter(), Counter())
    paths = files_of(victim, kind)
    assert paths, f"the victim has no {kind}"
    refusing: list[tuple[str, int]] = []
    for path in paths:
        for field in fields(victim, path):
            if field.name.startswith(HARMLESS):
                continue
            for bit in _bits(field, chance, full=full):
                _must_refuse(scene, victim, path, bit, field)
                tally.refused[field.name] += 1
                refusing.append((path, bit))
    _flip_harmless(scene, victim, kind, chance, tally, full=full)
    if refusing:
        victim.crash()
        path, bit = chance.choice([one for one in refusing if one[0] in victim.disk.files()])
        if len(victim.disk.bytes_of(path)) * 8 > bit and not _is_harmless(victim, path, bit):
            assert scene.restart_on(victim, path, bit).refusal is not None
            scene.replace_disk(victim)
    if not victim.is_up:
        victim.start()
    scene.drained()
    return tally


def _is_harmless(victim: Node, path: str, bit: int) -> bool:
    byte = bit // 8
    here = next(field for field in fields(victim, path) if field.start <= byte < field.end)
    return here.name.startswith((*HARMLESS, "unsealed"))


def _bits(field: Field, chance: random.Random, *, full: bool) -> list[int]:
    """Every bit of short fields; of long ones a bit of every second byte, unless ``full``."""
    every = range(field.start * 8, field.end * 8)
    if full or len(every) <= 8 * SHORT_BYTES:
        return list(every)
    return [byte * 8 + chance.randrange(8) for byte in range(field.start, field.end, 2)]


def _must_refuse(scene: Scene, victim: Node, path: str, bit: int, field: Field) -> None:
    where = f"{path}, bit {bit}, {field.name}"
    seen = scene.restart_on(victim, path, bit)
    assert seen.refusal is not None, f"{where}: it went on"
    text = str(seen.refusal)
    assert path in text, f"{where}: the file is not named in: {text}"
    assert f"offset {field.named}:" in text, f"{where}: the place is not named in: {text}"
    victim.disk.flip(path, bit)


def _flip_harmless(
    scene: Scene, victim: Node, kind: str, chance: random.Random, tally: Tally, *, full: bool
) -> None:
    """Fields that a start does not need. The node lives on, so the files change meanwhile."""
    for name in HARMLESS:
        for _ in range(60 if full else 8):
            if victim.is_up:
                scene.equal()
                scene.world.run(0.2)
                victim.crash()
            found = [
                (path, field)
                for path in files_of(victim, kind)
                for field in fields(victim, path)
                if field.name.startswith(name)
            ]
            if not found:
                break
            path, field = chance.choice(found)
            bit = chance.randrange(field.start * 8, field.end * 8)
            seen = scene.restart_on(victim, path, bit)
            assert seen.refusal is None, f"{path}, bit {bit}, {field.name}: {seen.refusal}"
            assert not seen.cut or kind == "active segment"
            tally.went_on[field.name] += 1
            scene.equal()
            victim.crash()
            if path in victim.disk.files() and kind != "active segment":
                victim.disk.flip(path, bit)
            victim.start()
            scene.equal()


def unsealed_bytes(node: Node) -> int:
    """How much of the node's log is durable and not yet known to be: what looks torn if it rots."""
    journal = node.running.journal
    durable_at, sealed_at = split(journal._durable), split(journal._sealed)
    if durable_at[0] != sealed_at[0]:
        return durable_at[1]
    return max(0, durable_at[1] - sealed_at[1])


def main() -> int:
    """Flip everything, kind by kind; an assertion that fails ends it."""
    for kind in KINDS:
        refused, went_on = Counter[str](), Counter[str]()
        for seed in range(SEEDS):
            tally = flip_kind(seed, kind, full=True)
            refused.update(tally.refused)
            went_on.update(tally.went_on)
        print(f"{kind}: {refused.total():,} refused, {went_on.total():,} went on")
        for what, counts in (("refused", refused), ("went on", went_on)):
            for name, count in counts.items():
                print(f"{count:>8,}  {what}  {name}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
