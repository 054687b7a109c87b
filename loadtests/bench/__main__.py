"""Measures what is asked for: JSON lines on stdout and in a file, tables on stderr, and a page.

The exit status is 1 if any request failed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from loadtests import ROOT, leave_in_order
from loadtests.bench import machine, report
from loadtests.bench.parts import PARTS, PEERS, Part
from loadtests.bench.plan import PLANS, Plan
from loadtests.bench.records import Records, console, medians
from loadtests.bench.service import Service

SIZES = {"quick": "two to three minutes", "slice": "a few seconds a part, to see that it works"}


def main() -> int:
    """The exit code."""
    asked = _arguments()
    leave_in_order()
    plan = _plan(asked)
    parts = [
        part
        for part in PARTS
        if part.name in asked.only
        or (part.usual and not asked.only)
        or (part.name == PEERS and asked.peers)
    ]
    records = Records(asked.out, f"bench-{plan.name}")
    records.add({"kind": "run", "plan": plan._asdict(), **machine.describe(ROOT)})
    with tempfile.TemporaryDirectory(prefix="raftq-bench-", dir=asked.dir) as directory:
        _run(parts, plan, Path(directory), records)
    page = records.path.with_suffix(".html")
    sections = [
        part.section([one for one in records.kept if one.get("part") == part.name])
        for part in parts
    ]
    people = console()
    report.show(sections, people)
    report.write(records.kept[0], sections, page)
    people.print(f"{records.path}\n{page}")
    if errors := records.errors():
        people.print(f"[red]{errors} requests failed[/red]")
    return 1 if errors else 0


def _run(parts: Sequence[Part], plan: Plan, directory: Path, records: Records) -> None:
    started_s = time.monotonic()
    for number, (guard, group) in enumerate(groupby(parts, lambda part: part.guard)):
        with Service(directory / f"cluster-{number}", guard) as service:
            for part in group:
                began_s = time.monotonic()
                for record in part.records(service, plan):
                    records.add({**record, "part": part.name})
                seconds = round(time.monotonic() - began_s, 1)
                records.add({"kind": "part", "part": part.name, "seconds": seconds})
    for record in medians(records.kept):
        records.add(record)
    records.add({"kind": "end", "seconds": round(time.monotonic() - started_s, 1)})


def _plan(asked: argparse.Namespace) -> Plan:
    """Of the size that was asked for, with what was said of it besides."""
    said = {"backlog": asked.backlog, "churn_s": asked.churn}
    changes = {name: value for name, value in said.items() if value is not None}
    return PLANS[asked.plan]._replace(**changes)


def _arguments() -> argparse.Namespace:
    listed = "\n".join(
        f"  {part.name:<12} {part.measures} ({part.takes}{'' if part.usual else '; only by name'})"
        for part in PARTS
    )
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench",
        description=__doc__,
        epilog=f"parts, and how long they take at full size:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sizes = parser.add_mutually_exclusive_group()
    for name, meaning in SIZES.items():
        sizes.add_argument(f"--{name}", dest="plan", action="store_const", const=name, help=meaning)
    parser.set_defaults(plan="full")
    parser.add_argument(
        "--only",
        metavar="PART",
        action="append",
        choices=[part.name for part in PARTS],
        default=[],
        help="one of those below; again for more (default: all that are not only by name)",
    )
    parser.add_argument(
        "--peers", action="store_true", help="also what others do (as much as: --only peers)"
    )
    parser.add_argument("--backlog", metavar="MESSAGES", type=int, help="how many lie in a queue")
    parser.add_argument(
        "--churn", metavar="SECONDS", type=float, help="how long messages come and go"
    )
    parser.add_argument("--out", type=Path, help="the JSON lines; default: a file in reports/")
    parser.add_argument("--dir", type=Path, help="a directory on the disk to measure")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
