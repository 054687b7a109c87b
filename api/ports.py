"""What a front end needs from a node, in the front ends' own words.

``raftq.service`` provides it; ``tests/support`` has a one-process twin. No front
end may reach past this port, the native REST API included.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, Protocol, TypeVar

import msgspec
from starlette.types import Scope

from api.access.principals import Principal
from statemachine.commands import (
    Barrier,
    Claim,
    NewMessage,
    Once,
    QueueCommand,
    SubscriptionName,
    Take,
    Timing,
    WrappedKey,
)
from statemachine.kv import Reader
from statemachine.outcomes import Outcome
from statemachine.prospects import Prospects
from statemachine.records import StoredMessage
from statemachine.sealed import SealingKey
from statemachine.settings import Effective

M = TypeVar("M", StoredMessage, NewMessage)


class Unavailable(Exception):
    """Nothing was done, and nothing will be: safe to repeat. ``reason`` is a stable word."""

    def __init__(self, reason: str, detail: str, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.reason = reason  # "no_leader", "overloaded", "stopping"
        self.retry_after_s = retry_after_s


Lost = Literal["body_shredded", "body_damaged"]


class Unreadable(Exception):
    """The body of a message can not be given out, now or ever; ``reason`` is a stable word."""

    def __init__(self, reason: Lost, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class OutcomeUnknown(Exception):
    """The command may or may not take effect; only an idempotency key makes a repeat safe."""


class InvalidTiming(Exception):
    """No schedule can follow this; ``field`` is at fault."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field


Amount = Annotated[int, msgspec.Meta(ge=0)]
LimitName = Literal[
    "requests_per_s",
    "requests_burst",
    "bytes_per_s",
    "bytes_burst",
    "concurrent_max",
    "parked_max",
]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a request may ask for; sizes in bytes, times in milliseconds."""

    body_bytes_max: int = 1_048_576
    request_bytes_max: int = 4_194_304
    batch_messages_max: int = 1_000
    headers_max: int = 64
    header_bytes_max: int = 8_192  # Names and values of one message together.
    claim_messages_max: int = 1_000
    wait_ms_max: int = 60_000
    duration_ms_max: int = 315_360_000_000  # Ten years.
    page_max: int = 1_000
    idempotency_window_ms: int = 86_400_000


Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]
"""Of tokens: asymmetric ones, since with the others whoever can verify could sign too."""

TokenClaim = Annotated[str, msgspec.Meta(min_length=1)]
Seconds = Annotated[int, msgspec.Meta(ge=1)]


class OidcPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose tokens are believed, and what they say. No issuer: nobody's."""

    issuer: str = ""
    audience: str = ""
    algorithms: Annotated[tuple[Algorithm, ...], msgspec.Meta(min_length=1)] = ("RS256", "ES256")
    jwks_url: str = ""  # Empty: as the issuer's discovery document says.
    ca_file: str = ""  # Beside the system's authorities.
    account_claim: TokenClaim = "raftq_account"
    roles_claim: TokenClaim = "raftq_roles"
    queues_claim: TokenClaim = "raftq_queues"
    operators: bool = False  # Whether a token may make somebody the operator.
    leeway_s: Annotated[int, msgspec.Meta(ge=0, le=300)] = 30
    refresh_s: Seconds = 300
    retry_s: Seconds = 30
    keep_s: Seconds = 86_400


class AccessPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Whether clients have to say who they are, and how they are believed."""

    required: bool = False
    pepper: bytes = b""
    """What hashes of access keys are made with: the same on every replica."""
    staleness_ms_max: int = 1_000
    bootstrap_key: str = ""
    """A key of the operator's that is added if it is not there."""

    def __repr__(self) -> str:
        """Without the secrets: representations end up in logs."""
        return f"AccessPolicy(required={self.required!r})"


class AccountLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an account may ask of one node; 0: as much as there is.

    A burst of 0 is what its rate gives in a second.
    """

    requests_per_s: Amount = 0
    requests_burst: Amount = 0
    bytes_per_s: Amount = 0  # Of bodies, both ways.
    bytes_burst: Amount = 0
    concurrent_max: Amount = 0  # Requests that are being served.
    parked_max: Amount = 0  # Claims that wait, and streams of events.


class Fairness(AccountLimits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of each account, and by account and limit those that are other ones."""

    accounts: dict[str, dict[LimitName, Amount]] = {}


class AuditPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the audit log is kept."""

    keep_ms: int = 31_536_000_000  # A year.
    bytes_max: int = 67_108_864  # Of what operators did.
    account_bytes_max: int = 1_048_576  # Of what was done with the keys of one account.


class AccessLine(msgspec.Struct, frozen=True, kw_only=True):
    """An answered request, for the access log. Nothing of it is checked but its form."""

    request: str
    client: str
    actor: str  # Empty: nobody was asked, or nobody was believed.
    method: str
    path: str  # As it came, without the query, which may hold a signature.
    route: str
    status: int
    ms: float


class WebhookPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Where this node posts messages of subscriptions, and how much at once."""

    enabled: bool = True
    allow: tuple[str, ...] = ()  # Networks beside the public ones.
    http: bool = False  # Without TLS too.
    ports: tuple[int, ...] = ()  # Beside 80, 443 and those from 1024 on.
    requests_max: int = 128


class Delivery(enum.StrEnum):
    """How an attempt to post a message can end."""

    DELIVERED = "delivered"  # 2xx.
    REJECTED = "rejected"  # Any other status below 500.
    FAILED = "failed"  # 5xx.
    BUSY = "busy"  # 429 or 503.
    GONE = "gone"  # 410.
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    FORBIDDEN = "forbidden"  # An address or URL that this node does not connect to.
    UNREADABLE = "unreadable"  # The body is lost: there is nothing to post.
    LOST = "lost"  # The claim or the subscription ended meanwhile.


