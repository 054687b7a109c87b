"""One subscription as the node runs it: claim, post, settle.

It parks like any long poll while nothing is ready, claims no more than it may post at once,
and holds what it posts by extending the claim. Whatever goes wrong with the node or the log
ends with the lease: the message comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine

import anyio

from api import bodies
from api.ports import Activity, Delivery, OutcomeUnknown, Service, Unavailable
from api.webhooks import attempts
from api.webhooks.attempts import Ended
from api.webhooks.proposing import propose
from api.webhooks.sender import Sender
from api.webhooks.slots import Slots
from api.webhooks.targets import Rules
from statemachine.commands import Ack, Claim, DisableSubscription, Extend, QueueCommand, Release
from statemachine.hooks import SubscriptionView
from statemachine.outcomes import Claimed, Delivered, Outcome, Reason, Refused
from statemachine.settings import ANY

PARK_S = 3_600.0
BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 1.0
REST_MAX_S = 30.0
"""The longest that a receiver which is down or busy is left alone, whatever its messages wait."""

_ABOUT_THE_RECEIVER = (Delivery.UNREACHABLE, Delivery.FORBIDDEN, Delivery.BUSY)


class _Hold:
    """A claim, who works on its messages, and which of those are posting."""

    def __init__(self, claim: int) -> None:
        self.claim = claim
        self.tasks: set[asyncio.Task[None]] = set()
        self.posting: set[asyncio.Task[None] | None] = set()
        self.lost = False

    def cancel(self) -> None:
        """Post no more. What has been posted is settled as it should be."""
        for task in self.posting:
            if task is not None:
                task.cancel()


def _is_full(outcome: Outcome) -> bool:
    return isinstance(outcome, Refused) and outcome.reason is Reason.QUOTA_EXCEEDED


class Courier:
    """See the module. ``slots`` are shared by all that the node runs."""

    def __init__(
        self, service: Service, view: SubscriptionView, sender: Sender, rules: Rules, slots: Slots
    ) -> None:
        self.view = view
        self.activity = Activity()
        self._service, self._sender, self._rules = service, sender, rules
        self._node_slots, self._slots = slots, Slots(view.settings.concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._holds: set[_Hold] = set()
        self._stopping = False
        self._waiting: anyio.CancelScope | None = None
        self._backoff_s = 0.0
        self._rests = 0
        self._rest_until = 0.0

    async def run(self) -> None:
        """Until ``stop``, and until what was being posted then is settled."""
        try:
            while not self._stopping:
                await self._round()
            while self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            self._sender.close()

    def stop(self) -> None:
        """Claim no more."""
        self._stopping = True
        if self._waiting is not None:
            self._waiting.cancel()

    def abandon(self) -> None:
        """Stop posting, and give back what is held."""
        self.stop()
        for hold in self._holds:
            hold.cancel()

    async def _round(self) -> None:
        await self._interruptibly(self._wait_for_work)
        taken = await self._room()
        try:
            if taken and self._may_claim() and (claimed := await self._claim(taken)):
                taken -= len(claimed.messages)
                self._begin(claimed)
        finally:
            self._slots.give(taken)
            self._node_slots.give(taken)

    def _may_claim(self) -> bool:
        """Whether nothing has changed while there was no room."""
        return not self._stopping and self._service.monotonic() >= self._rest_until

    async def _wait_for_work(self) -> None:
        """Until the receiver may be asked again, and a claim may find something."""
        rest_s = self._rest_until - self._service.monotonic()
        await asyncio.sleep(max(0.0, rest_s, self._backoff_s))
        command = self._claiming(1)
        while not self._service.prospects(command).near:
            self._backoff_s = 0.0
            await self._service.wait_ready(command.account, command.queue, PARK_S)

    async def _room(self) -> int:
        """How many messages may be claimed, of this subscription and of the node; 0: stopping."""
        all_of_them = self.view.settings.concurrency
        most = await self._interruptibly(lambda: self._slots.take(all_of_them)) or 0
        taken = await self._interruptibly(lambda: self._node_slots.take(most)) if most else 0
        self._slots.give(most - (taken or 0))
        return taken or 0

    async def _interruptibly(self, wait: Callable[[], Awaitable[int | None]]) -> int | None:
        """What ``wait`` answers; None if ``stop`` came first."""
        found = None
        with anyio.CancelScope() as self._waiting:
            if not self._stopping:
                found = await wait()
        self._waiting = None
        return found

    async def _claim(self, limit: int) -> Claimed | None:
        """What was ready. An empty claim costs a little patience.

        So does one for want of a leader, or of room in the account's quota of what is in flight.
        """
        command = self._claiming(limit)
        with contextlib.suppress(Unavailable, OutcomeUnknown):
            claimed = await propose(self._service, command)
            if isinstance(claimed, Claimed) and claimed.messages:
                self._backoff_s = 0.0
                return claimed
            assert isinstance(claimed, Claimed) or _is_full(claimed), claimed
        self._backoff_s = min(max(self._backoff_s * 2, BACKOFF_FIRST_S), BACKOFF_MAX_S)
        return None

    def _claiming(self, limit: int) -> Claim:
        """From any zone: no other node would post what this one leaves behind."""
        account, queue, name = self.view.names
        status = self._service.status()
        return Claim(
            account,
            queue,
            limit,
            self.view.settings.lease_ms,
            status.zone,
            zone_mode=ANY,
            consumer=f"{name}@{status.node}",
        )

    def _begin(self, claimed: Claimed) -> None:
        hold = _Hold(claimed.claim)
        self._holds.add(hold)
        for given in claimed.messages:
            task = self._start(self._deliver(hold, given))
            for tasks in (hold.tasks, hold.posting):
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        self._start(self._extend(hold))

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _extend(self, hold: _Hold) -> None:
        """Keep the claim while there is work on it."""
        account, queue, _ = self.view.names
        lease_ms = self.view.settings.lease_ms
        command = Extend(account, queue, hold.claim, lease_ms)
        while hold.tasks:
            await asyncio.wait(hold.tasks, timeout=lease_ms / 3000)
            if not hold.posting:
                continue  # What is being settled needs no longer lease.
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                if isinstance(await propose(self._service, command), Refused):
                    hold.lost = True  # Somebody else may have the messages by now.
                    hold.cancel()
        self._holds.discard(hold)

    async def _deliver(self, hold: _Hold, given: Delivered) -> None:
        service, activity = self._service, self.activity
        started_s = service.monotonic()
        activity.in_flight += 1
        try:
            opened = bodies.opened(service, self.view.names[0], given.record)
            ended = await attempts.attempt(
                self._sender, self._rules, self.view, given, opened, service.now_ms()
            )
        except asyncio.CancelledError:
            ended = Ended(Delivery.LOST)
        except Unavailable as error:  # The node lacks a key: what it can not open is given back.
            ended = Ended(Delivery.LOST, str(error))
        finally:
            activity.in_flight -= 1
            hold.posting.discard(asyncio.current_task())
            # Before it is settled, so that the next claim goes into the log with that.
            self._slots.give(1)
            self._node_slots.give(1)
        service.observe_delivery(ended.how, service.monotonic() - started_s)
        self._note(ended)
        if ended.how is Delivery.GONE:
            self.stop()
        if not hold.lost:
            await self._settle(self._consequence(hold, given, ended))
        if ended.how is Delivery.GONE:
            await self._disable(ended.error)

    def _consequence(self, hold: _Hold, given: Delivered, ended: Ended) -> QueueCommand:
        """What becomes of the message; when its attempts are used up it is a dead letter."""
        account, queue, _ = self.view.names
        settings, ids = self.view.settings, (given.id,)
        match ended.how:
            case Delivery.DELIVERED:
                return Ack(account, queue, hold.claim, ids)
            case Delivery.LOST | Delivery.GONE:
                return Release(account, queue, hold.claim, ids, delay_ms=0)
            case _ if given.deliveries >= settings.attempts or ended.how is Delivery.UNREADABLE:
                # One that is a dead letter already stays, and comes as seldom as it may.
                delay_ms = settings.retry_max_ms
                return Release(account, queue, hold.claim, ids, delay_ms, ended.error, dead=True)
            case _:
                now_ms = self._service.now_ms()
                delay_ms = attempts.delay_ms(settings, given.deliveries, ended, now_ms)
                return Release(account, queue, hold.claim, ids, delay_ms, ended.error)

    async def _settle(self, command: QueueCommand) -> Outcome | None:
        """Insist for as long as the lease would last; after that the message comes again."""
        give_up_s = self._service.monotonic() + self.view.settings.lease_ms / 1000
        backoff_s = BACKOFF_FIRST_S
        while True:
            try:
                return await propose(self._service, command)
            except (Unavailable, OutcomeUnknown):
                if self._service.monotonic() + backoff_s >= give_up_s:
                    return None
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)

    async def _disable(self, reason: str) -> None:
        """The receiver wants no more; another one under the same name may."""
        await self._settle(DisableSubscription(*self.view.names, self.view.revision, reason))

    def _note(self, ended: Ended) -> None:
        now_ms = self._service.now_ms()
        if ended.how is Delivery.DELIVERED:
            self.activity.last_success_ms = now_ms
        elif ended.error:
            self.activity.last_error_ms, self.activity.last_error = now_ms, ended.error
        if ended.how in _ABOUT_THE_RECEIVER:
            self._rest(ended, now_ms)
        elif ended.how is not Delivery.LOST:
            self._rests = 0

    def _rest(self, ended: Ended, now_ms: int) -> None:
        """Leave the receiver alone: other messages would fail too, and use up their attempts."""
        now_s = self._service.monotonic()
        if now_s < self._rest_until:
            return  # Of those that were under way together one counts.
        base_s = self.view.settings.retry_base_ms / 1000
        asked_s = attempts.retry_after_ms(ended.retry_after, now_ms) / 1000
        rest_s = max(base_s * 2 ** min(self._rests, attempts.DOUBLINGS_MAX), asked_s)
        self._rests += 1
        self._rest_until = now_s + min(rest_s, REST_MAX_S)
