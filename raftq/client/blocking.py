"""The client for threads. One ``Raftq`` may be used from any number of them."""

from __future__ import annotations

import concurrent.futures
import weakref
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx2

from raftq.client.answers import MessageId, QueueEvent, Usage
from raftq.client.bodies import NewMessage
from raftq.client.claims import ONE, ClaimCore, Wanted
from raftq.client.consuming import Consume, ConsumerCore, Held
from raftq.client.drivers import BlockingDriver, blocking, then
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


class ClaimedMessage(HeldMessage, frozen=True, kw_only=True, eq=False):
    """A message under a lease. ``with message:`` acks it, or releases it if the block raises."""

    ack = blocking(Held.ack)
    release = blocking(Held.release)
    nack = blocking(Held.nack)
    _leave = blocking(Held.leave)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave(error is None)


class Claim(AnyClaim[BlockingDriver, ClaimedMessage]):
    """Messages under one lease; empty, and false, if there was nothing to claim."""

    ack = blocking(ClaimCore.ack)
    ack_and_claim = then(
        blocking(ClaimCore.ack_and_claim),
        lambda d, done: (done[0], Claim(d, done[1], ClaimedMessage)),
    )
    release = blocking(ClaimCore.release)
    nack = blocking(ClaimCore.nack)
    extend = blocking(ClaimCore.extend)
    _extend_some = blocking(ClaimCore.extend_some)

    def extend_some(self, ids: Sequence[str], lease: float | None = None) -> Claim:
        """Extend only these messages: the claim that has them now, which is one of its own
        unless they are all that this one holds. The messages know which.
        """
        return Claim(self._driver, self._extend_some(ids, lease), ClaimedMessage)

    def __iter__(self) -> Iterator[ClaimedMessage]:
        return iter(self.messages)


class Consumer(Shell[BlockingDriver, ConsumerCore]):
    """A loop over messages; see ``Queue.consume``. Leaving its ``with`` closes it."""

    def __init__(self, driver: BlockingDriver, core: ConsumerCore) -> None:
        super().__init__(driver, core)
        weakref.finalize(self, core.forget)

    close = blocking(ConsumerCore.close)
    _next = blocking(ConsumerCore.next)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ClaimedMessage:
        held = self._next()
        if held is None:
            raise StopIteration
        return held_message(self._driver, held, ClaimedMessage)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Producer(Shell[BlockingDriver, ProducerCore[concurrent.futures.Future[MessageId]]]):
    """Batches what is put; leaving its ``with`` flushes and closes it."""

    put = blocking(ProducerCore[concurrent.futures.Future[MessageId]].put)
    flush = blocking(ProducerCore.flush)
    close = blocking(ProducerCore.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Events(Shell[BlockingDriver, EventsCore[QueueEvent]]):
    """Events as they come, without end; leaving its ``with`` closes it."""

    close = blocking(EventsCore[QueueEvent].close)
    _next = blocking(EventsCore[QueueEvent].next)

    @property
    def last_id(self) -> str:
        """Where it is: what another reader begins behind with ``after``."""
        return self._core.last_id

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> QueueEvent:
        event = self._next()
        if event is None:
            raise StopIteration
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Queue(Shell[BlockingDriver, QueueCore]):
    """One queue of an account."""

    put = blocking(QueueCore.put)
    put_many = blocking(QueueCore.put_many)
    claim = then(blocking(QueueCore.claim), lambda d, core: Claim(d, core, ClaimedMessage))
    peek = blocking(QueueCore.peek)
    stats = blocking(QueueCore.stats)
    info = blocking(QueueCore.info)
    settings = blocking(QueueCore.settings)
    purge = blocking(QueueCore.purge)
    delete = blocking(QueueCore.delete)
    redrive = blocking(QueueCore.redrive)
    start_job = blocking(QueueCore.start_job)
    job = blocking(QueueCore.job)
    cancel_job = blocking(QueueCore.cancel_job)
    history = blocking(QueueCore.history)

    def events(
        self, *, from_: str | int = "now", kinds: Sequence[str] = (), after: str = ""
    ) -> Events:
        """What happens in the queue: an iterator that goes on at another replica by itself.

        ``from_``: ``now``, ``oldest`` or a log index; ``kinds``: only these; ``after``: the
        ``last_id`` of an earlier reader.
        """
        core = events_of(self._core.session, self._core.path, from_, kinds, after)
        return Events(self._driver, core)

    @with_signature_of(how_to_consume)
    def consume(self, how: Consume) -> Consumer:
        """See ``how_to_consume``, whose documentation this takes over."""
        return Consumer(self._driver, ConsumerCore(self._core, how))

    def producer(
        self, *, linger: float = 0.005, max_batch: int = 500, max_pending: int = 10_000
    ) -> Producer:
        """Many puts in few requests, in order.

        A message waits ``linger`` seconds for company at most; ``put`` blocks while
        ``max_pending`` messages are not durable yet.
        """
        core = ProducerCore(
            self._core,
            self._driver.new_future,
            linger=linger,
            max_batch=max_batch,
            max_pending=max_pending,
        )
        return Producer(self._driver, core)


class Raftq(Shell[BlockingDriver, Session]):
    """A client of a cluster; a context manager, or ``close`` it.

    ``urls``: one replica or more; the others are found. ``zone``: where this process
    runs; replicas there are asked first, and it is the zone of what is put and claimed.
    ``key``: the access key, where the cluster asks for one.
    ``timeout``: seconds that a call may take, all its tries together; ``try_timeout``:
    that one try may take. ``ca_file``: who signs the certificates of replicas under https;
    OSError if it cannot be read.
    """

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
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        super().__init__(
            BlockingDriver(transport, key, ca_file), session(urls, zone, timeout, try_timeout)
        )
        self.account = account

    cluster = blocking(Session.cluster)
    _close = blocking(Session.close)

    def queue(self, name: str) -> Queue:
        """A queue of the account; nothing is sent."""
        core = QueueCore(self._core, self.account, name, self._driver.new_event)
        return Queue(self._driver, core)

    def events(
        self, *, from_: str | int = "now", kinds: Sequence[str] = (), after: str = ""
    ) -> Events:
        """What happens in all queues of the account; as ``Queue.events``."""
        path = account_path(self.account)
        return Events(self._driver, events_of(self._core, path, from_, kinds, after))

    def usage(self, *, consistency: Consistency = "session") -> Usage:
        """How much the account has of what may be limited, and its limits."""
        return self._driver.run(usage(self._core, self.account, consistency=consistency))

    def transaction(
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
        return self._driver.run(steps)

    def transaction_and_claim(
        self,
        queue: str,
        *,
        acks: Sequence[Holding] = (),
        releases: Sequence[Holding | GiveBack] = (),
        puts: Mapping[str, Sequence[NewMessage | Any]] | None = None,
        next: Wanted = ONE,
    ) -> tuple[Transacted, Claim]:
        """The same, and claim from a queue when it is done, by the same request.

        It is not repeated when its outcome is unknown. Without a claim since that was refused, or
        has failed, this raises, and ``done`` of the error is what was done.
        """
        place = QueueCore(self._core, self.account, queue, self._driver.new_event)
        steps = transact_and_claim(place, self.account, acks, releases, puts or {}, next)
        done, claim = self._driver.run(steps)
        return done, Claim(self._driver, claim, ClaimedMessage)

    def close(self) -> None:
        """End consumers and producers properly, and close the connections."""
        self._close()
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
