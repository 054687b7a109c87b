"""The benchmark still runs: its smallest plan, to the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from cluster import ROOT


def test_the_smallest_plan_measures_everything_and_nothing_fails(tmp_path: Path) -> None:
    out = tmp_path / "bench.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.bench", "--slice", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert done.stdout.splitlines() == out.read_text().splitlines()
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
        "end",
    }
    for record in records:
        if record["kind"] == "median":
            assert record["messages_per_s"] > 0
            assert record["p50_ms"] > 0
            assert ("ratio_to_null" in record) == (record["scenario"] != "null")
