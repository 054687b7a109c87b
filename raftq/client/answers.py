"""What replicas answer, typed. Fields that a newer server adds are ignored."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar, overload

import msgspec

UNSET = msgspec.UNSET
Unset = msgspec.UnsetType

T = TypeVar("T")


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
    body_json: msgspec.Raw | Unset = msgspec.field(name="body", default=UNSET)
    body_text: str | Unset = UNSET
    body_base64: bytes | Unset = UNSET

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, state={self.state!r}, body={self.body!r})"

    @property
    def body(self) -> Any:
        """What was put: a JSON value, text (``text/...``) or bytes (anything else)."""
        if isinstance(self.body_json, msgspec.Raw):
            return msgspec.json.decode(self.body_json)
        return self.body_base64 if isinstance(self.body_text, Unset) else self.body_text

    @property
    def data(self) -> bytes:
        """The body as the bytes that are stored."""
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


class Put(msgspec.Struct, frozen=True):
    """The ids of what was queued, in its order."""

    ids: tuple[str, ...]


class Claimed(msgspec.Struct, frozen=True):
    """Messages under a lease."""

    claim: str
    lease_until: datetime
    messages: tuple[Message, ...]


class Lease(msgspec.Struct, frozen=True):
    """When the lease ends now."""

    lease_until: datetime


class Settled(msgspec.Struct, frozen=True):
    """How many messages were settled; ``stale`` names those the claim did not hold."""

    settled: int
    stale: tuple[str, ...] = ()


class Acked(msgspec.Struct, frozen=True):
    """The answer to an ack."""

    acked: int
    stale: tuple[str, ...] = ()


class Released(msgspec.Struct, frozen=True):
    """The answer to a release."""

    released: int
    stale: tuple[str, ...] = ()


class Page(msgspec.Struct, frozen=True):
    """Some messages, in the order of their ids; ``marker`` leads to the next."""

    messages: tuple[Message, ...]
    marker: str | None


class Counts(msgspec.Struct, frozen=True):
    """Messages by state."""

    ready: int
    delayed: int
    claimed: int


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a queue."""

    messages: Counts
    bytes: int
    oldest_ready_at: datetime | None = None


class Deleted(msgspec.Struct, frozen=True):
    """How many messages are gone."""

    deleted: int


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What was set on a queue; None: as the account says. Times are seconds."""

    ttl: float | None = None
    delay: float | None = None
    lease: float | None = None
    metadata: dict[str, Any] | None = None


class InForce(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for a queue, the account's defaults included."""

    ttl: float
    delay: float
    lease: float


class QueueInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A queue and its settings."""

    name: str
    settings: Settings
    effective: InForce
    created_at: datetime
    messages: Counts
    bytes: int


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
