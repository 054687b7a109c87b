"""One page about a run. Every plot has the same time axis and the faults' bands behind it."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import plots
from chaos_numbers import Injected, Outage, Second
from chaos_plan import Family
from plots import HEIGHT, Axis, Mark, Series

STYLE = Path(__file__).with_name("chaos_report.css")
LATENCY_MS = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)


class Facts(NamedTuple):
    """All that the page tells."""

    verdict: str
    good: bool
    complaints: list[str]
    counts: list[tuple[str, str]]
    repeat: str
    begun: str
    from_s: float
    seconds: list[Second]
    faults: list[Injected]
    outages: list[Outage]


def page(facts: Facts) -> str:
    """The whole page."""
    parts = [
        f"<h1>raftq under faults: {html.escape(facts.verdict)}</h1>",
        f'<p class="{"good" if facts.good else "bad"}">{_lead(facts)}</p>',
        _complaints(facts.complaints),
        _counts(facts.counts),
        "<h2>What was done when</h2>",
        _timeline(facts),
        "<h2>Puts in each second</h2>",
        _puts(facts),
        "<h2>Time to an acknowledgement</h2>",
        _latencies(facts),
        "<h2>The faults, one by one</h2>",
        _faults(facts),
        "<h2>Once more</h2>",
        f"<p>The same faults in the same order, on whoever leads then:</p>"
        f"<pre>{html.escape(facts.repeat)}</pre>",
    ]
    return plots.page("raftq under faults", parts, style=STYLE.read_text())


def _lead(facts: Facts) -> str:
    lasted = plots.clock_text(len(facts.seconds))
    return html.escape(
        f"{len(facts.faults)} faults in {lasted} min, begun {facts.begun}: three nodes on hosts "
        "of their own, producers and consumers through all of them."
    )


def _complaints(complaints: list[str]) -> str:
    if not complaints:
        return ""
    items = "".join(f"<li>{html.escape(text)}</li>" for text in complaints)
    return f'<ul class="bad">{items}</ul>'


def _counts(counts: list[tuple[str, str]]) -> str:
    cells = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in counts
    )
    return f"<dl>{cells}</dl>"


def _timeline(facts: Facts) -> str:
    lane = HEIGHT / len(Family)
    rectangles = "".join(
        _rectangle(facts, fault, number, list(Family).index(fault.kind.family) * lane, lane)
        for number, fault in enumerate(facts.faults, start=1)
    )
    labels = "".join(
        f'<span style="top:{(n + 0.5) * lane:.1f}%">{family.value}</span>'
        for n, family in enumerate(Family)
    )
    return plots.figure(_time(facts), labels, rectangles, css="timeline")


def _rectangle(facts: Facts, fault: Injected, number: int, top: float, height: float) -> str:
    title = html.escape(f"{number}. {fault.kind.value}: {fault.victim}")
    return (
        f'<rect class="{fault.kind.family.value}" {_extent(facts, fault)} y="{top + 2:.1f}" '
        f'height="{height - 4:.1f}"><title>{title}</title></rect>'
    )


def _bands(facts: Facts) -> str:
    return "".join(
        f'<rect class="band" {_extent(facts, fault)} y="0" height="{HEIGHT:.0f}"/>'
        for fault in facts.faults
    )


def _extent(facts: Facts, fault: Injected) -> str:
    """From when to when, but never so short that it is not to be seen."""
    start = fault.from_s - facts.from_s
    length = max(fault.until_s - fault.from_s, 0.3)
    left, right = (plots.across(_time(facts), at) for at in (start, start + length))
    return f'x="{left:.2f}" width="{right - left:.2f}"'


def _time(facts: Facts) -> Axis:
    return plots.clock(len(facts.seconds))


def _puts(facts: Facts) -> str:
    top = max(one.acknowledged + one.failed for one in facts.seconds)
    series = [
        _series("done", "acknowledged", (one.acknowledged for one in facts.seconds)),
        _series("failed", "refused or unknown", (one.failed for one in facts.seconds)),
    ]
    return plots.plot(_time(facts), plots.linear(max(top, 10)), series, behind=_bands(facts))


def _latencies(facts: Facts) -> str:
    series = [
        _series("p50", "median", (one.p50_ms for one in facts.seconds)),
        _series("p99", "99th percentile", (one.p99_ms for one in facts.seconds)),
    ]
    marks = [
        Mark(value, f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.0f} s")
        for value in LATENCY_MS
    ]
    y = Axis(LATENCY_MS[0], LATENCY_MS[-1], marks, logarithmic=True)
    return plots.plot(_time(facts), y, series, behind=_bands(facts))


def _series(css: str, name: str, values: Iterable[float]) -> Series:
    """Through the middle of each second."""
    return Series(css, name, [(second + 0.5, value) for second, value in enumerate(values)])


def _faults(facts: Facts) -> str:
    rows = "".join(
        f"<tr><td>{number}</td><td>{plots.clock_text(fault.from_s - facts.from_s)}</td>"
        f'<td><i class="{fault.kind.family.value}"></i>{html.escape(fault.kind.value)}</td>'
        f"<td>{html.escape(fault.victim)}</td><td>{fault.until_s - fault.from_s:.1f}</td>"
        f"<td>{_length(outage.until_next_s)}</td><td>{_length(outage.silence_s)}</td></tr>"
        for number, (fault, outage) in enumerate(zip(facts.faults, facts.outages, strict=True), 1)
    )
    return (
        '<div class="wide"><table><thead><tr><th></th><th>at</th><th>fault</th><th>whom</th>'
        "<th>lasted (s)</th><th>next write after (s)</th><th>longest without a write (s)</th>"
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
        "<p>Until the next write: from the injection until a put was acknowledged that began "
        "after it. Longest without a write: between two acknowledged puts, before the next "
        "fault.</p>"
    )


def _length(seconds: float) -> str:
    return "never" if math.isinf(seconds) else f"{seconds:.2f}"
