"""Two versions beside each other: is this checkout faster than that one, and how sure is that?

Both clusters are up all the time; short turns of load go to one and to the other, which first
is drawn, so that a machine that is slower for a while decides nothing. What counts is the
median of the ratios of such pairs, with its 95 % interval. One client asks the leader: a node that
is the same on either side leads on one of them by chance, which makes a tenth of difference.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from loadtests import ROOT, leave_in_order
from loadtests.bench import machine
from loadtests.bench.plan import ALL, LEADER, LIFECYCLE, LIFECYCLES, PUT, STREAM, TARGETS, Cell
from loadtests.bench.records import Record, Records, cell_of, console, interval

CELLS = (
    Cell(PUT, LEADER, 1, 1),
    Cell(PUT, ALL, 16, 1),
    Cell(PUT, ALL, 64, 1),
    Cell(LIFECYCLE, ALL, 16, 1),
    Cell(PUT, ALL, 16, 64),
)
SCENARIOS = (PUT, *LIFECYCLES, STREAM)
REST_S = 0.5  # After a turn: what was put is being deleted.
FIGURES = {"messages_per_s": "messages/s", "server_cpu_s_per_10k": "CPU", "p50_ms": "p50"}


class Side:
    """A process with a cluster of one version; see ``_side``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def measure(self, cell: Cell) -> Record:
        """One turn."""
        assert self._process.stdin is not None
        print(json.dumps(cell), file=self._process.stdin, flush=True)
        record: Record = json.loads(self.answer())
        time.sleep(REST_S)
        return record

    def answer(self) -> str:
        """The next line; the first one says that it is ready."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a cluster has ended with {self._process.wait()}")
        return line


def main() -> int:
    """The exit code."""
    asked = _arguments()
    leave_in_order()
    records = Records(asked.out, "versus")
    with tempfile.TemporaryDirectory(prefix="raftq-versus-") as directory:
        other = _checkout(asked.other, Path(directory))
        records.add({"kind": "run", "other": asked.other, **machine.describe(ROOT)})
        for record in _turns(asked, other, Path(directory)):
            records.add(record)
    for record in compared(records.kept):
        records.add(record)
    _show(records.kept, console())
    return 1 if records.errors() else 0


def _checkout(other: str, directory: Path) -> Path:
    """A directory as it is, or what was committed."""
    if Path(other).is_dir():
        return Path(other).resolve()
    target = directory / "other"
    target.mkdir()
    archive = subprocess.run(["git", "archive", other], cwd=ROOT, check=False, capture_output=True)
    if archive.returncode:
        why = archive.stderr.decode(errors="replace").strip()
        raise SystemExit(f"{other!r} is neither a directory nor a commit: {why}")
    subprocess.run(["tar", "-x", "-C", str(target)], input=archive.stdout, check=True)
    return target


@contextmanager
def _side(root: Path, directory: Path, seconds: float) -> Iterator[Side]:
    path = os.pathsep.join(str(root / part) for part in ("", "tests/support"))
    file = str(Path(__file__).with_name("side.py"))
    with subprocess.Popen(
        # -P: without this file's directory in front of that version's own modules.
        [sys.executable, "-P", file, str(directory), str(seconds)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        side = Side(process)
        try:
            side.answer()
            yield side
        except BaseException:
            process.terminate()
            raise


def _turns(asked: argparse.Namespace, other: Path, directory: Path) -> Iterator[Record]:
    with (
        _side(other, directory, asked.seconds) as before,
        _side(ROOT, directory, asked.seconds) as now,
    ):
        sides = [("other", before), ("this", now)]
        for turn in range(-1, asked.turns):  # The first is to warm up.
            for cell in asked.cells or CELLS:
                random.shuffle(sides)
                for version, side in sides:
                    record = side.measure(cell)
                    if turn >= 0:
                        yield record | {"kind": "turn", "turn": turn, "version": version}


def compared(records: Sequence[Record]) -> list[Record]:
    """One record for each cell and figure: medians, the ratio of this to other, its interval."""
    found: dict[Cell, dict[str, list[Record]]] = {}
    for record in records:
        if record["kind"] == "turn":
            versions = found.setdefault(cell_of(record), {"other": [], "this": []})
            versions[record["version"]].append(record)
    return [
        {"kind": "versus", **cell._asdict(), "figure": figure, **ratio(figure, **versions)}
        for cell, versions in found.items()
        for figure in FIGURES
    ]


def ratio(figure: str, other: Sequence[Record], this: Sequence[Record]) -> Record:
    """Medians, and that of the ratios of this to other, turn by turn, with its interval."""
    before, now = ([record[figure] for record in records] for records in (other, this))
    # Too few messages for a tick of the processors' clock: nothing to divide by.
    ratios = [one / base for base, one in zip(before, now, strict=True) if base] or [1.0]
    low, high = interval(ratios)
    figures = {"other": median(before), "this": median(now), "ratio": median(ratios)}
    return {name: round(value, 3) for name, value in (figures | {"low": low, "high": high}).items()}


def _show(kept: Sequence[Record], people: Console) -> None:
    table = Table(title="this checkout against the other", title_justify="left")
    sizes, figures = ("clients", "batch", "queues"), ("figure", "other", "this", "ratio", "95 %")
    for column in ("scenario", "target", *sizes, *figures):
        table.add_column(column, justify="right")
    for one in kept:
        if one["kind"] == "versus":
            table.add_row(
                one["scenario"],
                one["target"],
                f"{one['connections']}",
                f"{one['batch']}",
                f"{one['queues']:,}",
                FIGURES[one["figure"]],
                f"{one['other']:,.2f}",
                f"{one['this']:,.2f}",
                f"{one['ratio']:.3f}",
                f"{one['low']:.3f} to {one['high']:.3f}",
            )
    people.print(table)


def cell_from(text: str) -> Cell:
    """One as it is written on the command line; raises ValueError."""
    scenario, connections, batch, *more = text.split(":")
    target = more.pop() if more and more[-1] in TARGETS else ALL
    if scenario not in SCENARIOS or len(more) > 1:
        raise ValueError(text)
    queues = int(more[0]) if more else 1
    return Cell(scenario, target, int(connections), int(batch), queues=queues)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench.versus", description=__doc__)
    parser.add_argument("other", help="a commit, or the directory of a checkout")
    parser.add_argument("--turns", type=int, default=16, help="of each cell (default: 16)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of a turn (default: 1.5)")
    parser.add_argument(
        "--cell",
        dest="cells",
        type=cell_from,
        action="append",
        metavar="SCENARIO:CONNECTIONS:BATCH[:QUEUES][:TARGET]",
        help=f"scenarios: {', '.join(SCENARIOS)}; targets: {', '.join(TARGETS)}; "
        "again for more (default: five)",
    )
    parser.add_argument("--out", type=Path, help="the JSON lines; default: a file in reports/")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
