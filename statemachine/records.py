"""What the values of the store are made of.

Every record is a msgpack array: fields are only ever added at the end, with a
default. A message is a fixed header, its meta data and its body, so that the state
machine reads times and size without touching the rest, and the body is copied once.

Records that change with every command (queue, session, machine) are mutable: the
machine keeps them decoded and writes them once per round (``state``).
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec

from statemachine.commands import (
    Act,
    DeadLetter,
    Filter,
    HeaderMatch,
    KeySettings,
    MessageId,
    NewMessage,
    QueueSettings,
    Quotas,
    SubscriptionSettings,
    Timing,
)
from statemachine.outcomes import Outcome

FOR_EVER = 2**64 - 1
"""As a time: never. It sorts behind every time."""

Key = bytes
"""By another name where a record has a member ``bytes``."""

LAYOUT = 4
TIMED = 1
"""Message flag: fresh, and with an entry of its own in the queue's time index."""

DEAD = 2
"""Message flag: a dead letter."""

_HEADER = struct.Struct(">BQQI")  # Flags, expires_ms, enqueued_ms, bytes of meta data.
_DELIVERIES = struct.Struct(">I")
_DELAYED = struct.Struct(">QI")  # Due, deliveries.
_DEDUP = struct.Struct(">10sQ")  # Message id, until_ms.


class MachineRecord(msgspec.Struct, array_like=True):
    """Where the machine stands, and sums over all queues."""

    layout: int = LAYOUT
    index: int = 0
    term: int = 0
    stamp_ms: int = 0
    timers_low_ms: int = 0  # No timer is due before this.
    accounts: int = 0
    queues: int = 0
    ready: int = 0
    delayed: int = 0
    claimed: int = 0
    bytes: int = 0
    blocked: int = 0
    first_tick: Key = b""  # The first key in space f; empty if there is none.


class Stretch(msgspec.Struct, array_like=True):
    """A run of adjacent events that are forgotten together."""

    index: int  # Of the first event.
    from_ms: int
    last_index: int
    last_ordinal: int
    last_ms: int
    bytes: int = 0


class History(msgspec.Struct, array_like=True):
    """Where the events of a queue or an account lie, and up to where they are gone."""

    number: int
    gone_index: int = 0  # The last event that is gone; all later ones are there.
    gone_ordinal: int = 0
    bytes: int = 0
    stretches: list[Stretch] = []
    due_ms: int = 0  # When an account's own is looked at next; 0: there is no timer.


class EventRecord(msgspec.Struct, frozen=True, array_like=True):
    """What happened in a queue; when is in ``EventsRecord``, and what nobody said is left out."""

    ordinal: int  # Among the events of its log entry, of whatever queue.
    kind: int
    node: str = ""  # Which node had it done; empty: the leader, because it was due.
    claim: int = 0
    consumer: str = ""
    messages: bytes = b""  # Which ones, in runs: see ``events``.
    until_ms: int = 0  # The end of the lease; when a released message is ready.
    reason: str = ""
    target: str = ""  # The other queue it is about.
    count: int = 0  # How many messages were purged.


class EventsRecord(msgspec.Struct, frozen=True, array_like=True):
    """What happened in a queue by one log entry, whose index is in the key."""

    time_ms: int
    term: int
    events: tuple[EventRecord, ...]


class AccountRecord(msgspec.Struct, array_like=True):
    """An account, and exact sums over all that is in it: see ``quotas``."""

    defaults: QueueSettings
    created_ms: int
    history: History  # Of queues that are no more.
    queues: int = 0
    schedules: int = 0
    messages: int = 0
    bytes: int = 0
    in_flight: int = 0
    subscriptions: int = 0
    bindings: int = 0
    history_bytes: int = 0  # Of its own history and of those of its queues.
    quotas: Quotas | None = None  # None: there is no limit.


