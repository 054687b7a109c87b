"""Every command that may enter the log, declared once.

The union ``Command`` is the registry: the codec, the dispatch in ``machine`` and
the fuzzers are derived from it, so that a command missing from any of them is a
type error rather than a surprise in production.

A tag is a promise to every log ever written. Never reuse or renumber one, and
add fields only at the end with a default; a change of meaning is a new tag.
Times are whole milliseconds; ``None`` means "as the queue says".
"""

from __future__ import annotations

import msgspec

from statemachine.decoding import decoded
from statemachine.parts import Act as Act
from statemachine.parts import DeadLetter as DeadLetter
from statemachine.parts import Filter as Filter
from statemachine.parts import HeaderMatch as HeaderMatch
from statemachine.parts import KeySettings as KeySettings
from statemachine.parts import MessageId as MessageId
from statemachine.parts import MessageState as MessageState
from statemachine.parts import Missed as Missed
from statemachine.parts import NewMessage as NewMessage
from statemachine.parts import PartAck as PartAck
from statemachine.parts import PartPut as PartPut
from statemachine.parts import PartRelease as PartRelease
from statemachine.parts import QueueSettings as QueueSettings
from statemachine.parts import Quotas as Quotas
from statemachine.parts import SubscriptionName as SubscriptionName
from statemachine.parts import SubscriptionSettings as SubscriptionSettings
from statemachine.parts import Timing as Timing
from statemachine.parts import WrappedKey as WrappedKey
from statemachine.tenancy import DropSealingKeys as DropSealingKeys
from statemachine.tenancy import PutKey as PutKey
from statemachine.tenancy import PutSealingKeys as PutSealingKeys
from statemachine.tenancy import RevokeKey as RevokeKey
from statemachine.tenancy import RotateKey as RotateKey
from statemachine.tenancy import SetQuotas as SetQuotas
from statemachine.tenancy import UseKeys as UseKeys

ENTRY_VERSION = 1


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
    """Let a claim's lease end ``lease_ms`` from now.

    With ``ids`` only that of these messages: they go over to a claim of their own, unless
    they are all that the claim holds.
    """

    account: str
    queue: str
    claim: int
    lease_ms: int | None = None
    ids: tuple[MessageId, ...] | None = None


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


