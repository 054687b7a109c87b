"""What comes out: a JSON line for each thing measured, and medians over the repetitions."""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtests import REPORTS
from loadtests.bench.plan import NULL, Cell

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


def medians(records: Iterable[Record]) -> Iterator[Record]:
    """One record for each cell: medians, and the ratio to the baseline beside it.

    The ratio is taken within a repetition and its median over them, so that a machine that
    is slower for a while does not decide it.
    """
    found: dict[Cell, list[Record]] = defaultdict(list)
    for record in records:
        if record["kind"] == "cell":
            found[cell_of(record)].append(record)
    for cell, repetitions in found.items():
        summary: Record = {"kind": "median", **cell._asdict(), "repetitions": len(repetitions)}
        for figure in FIGURES:
            summary[figure] = round(median(one[figure] for one in repetitions), 3)
        baselines = {one["repetition"]: one for one in found.get(cell.baseline, [])}
        if cell.scenario != NULL and baselines:
            summary["ratio_to_null"] = round(_ratio(repetitions, baselines), 3)
        if rss := [size for one in repetitions for size in one.get("rss_mib", {}).values()]:
            summary["rss_mib_max"] = max(rss)
        yield summary


def cell_of(record: Record) -> Cell:
    """What was measured."""
    return Cell(*(record[name] for name in Cell._fields))


def _ratio(repetitions: list[Record], baselines: dict[int, Record]) -> float:
    """Requests against requests: one of raftq's may carry many messages."""
    ratios: list[float] = [
        one["requests_per_s"] / max(baselines[one["repetition"]]["requests_per_s"], 1e-9)
        for one in repetitions
    ]
    return median(ratios)


def show(records: Iterable[Record], console: Console) -> None:
    """The summary for people."""
    kept = list(records)
    console.print(_cells_table([one for one in kept if one["kind"] == "median"]))
    table = Table(title="claim latency on one connection", title_justify="left")
    for column in ("queue", "messages", "p50 ms", "p99 ms"):
        table.add_column(column, justify="right")
    for one in kept:
        if one["kind"] == "claim_latency":
            texts = (one["state"], f"{one['messages']:,}", f"{one['p50_ms']}", f"{one['p99_ms']}")
            table.add_row(*texts)
        elif one["kind"] == "sync_loop":
            console.print(
                f"fdatasync after each 1 KiB: {one['syncs_per_s']:,.0f}/s, p50 {one['p50_ms']} ms"
            )
    console.print(table)
    console.print(_neighbours_table([one for one in kept if one["kind"] == "neighbour"]))
    for one in kept:
        if one["kind"] == "parked":
            console.print(
                f"{one['parked']:,} parked claims on each node: "
                f"{100 * one['server_cpu_share']:.2f} % of a core for a node"
            )
        elif one["kind"] == "wake":
            console.print(f"put to woken claim: p50 {one['p50_ms']} ms, p99 {one['p99_ms']} ms")
        elif one["kind"] == "overload":
            console.print(_overload(one))


def _neighbours_table(rounds: list[Record]) -> Table:
    table = Table(title="a quiet tenant, medians of rounds", title_justify="left")
    for column in ("noisy neighbour", "p50 ms", "p99 ms", "p99 x alone"):
        table.add_column(column, justify="right")
    for noisy in dict.fromkeys(one["noisy"] for one in rounds):
        own = [one for one in rounds if one["noisy"] == noisy]
        figures = [median(one[name] for one in own) for name in ("p50_ms", "p99_ms", "p99_ratio")]
        table.add_row(noisy, *(f"{figure:.1f}" for figure in figures))
    return table


def _overload(one: Record) -> str:
    back = one["back_after_s"]
    return (
        f"{one['factor']} times the peak of {one['peak_per_s']:,.0f} requests of {one['batch']} "
        f"messages a second for {one['seconds']:.0f} s: "
        f"goodput {100 * one['goodput_ratio']:.0f} % of the peak, {one['shed']:,} shed, "
        f"{'not back' if back is None else f'back after {back} s'}; "
        f"at most {one['rss_mib_max']:.0f} MiB a node"
    )


def _cells_table(summaries: list[Record]) -> Table:
    table = Table(title="medians", title_justify="left")
    for column in (
        "scenario",
        "to",
        "clients",
        "batch",
        "messages/s",
        "x null",
        "p50 ms",
        "p99 ms",
        "server CPU s/10k",
        "client CPU s/10k",
        "RSS MiB",
    ):
        table.add_column(column, justify="right")
    for one in summaries:
        table.add_row(
            one["scenario"],
            one["target"],
            f"{one['connections']}",
            f"{one['batch']}",
            f"{one['messages_per_s']:,.0f}",
            f"{one['ratio_to_null']:.2f}" if "ratio_to_null" in one else "",
            f"{one['p50_ms']:.2f}",
            f"{one['p99_ms']:.2f}",
            f"{one['server_cpu_s_per_10k']:.2f}",
            f"{one['client_cpu_s_per_10k']:.2f}",
            f"{one['rss_mib_max']:.0f}" if "rss_mib_max" in one else "",
        )
    return table
