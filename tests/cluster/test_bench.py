"""The benchmark still runs: its smallest plan, to the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster import ROOT
from loadtests.bench import versus


def run(out: Path, *arguments: str, module: str = "loadtests.bench") -> list[dict[str, Any]]:
    """The records of a benchmark that has done all it should."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == out.read_text().splitlines()
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_the_smallest_plan_measures_everything_and_nothing_fails(tmp_path: Path) -> None:
    out = tmp_path / "bench.jsonl"
    records = run(out, "--slice")
    kinds = {record["kind"] for record in records}
    assert kinds == {
        "run",
        "sync_loop",
        "cell",
        "median",
        "backlog_fill",
        "backlog_drain",
        "claim_latency",
        "parked",
        "wake",
        "neighbour",
        "overload",
        "end",
    }
    assert "<svg" in out.with_suffix(".html").read_text()
    for record in records:
        if record["kind"] == "overload":
            assert max(record["goodput"]) > 0
        if record["kind"] == "median":
            assert record["messages_per_s"] > 0
            assert record["p50_ms"] > 0
            assert ("ratio_to_null" in record) == (record["scenario"] != "null")


def test_each_protection_has_its_price_told(tmp_path: Path) -> None:
    records = run(tmp_path / "costs.jsonl", "--costs", "--slice")
    told = [record for record in records if record["kind"] == "cost"]
    assert [record["of"] for record in told[::3]] == ["keys", "TLS", "encryption at rest"]
    assert all(record["ratio"] > 0 and record["server_cpu_ratio"] >= 0 for record in told)
    assert not any(record.get("errors") for record in records)


def test_a_version_is_compared_with_another_one_turn_by_turn(tmp_path: Path) -> None:
    turns = ("--turns", "2", "--seconds", "0.1", "--cell", "put:2:1")
    records = run(tmp_path / "v.jsonl", str(ROOT), *turns, module="loadtests.bench.versus")
    measured = [record for record in records if record["kind"] == "turn"]
    assert sorted((one["turn"], one["version"]) for one in measured) == [
        (0, "other"),
        (0, "this"),
        (1, "other"),
        (1, "this"),
    ]
    assert all(one["messages_per_s"] > 0 and one["errors"] == 0 for one in measured)
    told = {one["figure"]: one for one in records if one["kind"] == "versus"}
    assert told.keys() == {"messages_per_s", "server_cpu_s_per_10k", "p50_ms"}
    assert all(0 <= one["low"] <= one["ratio"] <= one["high"] for one in told.values())


def test_each_part_inside_a_node_costs_something(tmp_path: Path) -> None:
    records = run(tmp_path / "in.jsonl", "--rounds", "1", module="loadtests.bench.inside")
    told = {record["part"]: record["us"] for record in records if record["kind"] == "inside"}
    assert len(told) == 3 + 3 * 3
    assert all(us > 0 for us in told.values())


def turns(version: str, *rates: float) -> list[dict[str, Any]]:
    """The same cell, again and again."""
    figures = {"server_cpu_s_per_10k": 1.0, "p50_ms": 1.0}
    cell = {"scenario": "put", "target": "all", "connections": 1, "batch": 1}
    common = {"kind": "turn", "version": version, **cell, **figures}
    return [common | {"turn": turn, "messages_per_s": rate} for turn, rate in enumerate(rates)]


def test_a_machine_that_is_slow_for_a_while_decides_nothing() -> None:
    other, this = turns("other", 100, 50, 200, 80), turns("this", 120, 60, 240, 96)
    by_figure = {one["figure"]: one for one in versus.compared([*other, *this])}
    rates = by_figure["messages_per_s"]
    assert (rates["other"], rates["this"]) == (90, 108)
    assert rates["low"] == rates["ratio"] == rates["high"] == 1.2
    assert by_figure["p50_ms"]["ratio"] == 1


def test_what_differs_from_turn_to_turn_has_a_wide_interval() -> None:
    low, high = versus.interval([0.8, 0.9, 1.0, 1.1, 1.2])
    assert low <= 0.9
    assert high >= 1.1
    assert versus.interval([1.0] * 5) == (1.0, 1.0)
