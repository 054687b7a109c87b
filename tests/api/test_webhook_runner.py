"""Who runs which subscription, when nodes come, go, stop and are cut off."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from api.ports import Activity, Status, Unavailable, WebhookPolicy
from api.webhooks import runner as runner_module
from api.webhooks.runner import Runner
from local_service import LocalService
from receiver import Receiver, eventually, receiving
from statemachine import commands as c
from statemachine import hooks

pytestmark = pytest.mark.anyio

POLICY = WebhookPolicy(http=True, allow=("127.0.0.1/32",))
LEASE_S = 0.3
MANY = 60


class AsNode:
    """The one service, as the node of another name sees it."""

    def __init__(self, service: LocalService, name: str) -> None:
        self._service, self._name = service, name
        self.activity: dict[c.SubscriptionName, Activity] = {}
        self.cut_off = False
        self.asking = 0
        self.open = asyncio.Event()  # What is proposed goes through.
        self.open.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)

    def status(self) -> Status:
        return replace(self._service.status(), node=self._name)

    async def propose(self, command: Any) -> Any:
        if self.cut_off:
            await asyncio.sleep(0)
            raise Unavailable("no_leader", "cut off")
        self.asking += 1
        await self.open.wait()
        return await self._service.propose(command)


class Bench:
    """Several nodes over one log."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.service = LocalService(webhooks=POLICY)
        self.nodes: dict[str, AsNode] = {}
        self.runners: dict[str, Runner] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, *names: str) -> None:
        for name in names:
            node = AsNode(self.service, name)
            runner = Runner(node, lease_s=LEASE_S)  # type: ignore[arg-type]  # It is one.
            self.nodes[name], self.runners[name] = node, runner
            self.tasks[name] = asyncio.create_task(runner.run())

    async def stop(self, name: str) -> None:
        await self.runners.pop(name).stop(1.0)
        await self.tasks.pop(name)

    async def time_passes(self) -> None:
        """Log time goes on as ours does."""
        while True:
            await asyncio.sleep(0.01)
            self.service.advance(0.01)

    async def subscribe(self, *queues: str) -> None:
        settings = c.SubscriptionSettings(self.receiver.url, (), 1_000, 4, 1_000, 10, 100, 5)
        for queue in queues:
            command = c.PutSubscription("a", queue, "s", settings, b"k" * 24, made=True)
            await self.service.propose(command)

    async def put(self, queue: str) -> None:
        message = c.NewMessage(queue.encode(), "text/plain")
        await self.service.propose(c.Enqueue("a", queue, (message,)))

    def owners(self) -> Counter[str]:
        return Counter(view.node for view in hooks.all_subscriptions(self.service.reader()))

    def shared(self, *names: str) -> Callable[[], bool]:
        """Whether these nodes have everything, each about its part, and run what they have."""

        def holds() -> bool:
            owners = self.owners()
            running = {name: len(self.nodes[name].activity) for name in names}
            return set(owners) == set(names) and running == dict(owners)

        return holds


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    async with receiving() as receiver:
        bench = Bench(receiver)
        passing = asyncio.create_task(bench.time_passes())
        try:
            yield bench
        finally:
            for name in list(bench.runners):
                await bench.stop(name)
            passing.cancel()


QUEUES = [f"q{number}" for number in range(MANY)]


async def test_subscriptions_are_shared_out() -> None:
    async with bench() as b:
        b.start("n1", "n2", "n3")
        await b.subscribe(*QUEUES)
        await eventually(b.shared("n1", "n2", "n3"), "each has its part")
        assert min(b.owners().values()) > MANY // 10
        for queue in QUEUES:
            await b.put(queue)
        await eventually(lambda: len(b.receiver.requests) == MANY, "all are posted")
        assert sorted(b.receiver.bodies) == sorted(queue.encode() for queue in QUEUES)


async def test_a_node_that_comes_gets_its_part_and_the_others_keep_theirs() -> None:
    async with bench() as b:
        b.start("n1", "n2")
        await b.subscribe(*QUEUES)
        await eventually(b.shared("n1", "n2"), "two share")
        before = {view.names: view.node for view in hooks.all_subscriptions(b.service.reader())}
        b.start("n3")
        await eventually(b.shared("n1", "n2", "n3"), "three share")
        for view in hooks.all_subscriptions(b.service.reader()):
            assert view.node in ("n3", before[view.names])


async def test_what_a_node_had_that_is_cut_off_is_taken_over_when_its_lease_ends() -> None:
    async with bench() as b:
        b.start("n1", "n2")
        await b.subscribe(*QUEUES)
        await eventually(b.shared("n1", "n2"), "two share")
        b.nodes["n1"].cut_off = True
        await eventually(b.shared("n2"), "one has it all")
        await eventually(lambda: not b.nodes["n1"].activity, "the other has noticed")
        for queue in QUEUES:
            await b.put(queue)
        await eventually(lambda: len(b.receiver.requests) == MANY, "all are posted")
        b.nodes["n1"].cut_off = False
        await eventually(b.shared("n1", "n2"), "two share again")