class Transact(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """Do all of it, or nothing if one of the claims does not hold what is named."""

    account: str
    acks: tuple[PartAck, ...] = ()
    puts: tuple[PartPut, ...] = ()
    releases: tuple[PartRelease, ...] = ()


class StartJob(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """Begin to do the same to all messages of a queue that are meant by a filter.

    "redrive" moves ready ones back to where they died, "move" to ``to``, "delete" deletes
    those that no claim holds, and "release" gives back those that one does. ``filter`` may
    name another state where that makes sense. It is done by sweeps: up to ``limit``
    messages, ``rate`` in a second; 0 is no bound. ``dry_run``: only count.
    """

    account: str
    queue: str
    to: str = ""
    limit: int = 0
    rate: int = 0
    act: Act = "redrive"
    filter: Filter = Filter()
    dry_run: bool = False


class ExtendMany(msgspec.Struct, frozen=True, array_like=True, tag=22):
    """Let the leases of several claims of one queue end ``lease_ms`` from now."""

    account: str
    queue: str
    claims: tuple[int, ...]
    lease_ms: int | None = None


class CancelJob(msgspec.Struct, frozen=True, array_like=True, tag=23):
    """Do no more of a job; what it has done stays done."""

    account: str
    queue: str


class Take(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """Claim up to ``limit`` ready messages and acknowledge them at once: they are gone with it.

    Which ones is as for ``Claim``. There is no lease, and the claim is over when it is answered.
    """

    account: str
    queue: str
    limit: int
    zone: str = ""
    zone_mode: str | None = None
    locality_wait_ms: int | None = None
    consumer: str = ""


class TransactAndClaim(msgspec.Struct, frozen=True, array_like=True, tag=25):
    """Do a transaction and then, if it was done, claim; both are of one account.

    Whatever becomes of the claim does not undo the transaction.
    """

    transaction: Transact
    claim: Claim | Take

    @property
    def account(self) -> str:
        """Whose it is."""
        return self.transaction.account


class PutBinding(msgspec.Struct, frozen=True, array_like=True, tag=30):
    """Send messages put to ``queue`` that match to ``target`` instead; see ``bindings``.

    ``any_of``: one of ``match`` is enough; otherwise all must hold.
    """

    account: str
    queue: str
    target: str
    match: tuple[HeaderMatch, ...]
    any_of: bool = False


class DeleteBinding(msgspec.Struct, frozen=True, array_like=True, tag=31):
    """Bind no more; what was delivered stays where it is."""

    account: str
    queue: str
    target: str


class PutSchedule(msgspec.Struct, frozen=True, array_like=True, tag=32):
    """Create a schedule or replace one; the same one again changes nothing.

    ``next_ms`` is the first tick, None if there is none.
    """

    account: str
    schedule: str
    queue: str
    message: NewMessage
    timing: Timing
    next_ms: int | None


class DeleteSchedule(msgspec.Struct, frozen=True, array_like=True, tag=33):
    """Tick no more; what was put stays where it is."""

    account: str
    schedule: str


class Tick(msgspec.Struct, frozen=True, array_like=True, tag=34):
    """Put a schedule's message for the tick at ``due_ms``, and wait for ``next_ms``.

    Refused unless that is the tick it waits for, and it is of this ``version``: so it makes
    no difference how many leaders propose it, or how often. ``skip``: put nothing.
    """

    account: str
    schedule: str
    version: int
    due_ms: int
    next_ms: int | None
    skip: bool = False


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


class TakeSubscriptions(msgspec.Struct, frozen=True, array_like=True, tag=43):
    """A node that runs subscriptions says that it still does; it is believed for ``lease_ms``.

    It gives back those in ``drop``, and gets those in ``take`` that no other such node has.
    A lease of nothing gives all back.
    """

    node: str
    lease_ms: int
    take: tuple[SubscriptionName, ...] = ()
    drop: tuple[SubscriptionName, ...] = ()


class Audited(msgspec.Struct, frozen=True, array_like=True, tag=54):
    """Do an administrative act, and write down who asked for it and how it ended.

    Records older than ``keep_ms``, and the oldest of the same ``owner`` beyond ``keep_bytes``,
    go as later ones come. With a ``key`` it is refused unless that access key is still there: a
    replica that does not know yet that it is not may have let in whoever asks.
    """

    account: str
    owner: str
    actor: str
    source: str
    request: str
    keep_ms: int
    keep_bytes: int
    command: AdministrativeCommand
    key: str = ""


AdministrativeCommand = (
    Purge
    | PutQueue
    | PatchQueue
    | DeleteQueue
    | PutAccount
    | PatchAccount
    | DeleteAccount
    | StartJob
    | CancelJob
    | PutBinding
    | DeleteBinding
    | PutSchedule
    | DeleteSchedule
    | PutSubscription
    | DeleteSubscription
    | PutKey
    | RotateKey
    | RevokeKey
    | PutSealingKeys
    | DropSealingKeys
    | SetQuotas
)
"""What a front end may propose only with the record of it."""

QueueCommand = (
    Enqueue
    | Claim
    | Take
    | Extend
    | Ack
    | Release
    | DeleteMessages
    | Transact
    | TransactAndClaim
    | ExtendMany
    | DisableSubscription
    | TakeSubscriptions
    | UseKeys
    | Audited
    | AdministrativeCommand
)
"""What a front end may propose."""

Command = QueueCommand | Sweep | OpenSession | Barrier | ReportDigest | Once | TakeDigest | Tick


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
    return decoded(_entries, data)


def decode_batch(data: bytes) -> Batch:
    """Inverse of ``encode``; raises ``msgspec.MsgspecError``."""
    return decoded(_batches, data)
