"""Clients: each does one thing after the other, and writes down what it asked and heard.

A client talks to one node at a time, as over HTTP: when the node dies the client knows
nothing about what it had asked. Requests carry numbers, so that each is recognised in
the log for certain.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from raftq.replica.submitter import Answer, NotSubmitted, Unknown
from simulation.node import Node
from simulation.oracle import Counts, Names, of_stats
from simulation.plan import Workload
from simulation.world import World
from statemachine import commands as c
from statemachine import queries
from statemachine.outcomes import Claimed, Enqueued, Extended, Refused, Transacted

ACCOUNT = "a"
PATIENCE_S = 12.0  # Longer than a node's own.
DEAD = ".dead"
LIMITS = ("max_deliveries", "retry_delay_ms", "dedup_window_ms", "history_ms", "history_bytes")
LEASES_MS = (200, 700, 2_000, 6_000)

# Picked by number, so that they mix without a chance of their own.
ZONES = ("", "z1", "z1", "z1", "z2", "z2", "z3")
PRIORITIES = (0, 0, 0, 4, 9)
GROUPS = ("", "", "", "", "", "", "g1", "g1", "g2", "g2", "g3")
MODES = (None, None, "any", "only", "prefer", "prefer", "prefer", "only")
WAITS_MS = (None, 0, 300)


class Gone:
    """The node went away while a client waited."""


GONE = Gone()
NotKnown = Gone | NotSubmitted | Unknown
"""What tells a client nothing of an outcome."""


class Request:
    """One thing that was asked, and what was heard of it."""

    def __init__(self, number: int, node: str, command: c.Command, asked_at: float) -> None:
        self.number = number
        self.node = node
        self.command = command
        self.asked_at = asked_at
        self.answered_at: float | None = None
        self.answer: Answer | Gone | None = None


class Read(NamedTuple):
    """What a node's state said about a queue. ``asked_at`` None: it promised nothing newer."""

    node: str
    life: int
    index: int
    names: Names
    counts: Counts
    asked_at: float | None
    answered_at: float


class Held(NamedTuple):
    """A claim that a client has, or had."""

    names: Names
    claim: int
    ids: tuple[bytes, ...]


