"""Simulates what many groups would do: JSON lines on stdout and in a file, tables, and a page."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from loadtests import ROOT, leave_in_order
from loadtests.bench import machine, report
from loadtests.bench.records import Records, console
from loadtests.groups import experiments, measured, sections
from loadtests.groups.costs import REALITY, Costs, Real, changed

TITLE = "raftq, with many groups"
ABOUT = (
    "Simulated, not measured: a model of nodes, cores, disks and Raft groups whose costs were "
    "measured on one machine. The first tables say how far the model is off where there is "
    "something to compare it with."
)


def main() -> int:
    """The exit code."""
    asked = _arguments()
    leave_in_order()
    plan = experiments.PLANS[asked.plan]
    costs = changed(Costs(), asked.cost)
    records = Records(asked.out, f"groups-{asked.plan}")
    records.add({"kind": "run", "plan": asked.plan, **machine.describe(ROOT)})
    records.add({"kind": "costs", **costs._asdict()})
    reality: Sequence[Real] = REALITY
    if asked.measure:
        with tempfile.TemporaryDirectory(prefix="raftq-groups-", dir=asked.dir) as directory:
            for record in measured.records(Path(directory), asked.measure, asked.messages):
                records.add(record)
        reality = measured.reality(records.kept)
    began_s = time.monotonic()
    wanted = asked.only or experiments.PARTS
    cases = [case for case in experiments.cases(plan, reality) if case.part in wanted]
    with ProcessPoolExecutor(asked.jobs) as pool:
        for record in pool.map(partial(experiments.run, costs=costs), cases):
            records.add(record)
    records.add({"kind": "end", "seconds": round(time.monotonic() - began_s, 1)})
    page = records.path.with_suffix(".html")
    told = sections.of(records.kept)
    people = console()
    report.show(told, people)
    report.write(records.kept[0], told, page, title=TITLE, about=ABOUT)
    people.print(f"{records.path}\n{page}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.groups", description=__doc__)
    parser.add_argument(
        "--quick",
        dest="plan",
        action="store_const",
        const="quick",
        default="full",
        help="fewer groups, nodes and cores: a minute instead of a quarter of an hour",
    )
    parser.add_argument(
        "--only",
        metavar="PART",
        action="append",
        choices=experiments.PARTS,
        default=[],
        help=f"one of {', '.join(experiments.PARTS)}; again for more (default: all)",
    )
    parser.add_argument(
        "--cost",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="instead of what costs.py says; again for more",
    )
    parser.add_argument(
        "--measure",
        metavar="REPETITIONS",
        type=int,
        default=0,
        help="first measure real nodes, so often, and compare one group of the model with them",
    )
    parser.add_argument(
        "--messages", type=int, default=200_000, help="of 1 KiB on the disk that is lost then"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--out", type=Path, help="the JSON lines; default: a file in reports/")
    parser.add_argument("--dir", type=Path, help="a directory on the disk to measure")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
