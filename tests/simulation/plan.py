"""One run, written down: cluster, tuning, workload and faults, all drawn from a seed.

Swarm testing (Groce et al., ISSTA 2012): each seed switches a random subset of fault kinds
and of operations on, with random weights, so that rare operations meet rare faults that
a mix of everything would drown. A plan is data: it can be saved, shrunk and run again.
"""

from __future__ import annotations

import random

import msgspec

LEADER = "leader"  # Whoever leads when the fault strikes.


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that goes wrong ``at_s``, and is over after ``seconds``."""

    at_s: float
    kind: str
    node: str = LEADER
    other: str = ""
    seconds: float = 1.0
    amount: float = 0.0  # What it means depends on the kind.


class Workload(msgspec.Struct, frozen=True):
    """Who asks for what, and how fast."""

    clients: int
    think_s: float  # On average, between an answer and the next request.
    queues: int
    body_bytes_max: int
    operations: dict[str, float]  # Kind to weight.
    standing: dict[str, float] = {}  # The same of one client more, who makes what stands.


class Tuning(msgspec.Struct, frozen=True):
    """Small files and short intervals, so that what is rare in production is frequent here."""

    segment_bytes: int
    journal_keep_bytes: int
    flush_interval_ms: int
    digest_interval_ms: int
    chunk_bytes: int
    append_bytes: int
    request_timeout_ms: int
    entries_in_flight: int = 2
    gossip_s: float = 1.0
    preferred: int = 0  # The number of the node in whose zone the leader should be; 0: of none.


class Clock(msgspec.Struct, frozen=True):
    """How one node's clocks are off from the start."""

    rate: float
    origin_s: float
    wall_skew_ms: int


