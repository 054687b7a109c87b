"""The benchmark of zones still runs: its smallest plan, to the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from cluster import ROOT


def test_the_smallest_plan_measures_both_ways_to_claim(tmp_path: Path) -> None:
    out = tmp_path / "locality.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.locality", "--slice", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert done.stdout.splitlines() == out.read_text().splitlines()
    assert {record["kind"] for record in records} == {"run", "capacity", "locality", "ratio"}
    for record in records:
        if record["kind"] == "locality":
            assert record["messages_per_s"] > 0
            assert sorted(record["zones"]) == ["a", "b", "c"]
        if record["kind"] == "ratio":
            assert record["ratio"] > 0.3
            assert record["own_zone_share"] > 0.7
    slowest = [record for record in records if record.get("mode") == "any"][-1]
    # From a put to its claim in one zone there is at least one way to the leader and back.
    assert max(zone["p50_ms"] for zone in slowest["zones"].values()) > 40
