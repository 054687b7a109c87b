"""The model of many groups obeys what every system does, and comes near the one that there is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.groups.costs import REALITY, Costs, Real, changed
from loadtests.groups.events import Events
from loadtests.groups.machines import SLICE_S, US, Disk, Machine, Process
from loadtests.groups.recovery import lose_disk
from loadtests.groups.world import Setup, Window, World, observe, settle

ROOT = Path(__file__).parents[2]
COSTS = Costs()
CROWDED = Setup(cores=2, processes=2, clients=96)


def seen(setup: Setup, seconds: float = 0.1) -> Window:
    world = World(setup, COSTS)
    settle(world)
    return observe(world, 0.0, seconds)


def spent_percent(world: World) -> float:
    world.run(0.2)
    before_s = sum(process.busy_s for process in world.processes())
    world.run(1.0)
    return 100 * (sum(process.busy_s for process in world.processes()) - before_s)


@pytest.mark.parametrize("real", REALITY, ids=lambda real: "-".join(map(str, real.shape)))
def test_one_group_is_as_it_was_measured(real: Real) -> None:
    scenario, clients, batch = real.shape
    setup = Setup(cores=2, together=True, scenario=scenario, clients=clients, batch=batch)
    window = observe(World(setup, COSTS), 0.1, 0.5)
    assert 0.75 < window.messages_per_s / real.messages_per_s < 1.4
    assert 0.85 < window.node_us / real.node_us < 1.15
    assert 0.7 < window.commands_per_entry / real.commands_per_entry < 1.3


def test_the_same_seed_is_the_same_run() -> None:
    assert seen(CROWDED) == seen(CROWDED)
    assert seen(CROWDED) != seen(CROWDED._replace(seed=1))


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_nobody_does_more_than_all_of_his_time_allows(groups: int) -> None:
    setup = CROWDED._replace(groups=groups)
    window = seen(setup)
    assert 0.9 < window.busiest < 1.02  # A job counts where it ends.
    assert window.disk < 1.0
    processes = setup.nodes * setup.processes
    assert window.messages_per_s * window.node_us * US <= processes * window.busiest
    # Whatever else there is to do, a request is read and answered, and applied three times.
    least_us = COSTS.request_in_us + COSTS.request_out_us + COSTS.request_io_us
    least_us += 3 * COSTS.apply_put_us
    assert window.messages_per_s < processes / (least_us * US)


@pytest.mark.parametrize("groups", [1, 8])
def test_littles_law(groups: int) -> None:
    window = seen(CROWDED._replace(groups=groups), 0.3)
    assert window.operations_per_s * window.mean_s == pytest.approx(CROWDED.clients, rel=0.1)


def test_more_groups_on_one_core_do_not_help() -> None:
    rates = [seen(Setup(groups, clients=96)).messages_per_s for groups in (1, 4, 16)]
    assert rates == sorted(rates, reverse=True)
    many_cores = [seen(Setup(groups, cores=8, clients=96)).messages_per_s for groups in (1, 4, 16)]
    assert many_cores == rates  # One process uses one of them.


def test_more_groups_on_more_cores_do() -> None:
    setup = Setup(cores=8, processes=8, clients=480)
    one, four = (seen(setup._replace(groups=groups)).messages_per_s for groups in (1, 4))
    assert four > 1.3 * one


def test_the_largest_account_bounds_what_groups_give() -> None:
    setup = Setup(8, nodes=9, cores=2, processes=2, clients=288)
    alike, unlike = (seen(setup._replace(zipf=zipf)).messages_per_s for zipf in (0.0, 2.5))
    assert unlike < 0.8 * alike


def test_idle_groups_cost_little_if_they_share_heartbeats() -> None:
    together, apart = (
        spent_percent(World(Setup(64, coalesced=coalesced), COSTS)) for coalesced in (True, False)
    )
    assert together < 10 < apart


@pytest.mark.parametrize("nodes", [3, 5])
def test_all_groups_have_leaders_again_and_nothing_is_lost_but_what_the_node_had(
    nodes: int,
) -> None:
    world = World(Setup(16, nodes, 4, 4, rate_per_s=1_000.0), COSTS)
    world.run(0.3)
    killed_s = world.events.now_s
    world.answered.clear()
    world.kill(world.nodes[0])
    world.run(1.0)
    assert all(group.leader is not None and group.leader.alive for group in world.groups)
    assert 0.0 < max(group.led_at_s for group in world.groups) - killed_s < 0.5
    assert len(world.answered) == pytest.approx(1_000, rel=0.1)


def test_a_lost_disk_is_whole_sooner_with_more_groups() -> None:
    def seconds(groups: int) -> float:
        world = World(Setup(groups, cores=4, processes=4, rate_per_s=50.0), COSTS)
        took_s = lose_disk(world, world.nodes[0], 256.0)
        assert all(replica.alive for replica in world.nodes[0].replicas.values())
        return took_s

    assert seconds(1) > 1.5 * seconds(4)


def test_processes_share_a_core() -> None:
    events, ran = Events(), []
    machine = Machine(1)
    for name in "ab":
        process = Process(events, machine)
        for _ in range(4):
            process.run(SLICE_S / 2 / US, lambda name=name: ran.append(name))
    events.run(1.0)
    assert "".join(ran) == "aabbaabb"


def test_a_disk_does_so_much_at_once() -> None:
    events, ends = Events(), []
    disk = Disk(events, COSTS)
    for _ in range(2 * COSTS.disk_syncs_at_once):
        disk.sync(0.0, lambda: ends.append(events.now_s))
    events.run(1.0)
    first, last = ends[0], ends[-1]
    assert ends.count(first) == ends.count(last) == COSTS.disk_syncs_at_once
    assert last - first == pytest.approx(COSTS.sync_us * US)


def test_costs_are_named() -> None:
    assert changed(COSTS, ["turn_us=7", "disk_syncs_at_once=2"])[:] != COSTS[:]
    assert changed(COSTS, ["disk_syncs_at_once=2"]).disk_syncs_at_once == 2
    with pytest.raises(ValueError, match="no cost is named 'turn'"):
        changed(COSTS, ["turn=7"])


def test_the_command_writes_lines_and_a_page(tmp_path: Path) -> None:
    out = tmp_path / "groups.jsonl"
    asked = ["--quick", "--only", "latency", "--jobs", "1", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.groups", *asked], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    kinds = [json.loads(line)["kind"] for line in out.read_text().splitlines()]
    assert kinds[:2] == ["run", "costs"]
    assert kinds[-1] == "end"
    assert set(kinds[2:-1]) == {"latency"}
    assert "<h2>Latency at fixed rates</h2>" in out.with_suffix(".html").read_text()
