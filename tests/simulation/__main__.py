"""``python -m simulation``: run seeds, or one plan from a file, or show what a seed does."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from simulation.campaign import Tally, campaign, minimise
from simulation.diagram import diagram, lines
from simulation.plan import Plan, make
from simulation.run import Result, run
from simulation.scenarios import Scenario, load
from simulation.sometimes import EXPECTED_AFTER, SOMETIMES, missed

REPORTS = Path("reports")


def main(arguments: list[str]) -> int:
    """The exit status: 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="from which on (default: %(default)s)")
    parser.add_argument("--jobs", type=int, help="processes (default: one for each core)")
    parser.add_argument("--trace", type=int, metavar="SEED", help="show what one seed does instead")
    parser.add_argument("--plan", type=Path, help="run this scenario file instead")
    parser.add_argument("--no-shrink", action="store_true", help="leave a failing plan as it is")
    options = parser.parse_args(arguments)
    if options.trace is not None:
        return _show(make(options.trace), f"seed {options.trace}", f"trace-{options.trace}")
    if options.plan is not None:
        scenario = load(options.plan)
        return _show(scenario.plan, scenario.about, options.plan.stem)
    return _campaign(options)


def _campaign(options: argparse.Namespace) -> int:
    total, failure = campaign(options.first, options.seeds, jobs=options.jobs, tell=_say)
    _report(total)
    if failure is not None:
        _explain(failure, shrunk=not options.no_shrink)
        return 1
    zeros = missed(total.reached)
    if zeros and total.seeds >= EXPECTED_AFTER:
        _say(f"never reached in {total.seeds} seeds: {', '.join(zeros)}")
        return 1
    return 0


def _report(total: Tally) -> None:
    for name, about in sorted(SOMETIMES.items()):
        _say(f"{total.reached[name]:>10,}  {name}: {about}")
    _say(
        f"{total.seeds:,} seeds ({total.with_five:,} with five nodes), "
        f"{total.virtual_s / 3600:.2f} virtual hours, {total.requests:,} requests, "
        f"{total.entries:,} entries, {total.events:,} events; "
        f"{total.virtual_s / total.cpu_s:.0f} virtual seconds per second of one core"
    )


def _explain(failure: Result, *, shrunk: bool) -> None:
    _say(f"\nseed {failure.plan.seed} fails: {failure.violation}")
    plan = failure.plan
    if shrunk:
        _say("shrinking ...")
        plan = minimise(plan)
    result = run(plan)
    _say(f"{len(plan.faults)} faults of {len(failure.plan.faults)} are left: {result.violation}")
    REPORTS.mkdir(exist_ok=True)
    path = REPORTS / f"seed-{plan.seed}.json"
    scenario = Scenario(about=str(result.violation), plan=plan)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(scenario)) + b"\n")
    for fault in plan.faults:
        _say(f"  {fault}")
    _say(f"again: make trace PLAN={path}")


def _show(plan: Plan, title: str, name: str) -> int:
    result = run(plan, keep_trace=True)
    for line in lines(result.records):
        _say(line)
    verdict = result.violation or "no promise was broken"
    REPORTS.mkdir(exist_ok=True)
    path = REPORTS / f"{name}.html"
    path.write_text(diagram(result, title, verdict), encoding="utf-8")
    _say(f"{verdict}; trace hash {result.hash}; diagram in {path}")
    return 1 if result.violation else 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:  # Somebody looked at the first lines only.
        sys.exit(0)
