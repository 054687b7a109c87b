"""The benchmark still runs: its smallest plan, to the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster import ROOT


def run(out: Path, *arguments: str) -> list[dict[str, Any]]:
    """The records of a benchmark that has done all it should."""
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.bench", *arguments, "--out", str(out)],
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
