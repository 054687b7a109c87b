"""All nodes go down and come back, again and again, in any order, with and without power loss.

The plan is a random one (``plan.make``: nodes, tuning, workload, clocks), the faults are
rounds of restarts. Its checks hold throughout: one leader in a term, nothing committed is ever
overwritten, every node comes to the same state, and what was answered can be had.
"""

from __future__ import annotations

import os
import random

import pytest
from msgspec.structs import replace

from simulation.plan import Fault, Plan, make
from simulation.run import run

FULL = os.environ.get("RAFTQ_SIMULATION") == "full"
SEEDS = range(400 if FULL else 16)
ROUNDS = 3
DOWN_WITHIN_S = 0.3
LONGEST_S = 2.5
KINDS = (("kill",), ("power",), ("kill", "power"))


def plan_of(seed: int) -> Plan:
    """Rounds in which every node is down for a moment."""
    chance = random.Random(f"restarts {seed}")
    base = make(seed)
    faults: list[Fault] = []
    at_s = 1.0
    for _ in range(ROUNDS):
        kinds = chance.choice(KINDS)
        for name in base.names:
            faults.append(
                Fault(
                    round(at_s + chance.random() * DOWN_WITHIN_S, 4),
                    chance.choice(kinds),
                    name,
                    seconds=round(DOWN_WITHIN_S + chance.random() * LONGEST_S, 4),
                )
            )
        # Sometimes before everybody is back.
        at_s += DOWN_WITHIN_S + LONGEST_S * chance.uniform(0.6, 1.6)
    faults.sort(key=lambda fault: fault.at_s)
    return replace(base, seconds=at_s, faults=tuple(faults))


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_restarts_in_any_order(seed: int) -> None:
    result = run(plan_of(seed))
    assert result.violation is None
    assert result.reached["everything was down"]
    assert result.reached["log: leader changed"] > ROUNDS


def test_the_rounds_differ_in_order_and_in_what_is_lost() -> None:
    plans = [plan_of(seed) for seed in range(30)]
    down = {tuple(fault.node for fault in plan.faults[: plan.nodes]) for plan in plans}
    back = {
        tuple(one.node for one in sorted(plan.faults[:3], key=lambda one: one.at_s + one.seconds))
        for plan in plans
        if plan.nodes == 3
    }
    kinds = {tuple(sorted({fault.kind for fault in plan.faults})) for plan in plans}
    assert len(down) > 6
    assert len(back) == 6
    assert kinds == {("kill",), ("power",), ("kill", "power")}
