"""The simulator on a slice of its seeds, on what it once found, and on itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from simulation import plan as plans
from simulation.campaign import run_seeds
from simulation.plan import FAULTS, OPERATIONS, Fault, Plan, make
from simulation.run import run
from simulation.scenarios import all_scenarios, load
from simulation.shrink import shrink
from simulation.sometimes import SOMETIMES, missed

SLICE = 100
PARTS = 10  # So that one test does not take long.
TESTS = Path(__file__).parents[1]
HASHES = """
from simulation.plan import make
from simulation.run import run
print(*[run(make(seed)).hash for seed in range(3)])
"""


@pytest.mark.parametrize("part", range(PARTS))
def test_no_promise_is_broken(part: int) -> None:
    size = SLICE // PARTS
    tally, failure = run_seeds(range(part * size, (part + 1) * size))
    assert failure is None, f"seed {failure.plan.seed}: {failure.violation}"
    assert tally.seeds == size


@pytest.mark.parametrize("path", all_scenarios(), ids=lambda path: path.stem)
def test_what_was_once_broken_stays_mended(path: Path) -> None:
    scenario = load(path)
    assert run(scenario.plan).violation is None, scenario.about


def test_a_seed_is_the_same_run_in_every_process() -> None:
    """Neither the salt of a process's hashes nor what ran before may matter."""

    def hashes(salt: str) -> str:
        path = os.pathsep.join([str(TESTS / "support"), str(TESTS)])
        environment = {**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": path}
        command = [sys.executable, "-c", HASHES]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    here = " ".join(run(make(seed)).hash for seed in range(3)) + "\n"
    assert hashes("1") == hashes("2") == here


def test_the_trace_says_what_its_hash_is_of() -> None:
    quiet, told = run(make(1)), run(make(1), keep_trace=True)
    assert quiet.hash == told.hash
    assert quiet.records == []
    assert {"start", "log", "frame", "answer"} <= {record.kind for record in told.records}


def test_seeds_differ() -> None:
    assert len({run(make(seed)).hash for seed in range(4)}) == 4


def test_a_plan_survives_its_file() -> None:
    plan = make(5)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


def test_every_kind_of_fault_and_operation_is_drawn_by_some_seed() -> None:
    drawn = [make(seed) for seed in range(300)]
    assert {fault.kind for one in drawn for fault in one.faults} == set(FAULTS)
    assert {name for one in drawn for name in one.workload.operations} == set(OPERATIONS)
    assert {one.nodes for one in drawn} == {3, 5}


def test_what_was_never_reached_is_named() -> None:
    some = dict.fromkeys(SOMETIMES, 1)
    assert missed(some) == []
    del some["Claim took effect"]
    assert missed(some) == ["Claim took effect"]
    assert len(SOMETIMES) >= 60


@pytest.fixture
def busy_plan() -> Plan:
    plan = make(3)
    faults = tuple(
        Fault(at_s=float(at), kind=kind, node="n1", other="n2")
        for at, kind in enumerate(["cut", "power", "pause", "wipe", "cut", "kill", "power"])
    )
    return msgspec.structs.replace(plan, faults=faults, seconds=16.0)


def test_a_failing_plan_is_shrunk_to_what_matters(busy_plan: Plan) -> None:
    """Here it fails whenever a pause comes before a kill."""
    tried: list[Plan] = []

    def fails(plan: Plan) -> bool:
        tried.append(plan)
        kinds = [fault.kind for fault in plan.faults]
        return "pause" in kinds and "kill" in kinds[kinds.index("pause") :]

    small = shrink(busy_plan, fails)
    assert [fault.kind for fault in small.faults] == ["pause", "kill"]
    assert small.workload.clients == 1
    assert len(small.workload.operations) == 1
    assert small.seconds <= 2.0
    assert len(tried) < 300


def test_shrinking_ends_when_it_has_tried_enough(busy_plan: Plan) -> None:
    tried: list[Plan] = []

    def fails(plan: Plan) -> bool:
        tried.append(plan)
        return True

    shrink(busy_plan, fails, trials_max=5)
    assert len(tried) <= 5


def test_the_longest_faults_fit_into_a_run() -> None:
    assert max(FAULTS.values()) < 10.0
    assert plans.LEADER not in make(0).names