class Plan(msgspec.Struct, frozen=True):
    """See the module."""

    seed: int
    nodes: int
    seconds: float
    tuning: Tuning
    workload: Workload
    clocks: tuple[Clock, ...]
    faults: tuple[Fault, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes."""
        return tuple(f"n{number}" for number in range(1, self.nodes + 1))


# To the longest time it lasts, in seconds.
FAULTS: dict[str, float] = {
    "cut": 4.0,  # ``node`` to ``other``, one way.
    "cut both": 4.0,
    "deaf": 5.0,  # Nothing reaches the node.
    "mute": 5.0,  # Nothing of it gets out.
    "isolate": 6.0,
    "split": 5.0,  # Into two halves; ``amount`` says which.
    "reset": 0.0,  # One connection.
    "slow link": 4.0,
    "slow node": 4.0,
    "ghosts": 5.0,  # Frames arrive twice, and late on another connection.
    "kill": 3.0,
    "power": 3.0,
    "kill all": 2.0,
    "power all": 2.0,
    "power most": 3.0,
    "power at": 2.0,  # At one of its next changes to its disk.
    "long death": 7.0,  # Long enough to need a snapshot.
    "pause": 3.0,
    "slow disk": 4.0,
    "hung disk": 8.0,
    "full disk": 3.0,
    "failing disk": 2.0,
    "wall step": 0.0,
    "rot": 1.0,
    "wipe": 1.0,
    "transfer": 0.0,
    "stop": 1.0,  # As SIGTERM does.
    "strand": 4.0,  # A leader is heard by nobody but hears all, then the next one.
    "storm": 3.0,  # The leader dies, all others stand at once, and frames come twice.
    "spoil install": 5.0,  # Power fails while a snapshot comes or is installed.
}
LIKELY = ("strand", "spoil install")  # It takes many of these to hit the moment that matters.
OPERATIONS = {
    "put": 10.0,
    "put once": 4.0,
    "put later": 2.0,
    "put mortal": 2.0,
    "put at": 1.5,
    "put dedup": 4.0,
    "put weakly": 3.0,  # Taken by the leader is enough.
    "claim": 8.0,
    "ack": 7.0,
    "ack some": 2.0,
    "extend": 2.0,
    "extend some": 1.5,
    "extend many": 1.0,
    "release": 2.0,
    "nack": 3.0,
    "transact": 3.0,
    "transact once": 1.5,
    "delete": 1.0,
    "purge": 0.2,
    "put queue": 0.8,
    "patch queue": 0.8,
    "delete queue": 0.15,
    "redrive": 1.0,
    "cancel redrive": 1.0,
    "read": 2.0,
    "read locally": 2.0,
}
STANDING = {
    "bind": ("bind", "unbind"),
    "schedule": ("schedule", "unschedule"),
    "subscribe": ("subscribe", "unsubscribe", "unhook", "feed"),
    "bulk": ("bulk",),
    "limit": ("limit", "unlimit"),
    "key": ("key", "rotate key", "revoke key", "use keys"),
}
"""What makes something that stands, and what is done with it. Bindings and the like, and jobs
with filters, are left to a client of their own: it makes nothing that others do rarer."""

ALWAYS = ("put", "claim", "ack", "read", "read locally")


def make(seed: int, nodes: int | None = None) -> Plan:
    """The plan of a seed; one in four has five nodes."""
    chance = random.Random(f"plan {seed}")
    drawn = 5 if chance.random() < 0.25 else 3
    count = nodes or drawn
    names = [f"n{number}" for number in range(1, count + 1)]
    seconds = chance.choice((3.0, 5.0, 6.0, 10.0))
    return Plan(
        seed=seed,
        nodes=count,
        seconds=seconds,
        # Drawn apart, so that the rest of each plan is as it was before.
        tuning=_tuning(chance, random.Random(f"placement {seed}").choice((0, 0, 1, 2, 3))),
        workload=_workload(chance, random.Random(f"standing {seed}")),
        clocks=tuple(_clock(chance) for _ in names),
        faults=_faults(chance, names, seconds),
    )


def _tuning(chance: random.Random, preferred: int) -> Tuning:
    return Tuning(
        segment_bytes=chance.choice((2_048, 4_096, 32_768)),
        journal_keep_bytes=chance.choice((0, 0, 0, 4_096, 1 << 20)),
        flush_interval_ms=chance.choice((200, 500, 3_000)),
        digest_interval_ms=chance.choice((500, 2_000, 60_000)),
        chunk_bytes=chance.choice((256, 1_024, 1 << 20)),
        append_bytes=chance.choice((300, 2_000, 1 << 20, 1 << 20)),
        request_timeout_ms=chance.choice((1_000, 4_000, 10_000)),
        entries_in_flight=chance.choice((2, 2, 8)),
        gossip_s=chance.choice((0.1, 1.0)),
        preferred=preferred,
    )


def _clock(chance: random.Random) -> Clock:
    return Clock(
        rate=chance.choice((1.0, 1.0, 0.98, 1.02, 1.0 + chance.uniform(-0.05, 0.05))),
        origin_s=chance.choice((0.0, chance.uniform(0, 1e6))),
        wall_skew_ms=chance.choice(
            (0, 0, chance.randint(-500, 500), chance.randint(-(10**6), 10**6))
        ),
    )


def _workload(chance: random.Random, apart: random.Random) -> Workload:
    operations = {}
    for name, weight in OPERATIONS.items():
        if name in ALWAYS or chance.random() < 0.5:
            operations[name] = weight * chance.choice((0.3, 1.0, 1.0, 3.0))
    return Workload(
        clients=chance.choice((2, 3, 5, 8)),
        think_s=chance.choice((0.15, 0.3, 0.5)),
        queues=chance.choice((1, 1, 2, 4)),
        body_bytes_max=chance.choice((10, 200, 200, 3_000)),
        operations=operations,
        standing=_standing(apart),
    )


def _standing(chance: random.Random) -> dict[str, float]:
    return {
        kind: chance.choice((0.5, 1.0, 2.0)) * (0.3 if kind.startswith("un") else 1.0)
        for made, kinds in STANDING.items()
        if chance.random() < 0.4
        for kind in kinds
        if kind in (made, "feed") or chance.random() < 0.6
    }


def _faults(chance: random.Random, names: list[str], seconds: float) -> tuple[Fault, ...]:
    kinds = [kind for kind in FAULTS if chance.random() < (0.5 if kind in LIKELY else 0.25)]
    kinds = kinds or [chance.choice([*FAULTS])]
    weights = [chance.choice((0.3, 1.0, 3.0)) for _ in kinds]
    count = chance.choice((0, 2, 4, 6, 10, 16))
    faults = []
    for _ in range(count):
        (kind,) = chance.choices(kinds, weights)
        node = chance.choice([LEADER, *names])
        others = [name for name in names if name != node]
        faults.append(
            Fault(
                at_s=round(chance.uniform(0.0, seconds), 4),
                kind=kind,
                node=node,
                other=chance.choice(others),
                seconds=round(chance.uniform(0.05, 1.0) * FAULTS[kind], 4),
                amount=round(chance.random(), 6),
            )
        )
    return tuple(sorted(faults, key=lambda fault: fault.at_s))