class LaneRecord(msgspec.Struct, array_like=True):
    """A queue's messages of one priority and zone; marks below which no scan need look."""

    priority: int
    zone: str  # Empty: of none.
    stored: int = 0  # Whatever their state.
    ready: int = 0  # Fresh and returned.
    returned: int = 0
    head: int = 0  # Nothing below is fresh; a message without flags from here on is.
    floor: int = 0  # No message without flags is below.
    flagged_floor: int = 0  # Neither is one with flags.
    returned_low: int = 0  # Nothing below is returned.
    expiry_high_ms: int = 0  # The latest expiry of the fresh messages that the head covers.


class Tally(msgspec.Struct, array_like=True):
    """What has happened in a queue; see ``rates``. A purge does not change it."""

    dead: int = 0  # Messages of the queue that became dead letters.
    leases_ended: int = 0  # Claims of which the lease ran out.
    slot: int = -1
    counts: list[int] = []


class QueueRecord(msgspec.Struct, array_like=True):
    """A queue: its settings, exact counts, and marks below which no scan need look."""

    number: int
    settings: QueueSettings
    created_ms: int
    history: History
    ready: int = 0
    delayed: int = 0
    claimed: int = 0
    blocked: int = 0  # Behind others of their groups.
    bytes: int = 0  # Of bodies.
    lanes: int = 0
    first: LaneRecord | None = None  # Most queues have no other lane.
    claims: int = 0  # That are open.
    claims_low: int = 0  # No open claim is below.
    leases_low: int = 0  # No open claim without an own deadline is below.
    lease_high_ms: int = 0  # The latest lease end of those claims.
    deleted_in_flight: int = 0  # Markers in space x.
    deadlines: int = 0  # Entries in space d.
    deadlines_low_ms: int = 0  # None is due before this.
    due_ms: int = FOR_EVER  # When the queue's timer goes; nothing in it is due before.
    dedup_ids: int = 0  # That are remembered.
    job_ms: int = FOR_EVER  # When there is something to do for the job in space j.
    tally: Tally = msgspec.field(default_factory=Tally)
    bindings: int = 0


