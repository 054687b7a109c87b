"""What commands are made of, declared once; ``commands`` says them again for its users.

New fields come at the end only, with a default: these values are in every log ever written.
"""

from __future__ import annotations

from typing import Literal

import msgspec

MessageId = bytes
"""Ten bytes: u16 lane, u64 sequence, big-endian; the end of the message's key."""

SubscriptionName = tuple[str, str, str]
"""Account, queue and name."""


class DeadLetter(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a dead letter was before, and why it is one."""

    reason: str  # "max_deliveries" or "rejected".
    error: str  # What was last said to be wrong with it, if anything was.
    queue: str
    id: MessageId
    deliveries: int
    enqueued_ms: int


class NewMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message as its producer sent it. ``body`` is opaque."""

    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()
    ttl_ms: int | None = None
    delay_ms: int | None = None
    zone: str = ""
    priority: int = 0  # Up to 9, which goes first.
    group: str = ""  # Messages of one group go one at a time, in order; empty: of none.
    dedup_id: str = ""  # Empty: any number of them.
    not_before_ms: int | None = None  # Instead of a delay.
    dead: DeadLetter | None = None
    content_encoding: str = ""  # Of the body, which is not looked into.


class QueueSettings(msgspec.Struct, frozen=True, array_like=True):
    """What an operator may set on a queue, or on an account as its queues' defaults.

    ``None`` in a queue means the account's default; ``None`` in an account means
    the built-in one (``statemachine.settings``). A ``ttl_ms`` of 0 means for ever,
    a ``max_deliveries`` of 0 any number, and a ``dead_letter_queue`` of "" the usual one.
    """

    ttl_ms: int | None = None
    delay_ms: int | None = None
    lease_ms: int | None = None
    metadata: bytes | None = None  # A JSON object, opaque to the state machine.
    max_deliveries: int | None = None
    dead_letter_queue: str | None = None
    retry_delay_ms: int | None = None
    retry_delay_max_ms: int | None = None
    dedup_window_ms: int | None = None
    zone_mode: str | None = None  # What claims do that do not say.
    locality_wait_ms: int | None = None
    history_ms: int | None = None  # For how long events are kept, at least; 0: none are.
    history_bytes: int | None = None  # How much is kept of them, at most; 0: nothing.
    persistent: bool | None = None  # Of messages that do not say; the nodes go by it, not the log.


class Quotas(msgspec.Struct, frozen=True, array_like=True):
    """How much of each kind an account may have at most; 0 is no limit. See ``quotas``."""

    queues: int = 0
    messages: int = 0  # Whatever their state.
    bytes: int = 0  # Of their bodies.
    in_flight: int = 0  # Messages under claims.
    subscriptions: int = 0
    schedules: int = 0
    bindings: int = 0
    history_bytes: int = 0


class PartAck(msgspec.Struct, frozen=True, array_like=True):
    """See ``Ack``."""

    queue: str
    claim: int
    ids: tuple[MessageId, ...] | None = None


class PartPut(msgspec.Struct, frozen=True, array_like=True):
    """See ``Enqueue``."""

    queue: str
    messages: tuple[NewMessage, ...]


class PartRelease(msgspec.Struct, frozen=True, array_like=True):
    """See ``Release``."""

    queue: str
    claim: int
    ids: tuple[MessageId, ...] | None = None
    delay_ms: int | None = None
    reason: str = ""
    dead: bool = False


class HeaderMatch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A header that has one of the values, or begins with one of the prefixes.

    Names are compared without regard to the case of ASCII letters.
    """

    header: str
    values: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()


MessageState = Literal["ready", "delayed", "claimed", "blocked"]


class Filter(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Which messages of a queue are meant: those of which all that is said holds.

    Ages count from when a message came into the queue, and an empty group or zone means
    those of none. See ``filters``.
    """

    headers: tuple[HeaderMatch, ...] = ()
    any_of: bool = False  # One of the headers is enough.
    group: str | None = None
    priority: int | None = None
    zone: str | None = None
    min_age_ms: int | None = None
    max_age_ms: int | None = None
    min_deliveries: int = 0
    state: MessageState | None = None


Act = Literal["redrive", "move", "delete", "release"]
"""What a job does: see ``StartJob``."""

Missed = Literal["once", "skip", "all"]
"""What becomes of ticks for which no leader was there."""


class Timing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """When a schedule ticks: by ``cron`` in ``timezone``, or every so often.

    The state machine only keeps it: it can not tell what a calendar says.
    """

    cron: str = ""
    every_ms: int = 0
    timezone: str = "UTC"
    start_ms: int | None = None
    end_ms: int | None = None
    missed: Missed = "once"


class KeySettings(msgspec.Struct, frozen=True, array_like=True):
    """What an access key may do. The state machine only keeps it: front ends ask and decide."""

    name: str
    roles: tuple[str, ...]
    queues: tuple[str, ...]  # Patterns.
    expires_ms: int | None = None


class WrappedKey(msgspec.Struct, frozen=True, array_like=True):
    """A data key, encrypted under the master key of this name; ``number`` 0: a new one."""

    number: int
    master: str
    wrapped: bytes

    def __repr__(self) -> str:
        """Without the key, wrapped as it is: representations end up in logs."""
        return f"WrappedKey({self.number}, {self.master!r})"


class SubscriptionSettings(msgspec.Struct, frozen=True, array_like=True):
    """Where and how a queue's messages are posted. The state machine only keeps it."""

    url: str
    headers: tuple[tuple[str, str], ...]
    lease_ms: int
    concurrency: int
    timeout_ms: int
    retry_base_ms: int
    retry_max_ms: int
    attempts: int

    def __repr__(self) -> str:
        """Without the headers, which may be credentials: representations end up in logs."""
        return f"SubscriptionSettings(url={self.url!r})"
