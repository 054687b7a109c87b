"""The operations on one queue: what is sent, and what the answer means.

What a repetition may do, after a try of which the outcome is unknown:

- Puts, purges, changes of settings and claims that do not wait carry an ``Idempotency-Key``:
  the repetition gets the first answer.
- A claim that waits cannot carry one. It is repeated; what the lost claim took, if anything,
  comes back when its lease ends. Nor can one that acks at once; what that took is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from raftq.client import bodies, claims
from raftq.client.answers import (
    Deleted,
    History,
    Job,
    Message,
    MessageId,
    Page,
    Put,
    QueueEvent,
    QueueInfo,
    Stats,
    Usage,
)
from raftq.client.bodies import JSON_HEADERS, Item, NewMessage
from raftq.client.claims import ClaimCore, Place, Wanted, ZoneMode
from raftq.client.effects import Event, Request, Steps
from raftq.client.errors import Refused
from raftq.client.exchange import Session, decoded

Consistency = Literal["local", "session", "linearizable"]
Keep = Literal["keep"]
Act = Literal["redrive", "move", "delete", "release"]
State = Literal["ready", "delayed", "blocked", "claimed"]
ACCEPTED = 202


def usage(session: Session, account: str, *, consistency: Consistency = "session") -> Steps[Usage]:
    """How much the account has of what may be limited, and its limits."""
    request = Request("GET", f"/v1/{quote(account, safe='')}/usage")
    return decoded((yield from session.read(request, consistency=consistency)), Usage)


class QueueCore(Place):
    """One queue."""

    def __init__(
        self, session: Session, account: str, name: str, new_event: Callable[[], Event]
    ) -> None:
        path = f"/v1/{quote(account, safe='')}/queues/{quote(name, safe='')}"
        super().__init__(session, name, path)
        self.new_event = new_event

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
        idempotency_key: str | None = None,
    ) -> Steps[MessageId]:
        """Put one message; its id, once a majority of the replicas has it on disk.

        ``bytes`` are kept as they are, and so is ``str`` with a ``content_type``; any other
        value is stored as JSON. Times are seconds; ``not_before`` needs a time zone.
        ``priority``: 0 to 9, the highest is claimed first. Of a ``group`` one message at a
        time is claimed, in order. ``dedup_id``: if the queue has seen it, nothing is put, and
        the id, which is then that of the first message, has ``duplicate``.
        ``persistent=False``: the answer comes before it is on any disk, and the id is empty.
        ``idempotency_key``: your own, if the request must not be doubled even by another
        process that repeats it.
        """
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
        item = bodies.item(message, self.session.replicas.zone)
        ids = yield from self.put_items([item], idempotency_key)
        return ids[0]

    def put_many(
        self, messages: Iterable[NewMessage | Any], *, idempotency_key: str | None = None
    ) -> Steps[tuple[MessageId, ...]]:
        """Put messages, all or none of them; their ids, in order.

        Each is a ``NewMessage`` or a value as for ``put``. A batch is JSON: raw bodies
        (``bytes``, or another content type) are refused with TypeError.
        """
        items = bodies.json_items(messages, self.session.replicas.zone)
        if not items:
            return ()
        return (yield from self.put_items(items, idempotency_key))

    def put_items(self, items: list[Item], key: str | None = None) -> Steps[tuple[MessageId, ...]]:
        """One request: any number of JSON messages, or one raw body.

        Of messages that need not persist there are no ids: they are empty.
        """
        first = items[0]
        path = f"{self.path}/messages"
        if first.raw_type is None:
            body = first.content if len(items) == 1 else bodies.batch(items)
            request = Request("POST", path, headers=JSON_HEADERS, body=body)
        else:
            assert len(items) == 1, "a raw body is a request of its own"
            headers = {**first.headers, "content-type": first.raw_type}
            request = Request("POST", path, first.query, headers, first.content)
        answer = yield from self.session.change(request, key)
        if answer.status == ACCEPTED:
            return (MessageId(),) * len(items)
        return decoded(answer, Put).named()

    def claim(
        self,
        limit: int = 1,
        *,
        lease: float | None = None,
        wait: float = 0.0,
        zone: str | None = None,
        zone_mode: ZoneMode | None = None,
        locality_wait: float | None = None,
        consumer: str | None = None,
        auto_ack: bool = False,
    ) -> Steps[ClaimCore]:
        """Take up to ``limit`` messages under a lease of so many seconds (None: the queue's).

        With ``wait`` the server keeps the request open for so long until there is one. A
        claim that found nothing is empty, and false. ``zone_mode`` (None: the queue's): of
        ``any`` zone, ``only`` of this one, or these first (``prefer``), and others once they
        are ``locality_wait`` seconds old. ``consumer``: who claims, for the history.
        ``auto_ack``: at most once. The messages are acked as they are claimed, and lost if the
        answer is, or if the work fails.
        """
        wanted = Wanted(
            limit=limit,
            lease=lease,
            wait=wait,
            zone=zone,
            zone_mode=zone_mode,
            locality_wait=locality_wait,
            consumer=consumer,
            auto_ack=auto_ack,
        )
        return (yield from claims.make(self, wanted))

    def peek(
        self,
        limit: int = 10,
        *,
        include_claimed: bool = False,
        headers: Mapping[str, str] | None = None,
        group: str | None = None,
        priority: int | None = None,
        zone: str | None = None,
        min_age: float | None = None,
        max_age: float | None = None,
        min_deliveries: int | None = None,
        state: State | None = None,
        consistency: Consistency = "session",
    ) -> Steps[tuple[Message, ...]]:
        """Look at messages, the oldest first, without claiming them.

        All that is given must hold; a header that is "" may have any value.
        """
        given = {
            "group": group,
            "priority": priority,
            "zone": zone,
            "min_age": min_age,
            "max_age": max_age,
            "min_deliveries": min_deliveries,
            "state": state,
        }
        wanted = {name: str(value) for name, value in given.items() if value is not None}
        wanted |= {f"header.{name}": value for name, value in (headers or {}).items()}
        found: list[Message] = []
        marker: str | None = ""
        while marker is not None and len(found) < limit:
            query = {"limit": str(min(limit - len(found), 500))}
            query |= {"include_claimed": "true"} if include_claimed else {}
            query |= {"marker": marker} if marker else {}
            query |= wanted
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
        ttl: float | Keep | None = "keep",
        delay: float | Keep | None = "keep",
        lease: float | Keep | None = "keep",
        max_deliveries: int | Keep | None = "keep",
        dead_letter_queue: str | None = "keep",
        retry_delay: float | Keep | None = "keep",
        retry_delay_max: float | Keep | None = "keep",
        dedup_window: float | Keep | None = "keep",
        zone_mode: ZoneMode | Keep | None = "keep",
        locality_wait: float | Keep | None = "keep",
        history: float | Keep | None = "keep",
        history_bytes: int | Keep | None = "keep",
        persistent: bool | Keep | None = "keep",
        metadata: Mapping[str, Any] | Keep | None = "keep",
    ) -> Steps[QueueInfo]:
        """Change the settings that are named (None: back to the account's); what holds now.

        The queue is created if there is none. api/PROTOCOL.md has what each is for.
        """
        given = {
            "ttl": ttl,
            "delay": delay,
            "lease": lease,
            "max_deliveries": max_deliveries,
            "dead_letter_queue": dead_letter_queue,
            "retry_delay": retry_delay,
            "retry_delay_max": retry_delay_max,
            "dedup_window": dedup_window,
            "zone_mode": zone_mode,
            "locality_wait": locality_wait,
            "history": history,
            "history_bytes": history_bytes,
            "persistent": persistent,
            "metadata": metadata,
        }
        body = bodies.encode({name: value for name, value in given.items() if value != "keep"})
        try:
            answer = yield from self.session.change(
                Request("PATCH", self.path, {}, JSON_HEADERS, body)
            )
        except Refused as refused:
            if refused.reason not in ("no_queue", "no_account"):
                raise
            answer = yield from self.session.change(
                Request("PUT", self.path, {}, JSON_HEADERS, body)
            )
        return decoded(answer, QueueInfo)

    def redrive(
        self, *, to: str | None = None, limit: int | None = None, rate: int | None = None
    ) -> Steps[Job]:
        """Move this queue's dead letters back, in the background: a job.

        Each to where it died, or all ``to`` another queue; ``limit`` of them at most, and
        ``rate`` at most in a second.
        """
        body = bodies.encode_given(to=to, limit=limit, rate=rate)
        request = Request("POST", f"{self.path}/redrive", {}, JSON_HEADERS, body)
        return decoded((yield from self.session.change(request)), Job)

    def start_job(
        self,
        act: Act,
        *,
        to: str | None = None,
        filter: Mapping[str, Any] | None = None,
        limit: int | None = None,
        rate: int | None = None,
        dry_run: bool = False,
    ) -> Steps[Job]:
        """Do the same to all messages that ``filter`` means, in the background.

        api/PROTOCOL.md has what a filter is. ``dry_run``: only count.
        """
        body = bodies.encode_given(
            act=act, to=to, filter=filter, limit=limit, rate=rate, dry_run=dry_run
        )
        request = Request("POST", f"{self.path}/job", {}, JSON_HEADERS, body)
        return decoded((yield from self.session.change(request)), Job)

    def job(self, *, consistency: Consistency = "session") -> Steps[Job]:
        """How far the job is, or what the last one has done."""
        request = Request("GET", f"{self.path}/job")
        return decoded((yield from self.session.read(request, consistency=consistency)), Job)

    def cancel_job(self) -> Steps[Job]:
        """Do no more; what was done."""
        answer = yield from self.session.change(Request("DELETE", f"{self.path}/job"))
        return decoded(answer, Job)

    def history(self, message: str, *, consistency: Consistency = "session") -> Steps[History]:
        """What happened to a message, also when it is gone."""
        found: list[QueueEvent] = []
        marker: str | None = ""
        path = f"{self.path}/messages/{quote(message, safe='')}/history"
        while marker is not None:
            request = Request("GET", path, {"marker": marker} if marker else {})
            answer = yield from self.session.read(request, consistency=consistency)
            page = decoded(answer, History)
            found += page.events
            marker = page.marker
        return History(events=tuple(found), whole=page.whole)

    def purge(self) -> Steps[int]:
        """Delete all messages, claimed ones too; how many there were."""
        answer = yield from self.session.change(Request("DELETE", f"{self.path}/messages"))
        return decoded(answer, Deleted).deleted

    def delete(self) -> Steps[None]:
        """Delete the queue with everything in it."""
        yield from self.session.change(Request("DELETE", self.path))