class Held(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message under a claim."""

    id: MessageId
    deliveries: int
    bytes: int
    error: str = ""  # What was said when it was given back before.


class ClaimRecord(msgspec.Struct, array_like=True):
    """A claim and what it still holds; it is over when the lease ends."""

    queue: int
    until_ms: int
    timed: bool  # Whether it has an entry of its own in the queue's time index.
    messages: list[Held]
    consumer: str = ""


class GroupRecord(msgspec.Struct, frozen=True, array_like=True):
    """A group: it is there while it has members."""

    head: MessageId  # The first member.
    members: int


Trouble = Literal["claimed", "delayed", "no_source", "own_queue", "no_room"]
"""Why a job could not do with a message what it was to do."""


class Failure(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message with which a job could not do what it was to do."""

    id: MessageId
    reason: Trouble


class JobRecord(msgspec.Struct, array_like=True):
    """Something that is done to many of a queue's messages, also for a while after it has ended.

    What is meant by the filter is done, or failed, and the rest is skipped; only what is
    behind others of its group and had no turn is neither.
    """

    act: Act
    to: str
    filter: Filter
    dry_run: bool
    limit: int
    rate: int
    total: int  # How many there were to look at when it began.
    mark: int  # What came later than this is left alone.
    started_ms: int
    looked: int = 0
    done: int = 0
    skipped: int = 0
    failed: int = 0
    failures: list[Failure] = []  # The first of them.
    ended_ms: int = 0  # 0: it is running.
    cancelled: bool = False
    cursor: bytes = b""  # Up to here all was looked at.
    group: str = ""  # One of which the next message may be due its turn, behind the cursor.


class SessionRecord(msgspec.Struct, array_like=True):
    """A node that sends batches."""

    node: str
    floor: int
    used_ms: int


class OnceRecord(msgspec.Struct, frozen=True, array_like=True):
    """The outcome remembered under an idempotency key."""

    fingerprint: bytes
    until_ms: int
    outcome: Outcome


class Binding(msgspec.Struct, frozen=True, array_like=True):
    """Which messages go to ``target``."""

    target: str
    match: tuple[HeaderMatch, ...]
    any_of: bool
    created_ms: int


class BindingsRecord(msgspec.Struct, frozen=True, array_like=True):
    """All bindings of a queue, in the order of their targets."""

    bindings: tuple[Binding, ...]


class ScheduleRecord(msgspec.Struct, array_like=True):
    """A schedule, and the tick it waits for."""

    version: int  # One that only this putting of it has.
    queue: str
    message: NewMessage
    timing: Timing
    created_ms: int
    next_ms: int | None = None  # None: it ticks no more.
    ticks: int = 0
    last_ms: int | None = None  # The tick before.
    behind: int = 0  # How many ticks in a row came after the time of the one that follows.
    refused: int = 0  # Ticks that put nothing, since a quota had no room for it.


class SubscriptionRecord(msgspec.Struct, frozen=True, array_like=True):
    """A subscription, and which runner has it, dead or alive."""

    revision: int  # Another one each time it is put.
    settings: SubscriptionSettings
    secret: bytes
    created_ms: int
    node: str = ""
    runner: int = 0
    disabled_ms: int = 0
    disabled_reason: str = ""  # Empty: it is not disabled.

    def __repr__(self) -> str:
        """Without the secret: representations end up in logs."""
        return f"SubscriptionRecord({self.revision}, {self.settings}, node={self.node!r})"


class RunnerRecord(msgspec.Struct, frozen=True, array_like=True):
    """A node that runs subscriptions; a new number each time it begins anew."""

    number: int
    until_ms: int


class KeyRecord(msgspec.Struct, frozen=True, array_like=True):
    """An access key; ``before`` is the hash of the secret before this one."""

    account: str  # Empty: the operator's.
    settings: KeySettings
    hash: Key
    created_ms: int
    used_ms: int = 0  # To within an hour; 0: never.
    before: Key = b""
    before_until_ms: int = 0


class Meta(msgspec.Struct, frozen=True, array_like=True):
    """What a stored message carries beside its times and its body."""

    content_type: str
    headers: tuple[tuple[str, str], ...]
    zone: str
    priority: int = 0
    group: str = ""
    dead: DeadLetter | None = None
    content_encoding: str = ""


class StoredMessage(msgspec.Struct, frozen=True):
    """A message as it was put. ``arrived_ms`` is when it came into its queue."""

    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...]
    zone: str
    enqueued_ms: int
    expires_ms: int | None  # None: never.
    priority: int
    group: str
    arrived_ms: int
    dead: DeadLetter | None = None
    content_encoding: str = ""


class Times(msgspec.Struct, frozen=True, gc=False):
    """What the state machine needs to know of a stored message."""

    flags: int
    expires_ms: int
    enqueued_ms: int
    bytes: int  # Of the body.


_encoder = msgspec.msgpack.Encoder()
_meta = msgspec.msgpack.Decoder(Meta)
_plain_meta: dict[tuple[str, str, int], bytes] = {}
PLAIN_META_MAX = 1_000

encode = _encoder.encode
"""Bytes of any record; equal records encode to equal bytes."""

decode_machine = msgspec.msgpack.Decoder(MachineRecord).decode
decode_account = msgspec.msgpack.Decoder(AccountRecord).decode
decode_queue = msgspec.msgpack.Decoder(QueueRecord).decode
decode_lane = msgspec.msgpack.Decoder(LaneRecord).decode
decode_group = msgspec.msgpack.Decoder(GroupRecord).decode
decode_claim = msgspec.msgpack.Decoder(ClaimRecord).decode
decode_bindings = msgspec.msgpack.Decoder(BindingsRecord).decode
decode_schedule = msgspec.msgpack.Decoder(ScheduleRecord).decode
decode_session = msgspec.msgpack.Decoder(SessionRecord).decode
decode_job = msgspec.msgpack.Decoder(JobRecord).decode
decode_subscription = msgspec.msgpack.Decoder(SubscriptionRecord).decode
decode_runner = msgspec.msgpack.Decoder(RunnerRecord).decode
decode_key = msgspec.msgpack.Decoder(KeyRecord).decode
decode_once = msgspec.msgpack.Decoder(OnceRecord).decode
decode_events = msgspec.msgpack.Decoder(EventsRecord).decode
decode_outcomes = msgspec.msgpack.Decoder(tuple[Outcome, ...]).decode

