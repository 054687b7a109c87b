"""A producer: many puts become few requests, in order, one request at a time.

A message waits ``linger`` seconds for company at most, and less when a batch is full;
what arrives while a request is under way makes the next one. ``put`` waits while
``max_pending`` messages are not durable yet. Each message has a future of its own: its
id, or the error. A batch that is refused is halved until those at fault are alone, so
that one bad message does not fail its neighbours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from raftq.client import bodies
from raftq.client.answers import MessageId
from raftq.client.bodies import Item, NewMessage
from raftq.client.effects import Bell, Resolve, Spawn, Steps
from raftq.client.errors import Closed, RaftqError, Refused
from raftq.client.operations import QueueCore

BATCH_BYTES_MAX = 1 << 20  # A single larger message goes alone; the server's limits decide.

F = TypeVar("F")


class _Pending(NamedTuple):
    item: Item
    future: Any
    put_s: float


class ProducerCore(Generic[F]):
    """``F`` is the driver's kind of future."""

    def __init__(
        self,
        queue: QueueCore,
        new_future: Callable[[], F],
        *,
        linger: float,
        max_batch: int,
        max_pending: int,
    ) -> None:
        self._queue = queue
        self._new_future = new_future
        self._linger_s = linger
        self._max_batch = min(max_batch, max_pending)
        self._max_pending = max_pending
        self._bell = Bell(queue.new_event)
        self._pending: deque[_Pending] = deque()
        self._accepted = self._resolved = 0
        self._flush_to = 0
        self._closed = self._sender_runs = False

    def put(
        self,
        body: Any,
        *,
        ttl: float | None = None,
        delay: float | None = None,
        headers: Mapping[str, str] | None = None,
        zone: str | None = None,
        content_type: str | None = None,
        priority: int | None = None,
        group: str | None = None,
        dedup_id: str | None = None,
        not_before: datetime | None = None,
        persistent: bool | None = None,
    ) -> Steps[F]:
        """Accept one message, as for ``queue.put``, once there is room; the future of its id."""
        message = NewMessage(
            body=body,
            ttl=ttl,
            delay=delay,
            headers=headers,
            zone=zone,
            content_type=content_type,
            priority=priority,
            group=group,
            dedup_id=dedup_id,
            not_before=not_before,
            persistent=persistent,
        )
        item = bodies.item(message, self._queue.session.replicas.zone)
        while not self._closed and self._accepted - self._resolved >= self._max_pending:
            yield from self._bell.listen()
        if self._closed:
            raise Closed("the producer is closed")
        future = self._new_future()
        self._pending.append(_Pending(item, future, self._queue.session.clock()))
        self._accepted += 1
        if not self._sender_runs:
            self._sender_runs = True
            self._queue.session.users.add(self)
            yield Spawn(self._send_all())
        # The sender must learn of the first of a batch, and of the last.
        if len(self._pending) in (1, self._max_batch):
            self._bell.ring()
        return future

    def flush(self) -> Steps[None]:
        """Return when everything put so far is durable, or has failed."""
        self._flush_to = target = self._accepted
        self._bell.ring()
        while self._resolved < target:
            yield from self._bell.listen()

    def close(self) -> Steps[None]:
        """Flush, and accept nothing more."""
        self._closed = True
        yield from self.flush()
        while self._sender_runs:
            yield from self._bell.listen()

    def _send_all(self) -> Steps[None]:
        try:
            while self._pending or not self._closed:
                if not self._pending:
                    yield from self._bell.listen()
                elif (left_s := self._linger_left_s()) > 0:
                    yield from self._bell.listen(left_s)
                else:
                    batch = self._take()
                    yield from self._send(batch)
                    self._resolved += len(batch)
                    self._bell.ring()
        finally:
            self._sender_runs = False
            self._queue.session.users.discard(self)
            self._bell.ring()

    def _linger_left_s(self) -> float:
        full = len(self._pending) >= self._max_batch
        if full or self._closed or self._resolved < self._flush_to:
            return 0.0
        return self._pending[0].put_s + self._linger_s - self._queue.session.clock()

    def _take(self) -> list[_Pending]:
        """The next request's messages; a raw body is a request of its own."""
        batch = [self._pending.popleft()]
        size = len(batch[0].item.content)
        while self._pending and batch[0].item.raw_type is None:
            item = self._pending[0].item
            size += len(item.content) + 1
            if item.raw_type is not None or size > BATCH_BYTES_MAX or len(batch) == self._max_batch:
                break
            batch.append(self._pending.popleft())
        return batch

    def _send(self, batch: list[_Pending]) -> Steps[None]:
        results: list[MessageId | Exception]
        try:
            results = [*(yield from self._queue.put_items([pending.item for pending in batch]))]
        except Refused as refused:
            if len(batch) > 1:
                middle = len(batch) // 2
                yield from self._send(batch[:middle])
                yield from self._send(batch[middle:])
                return
            results = [refused]
        except RaftqError as error:
            results = [error] * len(batch)
        futures = [pending.future for pending in batch]
        yield Resolve(tuple(zip(futures, results, strict=True)))
