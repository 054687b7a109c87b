"""Posting messages of subscriptions: each node's own runner, and a receiver that is made up.

What runs is the product's ``Runner`` with its couriers over a ``NodeService``, in tasks on a
virtual loop. Only the connection is replaced: a request comes to ``Receiver``, which looks
at what it is given and answers well, badly or never.
"""

from __future__ import annotations

import asyncio
import math
import random
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, cast

import msgspec

from api.ports import WebhookPolicy
from api.webhooks import attempts
from api.webhooks import runner as runners
from api.webhooks.runner import Runner
from api.webhooks.sender import Answer, Header, NoAnswer
from raftq.metrics import Metrics
from raftq.replica import submitter
from raftq.replica.replica import Replica
from raftq.runtime import Runtime
from raftq.service import NodeService
from simulation.arrangements import Arrangements, Posting
from simulation.clients import GONE, History, Request
from simulation.loop import VirtualLoop
from simulation.node import Failed, Node, Violation
from simulation.runtime import VirtualRuntime
from simulation.world import World
from statemachine import commands as c

LEASE_S = 2.0
GRACE_S = 1.5
POLICY = WebhookPolicy(http=True, requests_max=8)
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ANSWERS = {"well": 8.0, "badly": 2.0, "busy": 0.7, "gone": 0.3, "breaks": 0.7, "never": 0.7}
ANSWERS_IN_S = (0.01, 0.05, 0.3)  # On average; in peace the first, for more comes all the time.
STATUSES = {"well": 204, "badly": 500, "busy": 503, "gone": 410}


class Receiver:
    """Whoever the messages are posted to."""

    def __init__(self, world: World, chance: random.Random, arrangements: Arrangements) -> None:
        self._world, self._chance, self._arrangements = world, chance, arrangements
        self._seen: set[Posting] = set()
        self._took: set[tuple[str, str]] = set()  # In peace: queue and id.
        self.in_peace = False

    async def post(self, _target: object, headers: list[Header], body: bytes) -> Answer:
        """As ``Sender.post``."""
        named = {name.decode(): value.decode() for name, value in headers}
        self._may_come(named, body)
        in_peace = self.in_peace  # A claim of before may be over when it is answered.
        kinds = {"well": 1.0} if in_peace else ANSWERS
        (kind,) = self._chance.choices([*kinds], [*kinds.values()])
        self._world.sometimes(f"a receiver answers: {kind}")
        average_s = ANSWERS_IN_S[0] if in_peace else self._chance.choice(ANSWERS_IN_S)
        await asyncio.sleep(self._chance.expovariate(1 / average_s))
        if kind == "never":
            await asyncio.get_running_loop().create_future()
        if kind == "breaks":
            raise NoAnswer("the connection broke")
        if kind == "well":
            key = named["raftq-queue"], named["raftq-message"]
            self._arrangements.delivered.add(key)
            if in_peace:
                self._took.add(key)
        return Answer(STATUSES[kind], "1" if kind == "busy" else "")

    def close(self) -> None:
        """As ``Sender.close``."""

    def _may_come(self, named: dict[str, str], body: bytes) -> None:
        queue, message, name = (
            named[f"raftq-{one}"] for one in ("queue", "message", "subscription")
        )
        posting = queue, message, int(named["raftq-deliveries"])
        consumer, put = self._arrangements.given.get(posting, ("", b""))
        if not consumer.startswith(f"{name}@") or put != body:
            self._wrong(f"{posting} was posted for {name}, and {consumer!r} was given {put!r}")
        if posting in self._seen:
            self._wrong(f"{posting} was posted twice")
        if (queue, message) in self._took:
            self._wrong(f"{posting} was posted again, though the receiver has it")
        self._seen.add(posting)

    def _wrong(self, what: str) -> None:
        """Not from within a task, which would keep it to itself."""

        def broken() -> NoReturn:
            raise Violation(f"{self._world.now:.4f} receiver: {what}")

        self._world.at(0.0, broken)


