"""What is measured, and for how long: three sizes of the same plan."""

from __future__ import annotations

from typing import NamedTuple

NULL = "null"
PUT = "put"
LIFECYCLE = "lifecycle"
FOLLOWER = "follower"
ALL = "all"


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
    body_bytes: int = 1024

    def cells(self) -> list[Cell]:
        """In the order of a repetition: each baseline just before what is compared with it."""
        sizes = [(count, 1) for count in self.connections] + list(self.batches)
        found: dict[Cell, None] = {}
        for connections, batch in sorted(sizes):
            cells = [
                Cell(scenario, target, connections, batch)
                for scenario in (PUT, LIFECYCLE)
                for target in (FOLLOWER, ALL)
            ]
            found[cells[0].baseline] = None
            found.update(dict.fromkeys(cells))
        return list(found)


CONNECTIONS = (1, 16, 64, 256)
PLANS = {
    plan.name: plan
    for plan in (
        Plan("full", CONNECTIONS, ((16, 64), (64, 64)), 4, 0.8, 4.0, 1_000_000, 500),
        Plan("quick", CONNECTIONS, ((16, 64),), 2, 0.2, 0.7, 100_000, 200),
        Plan("slice", (2,), ((2, 8),), 1, 0.05, 0.2, 2_000, 10),
    )
}