class History:
    """Everything that clients asked and heard."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.reads: list[Read] = []
        self._numbers = 0

    def number(self) -> int:
        """One that was never used."""
        self._numbers += 1
        return self._numbers


class Client:
    """See the module."""

    def __init__(
        self, world: World, chance: random.Random, workload: Workload, history: History
    ) -> None:
        self._world, self._chance = world, chance
        self._workload, self._history = workload, history
        self._node = chance.choice(world.names)
        self._held: list[Held] = []
        self._known: list[tuple[Names, bytes]] = []
        self._unsure: c.Once | None = None  # To be asked again until it is known.
        self._waiting: Request | None = None
        self.stopped = False

    @property
    def waiting(self) -> Request | None:
        """What it has not heard about yet."""
        return self._waiting

    def start(self) -> None:
        """Begin, a little after the others."""
        self._later()

    def node_died(self, node: Node) -> None:
        """A process has ended: whoever waited for it stands there."""
        request = self._waiting
        if request is not None and request.node == node.name:
            self._heard(request, GONE)

    # Asking.

    def _later(self) -> None:
        if not self.stopped:
            delay_s = self._chance.expovariate(1 / self._workload.think_s)
            self._world.at(delay_s, self._next)

    def _next(self) -> None:
        if self.stopped or self._waiting is not None:
            return
        node = self._world.nodes[self._node]
        if not node.is_up or self._chance.random() < 0.05:
            self._node = self._chance.choice(self._world.names)
            node = self._world.nodes[self._node]
        if not node.is_up:
            self._later()
            return
        operations = self._workload.operations
        (kind,) = self._chance.choices([*operations], [*operations.values()])
        if kind == "read locally":
            self._read_locally(node)
            return
        self._ask(node, self._command(kind))

    def _ask(self, node: Node, command: c.Command) -> None:
        world = self._world
        request = Request(self._history.number(), node.name, command, world.now)
        self._history.requests.append(request)
        self._waiting = request
        node.run(
            node.life, lambda: node.submit(command, lambda answer: self._heard(request, answer))
        )
        world.at(PATIENCE_S, lambda: self._heard(request, GONE))

    def _heard(self, request: Request, answer: Answer | Gone) -> None:
        if request.answer is not None:
            return
        world = self._world
        request.answer, request.answered_at = answer, world.now
        self._waiting = None
        world.note("answer", request.node, f"{request.number} {_kind(answer)}")
        self._learn(request, answer)
        if isinstance(answer, NotKnown):
            world.sometimes(f"a client heard: {_kind(answer)}")
            self._node = self._chance.choice(world.names)
        self._later()

    def _learn(self, request: Request, answer: Answer | Gone) -> None:
        command = request.command
        if isinstance(command, c.Once):
            sure = not isinstance(answer, NotKnown)
            # Even of what it is sure of, a client may ask twice.
            self._unsure = None if sure and self._chance.random() < 0.7 else command
            command = command.command
        if isinstance(command, c.Barrier) and not isinstance(answer, NotKnown):
            self._read(self._world.nodes[request.node], request.asked_at)
        elif isinstance(command, c.Claim) and isinstance(answer, Claimed) and answer.messages:
            ids = tuple(one.id for one in answer.messages)
            self._held.append(Held((ACCOUNT, command.queue), answer.claim, ids))
            if any(one.deliveries > 1 for one in answer.messages):
                self._world.sometimes("a message was delivered again")
        elif isinstance(command, c.Enqueue) and isinstance(answer, Enqueued):
            names = (ACCOUNT, command.queue)
            self._known += [(names, one) for one in answer.ids]
            if answer.duplicates:
                self._world.sometimes("a put was a duplicate")
        elif isinstance(command, c.Extend) and isinstance(answer, Extended) and answer.claim:
            assert command.ids is not None
            self._world.sometimes("some messages of a claim were extended")
            self._held.append(Held((ACCOUNT, command.queue), answer.claim, command.ids))
        elif isinstance(command, c.Transact):
            self._learn_of_transaction(command, answer)
        elif isinstance(command, c.Ack) and isinstance(answer, Refused):
            self._world.sometimes("an ack came after its lease")

    def _learn_of_transaction(self, command: c.Transact, answer: Answer | Gone) -> None:
        if isinstance(answer, Transacted):
            what = "refused" if answer.stale else "done"
            self._world.sometimes(f"a transaction was {what}")
        gone = {part.claim for part in command.acks}
        self._held = [held for held in self._held if held.claim not in gone]

    # Reading.

    def _read_locally(self, node: Node) -> None:
        def read() -> None:
            self._read(node, None)

        if not node.paused:
            node.run(node.life, read)
        self._later()

    def _read(self, node: Node, asked_at: float | None) -> None:
        if not node.is_up:
            return
        names = (ACCOUNT, self._queue())
        reader = node.running.reader()
        self._history.reads.append(
            Read(
                node=node.name,
                life=node.life,
                index=queries.applied(reader)[0],
                names=names,
                counts=of_stats(queries.stats(reader, *names)),
                asked_at=asked_at,
                answered_at=self._world.now,
            )
        )

    # Making up commands.

    def _queue(self) -> str:
        return f"q{self._chance.randrange(self._workload.queues)}"

    def _command(self, kind: str) -> c.Command:
        match kind:
            case "put once" if self._unsure is not None and self._chance.random() < 0.8:
                return self._again(self._unsure)
            case "put" | "put later" | "put mortal" | "put twice":
                return self._put(kind)
            case "transact":
                return self._transact()
            case "put once":
                number = self._history.number()
                return c.Once(ACCOUNT, f"k{number}", b"%d" % number, 60_000, self._put("put"))
            case "claim":
                return self._claim()
            case "ack" | "ack some" | "extend" | "release" | "nack" | "extend some" | "extend many":
                return self._on_claim(kind)
            case "read":
                return c.Barrier()
            case _:
                return self._on_queue(kind)

    def _again(self, unsure: c.Once) -> c.Once:
        """The same request; seldom another one under the same key, by mistake."""
        if self._chance.random() < 0.9:
            return unsure
        other = b"%d" % self._history.number()
        return c.Once(ACCOUNT, unsure.key, other, unsure.window_ms, self._put("put"))

    def _on_queue(self, kind: str) -> c.Command:
        queue = self._queue()
        match kind:
            case "delete" if self._known:
                names, message_id = self._known.pop(self._chance.randrange(len(self._known)))
                return c.DeleteMessages(ACCOUNT, names[1], (message_id,))
            case "purge":
                return c.Purge(ACCOUNT, queue)
            case "put queue":
                return c.PutQueue(ACCOUNT, queue, self._settings())
            case "patch queue":
                return c.PatchQueue(ACCOUNT, queue, self._settings(), ("lease_ms",))
            case "delete queue":
                return c.DeleteQueue(ACCOUNT, queue)
            case "bury":
                return c.PatchQueue(ACCOUNT, queue, self._limits(), LIMITS)
            case _:
                return c.Barrier()

    def _put(self, kind: str) -> c.Enqueue:
        chance = self._chance
        messages = []
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            size = chance.randrange(self._workload.body_bytes_max)
            number = self._history.number()
            body = b"%d " % number
            messages.append(
                c.NewMessage(
                    body + bytes(size),
                    "text/plain",
                    ttl_ms=chance.choice((300, 1_000, 4_000)) if kind == "put mortal" else None,
                    delay_ms=chance.choice((50, 500, 2_000)) if kind == "put later" else None,
                    zone=ZONES[number % len(ZONES)],
                    priority=PRIORITIES[number % len(PRIORITIES)],
                    group=GROUPS[number % len(GROUPS)],
                    dedup_id=f"d{chance.randrange(8)}" if kind == "put twice" else "",
                )
            )
        return c.Enqueue(ACCOUNT, self._queue(), tuple(messages))

    def _claim(self) -> c.Claim:
        # Without a lease of its own, the queue's: half a minute unless somebody sets it.
        settings = "patch queue" in self._workload.operations
        lease_ms = self._chance.choice((*LEASES_MS, None) if settings else LEASES_MS)
        number = self._history.number()
        return c.Claim(
            ACCOUNT,
            self._queue(),
            self._chance.choice((1, 2, 10)),
            lease_ms,
            ZONES[number % len(ZONES)],
            MODES[number % len(MODES)],
            WAITS_MS[number % len(WAITS_MS)],
            consumer=f"c{number}",
        )

    def _on_claim(self, kind: str) -> c.Command:
        if not self._held:
            return self._claim()
        chance = self._chance
        at = chance.randrange(len(self._held))
        held = self._held[at]
        some = held.ids[: 1 + len(held.ids) // 2]
        queue = held.names[1]
        if kind == "extend some":
            return c.Extend(ACCOUNT, queue, held.claim, chance.choice(LEASES_MS), some)
        if kind == "extend many":
            claims = tuple(one.claim for one in self._held if one.names == held.names)
            return c.ExtendMany(ACCOUNT, queue, claims, chance.choice(LEASES_MS))
        if kind == "extend":
            return c.Extend(ACCOUNT, queue, held.claim, chance.choice(LEASES_MS))
        if kind == "ack some":
            return c.Ack(ACCOUNT, queue, held.claim, some)
        del self._held[at]
        if kind == "ack":
            return c.Ack(ACCOUNT, queue, held.claim)
        if kind == "nack":
            why, dead = f"r{self._history.number()}", chance.random() < 0.4
            return c.Release(ACCOUNT, queue, held.claim, some, None, why, dead)
        return c.Release(ACCOUNT, queue, held.claim, None, chance.choice((0, 0, 300)))

    def _transact(self) -> c.Transact:
        """Ack what is held, seldom also what is not, and put something."""
        put = self._put("put")
        acks = []
        for held in self._held[:2]:
            ids = self._chance.choice((None, held.ids[:1]))
            acks.append(c.PartAck(held.names[1], held.claim, ids))
        return c.Transact(ACCOUNT, tuple(acks), (c.PartPut(put.queue, put.messages),))

    def _limits(self) -> c.QueueSettings:
        chance = self._chance
        return c.QueueSettings(
            max_deliveries=chance.choice((None, 1, 2)),
            retry_delay_ms=chance.choice((None, 0, 100)),
            dedup_window_ms=chance.choice((None, 0, 500)),
            history_ms=chance.choice((None, 0, 300)),
            history_bytes=chance.choice((None, 500)),
        )

    def _settings(self) -> c.QueueSettings:
        chance = self._chance
        return c.QueueSettings(
            lease_ms=chance.choice((None, 500, 5_000)), delay_ms=chance.choice((None, 0, 100))
        )


def _kind(answer: Answer | Gone) -> str:
    match answer:
        case NotSubmitted(reason):
            return f"not submitted, {reason}"
        case Unknown(detail):
            return f"unknown, {detail}"
        case _:
            return type(answer).__name__
