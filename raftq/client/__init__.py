"""The Python client: ``Raftq`` for threads, ``AsyncRaftq`` for asyncio, one code base.

Rules: the core (``exchange``, ``operations``, ``consuming``, ``producing``) does no IO and
never waits; it yields ``effects``, which one of two ``drivers`` performs. Nothing of the
server is imported: what holds is api/PROTOCOL.md. DESIGN.md says what each call does when
a replica fails.
"""

from __future__ import annotations

from raftq.client.answers import Cluster, Member, Message, QueueInfo, Settings, Settled, Stats
from raftq.client.asynchronous import (
    AsyncClaim,
    AsyncClaimedMessage,
    AsyncConsumer,
    AsyncProducer,
    AsyncQueue,
    AsyncRaftq,
)
from raftq.client.blocking import Claim, ClaimedMessage, Consumer, Producer, Queue, Raftq
from raftq.client.bodies import NewMessage
from raftq.client.errors import (
    Closed,
    LeaseLost,
    OutcomeUnknown,
    RaftqError,
    Refused,
    Unavailable,
)

__all__ = [
    "AsyncClaim",
    "AsyncClaimedMessage",
    "AsyncConsumer",
    "AsyncProducer",
    "AsyncQueue",
    "AsyncRaftq",
    "Claim",
    "ClaimedMessage",
    "Closed",
    "Cluster",
    "Consumer",
    "LeaseLost",
    "Member",
    "Message",
    "NewMessage",
    "OutcomeUnknown",
    "Producer",
    "Queue",
    "QueueInfo",
    "Raftq",
    "RaftqError",
    "Refused",
    "Settings",
    "Settled",
    "Stats",
    "Unavailable",
]
