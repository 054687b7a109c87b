"""A disk that fails at every single step of a story, one step in each run.

The story has everything in it that changes a disk: nodes are founded, segments roll, the
journal is compacted, stores are flushed, one node falls behind and another loses its disk,
both are brought back by a snapshot, members change, the leadership is handed over. It is
told once to number all changes (writes, syncs, names) that each node makes to its disk, and
then once for each of them with a ``Strike`` there. What remains of an unsynced file after a
power loss is drawn, so every step can be played with several draws.

``python -m simulation.crash_points`` plays all of it.
"""

from __future__ import annotations

import argparse
import errno
import multiprocessing
import os
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple
from unittest.mock import patch

from raftq import snapshots
from raftq.journal.faults import JournalFailure
from raftq.replica import transfer
from simulation import checks
from simulation.checks import Violation
from simulation.disk import FaultyDisk, FaultyFile, PowerLoss, _Inode
from simulation.node import DATA, Node
from simulation.plan import Clock, Fault, Plan, Tuning, Workload
from simulation.run import Story
from simulation.world import World

STRIKES = ("power", "power all", "power twice", "failing", "full")
"""Power fails for the node, for all nodes, for the node and once more while it recovers; every
change fails from then on (EIO); the disk is full for a while (ENOSPC)."""
FULL_S = 1.2
STOPS_WITHIN_S = 0.5
TAPED_S = 4.4  # What comes after it is the end of the story: nothing goes wrong any more.

FIRST_SEED, SEEDS = 119, 60

_WORKLOAD = {"put": 4.0, "put once": 1.0, "claim": 2.0, "ack": 2.0, "release": 0.5}
_FAULTS = (
    Fault(0.8, "long death", "n2", seconds=0.7),
    Fault(1.8, "wipe", "n3", seconds=0.1),
    Fault(4.2, "transfer"),
)

_SMALL_FILES = {
    "identity": "identity",
    "term": "term file",
    "members": "membership file",
    "CURRENT-DB": "store pointer",
}
_WHOLE = ("create", "write", "sync", "rename", "sync names")
PLACES = (
    *(f"{name}: {step}" for name in _SMALL_FILES.values() for step in _WHOLE),
    *(f"store: {step}" for step in (*_WHOLE, "remove")),
    *(f"store directory: {step}" for step in ("rename", "sync names")),
    *(f"incoming store: {step}" for step in _WHOLE),
    *(f"snapshot: {step}" for step in (*_WHOLE, "remove")),
    *(f"snapshot directory: {step}" for step in ("rename", "sync names")),
    *(f"segment: {step}" for step in ("write", "sync", "rename", "sync names", "remove")),
    *(f"spare segment: {step}" for step in (*_WHOLE, "remove")),
)
"""Every kind of step that the story must have, or it shows too little."""
ROLES = ("starting", "leader", "follower", "joining", "receiving")
STATES = (
    "log: snapshot installed",
    "a lost disk was replaced and has caught up",
    "leadership was handed over on request",
)
"""What must come to pass in it; the last is left to chance by who leads when it is asked for."""


@cache
def plan() -> Plan:
    """The story: the first seed's that has everything in it, whatever timing the product has."""
    for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
        candidate = _plan(seed)
        told = Telling(None, candidate).tell()
        assert told.violation is None, f"story {seed}: {told.violation}"
        if told.places.issuperset(PLACES) and all(told.reached[state] for state in STATES):
            return candidate
    raise AssertionError(f"no seed's story has all of {PLACES} and {STATES}")


def _plan(seed: int) -> Plan:
    return Plan(
        seed=seed,
        nodes=3,
        seconds=TAPED_S + STOPS_WITHIN_S,
        tuning=Tuning(
            segment_bytes=2_048,
            journal_keep_bytes=1_024,
            flush_interval_ms=450,
            digest_interval_ms=900,
            chunk_bytes=1_500,
            append_bytes=1 << 20,
            request_timeout_ms=10_000,
        ),
        workload=Workload(
            clients=2, think_s=0.08, queues=1, body_bytes_max=80, operations=_WORKLOAD
        ),
        clocks=(Clock(1.0, 0.0, 0),) * 3,
        faults=_FAULTS,
    )


