"""What replicas answer, typed. Fields that a newer server adds are ignored."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar, overload

import msgspec

from raftq.client.errors import BodyLost, Problem

UNSET = msgspec.UNSET
Unset = msgspec.UnsetType

T = TypeVar("T")


class MessageId(str):
    """The id of a message that was put."""

    duplicate: bool = False
    """Whether its ``dedup_id`` was there before: this is the id of the message that had it."""

    @classmethod
    def known(cls, text: str) -> MessageId:
        """The id of a message that was there before."""
        made = cls(text)
        made.duplicate = True
        return made


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Why a message is a dead letter, and what it was."""

    reason: str
    error: str | None = None
    queue: str
    id: str
    deliveries: int
    at: datetime


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message as it lies in the queue."""

    id: str
    state: str
    content_type: str
    headers: dict[str, str]
    enqueued_at: datetime
    expires_at: datetime | None
    deliveries: int
    """How often it has been claimed, this time included."""
    zone: str
    priority: int = 0
    group: str | None = None
    last_error: str | None = None
    """What was said to be wrong when it was last given back."""
    dead: DeadLetter | None = None
    body_json: msgspec.Raw | Unset = msgspec.field(name="body", default=UNSET)
    body_text: str | Unset = UNSET
    body_base64: bytes | Unset = UNSET
    unreadable: str = ""
    """Why the body is lost, if it is: ``body_shredded`` or ``body_damaged``."""

    def __repr__(self) -> str:
        body = self.unreadable or repr(self.body)
        return f"{type(self).__name__}(id={self.id!r}, state={self.state!r}, body={body})"

    @property
    def body(self) -> Any:
        """What was put: a JSON value, text (``text/...``) or bytes (anything else).

        Raises ``BodyLost``.
        """
        self._check_readable()
        if isinstance(self.body_json, msgspec.Raw):
            return msgspec.json.decode(self.body_json)
        return self.body_base64 if isinstance(self.body_text, Unset) else self.body_text

    @property
    def data(self) -> bytes:
        """The body as the bytes that were put; raises ``BodyLost``."""
        self._check_readable()
        if isinstance(self.body_json, msgspec.Raw):
            return bytes(self.body_json)
        if isinstance(self.body_text, str):
            return self.body_text.encode()
        return b"" if isinstance(self.body_base64, Unset) else self.body_base64

    @overload
    def json(self) -> Any: ...

    @overload
    def json(self, kind: type[T]) -> T: ...

    def json(self, kind: Any = Any) -> Any:
        """The body, which is JSON, as a value of ``kind``: a struct, a dataclass, a list..."""
        return msgspec.json.decode(self.data, type=kind)

    def _check_readable(self) -> None:
        if self.unreadable:
            raise BodyLost(self.id, self.unreadable)


class Put(msgspec.Struct, frozen=True):
    """The ids of what was queued, in its order."""

    ids: tuple[str, ...]
    duplicates: tuple[int, ...] = ()

    def named(self) -> tuple[MessageId, ...]:
        """The ids, each knowing whether it is new."""
        before = set(self.duplicates)
        return tuple(
            MessageId.known(text) if place in before else MessageId(text)
            for place, text in enumerate(self.ids)
        )


class Claimed(msgspec.Struct, frozen=True):
    """Messages under a lease; or under none, if they were acknowledged at once."""

    claim: str | None
    lease_until: datetime | None
    messages: tuple[Message, ...]


class Lease(msgspec.Struct, frozen=True):
    """When the lease ends now; ``claim`` if it is a new claim, of some of the messages."""

    lease_until: datetime
    claim: str | None = None
    stale: tuple[str, ...] = ()


class Extended(msgspec.Struct, frozen=True):
    """What became of one claim of many; ``ended`` says why there is no lease any more."""

    claim: str
    lease_until: datetime | None = None
    ended: str | None = None


class ExtendedMany(msgspec.Struct, frozen=True):
    """In the order asked."""

    claims: tuple[Extended, ...]


class Settled(msgspec.Struct, frozen=True):
    """How many messages were settled; ``stale`` names those the claim did not hold.

    ``why`` says of each of these what became of it: ``held_by_another_claim``, ``waiting``
    (it is back in the queue) or ``gone``.
    """

    settled: int
    stale: tuple[str, ...] = ()
    why: dict[str, str] = {}


class Acked(msgspec.Struct, frozen=True):
    """The answer to an ack; the rest of one that claims what is next."""

    acked: int
    stale: tuple[str, ...] = ()
    why: dict[str, str] = {}
    claim_ended: bool = False
    next: Claimed | None = None
    next_refused: Problem | None = None


class Released(msgspec.Struct, frozen=True):
    """The answer to a release, or a nack."""

    released: int
    stale: tuple[str, ...] = ()
    why: dict[str, str] = {}


class Page(msgspec.Struct, frozen=True):
    """Some messages, in the order of their ids; ``marker`` leads to the next."""

    messages: tuple[Message, ...]
    marker: str | None


class Counts(msgspec.Struct, frozen=True):
    """Messages by state."""

    ready: int
    delayed: int
    claimed: int
    blocked: int = 0
    """Behind others of their group."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Messages per second over the last minute."""

    enqueued: float = 0.0
    claimed: float = 0.0
    acked: float = 0.0
    released: float = 0.0
    expired: float = 0.0
    dead: float = 0.0


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a queue. ``dead`` and ``leases_ended`` count since the queue is there."""

    messages: Counts
    bytes: int
    oldest_ready_at: datetime | None = None
    oldest_ready_age: float | None = None
    dead: int = 0
    leases_ended: int = 0
    rates: Rates = Rates()


class JobFailure(msgspec.Struct, frozen=True):
    """A message with which a job could do nothing, and why."""

    id: str
    reason: str


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is done to many messages; ``failures`` are the first of the ``failed``."""

    act: str
    state: str
    to: str | None
    filter: dict[str, Any]
    limit: int | None
    rate: int | None
    dry_run: bool
    total: int
    looked_at: int
    done: int
    skipped: int
    failed: int
    failures: tuple[JobFailure, ...]
    started_at: datetime
    ended_at: datetime | None


class EventMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message that something happened to; ``deliveries`` is 0 where nobody counted."""

    id: str
    deliveries: int = 0


class QueueEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened in a queue; api/PROTOCOL.md has the kinds."""

    id: str
    kind: str
    index: int
    term: int
    time: datetime
    queue: str
    node: str | None = None
    """Who took the request; None: something was due."""
    messages: tuple[EventMessage, ...] = ()
    deliveries: int = 0
    """In a message's history, which has no ``messages``."""
    claim: str | None = None
    consumer: str | None = None
    reason: str | None = None
    lease_until: datetime | None = None
    ready_at: datetime | None = None
    purged: int | None = None
    target: str | None = None


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a message; ``whole``: since it was put."""

    events: tuple[QueueEvent, ...]
    whole: bool
    marker: str | None = None


class Deleted(msgspec.Struct, frozen=True):
    """How many messages are gone."""

    deleted: int


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What was set on a queue; None: as the account says. Times are seconds."""

    ttl: float | None = None
    delay: float | None = None
    lease: float | None = None
    max_deliveries: int | None = None
    dead_letter_queue: str | None = None
    retry_delay: float | None = None
    retry_delay_max: float | None = None
    dedup_window: float | None = None
    zone_mode: str | None = None
    locality_wait: float | None = None
    history: float | None = None
    history_bytes: int | None = None
    persistent: bool | None = None
    metadata: dict[str, Any] | None = None


class InForce(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for a queue, the account's defaults included."""

    ttl: float
    delay: float
    lease: float
    max_deliveries: int = 0
    dead_letter_queue: str | None = None
    retry_delay: float = 0.0
    retry_delay_max: float = 0.0
    dedup_window: float = 0.0
    zone_mode: str = "any"
    locality_wait: float = 0.0
    history: float = 0.0
    history_bytes: int = 0
    persistent: bool = True


class QueueInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A queue and its settings."""

    name: str
    settings: Settings
    effective: InForce
    created_at: datetime
    messages: Counts
    bytes: int


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """How much there is, and how much there may be; None: any amount."""

    usage: int
    limit: int | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What an account has of what may be limited, all its queues together."""

    queues: Quota
    messages: Quota
    bytes: Quota
    in_flight: Quota
    subscriptions: Quota
    schedules: Quota
    bindings: Quota
    history_bytes: Quota


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One replica, as the one that answered sees it."""

    node: str
    zone: str
    api_url: str
    role: str
    term: int = 0
    applied_index: int = 0
    lag: int = 0


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """All replicas."""

    cluster_id: str
    leader: str | None
    term: int
    commit_index: int
    members: tuple[Member, ...]
