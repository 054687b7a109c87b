"""Runs a plan: JSON lines on stdout and in a file; 1 if ``prefer`` is not what it should be."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import uvloop

from loadtests import ROOT, leave_in_order
from loadtests.bench import machine
from loadtests.bench.exchanges import queue_path
from loadtests.bench.records import Records
from loadtests.locality.work import Crew, Mode, Work
from zoned_cluster import ZonedCluster

LOAD = 0.8
SHARE_MIN = 0.95
RATIO_MIN = 0.9
READY_S = 60.0
SETTLE_S = 1.0
ANY = Mode("any", {})


class Plan(NamedTuple):
    """Sizes of a run; delays are one way, between any two zones."""

    name: str
    delays_ms: tuple[int, ...]
    repetitions: int
    warmup_s: float
    measure_s: float
    crew: Crew


PLANS = {
    plan.name: plan
    for plan in (
        Plan("full", (0, 20, 80), 3, 2.0, 6.0, Crew(8, 8, 8, 16)),
        Plan("quick", (0, 20, 80), 1, 1.0, 3.0, Crew(8, 8, 8, 16)),
        Plan("slice", (0, 20), 1, 0.3, 0.7, Crew(1, 2, 2, 4)),
    )
}


def main() -> int:
    """The exit code."""
    asked = _arguments()
    leave_in_order()
    plan = PLANS[asked.plan]
    modes = [ANY, Mode("prefer", {"zone_mode": "prefer", "locality_wait": asked.locality_wait})]
    records = Records(asked.out, f"locality-{plan.name}")
    records.add({"kind": "run", "plan": plan.name, "load": LOAD, **machine.describe(ROOT)})
    with (
        tempfile.TemporaryDirectory(prefix="raftq-locality-", dir=asked.dir) as directory,
        ZonedCluster(Path(directory) / "cluster") as cluster,
    ):
        cluster.start().wait_ready(deadline_s=READY_S)
        for delay_ms in plan.delays_ms:
            cluster.delay(delay_ms / 1000)
            time.sleep(SETTLE_S)
            for record in measured(cluster, plan, delay_ms, modes[: 1 if asked.any_only else 2]):
                records.add(record)
    summaries = [one for one in records.kept if one["kind"] == "ratio"]
    print(f"{records.path}", file=sys.stderr)
    good = all(
        one["own_zone_share"] >= SHARE_MIN and one["ratio"] >= RATIO_MIN for one in summaries
    )
    return 0 if good or plan.name == "slice" else 1


def measured(
    cluster: ZonedCluster, plan: Plan, delay_ms: int, modes: list[Mode]
) -> Iterator[dict[str, Any]]:
    """Capacity, then each way to claim at a part of it, in turns; and how they compare."""
    known = {"delay_ms": delay_ms, "leader": cluster.wait_leader().zone}
    found: list[dict[str, Any]] = []
    for repetition in range(plan.repetitions):
        # Turned round each time: what the machine does meanwhile must not favour one.
        turn = modes if repetition % 2 == 0 else modes[::-1]
        capacity = 0.0
        for mode in turn:
            record = {"kind": "capacity", **known, "repetition": repetition}
            record |= _one(cluster, plan, mode, None, f"full-{mode.name}-{delay_ms}-{repetition}")
            capacity = record["messages_per_s"] if mode is ANY else capacity
            found.append(record)
            yield record
        for mode in turn:
            offered = round(LOAD * capacity, 1)
            record = {"kind": "locality", **known, "repetition": repetition}
            record["offered_per_s"] = offered
            record |= _one(cluster, plan, mode, offered, f"{mode.name}-{delay_ms}-{repetition}")
            found.append(record)
            yield record
    if len(modes) > 1:
        yield {"kind": "ratio", **known, **_compared(found)}


def _compared(found: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over the repetitions; each ratio is taken within one."""

    def of(kind: str, mode: str, figure: str) -> list[float]:
        kept = [one for one in found if (one["kind"], one["mode"]) == (kind, mode)]
        return [one[figure] for one in sorted(kept, key=lambda one: int(one["repetition"]))]

    def ratio(kind: str, figure: str) -> float:
        pairs = zip(of(kind, "prefer", figure), of(kind, "any", figure), strict=True)
        return round(median(prefer / max(other, 1e-9) for prefer, other in pairs), 3)

    return {
        "ratio": ratio("locality", "messages_per_s"),
        "capacity_ratio": ratio("capacity", "messages_per_s"),
        "cpu_ratio": ratio("locality", "server_cpu_s_per_10k"),
        "own_zone_share": round(median(of("locality", "prefer", "own_zone_share")), 4),
        "own_zone_share_any": round(median(of("locality", "any", "own_zone_share")), 4),
    }


def _one(
    cluster: ZonedCluster, plan: Plan, mode: Mode, messages_per_s: float | None, queue: str
) -> dict[str, Any]:
    ports = {node.zone: node.api_port for node in cluster}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        work = Work(ports, queue, plan.crew, mode)
        figures = runner.run(
            work.run(
                plan.warmup_s,
                plan.measure_s,
                messages_per_s,
                lambda: machine.total_cpu_s(node.pid for node in cluster),
            )
        )
    # What it leaves behind must not burden the next.
    answer = cluster.follower().request("DELETE", queue_path(queue), timeout_s=READY_S)
    assert answer.status == 204, answer
    return figures


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.locality", description=__doc__)
    sizes = parser.add_mutually_exclusive_group()
    for name in ("quick", "slice"):
        sizes.add_argument(f"--{name}", dest="plan", action="store_const", const=name)
    parser.set_defaults(plan="full")
    parser.add_argument("--locality-wait", type=float, default=1.0, help="seconds; default: 1")
    parser.add_argument("--any-only", action="store_true", help="measure no preference")
    parser.add_argument("--out", type=Path, help="the JSON lines; default: a file in reports/")
    parser.add_argument("--dir", type=Path, help="a directory on the disk to measure")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
