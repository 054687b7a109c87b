"""What is measured, and for how long: three sizes of the same plan."""

from __future__ import annotations

from typing import NamedTuple

NULL = "null"
PUT = "put"
WEAK_PUT = "put-weak"
"""Puts of messages that need not persist."""
LIFECYCLE = "lifecycle"
FOLLOWER = "follower"
ALL = "all"
SUBJECTS = (
    (PUT, FOLLOWER),
    (PUT, ALL),
    (WEAK_PUT, ALL),
    (LIFECYCLE, FOLLOWER),
    (LIFECYCLE, ALL),
)


class Cell(NamedTuple):
    """One thing that is measured in every repetition."""

    scenario: str
    target: str
    connections: int
    batch: int

    @property
    def baseline(self) -> Cell:
        """The empty handler at as many connections."""
        return Cell(NULL, NULL, self.connections, 1)


class Plan(NamedTuple):
    """Sizes of a run."""

    name: str
    connections: tuple[int, ...]
    batches: tuple[tuple[int, int], ...]
    """(connections, messages in a request) beyond single messages."""
    repetitions: int
    warmup_s: float
    measure_s: float
    backlog: int
    claims: int
    parked: int
    """Claims that wait, on each node."""
    parked_s: float
    wakes: int
    overload_s: float
    open_connections: int
    """That requests are sent on which do not wait for each other."""
    noisy_s: float
    body_bytes: int = 1024

    def cells(self) -> list[Cell]:
        """In the order of a repetition: each baseline just before what is compared with it."""
        sizes = [(count, 1) for count in self.connections] + list(self.batches)
        found: dict[Cell, None] = {}
        for connections, batch in sorted(sizes):
            cells = [Cell(scenario, target, connections, batch) for scenario, target in SUBJECTS]
            found[cells[0].baseline] = None
            found.update(dict.fromkeys(cells))
        return list(found)


CONNECTIONS = (1, 16, 64, 256)
PLANS = {
    plan.name: plan
    for plan in (
        Plan(
            name="full",
            connections=CONNECTIONS,
            batches=((16, 64), (64, 64)),
            repetitions=4,
            warmup_s=0.8,
            measure_s=4.0,
            backlog=1_000_000,
            claims=500,
            parked=1_000,
            parked_s=20.0,
            wakes=100,
            overload_s=60.0,
            open_connections=4_800,
            noisy_s=10.0,
        ),
        Plan(
            name="quick",
            connections=CONNECTIONS,
            batches=((16, 64),),
            repetitions=2,
            warmup_s=0.2,
            measure_s=0.7,
            backlog=100_000,
            claims=200,
            parked=1_000,
            parked_s=5.0,
            wakes=20,
            overload_s=12.0,
            open_connections=4_800,
            noisy_s=3.0,
        ),
        Plan(
            name="slice",
            connections=(2,),
            batches=((2, 8),),
            repetitions=1,
            warmup_s=0.05,
            measure_s=0.2,
            backlog=2_000,
            claims=10,
            parked=5,
            parked_s=0.2,
            wakes=3,
            overload_s=1.0,
            open_connections=30,
            noisy_s=0.5,
        ),
    )
}
