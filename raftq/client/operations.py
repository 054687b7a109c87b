"""The operations on one queue, and on a claim of it: what is sent, and what the answer means.

What a repetition may do, after a try of which the outcome is unknown:

- Puts, purges, changes of settings and claims that do not wait carry an ``Idempotency-Key``:
  the repetition gets the first answer.
- A claim that waits cannot carry one. It is repeated; what the lost claim took, if anything,
  comes back when its lease ends.
- Acks, releases and extensions are repeated as they are. If the repetition finds nothing to
  settle while the lease still holds by this process's clock, the first try has done it;
  if the lease may have run out, that is ``OutcomeUnknown``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from raftq.client import bodies
from raftq.client.answers import (
    Acked,
    Claimed,
    Deleted,
    Lease,
    Message,
    Page,
    Put,
    QueueInfo,
    Released,
    Settled,
    Stats,
)
from raftq.client.bodies import Item, NewMessage
from raftq.client.effects import Answer, Event, Request, Steps
from raftq.client.errors import LeaseLost, OutcomeUnknown, Refused
from raftq.client.exchange import Session, decoded

JSON_HEADERS = {"content-type": bodies.JSON}

Consistency = Literal["local", "session", "linearizable"]


class QueueCore:
    """One queue."""

    def __init__(
        self, session: Session, account: str, name: str, new_event: Callable[[], Event]
    ) -> None:
        self.session = session
        self.name = name
        self.new_event = new_event
        self.path = f"/v1/{quote(account, safe='')}/queues/{quote(name, safe='')}"

    def put(
        self,
        body: Any,
        *,
        ttl: float | None = None,
        delay: float | None = None,
        headers: Mapping[str, str] | None = None,
        zone: str | None = None,
        content_type: str | None = None,
        idempotency_key: str | None = None,
    ) -> Steps[str]:
        """Put one message; its id, once a majority of the replicas has it on disk.

        ``bytes`` are kept as they are, and so is ``str`` with a ``content_type``; any other
        value is stored as JSON. Times are seconds. ``idempotency_key``: your own, if the
        message must not be doubled even by another process that puts it again.
        """
        message = NewMessage(
            body=body, ttl=ttl, delay=delay, headers=headers, zone=zone, content_type=content_type
        )
        item = bodies.item(message, self.session.replicas.zone)
        ids = yield from self.put_items([item], idempotency_key)
        return ids[0]

    def put_many(
        self, messages: Iterable[NewMessage | Any], *, idempotency_key: str | None = None
    ) -> Steps[tuple[str, ...]]:
        """Put messages, all or none of them; their ids, in order.

        Each is a ``NewMessage`` or a value as for ``put``. A batch is JSON: raw bodies
        (``bytes``, or another content type) are refused with TypeError.
        """
        zone = self.session.replicas.zone
        given = [m if isinstance(m, NewMessage) else NewMessage(body=m) for m in messages]
        items = [bodies.item(message, zone) for message in given]
        if any(item.raw_type is not None for item in items):
            raise TypeError("raw bodies cannot be put in one batch; put them one by one")
        if not items:
            return ()
        return (yield from self.put_items(items, idempotency_key))

    def put_items(self, items: list[Item], key: str | None = None) -> Steps[tuple[str, ...]]:
        """One request: any number of JSON messages, or one raw body."""
        first = items[0]
        path = f"{self.path}/messages"
        if first.raw_type is None:
            body = first.content if len(items) == 1 else bodies.batch(items)
            request = Request("POST", path, headers=JSON_HEADERS, body=body)
        else:
            assert len(items) == 1, "a raw body is a request of its own"
            headers = {**first.headers, "content-type": first.raw_type}
            request = Request("POST", path, first.query, headers, first.content)
        answer = yield from self._once(request, key)
        return decoded(answer, Put).ids

    def claim(
        self,
        limit: int = 1,
        *,
        lease: float | None = None,
        wait: float = 0.0,
        zone: str | None = None,
    ) -> Steps[ClaimCore]:
        """Take up to ``limit`` messages under a lease of so many seconds (None: the queue's).

        With ``wait`` the server keeps the request open for so long until there is one. A
        claim that found nothing is empty, and false.
        """
        asked = {
            "limit": limit,
            "lease": lease,
            "wait": wait or None,
            "zone": zone or self.session.replicas.zone,
        }
        body = bodies.encode({name: value for name, value in asked.items() if value is not None})
        request = Request("POST", f"{self.path}/claims", headers=JSON_HEADERS, body=body)
        sent_s = self.session.clock()
        if wait:
            answer = yield from self.session.call(request, repeatable=True, wait_s=wait)
        else:
            answer = yield from self._once(request)
        claimed = decoded(answer, Claimed) if answer.status != 204 else None
        return ClaimCore(self, claimed, sent_s, lease)

    def peek(
        self,
        limit: int = 10,
        *,
        include_claimed: bool = False,
        zone: str | None = None,
        consistency: Consistency = "session",
    ) -> Steps[tuple[Message, ...]]:
        """Look at messages, the oldest first, without claiming them."""
        found: list[Message] = []
        marker: str | None = ""
        while marker is not None and len(found) < limit:
            query = {"limit": str(min(limit - len(found), 500))}
            query |= {"include_claimed": "true"} if include_claimed else {}
            query |= {"marker": marker} if marker else {}
            query |= {"zone": zone} if zone else {}
            request = Request("GET", f"{self.path}/messages", query)
            answer = yield from self.session.read(request, consistency=consistency)
            page = decoded(answer, Page)
            found += page.messages
            marker = page.marker
        return tuple(found)

    def stats(self, *, consistency: Consistency = "session") -> Steps[Stats]:
        """How much is in the queue, in which states."""
        request = Request("GET", f"{self.path}/stats")
        return decoded((yield from self.session.read(request, consistency=consistency)), Stats)

    def info(self, *, consistency: Consistency = "session") -> Steps[QueueInfo]:
        """The queue and its settings."""
        request = Request("GET", self.path)
        return decoded((yield from self.session.read(request, consistency=consistency)), QueueInfo)

    def settings(
        self,
        *,
        ttl: float | Literal["keep"] | None = "keep",
        delay: float | Literal["keep"] | None = "keep",
        lease: float | Literal["keep"] | None = "keep",
        metadata: Mapping[str, Any] | Literal["keep"] | None = "keep",
    ) -> Steps[QueueInfo]:
        """Change the settings that are named (None: back to the account's); what holds now.

        The queue is created if there is none.
        """
        given = {"ttl": ttl, "delay": delay, "lease": lease, "metadata": metadata}
        body = bodies.encode({name: value for name, value in given.items() if value != "keep"})
        try:
            answer = yield from self._once(Request("PATCH", self.path, {}, JSON_HEADERS, body))
        except Refused as refused:
            if refused.reason not in ("no_queue", "no_account"):
                raise
            answer = yield from self._once(Request("PUT", self.path, {}, JSON_HEADERS, body))
        return decoded(answer, QueueInfo)

    def purge(self) -> Steps[int]:
        """Delete all messages, claimed ones too; how many there were."""
        answer = yield from self._once(Request("DELETE", f"{self.path}/messages"))
        return decoded(answer, Deleted).deleted

    def delete(self) -> Steps[None]:
        """Delete the queue with everything in it."""
        yield from self._once(Request("DELETE", self.path))

    def _once(self, request: Request, key: str | None = None) -> Steps[Answer]:
        """A change that may be repeated, since it carries a key."""
        headers = {**request.headers, "idempotency-key": key or uuid.uuid4().hex}
        return self.session.call(request._replace(headers=headers), repeatable=True)


class ClaimCore:
    """Messages under one lease. ``held`` are those that were neither settled nor lost."""

    def __init__(
        self, queue: QueueCore, claimed: Claimed | None, sent_s: float, lease: float | None
    ) -> None:
        self.queue = queue
        self.id = "" if claimed is None else claimed.claim
        self.messages = () if claimed is None else claimed.messages
        self.lease_until: datetime | None = None if claimed is None else claimed.lease_until
        self.held = {message.id for message in self.messages}
        self.lost: set[str] = set()
        self._path = f"{queue.path}/claims/{quote(self.id, safe='')}"
        self._leased(sent_s, lease)

    def is_lost(self, message: str) -> bool:
        """Whether it is known that the message is no longer ours."""
        return message in self.lost or (message in self.held and self._over())

    def ack(self, ids: Sequence[str] | None = None) -> Steps[Settled]:
        """The work is done: delete the messages named, or all that are held.

        ``LeaseLost`` if none of them is held any more; those that are not are named in
        ``stale`` if others are.
        """
        body = None if ids is None else bodies.encode({"ids": list(ids)})
        headers = {} if body is None else JSON_HEADERS
        request = Request("POST", f"{self._path}/ack", {}, headers, body)
        answer = yield from self._settle(request, ids)
        if answer is None:
            return self._settled(ids, len(self.held if ids is None else ids), ())
        acked = decoded(answer, Acked)
        return self._settled(ids, acked.acked, acked.stale)

    def release(
        self, ids: Sequence[str] | None = None, *, delay: float | None = None
    ) -> Steps[Settled]:
        """Give the messages named, or all that are held, back; ready after ``delay`` seconds."""
        query = {} if ids is None else {"ids": ",".join(ids)}
        query |= {} if delay is None else {"delay": str(delay)}
        answer = yield from self._settle(Request("DELETE", self._path, query), ids)
        if answer is None:
            return self._settled(ids, len(self.held if ids is None else ids), ())
        released = decoded(answer, Released)
        return self._settled(ids, released.released, released.stale)

    def extend(
        self, lease: float | None = None, *, timeout: float | None = None
    ) -> Steps[datetime]:
        """Let the lease end so many seconds from now (None: as the queue says); when that is.

        ``timeout``: seconds to keep trying.
        """
        body = bodies.encode({} if lease is None else {"lease": lease})
        request = Request("PATCH", self._path, {}, JSON_HEADERS, body)
        sent_s = self.queue.session.clock()
        try:
            answer = yield from self.queue.session.call(request, repeatable=True, timeout_s=timeout)
        except LeaseLost:
            self._lose(self.held)
            raise
        self.lease_until = decoded(answer, Lease).lease_until
        self._leased(sent_s, lease)
        return self.lease_until

    def _settle(self, request: Request, ids: Sequence[str] | None) -> Steps[Answer | None]:
        """The answer; None if there was nothing to do, or an earlier try has done it."""
        done = not self.held and not self.lost
        if not self.id or (done if ids is None else not ids):
            return None
        try:
            return (yield from self.queue.session.call(request, repeatable=True))
        except LeaseLost as lost:
            if lost.after_unknown:
                if self.queue.session.clock() < self._held_until_s:
                    return None
                raise OutcomeUnknown(
                    f"an earlier try may have settled it, or the lease has run out: {lost}"
                ) from lost
            self._lose(self.held if ids is None else ids)
            raise

    def _settled(self, ids: Sequence[str] | None, settled: int, stale: tuple[str, ...]) -> Settled:
        self._lose(stale)
        self.held -= set(self.held if ids is None else ids)
        return Settled(settled, stale)

    def _lose(self, ids: Iterable[str]) -> None:
        gone = set(ids)
        self.lost |= gone
        self.held -= gone

    def _over(self) -> bool:
        return self.queue.session.clock() >= self._over_at_s

    def _leased(self, sent_s: float, lease: float | None) -> None:
        """The lease began between the request and the answer; how long it is may be unknown."""
        self._held_until_s = float("-inf") if lease is None else sent_s + lease
        self._over_at_s = float("inf") if lease is None else self.queue.session.clock() + lease
