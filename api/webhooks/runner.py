"""Which subscriptions this node runs, and running them.

Each node that posts messages says so through the log and is believed for a lease; of all that
are believed, each subscription has one it goes to (rendezvous hashing), so that load is spread,
and only what a node had moves when it goes. A node takes what is free and meant for it, and
gives back what is meant for another once nothing of it is under way. When a node dies its
lease ends, everybody sees that in the log, and the others take what is theirs by then.

Nobody asks for any of this again and again: changes are waited for, and the lease is renewed
by one command for everything, and only while there are subscriptions.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable
from hashlib import blake2b

import anyio

from api.ports import OutcomeUnknown, Service, Unavailable
from api.webhooks import sender
from api.webhooks.courier import Courier
from api.webhooks.proposing import propose
from api.webhooks.sender import Resolve, Sender
from api.webhooks.slots import Slots
from api.webhooks.targets import Rules
from statemachine import hooks
from statemachine.commands import SubscriptionName, TakeSubscriptions
from statemachine.hooks import SubscriptionView
from statemachine.outcomes import Outcome

LEASE_S = 10.0
MOVES_MAX = 1_000  # Subscriptions taken or given back in one command.
RETRY_S = 0.5
FOR_EVER_S = 3_600.0
GIVE_UP_S = 1.0  # For the last things a node that stops has to say.


class Runner:
    """The subscriptions of one node."""

    def __init__(
        self,
        service: Service,
        *,
        lease_s: float = LEASE_S,
        resolve: Resolve = sender.resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._service, self._resolve = service, resolve
        self._tls = tls or ssl.create_default_context()
        self._rules = Rules(service.webhooks)
        self._slots = Slots(service.webhooks.requests_max)
        self._lease_s = lease_s
        self._renewed_at = self._valid_until = service.monotonic() - lease_s
        self._couriers: dict[SubscriptionName, Courier] = {}
        self._tasks: dict[SubscriptionName, asyncio.Task[None]] = {}
        self._settling = asyncio.Lock()
        self._asked: asyncio.Task[Outcome] | None = None
        self._stopping = False
        self._again = False
        self._waiting: anyio.CancelScope | None = None

    async def run(self) -> None:
        """Until ``stop``."""
        seen = -1
        while not self._stopping:
            self._again = False
            try:
                async with self._settling:
                    wait_s = await self._settle()
            except (Unavailable, OutcomeUnknown, TimeoutError):
                wait_s = RETRY_S
            self._match()
            if not self._again:
                with anyio.CancelScope() as self._waiting:
                    seen = await self._service.subscriptions_changed(seen, wait_s)
                self._waiting = None

    async def stop(self, grace_s: float) -> None:
        """Finish what is being posted, or give it back when the grace is over; leave the rest."""
        self._stopping = True
        self._poke()
        for courier in self._couriers.values():
            courier.stop()
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
        for courier in self._couriers.values():
            courier.abandon()
        if tasks:
            await asyncio.wait(tasks, timeout=GIVE_UP_S)
        with contextlib.suppress(Unavailable, OutcomeUnknown, TimeoutError):
            await self._be_no_runner()
        if self._asked is not None:
            self._asked.cancel()

    async def _be_no_runner(self) -> None:
        """Give up the lease, also one that was just being asked for."""
        async with asyncio.timeout(GIVE_UP_S), self._settling:
            await self._answered()
            if self._node() in hooks.runners(self._service.reader()):
                await self._take(0.0, (), (), GIVE_UP_S)

    def _poke(self) -> None:
        """Look at everything again."""
        self._again = True
        if self._waiting is not None:
            self._waiting.cancel()

    def _node(self) -> str:
        return self._service.status().node

    async def _settle(self) -> float:
        """Take, give back and renew what is due; for how long that will do."""
        reader, me = self._service.reader(), self._node()
        wanted = [one for one in hooks.all_subscriptions(reader) if not one.disabled_reason]
        runners = hooks.runners(reader)
        if not wanted:
            if me in runners and not self._tasks:
                await self._take(0.0, (), (), self._lease_s)
            return FOR_EVER_S if not self._tasks else self._lease_s
        nodes = sorted({*runners, me})
        meant = {view.names for view in wanted if _preferred(nodes, view.names) == me}
        take = [view.names for view in wanted if not view.node and view.names in meant]
        drop = [view.names for view in wanted if view.node == me and self._is_free(view, meant)]
        due_s = self._renewed_at + self._lease_s / 3 - self._service.monotonic()
        if me not in runners:
            # First be seen, so that the others leave to this node what is meant for it.
            take = []
        elif not (take or drop) and due_s > 0:
            return due_s
        await self._take(self._lease_s, take[:MOVES_MAX], drop[:MOVES_MAX], self._lease_s / 3)
        return self._lease_s / 3

    def _is_free(self, view: SubscriptionView, meant: set[SubscriptionName]) -> bool:
        """Whether it is meant for another node, and nothing of it is under way."""
        if view.names in meant:
            return False
        courier = self._couriers.get(view.names)
        if courier is not None:
            courier.stop()
        return courier is None

    async def _take(
        self,
        lease_s: float,
        take: Iterable[SubscriptionName],
        drop: Iterable[SubscriptionName],
        timeout_s: float,
    ) -> None:
        command = TakeSubscriptions(self._node(), round(lease_s * 1000), tuple(take), tuple(drop))
        async with asyncio.timeout(timeout_s):
            await self._answered()
            now_s = self._service.monotonic()
            self._asked = asyncio.create_task(propose(self._service, command))
            self._asked.add_done_callback(lambda one: one.cancelled() or one.exception())
            await asyncio.shield(self._asked)
        self._renewed_at, self._valid_until = now_s, now_s + lease_s

    async def _answered(self) -> None:
        """Until it is known what became of the last that was asked for, however late.

        What was only late would otherwise happen after what is asked for next: a lease that was
        given up would be there again, of a node that has gone.
        """
        if self._asked is not None:
            await asyncio.wait({self._asked})

    def _match(self) -> None:
        """Run what this node has, and nothing else."""
        mine: dict[SubscriptionName, SubscriptionView] = {}
        if self._service.monotonic() < self._valid_until and not self._stopping:
            me = self._node()
            for view in hooks.all_subscriptions(self._service.reader()):
                if view.node == me and not view.disabled_reason:
                    mine[view.names] = view
        for names, courier in self._couriers.items():
            if names not in mine or mine.pop(names).revision != courier.view.revision:
                courier.stop()
        for view in mine.values():
            self._start(view)

    def _start(self, view: SubscriptionView) -> None:
        own = Sender(self._rules, resolve=self._resolve, tls=self._tls)
        courier = Courier(self._service, view, own, self._rules, self._slots)
        task = asyncio.create_task(courier.run())
        self._couriers[view.names], self._tasks[view.names] = courier, task
        self._service.activity[view.names] = courier.activity
        task.add_done_callback(lambda _: self._ended(view.names))

    def _ended(self, names: SubscriptionName) -> None:
        task = self._tasks.pop(names)
        del self._couriers[names], self._service.activity[names]
        error = None if task.cancelled() else task.exception()
        if error is None:
            self._poke()
        else:
            # A bug: it is told, and tried again when the lease is renewed, not at once.
            context = {"message": f"subscription {names} broke", "exception": error}
            task.get_loop().call_exception_handler(context)


def _preferred(nodes: Iterable[str], names: SubscriptionName) -> str:
    """The node that a subscription goes to: the same wherever it is asked."""
    place = "/".join(names)

    def weight(node: str) -> bytes:
        return blake2b(f"{node}/{place}".encode(), digest_size=8).digest()

    return max(nodes, key=weight)