class Step(NamedTuple):
    """One change to one node's disk."""

    place: str
    role: str  # Of the node at that moment.


class Strike(NamedTuple):
    """What goes wrong, at which of a node's changes. ``draw``: what a crash leaves behind."""

    node: str
    at: int
    kind: str
    draw: int = 0


class Tape:
    """All changes of one node, over its lives and disks; it strikes at one of them."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.at: list[int] = []  # The changes to strike at, in order.
        self.over = False
        self.strike: Callable[[TapedDisk], None] = lambda _disk: None

    def change(self, disk: TapedDisk, step: Step) -> None:
        """Note a change that is about to be made, or strike in its place."""
        if self.over:
            return
        number = len(self.steps)
        self.steps.append(step)
        if self.at and number == self.at[0]:
            del self.at[0]
            self.strike(disk)


class TapedFile(FaultyFile):
    """A file that tells its disk what is being done to it."""

    def __init__(self, disk: TapedDisk, path: str) -> None:
        super().__init__(disk, disk.inode_of(path))
        self._taped = disk

    def pwrite(self, data: bytes, offset: int) -> None:
        self._taped.doing("write", self._taped.name_of(self))
        super().pwrite(data, offset)

    def truncate(self, size: int) -> None:
        self._taped.doing("write", self._taped.name_of(self))
        super().truncate(size)

    def sync(self) -> None:
        self._taped.doing("sync", self._taped.name_of(self))
        super().sync()


class TapedDisk(FaultyDisk):
    """A disk whose changes are numbered and named."""

    def __init__(self, seed: int, tape: Tape, role: Callable[[], str]) -> None:
        super().__init__(seed)
        self._tape = tape
        self._role = role
        self._verb, self._path = "", ""
        self._renamed = ""  # A sync of names is told as a part of what was renamed last.
        self.power_is_out = False

    def doing(self, verb: str, path: str) -> None:
        """What the next change is."""
        self._verb, self._path = verb, path

    def inode_of(self, path: str) -> _Inode:
        """What a name stands for."""
        return self._names[path]

    def name_of(self, file: TapedFile) -> str:
        """The present name of an open file."""
        return next((name for name, one in self._names.items() if one is file._inode), "")

    def open(self, path: str, *, create: bool = False) -> FaultyFile:
        self.doing("create", path)
        super().open(path, create=create).close()
        return TapedFile(self, path)

    def rename(self, source: str, target: str) -> None:
        self.doing("rename", target)
        self._renamed = target
        super().rename(source, target)

    def unlink(self, path: str) -> None:
        self.doing("remove", path)
        super().unlink(path)

    def sync_directory(self, path: str) -> None:
        within = os.path.dirname(self._renamed) == path
        self.doing("sync names", self._renamed if within else f"{path}/")
        super().sync_directory(path)

    def change(self, kind: str, half: Callable[[], None] | None = None) -> None:
        self._tape.change(self, Step(place(self._verb, self._path), self._role()))
        if self.power_is_out:
            self.power_is_out = False
            # A sync may have been at any point: what it wrote is as open as without it.
            if half is not None and kind == "write":
                half()
            raise PowerLoss
        super().change(kind, half)


def place(verb: str, path: str) -> str:
    """The kind of step that a change is."""
    name = path.removeprefix(f"{DATA}/").removesuffix(".tmp")
    top, _, rest = name.partition("/")
    if top in _SMALL_FILES:
        what = _SMALL_FILES[top]
    elif top == "journal":
        what = "spare segment" if path.endswith(".tmp") else "segment"
    elif top == "snapshots":
        what = "snapshot" if rest.count("/") or verb in ("write", "sync") else "snapshot directory"
    elif top == "incoming":
        what = "incoming store"
    elif re.fullmatch(r"db-\d+", top):
        what = "store" if rest else "store directory"
    else:
        what = f"another file ({path})"
    return f"{what}: {verb}"


class TapedNode(Node):
    """A node whose disks are taped."""

    def __init__(self, world: World, name: str, tape: Tape, draw: int) -> None:
        super().__init__(world, name)
        self._tape, self._draw = tape, draw
        self._tape_disk()

    def wipe(self) -> None:
        super().wipe()
        self._tape_disk()

    def _tape_disk(self) -> None:
        seed = random.Random(f"{self.name} {self._draw} {len(self._tape.steps)}").getrandbits(32)
        self.disk = TapedDisk(seed, self._tape, self._role)

    def _role(self) -> str:
        if self.replica is None:
            return "starting"
        return "receiving" if self.replica._fetching.active else self.replica.role


class Told(NamedTuple):
    """What came of telling the story."""

    violation: str | None
    tapes: dict[str, Tape]
    reached: Counter[str]
    struck: bool
    stops: int  # How often a node stopped itself.

    @property
    def places(self) -> set[str]:
        """Every kind of step that there was."""
        return {step.place for tape in self.tapes.values() for step in tape.steps}

    @property
    def roles(self) -> Counter[str]:
        """How many steps there were in which role."""
        return Counter(step.role for tape in self.tapes.values() for step in tape.steps)


class Telling:
    """One telling of the story, with a strike or without."""

    def __init__(self, strike: Strike | None, plan: Plan) -> None:
        self.strike = strike
        self.world = World(plan.seed, plan.names)
        draw = 0 if strike is None else strike.draw
        self.tapes = {name: Tape() for name in plan.names}
        for name, tape in self.tapes.items():
            self.world.nodes[name] = TapedNode(self.world, name, tape, draw)
        self.story = Story(self.world, plan)
        self.stops = 0
        self._chance = random.Random(f"strike {strike}")
        self._honest_failed = self.story.checks.failed
        self._honest_lost_power = self.story.checks.lost_power
        self.story.checks.failed = self._failed
        self.story.checks.lost_power = self._lost_power
        self.world.at(TAPED_S, self._stop_taping)
        if strike is not None:
            tape = self.tapes[strike.node]
            tape.at = [strike.at]
            if strike.kind == "power twice":
                tape.at.append(strike.at + self._chance.randint(1, 25))
            tape.strike = self._strikes

    def tell(self) -> Told:
        """To its end."""
        violation = None
        with _scaled(self.story.plan):
            try:
                self.story.tell()
            except Violation as error:
                violation = f"{error} (at {self.world.now:.4f} s)"
        strike = self.strike
        struck = strike is not None and strike.at not in self.tapes[strike.node].at
        return Told(violation, self.tapes, self.world.reached, struck, self.stops)

    def _stop_taping(self) -> None:
        for tape in self.tapes.values():
            tape.over = True

    def _strikes(self, disk: TapedDisk) -> None:
        assert self.strike is not None
        self.world.note("strike", self.strike.node, self.strike.kind)
        match self.strike.kind:
            case "failing":
                disk.fails_after, disk.fails_with = 0, errno.EIO
                self._must_stop()
            case "full":
                disk.full = True
                self.world.at(FULL_S, lambda: setattr(disk, "full", False))
            case _:
                disk.power_is_out = True

    def _must_stop(self) -> None:
        """A node whose disk has failed may not go on in the life in which it did."""
        assert self.strike is not None
        node = self.world.nodes[self.strike.node]
        life = node.life

        def look() -> None:
            if node.is_up and node.life == life:
                raise Violation(f"{node.name} goes on though its disk has failed")

        self.world.at(STOPS_WITHIN_S, look)

    def _lost_power(self, node: Node) -> None:
        self._honest_lost_power(node)
        assert self.strike is not None
        if self.strike.kind == "power all":
            for other in self.world.alive:
                other.crash(power=True)
                self._honest_lost_power(other)

    def _failed(self, node: Node, error: Exception) -> bool:
        strike = self.strike
        expected = {"failing": errno.EIO, "full": errno.ENOSPC}.get(strike.kind) if strike else None
        excused = isinstance(error, JournalFailure) or (
            isinstance(error, OSError) and error.errno == expected
        )
        if strike is None or expected is None or node.name != strike.node or not excused:
            return self._honest_failed(node, error)
        self.stops += 1
        if self._chance.random() < 0.5:
            node.disk.crash()  # Whoever mends the disk switches the machine off.
        self.story.faults.failed(node, error)
        return True


@contextmanager
def _scaled(plan: Plan) -> Iterator[None]:
    """Snapshots in several pieces, and a closer look at the disks."""
    with (
        patch.object(transfer, "CHUNK_BYTES", plan.tuning.chunk_bytes),
        patch.object(transfer, "KEEP_S", 0.3),
        patch.object(snapshots, "KEPT", 1),
        patch.object(checks, "DISK_EVERY", 4),
    ):
        yield


def tell(strike: Strike | None = None) -> Told:
    """Tell the story; a broken promise is told in the result."""
    return Telling(strike, plan()).tell()


def strikes(told: Told, kinds: tuple[str, ...] = STRIKES, draws: int = 1) -> list[Strike]:
    """Every strike that there can be on the story as it was told without one."""
    return [
        Strike(name, at, kind, draw)
        for kind in kinds
        for name, tape in told.tapes.items()
        for at in range(len(tape.steps))
        for draw in range(draws if kind.startswith("power") else 1)
    ]


def slice_of(told: Told, count: int) -> list[Strike]:
    """At each kind of place once, and ``count`` evenly spaced over all the others."""
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, tape in told.tapes.items():
        for at, step in enumerate(tape.steps):
            found[step.place].append((name, at))
    chosen = [
        Strike(*where[len(where) // 2], STRIKES[number % len(STRIKES)])
        for number, where in enumerate(found.values())
    ]
    every = strikes(told)
    return chosen + every[:: -(-len(every) // count)]


def _play(strike: Strike) -> tuple[Strike, str | None, bool, int]:
    told = tell(strike)
    return strike, told.violation, told.struck, told.stops


def main(arguments: list[str]) -> int:
    """Play every strike; the exit status is 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m simulation.crash_points", description=__doc__)
    parser.add_argument("--draws", type=int, default=2, help="for each power loss (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (%(default)s)")
    parser.add_argument("--every", type=int, default=1, help="only every n-th (%(default)s)")
    parser.add_argument("--strike", help="only this one: NODE,AT,KIND,DRAW")
    options = parser.parse_args(arguments)
    if options.strike:
        node, at, kind, draw = options.strike.split(",")
        strike = Strike(node, int(at), kind, int(draw))
        _say(
            f"{strike} at {tell().tapes[node].steps[strike.at]}: {tell(strike).violation or 'held'}"
        )
        return 0
    return _all(options.draws, options.jobs, options.every)


def _all(draws: int, jobs: int, every: int) -> int:
    told = tell()
    assert told.violation is None, told.violation
    _describe(told)
    played: Counter[str] = Counter()
    struck: Counter[str] = Counter()
    failures = stops = 0
    todo = strikes(told, draws=draws)[::every]
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for strike, violation, hit, stopped in pool.imap_unordered(_play, todo, chunksize=8):
            played[strike.kind] += 1
            stops += stopped
            struck[told.tapes[strike.node].steps[strike.at].place] += hit
            if violation is not None:
                failures += 1
                _say(f"FAILS {','.join(map(str, strike))}: {violation}")
            if sum(played.values()) % 500 == 0:
                _say(f"{sum(played.values()):,} of {len(todo):,}, {failures} failed")
    for name in sorted(struck):
        _say(f"{struck[name]:>7,}  {name}")
    _say(f"{dict(played)}; a node stopped itself {stops:,} times; {failures} failed")
    return 1 if failures else 0


def _describe(told: Told) -> None:
    for name, tape in told.tapes.items():
        roles = Counter(step.role for step in tape.steps)
        _say(f"{name}: {len(tape.steps):,} changes; {dict(roles)}")


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
