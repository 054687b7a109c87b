"""What is measured, and for how long: three sizes of the same plan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

NULL, ENDPOINT, BARE = "null", "endpoint", "bare"
"""Baselines: an empty Starlette handler, an ASGI endpoint under its router, bare ASGI."""
BASELINES = (NULL, ENDPOINT, BARE)
PUT = "put"
WEAK_PUT = "put-weak"
"""Puts of messages that need not persist."""
LIFECYCLE = "lifecycle"
ROUNDS = "rounds"
"""Lifecycles that claim with the ack of what was claimed before."""
CONSUME = "consume"
"""Lifecycles in which messages are given to who has a stream of claims."""
TRANSACTION = "transaction"
"""Lifecycles of which one request acks the message before, puts, and claims what is next."""
LIFECYCLES = (LIFECYCLE, ROUNDS, TRANSACTION, CONSUME)
STREAM = "stream"
"""Puts in lines, of which so many are on their way on each connection as a batch has."""
FOLLOWER, LEADER, ALL = TARGETS = ("follower", "leader", "all")
KIB = 1024
BODY_BYTES = KIB
MUCH_BYTES = 4 * KIB * KIB
MANY_CONNECTIONS = 128
MANY_QUEUES = 2_000
"""What takes long: more bytes than these at once, a lifecycle of more connections, or queues,
most of which are to have their turn."""
SUBJECTS = (
    (PUT, FOLLOWER),
    (PUT, LEADER),
    (PUT, ALL),
    (WEAK_PUT, ALL),
    (LIFECYCLE, FOLLOWER),
    (LIFECYCLE, LEADER),
    (LIFECYCLE, ALL),
)
EVERYWHERE = tuple(subject for subject in SUBJECTS if subject[1] == ALL)


class Cell(NamedTuple):
    """One thing that is measured in every repetition."""

    scenario: str
    target: str
    connections: int
    batch: int
    body_bytes: int = BODY_BYTES
    queues: int = 1
    """Shared by all connections if it is one; else each connection has its own of them."""

    @property
    def baseline(self) -> Cell:
        """The empty handler at as many connections, with bodies of this size."""
        return Cell(NULL, NULL, self.connections, 1, self.body_bytes)


class Plan(NamedTuple):
    """Sizes of a run."""

    name: str
    connections: tuple[int, ...]
    batches: tuple[tuple[int, int], ...]
    """(connections, messages in a request) beyond single messages."""
    bodies: tuple[int, ...]
    queues: tuple[int, ...]
    repetitions: int
    warmup_s: float
    measure_s: float
    open_s: float
    """At each rate of requests that do not wait for each other."""
    idle_s: float
    backlog: int
    claims: int
    parked: int
    """Claims that wait, on each node."""
    parked_s: float
    wakes: int
    kills: int
    """Of leaders."""
    overload_s: float
    open_connections: int
    """That an overload comes on."""
    noisy_s: float
    churn_s: float
    body_bytes: int = BODY_BYTES

    def lasting(self, cell: Cell) -> Plan:
        """With so much time that even what is large or crowded happens several times."""
        much = cell.connections * cell.batch * cell.body_bytes / MUCH_BYTES
        factor = max(much, cell.queues / MANY_QUEUES, 1)
        if cell.scenario in LIFECYCLES:
            factor = max(cell.connections / MANY_CONNECTIONS, factor)
        return self._replace(warmup_s=factor * self.warmup_s, measure_s=factor * self.measure_s)

    def by_connections(self) -> list[Cell]:
        """All that can be asked of a cluster, and all baselines."""
        pairs = [*((name, name) for name in BASELINES), *SUBJECTS]
        return [
            Cell(*pair, connections, 1, self.body_bytes)
            for connections in self.connections
            for pair in pairs
        ]

    def by_batch(self) -> list[Cell]:
        """More messages in a request, and as many on their way where there are no requests."""
        return _with_baselines(
            Cell(*subject, connections, batch, self.body_bytes)
            for connections, batch in ((self.several, 1), *self.batches)
            for subject in (*EVERYWHERE, *((one, ALL) for one in (*LIFECYCLES, STREAM)))
        )

    def by_body(self) -> list[Cell]:
        """Smaller and larger messages."""
        return _with_baselines(
            Cell(scenario, ALL, self.several, 1, body_bytes)
            for body_bytes in self.bodies
            for scenario in (PUT, LIFECYCLE)
        )

    def by_queues(self) -> list[Cell]:
        """Messages for more and more queues."""
        return _with_baselines(
            Cell(scenario, ALL, self.several, 1, self.body_bytes, queues)
            for queues in self.queues
            for scenario in (PUT, LIFECYCLE)
        )

    @property
    def several(self) -> int:
        """Connections, where their number is not what matters."""
        return self.batches[0][0]


def _with_baselines(cells: Iterable[Cell]) -> list[Cell]:
    """In the order of a repetition: each baseline just before what is compared with it."""
    found: dict[Cell, None] = {}
    for cell in cells:
        found[cell.baseline] = None
        found[cell] = None
    return list(found)


PLANS = {
    plan.name: plan
    for plan in (
        Plan(
            name="full",
            connections=(1, 16, 64, 256, 1_024),
            batches=((16, 10), (16, 64), (16, 1_000)),
            bodies=(64, KIB, 64 * KIB, KIB * KIB),
            queues=(1, 100, 10_000),
            repetitions=4,
            warmup_s=0.2,
            measure_s=0.8,
            open_s=6.0,
            idle_s=10.0,
            backlog=1_000_000,
            claims=2_000,
            parked=1_000,
            parked_s=10.0,
            wakes=100,
            kills=7,
            overload_s=20.0,
            open_connections=4_800,
            noisy_s=6.0,
            churn_s=7_200.0,
        ),
        Plan(
            name="quick",
            connections=(1, 16, 64, 256),
            batches=((16, 64),),
            bodies=(64, 64 * KIB),
            queues=(1, 1_000),
            repetitions=2,
            warmup_s=0.1,
            measure_s=0.4,
            open_s=1.5,
            idle_s=2.0,
            backlog=50_000,
            claims=100,
            parked=1_000,
            parked_s=2.0,
            wakes=20,
            kills=2,
            overload_s=4.0,
            open_connections=4_800,
            noisy_s=1.5,
            churn_s=60.0,
        ),
        Plan(
            name="slice",
            connections=(2,),
            batches=((2, 8),),
            bodies=(64, 64 * KIB),
            queues=(1, 8),
            repetitions=1,
            warmup_s=0.05,
            measure_s=0.3,
            open_s=0.4,
            idle_s=0.2,
            backlog=2_000,
            claims=10,
            parked=5,
            parked_s=0.2,
            wakes=3,
            kills=1,
            overload_s=1.0,
            open_connections=30,
            noisy_s=0.5,
            churn_s=1.0,
        ),
    )
}
