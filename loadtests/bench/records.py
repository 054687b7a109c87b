"""What comes out: a JSON line for each thing measured, and medians over the repetitions.

How sure a median is, its 95 % bootstrap interval says (percentiles; Efron, "Bootstrap
Methods", Annals of Statistics 7(1), 1979).
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from loadtests import REPORTS
from loadtests.bench.plan import BASELINES, Cell

Record = dict[str, Any]
FIGURES = (
    "messages_per_s",
    "requests_per_s",
    "p50_ms",
    "p99_ms",
    "server_cpu_s_per_10k",
    "client_cpu_s_per_10k",
    "client_cpu_share",
)
RATES = FIGURES[:2]
RESAMPLES = 2_000


class Records:
    """Keeps what was measured, and writes each record down at once."""

    def __init__(self, path: Path | None, name: str) -> None:
        """``path`` None: a file in ``reports/`` that says ``name`` and what time it is."""
        self.path = path or REPORTS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.kept: list[Record] = []

    def add(self, record: Record) -> None:
        """Keep and write, to stdout as well."""
        self.kept.append(record)
        line = json.dumps(record)
        print(line, flush=True)
        with self.path.open("a") as file:
            file.write(line + "\n")

    def errors(self) -> int:
        """Requests that were not answered as they should."""
        return sum(int(record.get("errors", 0)) for record in self.kept)


def console() -> Console:
    """For people, beside the records on stdout."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else 120)


def of_kind(records: Iterable[Record], kind: str) -> list[Record]:
    """Those of this kind."""
    return [record for record in records if record["kind"] == kind]


def medians(records: Iterable[Record]) -> Iterator[Record]:
    """One record for each cell of each part: medians, their intervals, the ratio to the baseline.

    The ratio is taken within a repetition and its median over them, so that a machine that
    is slower for a while does not decide it.
    """
    found: dict[str, dict[Cell, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record["kind"] == "cell":
            found[record["part"]][cell_of(record)].append(record)
    for part, cells in found.items():
        for cell, repetitions in cells.items():
            baselines = {one["repetition"]: one for one in cells.get(cell.baseline, [])}
            yield {"kind": "median", "part": part, **_median(cell, repetitions, baselines)}


def cell_of(record: Record) -> Cell:
    """What was measured, by this version or by an older one that knew less."""
    return Cell(**{name: record[name] for name in Cell._fields if name in record})


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the median; the same values always have the same."""
    chance = random.Random(0)  # resampling
    medians = sorted(median(chance.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return medians[RESAMPLES // 40], medians[-RESAMPLES // 40 - 1]


def _median(cell: Cell, repetitions: list[Record], baselines: dict[int, Record]) -> Record:
    summary: Record = {**cell._asdict(), "repetitions": len(repetitions), "interval": {}}
    # Where nothing was finished there is a rate, but neither latency nor cost of a message.
    finished = [one for one in repetitions if one["messages_per_s"]] or repetitions
    for figure in FIGURES:
        values = [one[figure] for one in (repetitions if figure in RATES else finished)]
        summary[figure] = round(median(values), 3)
        summary["interval"][figure] = [round(value, 3) for value in interval(values)]
    if cell.scenario not in BASELINES and baselines:
        summary["ratio_to_null"] = round(_ratio(repetitions, baselines), 3)
    if rss := [size for one in repetitions for size in one.get("rss_mib", {}).values()]:
        summary["rss_mib_max"] = max(rss)
    return summary


def _ratio(repetitions: list[Record], baselines: dict[int, Record]) -> float:
    """Requests against requests: one of raftq's may carry many messages."""
    ratios: list[float] = [
        one["requests_per_s"] / max(baselines[one["repetition"]]["requests_per_s"], 1e-9)
        for one in repetitions
    ]
    return median(ratios)