encode_dedup = _DEDUP.pack


def encode_returned(deliveries: int, error: str) -> bytes:
    """The value of a returned message."""
    return _DELIVERIES.pack(deliveries) + error.encode()


def decode_returned(data: bytes) -> tuple[int, str]:
    """The (deliveries, error) of a returned message."""
    (deliveries,) = _DELIVERIES.unpack_from(data)
    return deliveries, data[_DELIVERIES.size :].decode()


def encode_delayed(due_ms: int, deliveries: int, error: str) -> bytes:
    """The value of a delayed message."""
    return _DELAYED.pack(due_ms, deliveries) + error.encode()


def decode_delayed(data: bytes) -> tuple[int, int, str]:
    """The (due_ms, deliveries, error) of a delayed message."""
    due_ms, deliveries = _DELAYED.unpack_from(data)
    return due_ms, deliveries, data[_DELAYED.size :].decode()


def decode_dedup(data: bytes) -> tuple[MessageId, int]:
    """The (message id, until_ms) of a ``dedup_id``."""
    message_id, until_ms = _DEDUP.unpack(data)
    return message_id, until_ms


def encode_message(message: NewMessage, flags: int, expires_ms: int, enqueued_ms: int) -> bytes:
    """The value of a message."""
    return message_head(message, flags, expires_ms, enqueued_ms) + message.body


def message_head(message: NewMessage, flags: int, expires_ms: int, enqueued_ms: int) -> bytes:
    """The value of a message up to its body."""
    if message.headers or message.group or message.dead or message.content_encoding:
        flags |= DEAD if message.dead else 0
        meta = _encoder.encode(
            Meta(
                message.content_type,
                message.headers,
                message.zone,
                message.priority,
                message.group,
                message.dead,
                message.content_encoding,
            )
        )
    else:
        kind = (message.content_type, message.zone, message.priority)
        meta = _plain_meta.get(kind) or _plain(*kind)
    return _HEADER.pack(flags, expires_ms, enqueued_ms, len(meta)) + meta


def decode_message(record: bytes) -> StoredMessage:
    """Inverse of ``encode_message``."""
    _, expires_ms, arrived_ms, size = _HEADER.unpack_from(record)
    body_at = _HEADER.size + size
    meta = _meta.decode(record[_HEADER.size : body_at])
    return StoredMessage(
        body=record[body_at:],
        content_type=meta.content_type,
        headers=meta.headers,
        zone=meta.zone,
        enqueued_ms=meta.dead.enqueued_ms if meta.dead else arrived_ms,
        expires_ms=None if expires_ms == FOR_EVER else expires_ms,
        priority=meta.priority,
        group=meta.group,
        arrived_ms=arrived_ms,
        dead=meta.dead,
        content_encoding=meta.content_encoding,
    )


def meta_of(record: bytes) -> Meta:
    """All of a message but its times and its body."""
    size = _HEADER.unpack_from(record)[3]
    return _meta.decode(record[_HEADER.size : _HEADER.size + size])


def group_of(record: bytes) -> str:
    """A message's group; empty if it has none."""
    return meta_of(record).group


def times(record: bytes) -> Times:
    """A message's header."""
    flags, expires_ms, enqueued_ms, size = _HEADER.unpack_from(record)
    return Times(flags, expires_ms, enqueued_ms, len(record) - _HEADER.size - size)


def _plain(content_type: str, zone: str, priority: int) -> bytes:
    """Meta data without headers: few different ones, encoded once."""
    if len(_plain_meta) >= PLAIN_META_MAX:
        _plain_meta.clear()
    meta = _encoder.encode(Meta(content_type, (), zone, priority))
    _plain_meta[content_type, zone, priority] = meta
    return meta