async def test_what_a_node_had_that_stops_is_taken_over_at_once() -> None:
    async with bench() as b:
        b.start("n1", "n2")
        await b.subscribe(*QUEUES)
        await eventually(b.shared("n1", "n2"), "two share")
        await b.stop("n1")
        assert set(hooks.runners(b.service.reader())) == {"n2"}
        await eventually(b.shared("n2"), "one has it all")


async def test_a_node_that_stops_while_it_asks_to_be_believed_is_not_believed_afterwards() -> None:
    async with bench() as b:
        await b.subscribe("q")
        b.start("n1")
        node = b.nodes["n1"]
        node.open.clear()
        await eventually(lambda: node.asking, "it asks")
        stopping = asyncio.create_task(b.stop("n1"))
        for _ in range(5):
            await asyncio.sleep(0)
        node.open.set()
        await stopping
        assert not hooks.runners(b.service.reader())


async def test_a_renewal_that_is_late_is_waited_for_before_the_lease_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner_module, "GIVE_UP_S", 30.0)
    async with bench() as b:
        b.start("n1")
        await b.subscribe("q")
        await eventually(b.shared("n1"), "it runs")
        node, on_its_way = b.nodes["n1"], asyncio.Event()
        late: list[asyncio.Task[Any]] = []

        async def arrive(command: Any) -> Any:
            await on_its_way.wait()
            return await b.service.propose(command)

        async def propose(command: Any) -> Any:
            if late:
                return await b.service.propose(command)
            late.append(asyncio.create_task(arrive(command)))
            return await asyncio.shield(late[0])

        node.propose = propose  # type: ignore[method-assign]
        await eventually(lambda: late, "it asks for more time")
        stopping = asyncio.create_task(b.stop("n1"))
        await asyncio.wait({stopping}, timeout=2 * LEASE_S)
        on_its_way.set()
        await asyncio.wait(late)
        await stopping
        assert not hooks.runners(b.service.reader())


async def test_a_node_that_comes_back_within_its_lease_goes_on() -> None:
    async with bench() as b:
        b.start("n1")
        await b.subscribe("q")
        await eventually(b.shared("n1"), "it runs")
        b.tasks.pop("n1").cancel()  # Not even a word.
        b.runners.pop("n1")
        b.start("n1")
        await eventually(b.shared("n1"), "it runs again")
        await b.put("q")
        await eventually(lambda: bool(b.receiver.requests), "it is posted")


async def test_many_are_taken_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "MOVES_MAX", 7)
    async with bench() as b:
        b.start("n1")
        await b.subscribe(*QUEUES)
        await eventually(b.shared("n1"), "it has all")
        takes = [one for one in b.service.proposed if isinstance(one, c.TakeSubscriptions)]
        assert max(len(one.take) for one in takes) <= 7


async def test_without_subscriptions_nothing_is_said() -> None:
    async with bench() as b:
        b.start("n1", "n2")
        await asyncio.sleep(2 * LEASE_S)
        assert b.service.proposed == []
        await b.subscribe("q")
        await eventually(b.shared(*_one_of(b)), "one runs it")
        await b.service.propose(c.DeleteSubscription("a", "q", "s"))
        await eventually(lambda: not hooks.runners(b.service.reader()), "nobody is needed")
        proposed = len(b.service.proposed)
        await asyncio.sleep(LEASE_S)
        assert len(b.service.proposed) == proposed


def _one_of(b: Bench) -> list[str]:
    names = ["n1", "n2"]
    return [runner_module._preferred(names, ("a", "q", "s"))]


async def test_what_is_under_way_moves_only_when_it_is_done() -> None:
    async with bench() as b:
        names = ["n1", "n2"]
        moving = next(q for q in QUEUES if runner_module._preferred(names, ("a", q, "s")) == "n2")
        b.receiver.hold = asyncio.Event()
        b.start("n1")
        await b.subscribe(moving)
        await b.put(moving)
        await eventually(lambda: bool(b.receiver.requests), "it is being posted")
        b.start("n2")
        await eventually(lambda: len(hooks.runners(b.service.reader())) == 2, "two nodes are there")
        await b.put(moving)
        await asyncio.sleep(LEASE_S)
        assert b.owners() == {"n1": 1}
        b.receiver.hold.set()
        await eventually(b.shared("n2"), "it has moved")
        await eventually(lambda: len(b.receiver.requests) == 2, "both are posted")


@pytest.mark.parametrize("nodes", [["n1"], ["n1", "n2"], ["n1", "n2", "n3"]])
def test_only_what_a_node_had_moves_when_it_goes(nodes: list[str]) -> None:
    names = [("a", f"q{number}", "s") for number in range(300)]
    for leaving in nodes[1:]:
        left = [node for node in nodes if node != leaving]
        for name in names:
            before = runner_module._preferred(nodes, name)
            assert before == leaving or runner_module._preferred(left, name) == before
