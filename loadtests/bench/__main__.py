"""Runs a plan: JSON lines on stdout and in a file, a table on stderr, 1 if anything failed."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from loadtests import ROOT, leave_in_order
from loadtests.bench import backlog, costs, course, machine, neighbours, overload, parked
from loadtests.bench.plan import PLANS, Plan
from loadtests.bench.records import Records, console, medians, show
from loadtests.bench.service import CROWDED, Guard, Service

SYNC_SHARE = 0.5
SIZES = {"quick": "about 90 seconds", "slice": "a few seconds, to see that it works"}


def main() -> int:
    """The exit code."""
    asked = _arguments()
    leave_in_order()
    plan = PLANS[asked.plan]
    records = Records(asked.out, f"bench-{plan.name}")
    run, table = (_costs, costs.show) if asked.costs else (_run, show)
    with tempfile.TemporaryDirectory(prefix="raftq-bench-", dir=asked.dir) as directory:
        run(plan, Path(directory), records)
    people = console()
    table(records.kept, people)
    people.print(f"{records.path}")
    if (page := course.write(records.kept, records.path.with_suffix(".html"))) is not None:
        people.print(f"{page}")
    if errors := records.errors():
        people.print(f"[red]{errors} requests failed[/red]")
    return 1 if errors else 0


def _run(plan: Plan, directory: Path, records: Records) -> None:
    records.add({"kind": "run", "plan": plan._asdict(), **machine.describe(ROOT)})
    started_s = time.monotonic()
    with Service(directory / "cluster") as service:
        for repetition in range(plan.repetitions):
            records.add(
                {
                    "kind": "sync_loop",
                    "repetition": repetition,
                    **machine.sync_loop(directory, plan.measure_s * SYNC_SHARE),
                }
            )
            for cell in plan.cells():
                records.add(service.measure(cell, plan, repetition))
        for record in (*parked.records(service, plan), *backlog.records(service, plan)):
            records.add(record)
    with Service(directory / "crowded", Guard(CROWDED)) as service:
        for part in (neighbours, overload):
            for record in part.records(service, plan):
                records.add(record)
    for record in medians(records.kept):
        records.add(record)
    records.add({"kind": "end", "seconds": round(time.monotonic() - started_s, 1)})


def _costs(plan: Plan, directory: Path, records: Records) -> None:
    records.add({"kind": "run", "plan": plan._asdict(), **machine.describe(ROOT)})
    for record in costs.records(directory, plan):
        records.add(record)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description=__doc__)
    sizes = parser.add_mutually_exclusive_group()
    for name, meaning in SIZES.items():
        sizes.add_argument(f"--{name}", dest="plan", action="store_const", const=name, help=meaning)
    parser.add_argument("--costs", action="store_true", help="what keys, TLS and encryption cost")
    parser.set_defaults(plan="full")
    parser.add_argument("--out", type=Path, help="the JSON lines; default: a file in reports/")
    parser.add_argument("--dir", type=Path, help="a directory on the disk to measure")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
