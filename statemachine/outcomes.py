"""What applying a command can answer.

A refusal is data, not an exception: it is part of the replicated history and
must come out the same on every replica. Exceptions are left for bugs, and a bug
in here must stop the replica before it writes anything.
"""

from __future__ import annotations

import enum

import msgspec

from statemachine.commands import MessageId


class Reason(enum.StrEnum):
    """Why a well-formed command was refused. The values are wire format: keep them."""

    NO_ACCOUNT = "no_account"
    NO_QUEUE = "no_queue"
    NO_CLAIM = "no_claim"  # It expired, was settled, or never was.
    ACCOUNT_IN_USE = "account_in_use"
    KEY_REUSED = "idempotency_key_reused"
    SESSION_EXPIRED = "session_expired"
    STALE_BATCH = "stale_batch"
    JOB_RUNNING = "job_running"
    NO_JOB = "no_job"
    NO_BINDING = "no_binding"
    NO_SCHEDULE = "no_schedule"
    TOO_MANY_BINDINGS = "too_many_bindings"
    TOO_MANY_SCHEDULES = "too_many_schedules"
    FAN_OUT_TOO_LARGE = "fan_out_too_large"  # By itself: it can never be done.
    FAN_OUT_BUSY = "fan_out_busy"  # Together with others that came at the same time.
    STALE_TICK = "stale_tick"
    NO_SUBSCRIPTION = "no_subscription"
    TOO_MANY_SUBSCRIPTIONS = "too_many_subscriptions"
    NO_KEY = "no_key"
    KEY_ENDED = "key_ended"  # That with which it was asked for.
    TOO_MANY_KEYS = "too_many_keys"
    TOO_MANY_SEALING_KEYS = "too_many_encryption_keys"
    STALE_SEAL = "stale_seal"  # Nodes seal the bodies anew: no client hears of it.
    QUOTA_EXCEEDED = "quota_exceeded"  # See ``Refused.over``.


class Why(enum.StrEnum):
    """What became of a message that a claim was said to hold and does not."""

    HELD = "held_by_another_claim"
    GONE = "gone"  # Acknowledged, expired, deleted or dead-lettered, or it never was.
    WAITING = "waiting"  # It is back in the queue, or about to be.
    TWICE = "named_twice"  # By two parts of a transaction.


class Over(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The quota for which there is no room, and what the account has of it."""

    quota: str
    limit: int
    usage: int


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """The command was valid but could not take effect; state is unchanged.

    ``why`` says of each message in ``stale`` what became of it, here and below.
    """

    reason: Reason
    detail: str
    stale: tuple[MessageId, ...] = ()
    why: tuple[Why, ...] = ()
    over: Over | None = None


class Place(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a message, or a copy of it, is."""

    queue: str
    id: MessageId


class Enqueued(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The messages are in the queue under these ids, in the order they were given.

    At the positions in ``duplicates`` nothing was added: there the id is that of an
    earlier message with the same ``dedup_id``, which may be gone by now. If the queue is
    bound to others, ``routed`` says of each message in which queues it is; its id in ``ids``
    is that in the first of them, and it is a duplicate only if it is one in all of them.
    """

    ids: tuple[MessageId, ...]
    duplicates: tuple[int, ...] = ()
    routed: tuple[tuple[Place, ...], ...] = ()


class Delivered(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message of a claim. ``record`` is for ``records.decode_message``."""

    id: MessageId
    deliveries: int  # This one included.
    record: bytes
    error: str = ""  # What was last said to be wrong with it.


class Claimed(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The caller holds the messages until ``until_ms``; none means there were none for it.

    ``claim`` is 0 when there are no messages. ``until_ms`` is then when the first of those
    becomes due to it that still wait for a consumer in their own zone; 0 if none does.
    Of a ``Take`` it is 0 too: its claim holds nothing.
    """

    claim: int
    until_ms: int
    messages: tuple[Delivered, ...]


class Extended(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The lease now ends at ``until_ms``; that of ``claim``, if the messages went over to one.

    ``until_ms`` is 0 if the claim holds none of the messages named.
    """

    until_ms: int
    claim: int = 0
    stale: tuple[MessageId, ...] = ()
    why: tuple[Why, ...] = ()


class Settled(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """How many messages an ack or release settled, and which of those named it did not hold."""

    settled: int
    stale: tuple[MessageId, ...] = ()
    why: tuple[Why, ...] = ()


class Deleted(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """How many messages were deleted."""

    count: int


class Stored(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Settings are in force; ``created`` says whether the queue or account is new."""

    created: bool


class Swept(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """How many due acts were done; ``more`` says that some are left."""

    count: int
    more: bool


class SessionOpened(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """The number under which the node's batches are remembered."""

    session: int


class Done(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Nothing to say: a barrier, a digest command, a deletion of a queue or account."""


class ManyExtended(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """The leases now end at ``until_ms``, but for those of ``ended``, which are over.

    Of each of these it is said whether the lease ran out and the messages go back.
    """

    until_ms: int
    ended: tuple[tuple[int, bool], ...] = ()


class StalePart(msgspec.Struct, frozen=True, array_like=True):
    """What is wrong with an ack, or with a release; releases count on after acks."""

    part: int
    ended: bool  # The claim is over.
    stale: tuple[MessageId, ...] = ()
    why: tuple[Why, ...] = ()


class Transacted(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """How many messages each part settled, and the ids of those put; or nothing, for ``stale``."""

    acked: tuple[int, ...] = ()
    released: tuple[int, ...] = ()
    put: tuple[Enqueued, ...] = ()
    stale: tuple[StalePart, ...] = ()


class TransactedAndClaimed(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """A transaction, and what the claim after it was answered: nothing, if it was not made."""

    transacted: Transacted
    claimed: Claimed | Refused | None


class SubscriptionStored(msgspec.Struct, frozen=True, array_like=True, tag=25):
    """The subscription is in force; ``secret`` is there if it was made for this command."""

    created: bool
    secret: bytes

    def __repr__(self) -> str:
        """Without the secret: representations end up in logs."""
        return f"SubscriptionStored(created={self.created})"


class SubscriptionsTaken(msgspec.Struct, frozen=True, array_like=True, tag=26):
    """The node runs subscriptions until ``until_ms``, as this ``runner``; 0 if it gave all back."""

    runner: int
    until_ms: int


class KeyStored(msgspec.Struct, frozen=True, array_like=True, tag=27):
    """The key that is there, and the hash of its secret: whoever put another one knows by it.

    Without an id nothing was stored, since the account has keys and none was to be added.
    """

    id: str
    hash: bytes
    created: bool


Outcome = (
    Refused
    | Enqueued
    | Claimed
    | Extended
    | Settled
    | Deleted
    | Stored
    | Swept
    | SessionOpened
    | Done
    | ManyExtended
    | Transacted
    | TransactedAndClaimed
    | SubscriptionStored
    | SubscriptionsTaken
    | KeyStored
)