class _Asked:
    """A node's replica as the node itself asks it: what it asks and hears is written down."""

    def __init__(self, node: Node, replica: Replica, runtime: Runtime, history: History) -> None:
        self._node, self._replica = node, replica
        self._runtime, self._history = runtime, history
        self.waiting: dict[int, Request] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._replica, name)

    def submit(
        self,
        command: c.Command,
        size_bytes: int,
        done: Callable[[submitter.Answer], None],
        *,
        account: str | None = None,
        early: bool = False,
    ) -> None:
        history, world = self._history, self._node.world
        request = Request(history.number(), self._node.name, command, world.now)
        history.requests.append(request)
        self.waiting[request.number] = request

        def heard(answer: submitter.Answer) -> None:
            if self.waiting.pop(request.number, None):
                request.answer, request.answered_at = answer, world.now
                done(answer)

        # Later, so that a disk that fails ends the process and not a task.
        self._runtime.call_soon(
            lambda: self._replica.submit(command, size_bytes, heard, account=account, early=early)
        )

    def gone(self) -> None:
        """Whatever it waits for is not heard."""
        for request in self.waiting.values():
            request.answer, request.answered_at = GONE, self._node.world.now
        self.waiting.clear()


class Life:
    """One process's runner."""

    def __init__(self, node: Node, history: History) -> None:
        self.life, self._node = node.life, node
        runtime = VirtualRuntime(node.world.events, node.world.random, node)
        self.loop = VirtualLoop(runtime, self._broken)
        self.asked = _Asked(node, node.running, runtime, history)
        self.runner: Runner
        self.loop.within(lambda: self._start(runtime))

    def _start(self, runtime: Runtime) -> None:
        config = msgspec.structs.replace(self._node.config(), webhooks=POLICY)
        service = NodeService(cast(Replica, self.asked), config, Metrics(), runtime)
        self.runner = Runner(service, lease_s=LEASE_S, tls=NO_TLS)
        self.loop.create_task(self.runner.run())

    def stop(self) -> asyncio.Task[None]:
        """In good order."""
        tasks: list[asyncio.Task[None]] = []
        self.loop.within(lambda: tasks.append(self.loop.create_task(self.runner.stop(GRACE_S))))
        return tasks[0]

    def _broken(self, error: BaseException) -> None:
        def broken() -> NoReturn:
            raise Failed(f"{self._node.name}: {error!r}") from error

        self._node.world.at(0.0, broken)


class Postings:
    """The runners of all nodes."""

    def __init__(self, world: World, history: History, receiver: Receiver) -> None:
        self._world, self._history, self._receiver = world, history, receiver
        self._lives: dict[str, Life] = {}
        self._stops: dict[str, asyncio.Task[None]] | None = None
        self.cut_short = False  # Whether a process ended while its runner was to.

    def started(self, node: Node) -> None:
        """A process has begun."""
        if self._stops is None:
            self._lives[node.name] = Life(node, self._history)

    def died(self, node: Node) -> None:
        """A process has ended."""
        life = self._lives.pop(node.name, None)
        if life is not None:
            life.asked.gone()
            life.loop.close()
        if self._stops and (stop := self._stops.pop(node.name, None)):
            self.cut_short |= not stop.done()

    def stop(self) -> None:
        """Let all of them end in good order, and none begin."""
        self._stops = {name: life.stop() for name, life in self._lives.items()}

    def stopped(self) -> bool:
        """Whether all have ended."""
        return self._stops is not None and all(stop.done() for stop in self._stops.values())

    def answered(self, until: float = math.inf) -> bool:
        """Whether no node waits for an answer to what it asked before."""
        return not any(
            request.asked_at < until
            for life in self._lives.values()
            for request in life.asked.waiting.values()
        )

    def running(self) -> dict[c.SubscriptionName, list[str]]:
        """Which nodes run what."""
        found: dict[c.SubscriptionName, list[str]] = {}
        for name, life in self._lives.items():
            for one in life.runner._couriers:
                found.setdefault(one, []).append(name)
        return found

    @contextmanager
    def received(self, seed: int) -> Iterator[None]:
        """What is posted comes to the receiver meanwhile, and chance is the seed's."""
        replaced: Any = runners
        spread: Any = attempts
        before = replaced.Sender, spread._chance
        replaced.Sender = lambda *_, **__: self._receiver
        spread._chance = random.Random(f"spread {seed}")
        try:
            yield
        finally:
            replaced.Sender, spread._chance = before
