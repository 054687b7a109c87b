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
    NO_SUBSCRIPTION = "no_subscription"
    TOO_MANY_SUBSCRIPTIONS = "too_many_subscriptions"


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """The command was valid but could not take effect; state is unchanged."""

    reason: Reason
    detail: str


class Enqueued(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The messages are in the queue under these ids, in the order they were given.

    At the positions in ``duplicates`` nothing was added: there the id is that of an
    earlier message with the same ``dedup_id``, which may be gone by now.
    """

    ids: tuple[MessageId, ...]
    duplicates: tuple[int, ...] = ()


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
    """

    claim: int
    until_ms: int
    messages: tuple[Delivered, ...]


class Extended(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The lease now ends at ``until_ms``."""

    until_ms: int


class Settled(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """How many messages an ack or release settled, and which of those named it did not hold."""

    settled: int
    stale: tuple[MessageId, ...] = ()


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
    | SubscriptionStored
    | SubscriptionsTaken
)
