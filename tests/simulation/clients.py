"""Clients: each does one thing after the other, and writes down what it asked and heard.

A client talks to one node at a time, as over HTTP: when the node dies the client knows
nothing about what it had asked. Requests carry numbers, so that each is recognised in
the log for certain.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from raftq.replica.submitter import Accepted, Answer, NotSubmitted, Unknown
from simulation.making import ACCOUNT, Held, Maker
from simulation.node import Node
from simulation.oracle import Counts, Names, of_stats
from simulation.plan import Workload
from simulation.world import World
from statemachine import commands as c
from statemachine import queries
from statemachine.outcomes import Claimed, Enqueued, Extended, Refused, TransactedAndClaimed
from steps import steps

PATIENCE_S = 12.0  # Longer than a node's own.


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
        self,
        world: World,
        chance: random.Random,
        workload: Workload,
        history: History,
        maker: type[Maker] = Maker,
    ) -> None:
        self._world, self._chance = world, chance
        self._workload, self._history = workload, history
        self._maker = maker(chance, workload, history.number)
        self._node = chance.choice(world.names)
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
        command = self._maker.command(kind, node.running.machine.stamp_ms)
        self._ask(node, command, early=kind == "put weakly")

    def _ask(self, node: Node, command: c.Command, *, early: bool) -> None:
        world = self._world
        request = Request(self._history.number(), node.name, command, world.now)
        self._history.requests.append(request)
        self._waiting = request

        def heard(answer: Answer) -> None:
            self._heard(request, answer)

        node.run(node.life, lambda: node.submit(command, heard, early=early))
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
        command, maker = request.command, self._maker
        if isinstance(command, c.Once):
            sure = not isinstance(answer, NotKnown)
            # Even of what it is sure of, a client may ask twice.
            maker.unsure = None if sure and self._chance.random() < 0.7 else command
            command = command.command
        if isinstance(answer, TransactedAndClaimed):
            for one in steps(command, answer):
                self._learn_of(request, *one)
        else:
            self._learn_of(request, command, answer)

    def _learn_of(self, request: Request, command: c.Command, answer: Answer | Gone) -> None:
        maker = self._maker
        match command, answer:
            case c.Barrier(), one if not isinstance(one, NotKnown):
                self._read(self._world.nodes[request.node], request.asked_at)
            case c.Claim(), Claimed(messages=messages) if messages:
                ids = tuple([one.id for one in messages])
                maker.held.append(Held((ACCOUNT, command.queue), answer.claim, ids))
                if any(one.deliveries > 1 for one in messages):
                    self._world.sometimes("a message was delivered again")
            case c.Extend(ids=ids), Extended(claim=claim) if claim and ids:
                maker.held.append(Held((ACCOUNT, command.queue), claim, ids))
            case c.Enqueue(), Enqueued(routed=routed) if routed:
                maker.known += [
                    ((ACCOUNT, one.queue), one.id) for places in routed for one in places
                ]
            case c.Enqueue(), Enqueued(ids=ids):
                maker.known += [((ACCOUNT, command.queue), one) for one in ids]
            case c.Enqueue(), Accepted():
                self._world.sometimes("a message was accepted before it was safe")
            case c.Ack(), Refused():
                self._world.sometimes("an ack came after its lease")

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
        names = (ACCOUNT, self._maker.any_queue())
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


def _kind(answer: Answer | Gone) -> str:
    match answer:
        case NotSubmitted(reason):
            return f"not submitted, {reason}"
        case Unknown(detail):
            return f"unknown, {detail}"
        case _:
            return type(answer).__name__
