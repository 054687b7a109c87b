"""The client for asyncio. One ``AsyncRaftq`` belongs to one event loop."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx2

from raftq.client.answers import MessageId, QueueEvent, Usage
from raftq.client.bodies import NewMessage
from raftq.client.claims import ONE, ClaimCore, Wanted
from raftq.client.consuming import Consume, ConsumerCore, Held
from raftq.client.drivers import AsyncDriver, awaiting, later
from raftq.client.events import EventsCore
from raftq.client.exchange import Session
from raftq.client.operations import Consistency, QueueCore, usage
from raftq.client.producing import ProducerCore
from raftq.client.shells import (
    AnyClaim,
    HeldMessage,
    Shell,
    account_path,
    events_of,
    held_message,
    how_to_consume,
    session,
    with_signature_of,
)
from raftq.client.transactions import (
    GiveBack,
    Holding,
    Transacted,
    transact,
    transact_and_claim,
)


class AsyncClaimedMessage(HeldMessage, frozen=True, kw_only=True, eq=False):
    """A message under a lease. ``async with message:`` acks, or releases if the block raises."""

    ack = awaiting(Held.ack)
    release = awaiting(Held.release)
    nack = awaiting(Held.nack)
    _leave = awaiting(Held.leave)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._leave(error is None)


class AsyncClaim(AnyClaim[AsyncDriver, AsyncClaimedMessage]):
    """Messages under one lease; empty, and false, if there was nothing to claim."""

    ack = awaiting(ClaimCore.ack)
    ack_and_claim = later(
        awaiting(ClaimCore.ack_and_claim),
        lambda d, done: (done[0], AsyncClaim(d, done[1], AsyncClaimedMessage)),
    )
    release = awaiting(ClaimCore.release)
    nack = awaiting(ClaimCore.nack)
    extend = awaiting(ClaimCore.extend)
    _extend_some = awaiting(ClaimCore.extend_some)

    async def extend_some(self, ids: Sequence[str], lease: float | None = None) -> AsyncClaim:
        """Extend only these messages: the claim that has them now, which is one of its own
        unless they are all that this one holds. The messages know which.
        """
        return AsyncClaim(self._driver, await self._extend_some(ids, lease), AsyncClaimedMessage)

    def __iter__(self) -> Iterator[AsyncClaimedMessage]:
        return iter(self.messages)


class AsyncConsumer(Shell[AsyncDriver, ConsumerCore]):
    """A loop over messages; see ``AsyncQueue.consume``. Leaving its ``async with`` closes it."""

    def __init__(self, driver: AsyncDriver, core: ConsumerCore) -> None:
        super().__init__(driver, core)
        weakref.finalize(self, core.forget)

    close = awaiting(ConsumerCore.close)
    _next = awaiting(ConsumerCore.next)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AsyncClaimedMessage:
        held = await self._next()
        if held is None:
            raise StopAsyncIteration
        return held_message(self._driver, held, AsyncClaimedMessage)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncProducer(Shell[AsyncDriver, ProducerCore[asyncio.Future[MessageId]]]):
    """Batches what is put; leaving its ``async with`` flushes and closes it."""

    put = awaiting(ProducerCore[asyncio.Future[MessageId]].put)
    flush = awaiting(ProducerCore.flush)
    close = awaiting(ProducerCore.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncEvents(Shell[AsyncDriver, EventsCore[QueueEvent]]):
    """Events as they come, without end; leaving its ``async with`` closes it."""

    close = awaiting(EventsCore[QueueEvent].close)
    _next = awaiting(EventsCore[QueueEvent].next)

    @property
    def last_id(self) -> str:
        """Where it is: what another reader begins behind with ``after``."""
        return self._core.last_id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> QueueEvent:
        event = await self._next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncQueue(Shell[AsyncDriver, QueueCore]):
    """One queue of an account."""

    put = awaiting(QueueCore.put)
    put_many = awaiting(QueueCore.put_many)
    claim = later(
        awaiting(QueueCore.claim), lambda d, core: AsyncClaim(d, core, AsyncClaimedMessage)
    )
    peek = awaiting(QueueCore.peek)
    stats = awaiting(QueueCore.stats)
    info = awaiting(QueueCore.info)
    settings = awaiting(QueueCore.settings)
    purge = awaiting(QueueCore.purge)
    delete = awaiting(QueueCore.delete)
    redrive = awaiting(QueueCore.redrive)
    start_job = awaiting(QueueCore.start_job)
    job = awaiting(QueueCore.job)
    cancel_job = awaiting(QueueCore.cancel_job)
    history = awaiting(QueueCore.history)

    def events(
        self, *, from_: str | int = "now", kinds: Sequence[str] = (), after: str = ""
    ) -> AsyncEvents:
        """What happens in the queue: an iterator that goes on at another replica by itself.

        ``from_``: ``now``, ``oldest`` or a log index; ``kinds``: only these; ``after``: the
        ``last_id`` of an earlier reader.
        """
        core = events_of(self._core.session, self._core.path, from_, kinds, after)
        return AsyncEvents(self._driver, core)

    @with_signature_of(how_to_consume)
    def consume(self, how: Consume) -> AsyncConsumer:
        """See ``how_to_consume``, whose documentation this takes over."""
        return AsyncConsumer(self._driver, ConsumerCore(self._core, how))

    def producer(
        self, *, linger: float = 0.005, max_batch: int = 500, max_pending: int = 10_000
    ) -> AsyncProducer:
        """Many puts in few requests, in order; ``Queue.producer``, but ``put`` is awaited.

        ``await producer.put(...)`` gives a future, which is awaited for the id.
        """
        core = ProducerCore(
            self._core,
            self._driver.new_future,
            linger=linger,
            max_batch=max_batch,
            max_pending=max_pending,
        )
        return AsyncProducer(self._driver, core)


class AsyncRaftq(Shell[AsyncDriver, Session]):
    """A client of a cluster, for ``async with``; takes what ``Raftq`` takes."""

    def __init__(
        self,
        urls: str | list[str],
        account: str = "default",
        zone: str | None = None,
        *,
        key: str = "",
        timeout: float = 10.0,
        try_timeout: float = 4.0,
        ca_file: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(
            AsyncDriver(transport, key, ca_file), session(urls, zone, timeout, try_timeout)
        )
        self.account = account

    cluster = awaiting(Session.cluster)
    _close = awaiting(Session.close)

    def queue(self, name: str) -> AsyncQueue:
        """A queue of the account; nothing is sent."""
        core = QueueCore(self._core, self.account, name, self._driver.new_event)
        return AsyncQueue(self._driver, core)

    def events(
        self, *, from_: str | int = "now", kinds: Sequence[str] = (), after: str = ""
    ) -> AsyncEvents:
        """What happens in all queues of the account; as ``AsyncQueue.events``."""
        path = account_path(self.account)
        return AsyncEvents(self._driver, events_of(self._core, path, from_, kinds, after))

    async def usage(self, *, consistency: Consistency = "session") -> Usage:
        """How much the account has of what may be limited, and its limits."""
        return await self._driver.run(usage(self._core, self.account, consistency=consistency))

    async def transaction(
        self,
        *,
        acks: Sequence[Holding] = (),
        releases: Sequence[Holding | GiveBack] = (),
        puts: Mapping[str, Sequence[NewMessage | Any]] | None = None,
    ) -> Transacted:
        """Ack and release claims or messages of them, and put messages by queue: all or nothing.

        ``LeaseLost`` if something is not held any more; nothing was done then.
        """
        steps = transact(self._core, self.account, acks, releases, puts or {})
        return await self._driver.run(steps)

    async def transaction_and_claim(
        self,
        queue: str,
        *,
        acks: Sequence[Holding] = (),
        releases: Sequence[Holding | GiveBack] = (),
        puts: Mapping[str, Sequence[NewMessage | Any]] | None = None,
        next: Wanted = ONE,
    ) -> tuple[Transacted, AsyncClaim]:
        """The same, and claim from a queue when it is done, by the same request.

        It is not repeated when its outcome is unknown. Without a claim since that was refused, or
        has failed, this raises, and ``done`` of the error is what was done.
        """
        place = QueueCore(self._core, self.account, queue, self._driver.new_event)
        steps = transact_and_claim(place, self.account, acks, releases, puts or {}, next)
        done, claim = await self._driver.run(steps)
        return done, AsyncClaim(self._driver, claim, AsyncClaimedMessage)

    async def close(self) -> None:
        """End consumers and producers properly, and close the connections."""
        await self._close()
        await self._driver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
