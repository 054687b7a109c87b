"""Every command that may enter the log, declared once.

The union ``Command`` is the registry: the codec, the dispatch in ``machine`` and
the fuzzers are derived from it, so that a command missing from any of them is a
type error rather than a surprise in production.

A tag is a promise to every log ever written. Never reuse or renumber one, and
add fields only at the end with a default; a change of meaning is a new tag.
Times are whole milliseconds; ``None`` means "as the queue says".
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")

ENTRY_VERSION = 1
MessageId = bytes
"""Ten bytes: u16 lane, u64 sequence, big-endian; the end of the message's key."""


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


class Enqueue(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Append messages, all or none; creates account and queue if they do not exist."""

    account: str
    queue: str
    messages: tuple[NewMessage, ...]


class Claim(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Lease up to ``limit`` ready messages: of the highest priority first, then by age.

    ``zone_mode`` "only" takes messages of the claim's zone and of none; "prefer" takes
    others when they have waited for ``locality_wait_ms``; anything else takes any.
    """

    account: str
    queue: str
    limit: int
    lease_ms: int | None = None
    zone: str = ""  # Where the consumer is.
    zone_mode: str | None = None
    locality_wait_ms: int | None = None
    consumer: str = ""


class Extend(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Let a claim's lease end ``lease_ms`` from now."""

    account: str
    queue: str
    claim: int
    lease_ms: int | None = None


class Ack(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Delete messages held under a claim; ``ids`` None means all it still holds."""

    account: str
    queue: str
    claim: int
    ids: tuple[MessageId, ...] | None = None


class Release(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Give messages of a claim back, claimable after ``delay_ms``; ids None means all.

    ``reason`` is what went wrong with them, if something did. With ``dead`` they become
    dead letters at once.
    """

    account: str
    queue: str
    claim: int
    ids: tuple[MessageId, ...] | None = None
    delay_ms: int | None = None
    reason: str = ""
    dead: bool = False


class DeleteMessages(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Delete messages whatever their state; absent ones are counted, not refused."""

    account: str
    queue: str
    ids: tuple[MessageId, ...]


class Purge(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Delete every message of a queue, those in flight included, and all its claims."""

    account: str
    queue: str


class PutQueue(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Create a queue, or replace all settings of an existing one."""

    account: str
    queue: str
    settings: QueueSettings


class PatchQueue(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Change the named settings; ``fields`` says which members of ``settings`` count."""

    account: str
    queue: str
    settings: QueueSettings
    fields: tuple[str, ...]


class DeleteQueue(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Delete a queue with everything in it."""

    account: str
    queue: str


class PutAccount(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Create an account, or replace the defaults of an existing one."""

    account: str
    defaults: QueueSettings


class PatchAccount(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """Change the named defaults of an account."""

    account: str
    defaults: QueueSettings
    fields: tuple[str, ...]


class DeleteAccount(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """Delete an account; refused while it has queues."""

    account: str


class Sweep(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """Do up to ``limit`` acts that are due: leases, delays, TTLs, idempotency keys, sessions."""

    limit: int


class OpenSession(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """Register a node as a source of batches; the outcome carries its session."""

    node: str


class Barrier(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """Do nothing, in order: whoever sees the outcome has seen all that went before."""


class ReportDigest(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """The leader's digest of the state as it was right after the entry at ``index``.

    The state machine only echoes it; each node compares it with its own.
    """

    index: int
    digest: bytes


class Once(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """Run ``command`` unless ``key`` was used within ``window_ms``; then repeat its outcome.

    ``fingerprint`` identifies the request: the same key with another fingerprint is refused.
    """

    account: str
    key: str
    fingerprint: bytes
    window_ms: int
    command: QueueCommand


class TakeDigest(msgspec.Struct, frozen=True, array_like=True, tag=19):
    """Ask every node to take a digest of its state right after this entry."""


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


class PutSubscription(msgspec.Struct, frozen=True, array_like=True, tag=40):
    """Create a subscription, or replace an existing one and let it run again.

    ``made``: the secret was made up for it, and an existing one keeps its own.
    """

    account: str
    queue: str
    name: str
    settings: SubscriptionSettings
    secret: bytes
    made: bool

    def __repr__(self) -> str:
        """Without the secret."""
        return f"PutSubscription({self.account!r}, {self.queue!r}, {self.name!r}, {self.settings})"


class DeleteSubscription(msgspec.Struct, frozen=True, array_like=True, tag=41):
    """Delete a subscription."""

    account: str
    queue: str
    name: str


class DisableSubscription(msgspec.Struct, frozen=True, array_like=True, tag=42):
    """Let a subscription rest until it is put again, unless that has happened: see ``revision``."""

    account: str
    queue: str
    name: str
    revision: int
    reason: str


SubscriptionName = tuple[str, str, str]
"""Account, queue and name."""


class TakeSubscriptions(msgspec.Struct, frozen=True, array_like=True, tag=43):
    """A node that runs subscriptions says that it still does; it is believed for ``lease_ms``.

    It gives back those in ``drop``, and gets those in ``take`` that no other such node has.
    A lease of nothing gives all back.
    """

    node: str
    lease_ms: int
    take: tuple[SubscriptionName, ...] = ()
    drop: tuple[SubscriptionName, ...] = ()


QueueCommand = (
    Enqueue
    | Claim
    | Extend
    | Ack
    | Release
    | DeleteMessages
    | Purge
    | PutQueue
    | PatchQueue
    | DeleteQueue
    | PutAccount
    | PatchAccount
    | DeleteAccount
    | PutSubscription
    | DeleteSubscription
    | DisableSubscription
    | TakeSubscriptions
)
"""What a front end may propose."""

Command = QueueCommand | Sweep | OpenSession | Barrier | ReportDigest | Once | TakeDigest


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """The commands one node gathered, proposed and remembered as a unit.

    ``session`` 0 is the leader's own housekeeping: never remembered, never retried.
    Otherwise (``session``, ``seq``) identifies the batch for ever, and the node promises
    never again to ask for an outcome below ``floor`` (Ongaro's dissertation, section 6.3).
    """

    session: int
    seq: int
    floor: int
    commands: tuple[Command, ...]


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One log entry: the batches of all nodes, and the time its leader gave it."""

    version: int
    stamp_ms: int  # Unix time; the state machine never lets it run backwards.
    batches: tuple[Batch, ...]


_encoder = msgspec.msgpack.Encoder()
_entries = msgspec.msgpack.Decoder(Entry)
_batches = msgspec.msgpack.Decoder(Batch)


def encode(value: Entry | Batch) -> bytes:
    """Bytes for the log or the wire; equal values encode to equal bytes."""
    return _encoder.encode(value)


def decode_entry(data: bytes | memoryview) -> Entry:
    """Inverse of ``encode``; raises ``msgspec.MsgspecError``. Halting beats diverging."""
    return _decoded(_entries, data)


def decode_batch(data: bytes) -> Batch:
    """Inverse of ``encode``; raises ``msgspec.MsgspecError``."""
    return _decoded(_batches, data)


def _decoded(decoder: msgspec.msgpack.Decoder[T], data: bytes | memoryview) -> T:
    try:
        return decoder.decode(data)
    except UnicodeDecodeError as error:  # The one error that is not of msgspec's own kind.
        raise msgspec.ValidationError(str(error)) from error
