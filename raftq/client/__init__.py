"""The Python client: ``Raftq`` for threads, ``AsyncRaftq`` for asyncio, one code base.

Rules: the core (``exchange``, ``operations``, ``claims``, ``events`` and the like) does no IO and
never waits; it yields ``effects``, which one of two ``drivers`` performs. Nothing of the
server is imported: what holds is api/PROTOCOL.md. DESIGN.md says what each call does when
a replica fails.
"""

from __future__ import annotations

from raftq.client.answers import (
    Cluster,
    History,
    Job,
    JobFailure,
    Member,
    Message,
    MessageId,
    QueueEvent,
    QueueInfo,
    Quota,
    Settings,
    Settled,
    Stats,
    Usage,
)
from raftq.client.asynchronous import (
    AsyncClaim,
    AsyncClaimedMessage,
    AsyncConsumer,
    AsyncEvents,
    AsyncProducer,
    AsyncQueue,
    AsyncRaftq,
)
from raftq.client.blocking import Claim, ClaimedMessage, Consumer, Events, Producer, Queue, Raftq
from raftq.client.bodies import NewMessage
from raftq.client.claims import Wanted
from raftq.client.errors import (
    BodyLost,
    Closed,
    Forbidden,
    LeaseLost,
    OutcomeUnknown,
    QuotaExceeded,
    RaftqError,
    Refused,
    Unauthorized,
    Unavailable,
)
from raftq.client.transactions import GiveBack, Transacted

__all__ = [
    "AsyncClaim",
    "AsyncClaimedMessage",
    "AsyncConsumer",
    "AsyncEvents",
    "AsyncProducer",
    "AsyncQueue",
    "AsyncRaftq",
    "BodyLost",
    "Claim",
    "ClaimedMessage",
    "Closed",
    "Cluster",
    "Consumer",
    "Events",
    "Forbidden",
    "GiveBack",
    "History",
    "Job",
    "JobFailure",
    "LeaseLost",
    "Member",
    "Message",
    "MessageId",
    "NewMessage",
    "OutcomeUnknown",
    "Producer",
    "Queue",
    "QueueEvent",
    "QueueInfo",
    "Quota",
    "QuotaExceeded",
    "Raftq",
    "RaftqError",
    "Refused",
    "Settings",
    "Settled",
    "Stats",
    "Transacted",
    "Unauthorized",
    "Unavailable",
    "Usage",
    "Wanted",
]
