"""Commands that clients make up, from what they hold and know.

Numbers that were never used make each message and most requests recognisable. What a
number decides needs no chance of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from simulation.plan import Workload
from statemachine import commands as c

ACCOUNT = "a"
LEASES_MS = (200, 700, 2_000, 6_000)
GRAVEYARD = "undeliverable"
"""A queue of dead letters for all; it is drained after those that have them."""

ZONES = ("", "z1", "z1", "z1", "z2", "z2", "z3")
PRIORITIES = (0, 0, 0, 4, 9)
GROUPS = ("", "", "", "", "", "", "g1", "g1", "g2", "g2", "g3")
HEADERS = (
    (),
    (("kind", "a"),),
    (("Kind", "b"), ("size", "10")),
    (("kind", "ab"), ("kind", "c")),
    (("size", "205"),),
)
MODES = (None, None, "any", "only", "prefer", "prefer", "prefer", "only")
WAITS_MS = (None, 0, 300)
DEDUP_IDS = 5
NO_CLAIM = 1 << 40
ONE_IN_TAKES = 5
"""Of so many claims one acknowledges what it gets."""
ONE_IN_CLAIMS = 3
"""Of so many transactions one claims what is next."""

FIELDS: dict[str, tuple[object, ...]] = {
    "lease_ms": (None, 500, 5_000),
    "delay_ms": (None, 0, 100),
    "max_deliveries": (None, 1, 2, 2, 3),
    "dead_letter_queue": (None, None, GRAVEYARD),
    "retry_delay_ms": (None, 0, 100, 300),
    "retry_delay_max_ms": (None, 250, 1_000),
    "dedup_window_ms": (None, 0, 400, 2_000),
    "history_ms": (None, None, 0, 400, 60_000),
    "history_bytes": (None, None, 0, 800, 4_000),
}


class Held(NamedTuple):
    """A claim that a client has, or had."""

    names: tuple[str, str]
    claim: int
    ids: tuple[bytes, ...]


class Maker:
    """One client's commands. ``held`` and ``known`` are what it has been told."""

    def __init__(
        self, chance: random.Random, workload: Workload, number: Callable[[], int]
    ) -> None:
        self._chance, self._workload, self._number = chance, workload, number
        self.held: list[Held] = []
        self.known: list[tuple[tuple[str, str], bytes]] = []
        self._redriven = GRAVEYARD
        self.unsure: c.Once | None = None  # To be asked again until it is known.

    def command(self, kind: str, stamp_ms: int) -> c.Command:
        """One of this kind, or what comes near it. ``stamp_ms`` is about what log time is."""
        match kind:
            case "put once" | "transact once":
                return self._once(kind)
            case "put" | "put weakly" | "put later" | "put mortal" | "put dedup":
                return self._put(kind)
            case "put at":
                return self._put(kind, stamp_ms)
            case "claim":
                return self._claim()
            case "ack" | "ack some" | "release" | "nack":
                return self._settle(kind)
            case "extend" | "extend some" | "extend many":
                return self._extend(kind)
            case "transact":
                return self._transact()
            case _:
                return self._on_queue(kind)

    def queue(self) -> str:
        """One that is put to."""
        return f"q{self._chance.randrange(self._workload.queues)}"

    def any_queue(self) -> str:
        """Now and then one of dead letters."""
        drawn = self._chance.random()
        return GRAVEYARD if drawn < 0.07 else self.queue() + (".dead" if drawn < 0.3 else "")

    # Retries.

    def _once(self, kind: str) -> c.Once:
        if self.unsure is not None and self._chance.random() < 0.8:
            return self._again(self.unsure)
        command = self._transact() if kind == "transact once" else self._put("put")
        number = self._number()
        return c.Once(ACCOUNT, f"k{number}", b"%d" % number, 60_000, command)

    def _again(self, unsure: c.Once) -> c.Once:
        """The same request; seldom another one under the same key, by mistake."""
        if self._chance.random() < 0.9:
            return unsure
        other = b"%d" % self._number()
        return c.Once(ACCOUNT, unsure.key, other, unsure.window_ms, self._put("put"))

    # Putting.

    def _put(self, kind: str, stamp_ms: int = 0) -> c.Enqueue:
        count = self._chance.choice((1, 1, 1, 2, 5))
        messages = tuple([self._message(kind, stamp_ms) for _ in range(count)])
        return c.Enqueue(ACCOUNT, self.queue(), messages)

    def _message(self, kind: str = "put", stamp_ms: int = 0) -> c.NewMessage:
        chance, number = self._chance, self._number()
        body = b"%d " % number + bytes(chance.randrange(self._workload.body_bytes_max))
        return c.NewMessage(
            body,
            "text/plain",
            HEADERS[number % len(HEADERS)],
            ttl_ms=chance.choice((300, 1_000, 4_000)) if kind == "put mortal" else None,
            delay_ms=chance.choice((50, 500, 2_000)) if kind == "put later" else None,
            zone=ZONES[number % len(ZONES)],
            priority=PRIORITIES[number % len(PRIORITIES)],
            group=GROUPS[number % len(GROUPS)],
            dedup_id=f"d{chance.randrange(DEDUP_IDS)}" if kind == "put dedup" else "",
            not_before_ms=stamp_ms + chance.choice((-500, 100, 1_500)) if stamp_ms else None,
        )

    # Claims.

    def _claim(self) -> c.Claim | c.Take:
        # Without a lease of its own, the queue's: half a minute unless somebody sets it.
        settings = "patch queue" in self._workload.operations
        lease_ms = self._chance.choice((*LEASES_MS, None) if settings else LEASES_MS)
        number = self._number()
        queue, limit = self.any_queue(), self._chance.choice((1, 2, 10))
        zone, mode = ZONES[number % len(ZONES)], MODES[number % len(MODES)]
        whose = (zone, mode, WAITS_MS[number % len(WAITS_MS)], f"c{number}")
        if number % ONE_IN_TAKES == 0:
            return c.Take(ACCOUNT, queue, limit, *whose)
        return c.Claim(ACCOUNT, queue, limit, lease_ms, *whose)

    def _pick(self, *, keep: bool) -> Held:
        at = self._chance.randrange(len(self.held))
        return self.held[at] if keep else self.held.pop(at)

    def _settle(self, kind: str) -> c.Command:
        if not self.held:
            return self._claim()
        held = self._pick(keep=kind == "ack some")
        if kind == "ack some":
            return c.Ack(ACCOUNT, held.names[1], held.claim, _some(held))
        if kind == "ack":
            return c.Ack(ACCOUNT, held.names[1], held.claim)
        delay_ms, reason, dead = self._back(kind)
        return c.Release(ACCOUNT, held.names[1], held.claim, None, delay_ms, reason, dead)

    def _back(self, kind: str) -> tuple[int | None, str, bool]:
        """How messages are given back: after how long, why, and whether for good."""
        if kind == "release":
            return self._chance.choice((0, 0, 300)), "", False
        delay_ms = self._chance.choice((None, None, 0, 200))
        return delay_ms, f"because of {self._number()}", self._chance.random() < 0.4

    def _extend(self, kind: str) -> c.Command:
        if not self.held:
            return self._claim()
        held, lease_ms = self._pick(keep=True), self._chance.choice(LEASES_MS)
        queue = held.names[1]
        if kind == "extend many":
            claims = [one.claim for one in self.held if one.names == held.names]
            return c.ExtendMany(ACCOUNT, queue, tuple(claims), lease_ms)
        ids = _some(held) if kind == "extend some" else None
        return c.Extend(ACCOUNT, queue, held.claim, lease_ms, ids)

    def _transact(self) -> c.Transact | c.TransactAndClaim:
        """Now and then with a claim after it."""
        transaction = self._transaction()
        if self._number() % ONE_IN_CLAIMS:
            return transaction
        return c.TransactAndClaim(transaction, self._claim())

    def _transaction(self) -> c.Transact:
        """Claims are settled and messages put; now and then one claim too many is named."""
        chance = self._chance
        acks, releases = [], []
        for _ in range(chance.choice((0, 1, 1, 2))):
            if not self.held:
                break
            held = self._pick(keep=chance.random() < 0.3)
            ids = chance.choice((None, None, held.ids, _some(held)))
            if chance.random() < 0.7:
                acks.append(c.PartAck(held.names[1], held.claim, ids))
            else:
                back = self._back("nack")
                releases.append(c.PartRelease(held.names[1], held.claim, ids, *back))
        if chance.random() < 0.15:
            acks.append(c.PartAck(self.queue(), NO_CLAIM))
        puts = []
        for _ in range(chance.choice((1, 1, 2))):
            messages = [self._message(chance.choice(("put", "put", "put dedup")))]
            puts.append(c.PartPut(self.queue(), tuple(messages)))
        return c.Transact(ACCOUNT, tuple(acks), tuple(puts), tuple(releases))

    # Queues.

    def _on_queue(self, kind: str) -> c.Command:
        match kind:
            case "delete" if self.known:
                names, message_id = self.known.pop(self._chance.randrange(len(self.known)))
                return c.DeleteMessages(ACCOUNT, names[1], (message_id,))
            case "purge":
                return c.Purge(ACCOUNT, self.any_queue())
            case "put queue":
                return c.PutQueue(ACCOUNT, self.any_queue(), self._settings())
            case "patch queue":
                fields = self._chance.sample([*FIELDS], self._chance.choice((1, 2, 5)))
                return c.PatchQueue(
                    ACCOUNT, self.any_queue(), self._settings(), tuple(sorted(fields))
                )
            case "delete queue":
                return c.DeleteQueue(ACCOUNT, self.any_queue())
            case "redrive" | "cancel redrive":
                return self._redrive(kind)
            case _:
                return c.Barrier()

    def _redrive(self, kind: str) -> c.Command:
        chance = self._chance
        if kind == "cancel redrive":
            return c.CancelJob(ACCOUNT, self._redriven)
        queue = chance.choice((self.queue() + ".dead", self.any_queue(), GRAVEYARD))
        self._redriven = queue
        to = chance.choice(("", "", "", self.queue()))
        rate = chance.choice((0, 5, 5, 20))
        return c.StartJob(ACCOUNT, queue, to, rate=rate, act="move" if to else "redrive")

    def _settings(self) -> c.QueueSettings:
        given = {name: self._chance.choice(values) for name, values in FIELDS.items()}
        return c.QueueSettings(**given)  # type: ignore[arg-type]


def _some(held: Held) -> tuple[bytes, ...]:
    return held.ids[: 1 + len(held.ids) // 2]