class Activity(msgspec.Struct, kw_only=True):
    """What the node that runs a subscription has seen since it took it over."""

    in_flight: int = 0
    last_success_ms: int | None = None
    last_error_ms: int | None = None
    last_error: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers, and how fresh the answer is. The source of the ``Raftq-*`` headers."""

    node: str
    zone: str
    role: str  # "leader", "follower", "candidate", "joining"
    applied_index: int
    staleness_ms: int
    """Since this node last knew itself up to date with a leader; 0 on a leader that is heard."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One replica, as the answering node sees it."""

    node: str
    zone: str
    api_url: str
    role: str  # "leader", "follower", "unreachable", "unknown"
    term: int
    applied_index: int
    lag: int
    """Entries behind the highest commit index the answering node knows."""
    rtt_ms: float | None = None
    """From the answering node and back, smoothed; null for itself, or if it is not known."""


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster, as the answering node sees it."""

    cluster_id: str
    leader: str | None
    term: int
    commit_index: int
    members: tuple[Member, ...]


class ZoneTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """What the answering node has exchanged with the nodes of one zone since it started."""

    zone: str
    frames_sent: int
    frame_bytes_sent: int
    frames_received: int
    frame_bytes_received: int


class ZoneMessages(msgspec.Struct, frozen=True, kw_only=True):
    """Messages of a zone that clients of a zone have put or claimed at the answering node."""

    message_zone: str
    client_zone: str
    put: int
    claimed: int


class Zones(msgspec.Struct, frozen=True, kw_only=True):
    """What crosses between zones, as the answering node has counted it."""

    node: str
    zone: str
    traffic: tuple[ZoneTraffic, ...]
    messages: tuple[ZoneMessages, ...]


Changed = tuple[str, ...] | None
"""Queues with new events, a nameless one for the account itself; None: any may have some."""


class Watch(Protocol):
    """How one reader of events learns that there are new ones: see ``watching``."""

    async def wait(self, timeout_s: float) -> Changed:
        """What has changed since this was last asked; nothing at the timeout."""
        ...

    @property
    def forget(self) -> Callable[[], None]:
        """Ends the watch."""
        ...


class Service(Protocol):
    """One node's queue service."""

    limits: Limits
    access: AccessPolicy
    fairness: Fairness
    webhooks: WebhookPolicy
    audit: AuditPolicy
    access_log_from: int
    """The lowest status of answers that the access log is to have."""
    activity: dict[SubscriptionName, Activity]
    """Of the subscriptions that this node runs: kept by what runs them, for others to read."""

    async def authenticate(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Principal:
        """Who sends the request; raises the problem that ends it if that is not known.

        Asked before anything of a request is read but its head.
        """
        ...

    def key_changes(self) -> int:
        """A number that grows whenever access keys may have changed in the applied state."""
        ...

    def key_used(self, key_id: str) -> None:
        """Remember that an access key was used just now, until somebody reports it."""
        ...

    def take_used_keys(self) -> set[str]:
        """The ids of the access keys that were used since last asked."""
        ...

    async def propose(
        self, command: QueueCommand | Once | Barrier, *, account: str | None = None
    ) -> Outcome:
        """Commit the command and answer its outcome, which this replica has applied by then.

        ``account``: whose turn it takes, if the command does not say whose it is.
        Raises Unavailable or OutcomeUnknown.
        """
        ...

    async def propose_all(self, commands: Sequence[QueueCommand]) -> list[Outcome]:
        """Commit commands of one account next to each other: all in one entry, or none.

        They may bring no bodies. The answer is their outcomes, in their order, of which each
        may be a refusal without changing the others. Raises Unavailable or OutcomeUnknown.
        """
        ...

    async def accept(self, command: QueueCommand | Once) -> Outcome | None:
        """Like ``propose``, but return as soon as the leader has taken the command.

        None: it has, and the outcome is not known yet; the command is on no disk, and is lost
        if that leader is. Raises Unavailable or OutcomeUnknown.
        """
        ...

    def opened(self, account: str, message: M) -> M:
        """A message with its body as it was put, whether it is sealed at rest or not.

        Raises Unreadable, or Unavailable on a node that does not have the keys for it.
        """
        ...

    def wrapped_key(self, account: str, key: SealingKey | None = None) -> WrappedKey:
        """A new key for an account's bodies, or a known one wrapped anew, as the log keeps it.

        Raises Unavailable on a node that does not have the keys for it.
        """
        ...

    def in_force(self, account: str, queue: str) -> Effective:
        """The settings of a queue as this replica knows them, or those that it would have."""
        ...

    def prospects(self, command: Claim | Take) -> Prospects:
        """What such a claim may find, as far as this replica knows."""
        ...

    def reader(self) -> Reader:
        """This replica's applied state, for ``statemachine.queries``.

        Valid until the caller next awaits.
        """
        ...

    def now_ms(self) -> int:
        """Unix milliseconds, for ages and for judging what is due; never behind log time."""
        ...

    def next_tick(self, timing: Timing, after_ms: int) -> int | None:
        """The first tick of such a schedule later than ``after_ms``; None if there is none.

        Raises InvalidTiming.
        """
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary point, for timing requests."""
        ...

    async def reach(self, index: int) -> None:
        """Return once this replica has applied ``index``; raises Unavailable if it takes long."""
        ...

    async def wait_ready(
        self,
        account: str,
        queue: str,
        timeout_s: float,
        *,
        zone: str | None = None,
        others: bool = False,
    ) -> bool:
        """Wait until this replica sees something become ready in the queue; False at the timeout.

        Waiters of one queue are woken in order, one for each message that became ready. With a
        ``zone`` only by what is of it or of none; with ``others`` also by what is of other zones
        and nobody who waits can take now. Costs nothing while nothing happens.
        """
        ...

    def wake_next(self, account: str, queue: str) -> None:
        """Wake who waits next in the queue, since whoever was woken may not take anything."""
        ...

    def watch_events(self, account: str, queue: str | None) -> Watch:
        """Be told when this replica sees new events in the queue, or in any of the account.

        A deletion tells too. The caller ends it with ``forget``.
        """
        ...

    def is_stopping(self) -> bool:
        """Whether this node is about to stop; watches are told when it begins to."""
        ...

    def when_stopping(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call back when this node begins to stop; answers how to wait for that no longer."""
        ...

    async def subscriptions_changed(self, seen: int, timeout_s: float) -> int:
        """Wait until this replica sees a change of subscriptions, or of who runs them.

        Answers a number that grows with each change: at once if it is not ``seen``, and
        else when it no longer is, or at the timeout.
        """
        ...

    def observe_limited(self, limit: enum.StrEnum) -> None:
        """Count one request that was beyond a limit of its account, by which limit that is."""
        ...

    def observe_delivery(self, how: Delivery, seconds: float) -> None:
        """Count one attempt to post a message."""
        ...

    def status(self) -> Status:
        """Who answers, now."""
        ...

    def cluster(self) -> Cluster:
        """All replicas."""
        ...

    def nearest(self, zone: str) -> str | None:
        """The API of a replica in the zone that can be reached and is a member, if there is one."""
        ...

    def zones(self) -> Zones:
        """What crosses between zones."""
        ...

    def observe_put(self, message_zones: Sequence[str], client_zone: str) -> None:
        """Count messages that a client has put: at least one."""
        ...

    def observe_claimed(self, message_zones: Sequence[str], client_zone: str) -> None:
        """Count messages that a client was given: at least one."""
        ...

    def ready(self) -> str | None:
        """None when this node can serve; otherwise why not."""
        ...

    def accounts_without_keys(self) -> tuple[str, ...]:
        """The accounts whose bodies this node can not open, for want of a master key."""
        ...

    def metrics(self) -> bytes:
        """The Prometheus text exposition."""
        ...

    def log_request(self, line: AccessLine) -> None:
        """Write a line to the access log."""
        ...

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request; ``route`` is the template, never the raw path."""
        ...
