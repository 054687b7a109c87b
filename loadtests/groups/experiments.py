"""What is asked of the model, a case at a time: each is one record, and needs no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import mean, median
from typing import NamedTuple

from loadtests.bench.records import Record
from loadtests.groups.costs import REAL_LOST_DISK, REAL_SEVERAL_US, Costs, Real
from loadtests.groups.recovery import lose_disk
from loadtests.groups.world import Setup, World, observe, settle

CLIENTS_PER_CORE = 64
ROUNDS = 2
"""That all clients are seen at least."""
BUCKET_S = 0.025
AFTER_S = 0.6
BEFORE_S = 1.0
IDLE_S = 2.0
IDLE_GROUPS = 256
LATE_S = 0.05
SOON_S = 0.25
"""Of what comes so soon after a kill, as much is late as takes longer than ``LATE_S``."""


class Plan(NamedTuple):
    """Sizes of a run."""

    groups: tuple[int, ...]
    nodes: tuple[int, ...]
    cores: tuple[int, ...]
    clients: tuple[int, ...]
    """At once, of three nodes on two cores together."""
    varied: tuple[tuple[int, int], ...]
    """(nodes, cores) that are asked by unlike accounts, and by clients that know the map."""
    rates: tuple[float, ...]
    kills: int
    mib: float
    """Of all groups together, on a disk that is lost."""
    measure_s: float
    reality_s: float


PLANS = {
    "full": Plan(
        groups=(1, 2, 4, 8, 16, 32, 64),
        nodes=(3, 5, 9),
        cores=(1, 2, 4, 8, 16),
        clients=(64, 256),
        varied=((3, 4), (9, 4), (9, 16)),
        rates=(500.0, 5_000.0),
        kills=5,
        mib=2_048.0,
        measure_s=0.2,
        reality_s=2.0,
    ),
    "quick": Plan(
        groups=(1, 4, 16, 64),
        nodes=(3, 9),
        cores=(1, 2, 4),
        clients=(64,),
        varied=((9, 4),),
        rates=(1_000.0,),
        kills=2,
        mib=512.0,
        measure_s=0.1,
        reality_s=0.5,
    ),
}


class Case(NamedTuple):
    """One simulation."""

    part: str
    plan: Plan
    setup: Setup
    real: Real | None = None


def cases(plan: Plan, reality: Sequence[Real]) -> Iterator[Case]:
    """All of a plan, in the order of the page."""
    for real in reality:
        scenario, clients, batch = real.shape
        setup = Setup(cores=2, together=True, scenario=scenario, clients=clients, batch=batch)
        yield Case("reality", plan, setup, real)
    for groups in REAL_SEVERAL_US:
        # Each group in processes of its own, as of clusters beside each other.
        setup = Setup(groups, cores=2, processes=groups, together=True, direct=True, clients=64)
        yield Case("several", plan, setup)
    for clients in plan.clients:
        for groups in plan.groups:
            setup = Setup(groups, cores=2, together=True, clients=clients)
            yield Case("here", plan, setup)
    for part, setup in [*_scaling(plan), *_failing(plan)]:
        yield Case(part, plan, setup)


def run(case: Case, costs: Costs) -> Record:
    """What came of it."""
    record = {"kind": case.part, **case.setup._asdict(), **_RUNS[case.part](case, costs)}
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in record.items()
    }


def _scaling(plan: Plan) -> Iterator[tuple[str, Setup]]:
    for nodes in plan.nodes:
        for cores in plan.cores:
            for groups in plan.groups:
                setup = _crowded(groups, nodes, cores)
                yield "scale", setup
                if (nodes, cores) in plan.varied:
                    yield "skew", setup._replace(zipf=1.1)
                    yield "direct", setup._replace(direct=True)
    cores = plan.cores[-1]
    for groups in plan.groups:
        # As many clients as above, to one process of each node.
        yield "one", _crowded(groups, 3, cores)._replace(processes=1)
    for rate_per_s in plan.rates:
        for groups in plan.groups:
            yield "latency", Setup(groups, 3, 4, 4, rate_per_s=rate_per_s)


def _failing(plan: Plan) -> Iterator[tuple[str, Setup]]:
    for groups in (*plan.groups, IDLE_GROUPS):
        for coalesced in (False, True):
            yield "idle", Setup(groups, coalesced=coalesced)
    for nodes in plan.nodes:
        for groups in plan.groups:
            yield "failover", Setup(groups, nodes, 4, 4, rate_per_s=4_000.0)
    for nodes in plan.nodes:
        for groups in plan.groups:
            yield "lost_disk", Setup(groups, nodes, 4, 4, rate_per_s=200.0)
    # As it was measured: three nodes on two cores.
    here = Setup(cores=2, together=True)
    yield "idle", here
    yield "failover", here._replace(rate_per_s=200.0)
    yield "lost_disk", here


def _crowded(groups: int, nodes: int, cores: int) -> Setup:
    return Setup(groups, nodes, cores, cores, clients=CLIENTS_PER_CORE * nodes * cores)


def _reality(case: Case, costs: Costs) -> Record:
    assert case.real is not None
    seen = observe(World(case.setup, costs), case.plan.reality_s / 4, case.plan.reality_s)
    figures = {"messages_per_s": seen.messages_per_s, "node_us": seen.node_us}
    figures["commands_per_entry"] = seen.commands_per_entry
    record: Record = {}
    for name, value in figures.items():
        record |= {name: value, f"real_{name}": getattr(case.real, name)}
    return record | {"ratio": seen.messages_per_s / case.real.messages_per_s}


def _seen(case: Case, costs: Costs) -> Record:
    world = World(case.setup, costs)
    round_s = settle(world)
    return observe(world, 0.0, max(case.plan.measure_s, ROUNDS * round_s))._asdict()


def _at_rate(case: Case, costs: Costs) -> Record:
    world = World(case.setup, costs)
    return observe(world, 0.2, max(case.plan.measure_s * 5, 0.5))._asdict()


def _idle(case: Case, costs: Costs) -> Record:
    world = World(case.setup, costs)
    world.run(costs.heartbeat_s * 2)
    before_s = [process.busy_s for process in world.processes()]
    world.run(IDLE_S)
    shares = [
        100 * (process.busy_s - was) / IDLE_S
        for process, was in zip(world.processes(), before_s, strict=True)
    ]
    return {"cpu_percent": mean(shares), "busiest_percent": max(shares)}


def _failover(case: Case, costs: Costs) -> Record:
    """Medians over kills of the node that leads group 0, each in a world of its own."""
    kills = [_killed(case, costs, seed) for seed in range(case.plan.kills)]
    figures = ("all_led_s", "moved", "late_share", "longest_s")
    record: Record = {name: median(one[name] for one in kills) for name in figures}
    rates = zip(*(one["rates"] for one in kills), strict=True)
    return record | {"rates": [round(mean(each), 3) for each in rates]}


def _killed(case: Case, costs: Costs, seed: int) -> Record:
    world = World(case.setup._replace(seed=seed), costs)
    world.run(BEFORE_S)
    leader = world.groups[0].leader
    node = next(node for node in world.nodes if leader in node.replicas.values())
    moved = [group for group in world.groups if group.leader in node.replicas.values()]
    world.answered.clear()
    killed_s = world.events.now_s
    world.kill(node)
    world.run(AFTER_S)
    buckets = [0] * round(AFTER_S / BUCKET_S)
    for at_s, _ in world.answered:
        buckets[min(int((at_s - killed_s) / BUCKET_S), len(buckets) - 1)] += 1
    usual = case.setup.rate_per_s * BUCKET_S
    soon_s = [took_s for at_s, took_s in world.answered if 0 <= at_s - took_s - killed_s < SOON_S]
    return {
        "all_led_s": max(group.led_at_s for group in moved) - killed_s,
        "moved": len(moved),
        "late_share": sum(took_s > LATE_S for took_s in soon_s) / max(len(soon_s), 1),
        "longest_s": max(took_s for _, took_s in world.answered),
        "rates": [count / usual for count in buckets],
    }


def _lost_disk(case: Case, costs: Costs) -> Record:
    mib = REAL_LOST_DISK[0] if case.setup.together else case.plan.mib
    world = World(case.setup, costs)
    world.run(0.2)
    leader = world.groups[0].leader
    followers = [node for node in world.nodes if leader not in node.replicas.values()]
    lost = max(followers, key=lambda node: len(node.replicas))
    return {"mib": mib, "seconds": lose_disk(world, lost, mib)}


_RUNS: dict[str, Callable[[Case, Costs], Record]] = {
    "reality": _reality,
    "several": _seen,
    "here": _seen,
    "scale": _seen,
    "skew": _seen,
    "direct": _seen,
    "one": _seen,
    "latency": _at_rate,
    "idle": _idle,
    "failover": _failover,
    "lost_disk": _lost_disk,
}
PARTS = tuple(_RUNS)
