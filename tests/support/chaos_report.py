"""One page about a run: no script, nothing from elsewhere, plots drawn here as SVG.

Drawings stretch with the page, so no text is in them: what they say in words stands beside
them as HTML. Every plot has the same time axis and the faults' bands behind it.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from chaos_numbers import Injected, Outage, Second
from chaos_plan import Family

STYLE = Path(__file__).with_name("chaos_report.css")
HEIGHT = 100.0
TICKS = 6
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


class Series(NamedTuple):
    """One line of a plot: a class of the style sheet, its name, a value for each second."""

    css: str
    name: str
    values: Sequence[float]


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
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>raftq under faults</title><style>\n{STYLE.read_text()}</style></head>"
        f"<body><main>\n{chr(10).join(parts)}\n</main></body></html>\n"
    )


def _lead(facts: Facts) -> str:
    lasted = _clock(len(facts.seconds))
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
    return _figure(facts, labels, rectangles, css="timeline")


def _rectangle(facts: Facts, fault: Injected, number: int, top: float, height: float) -> str:
    start, end = fault.from_s - facts.from_s, fault.until_s - facts.from_s
    title = html.escape(f"{number}. {fault.kind.value}: {fault.victim}")
    width = max(end - start, 0.3)
    return (
        f'<rect class="{fault.kind.family.value}" x="{start:.2f}" y="{top + 2:.1f}" '
        f'width="{width:.2f}" height="{height - 4:.1f}"><title>{title}</title></rect>'
    )


def _bands(facts: Facts) -> str:
    return "".join(
        f'<rect class="band" x="{fault.from_s - facts.from_s:.2f}" y="0" '
        f'width="{max(fault.until_s - fault.from_s, 0.3):.2f}" height="{HEIGHT:.0f}"/>'
        for fault in facts.faults
    )


def _puts(facts: Facts) -> str:
    top = _round_up(max(one.acknowledged + one.failed for one in facts.seconds))
    series = [
        Series("done", "acknowledged", [one.acknowledged for one in facts.seconds]),
        Series("failed", "refused or unknown", [one.failed for one in facts.seconds]),
    ]
    marks = [(value, f"{value:.0f}") for value in (0.0, top / 2, top)]
    return _plot(facts, series, marks, lambda value: value / top)


def _latencies(facts: Facts) -> str:
    low, high = math.log10(LATENCY_MS[0]), math.log10(LATENCY_MS[-1])

    def scaled(value: float) -> float:
        return min(max((math.log10(max(value, 1e-3)) - low) / (high - low), 0.0), 1.0)

    series = [
        Series("p50", "median", [one.p50_ms for one in facts.seconds]),
        Series("p99", "99th percentile", [one.p99_ms for one in facts.seconds]),
    ]
    marks = [
        (value, f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.0f} s")
        for value in LATENCY_MS
    ]
    return _plot(facts, series, marks, scaled)


def _plot(
    facts: Facts,
    series: list[Series],
    marks: list[tuple[float, str]],
    scaled: Callable[[float], float],
) -> str:
    """``scaled`` takes a value to its share of the height."""
    rows = [(HEIGHT * (1 - scaled(value)), text) for value, text in marks]
    labels = "".join(f'<span style="top:{y:.1f}%">{text}</span>' for y, text in rows)
    grid = "".join(
        f'<line class="grid" x1="0" x2="{len(facts.seconds)}" y1="{y:.1f}" y2="{y:.1f}"/>'
        for y, _ in rows
    )
    paths = "".join(
        f'<path class="{one.css}" d="{_path(one.values, scaled)}"><title>{one.name}</title></path>'
        for one in series
    )
    legend = "".join(f'<span class="{one.css}">{one.name}</span>' for one in series)
    return _figure(facts, labels, _bands(facts) + grid + paths, legend=legend)


def _path(values: Iterable[float], scaled: Callable[[float], float]) -> str:
    """A line through the middle of each second, with gaps where there is no value."""
    parts, drawing = [], False
    for at, value in enumerate(values):
        if math.isnan(value):
            drawing = False
            continue
        # A second alone between two gaps is a short dash, not an invisible point.
        parts.append(f"{'L' if drawing else f'M{at},{HEIGHT * (1 - scaled(value)):.1f}L'}")
        parts.append(f"{at + 0.5},{HEIGHT * (1 - scaled(value)):.1f}")
        drawing = True
    return "".join(parts)


def _figure(facts: Facts, labels: str, drawing: str, *, legend: str = "", css: str = "") -> str:
    length = len(facts.seconds)
    ticks = "".join(f"<span>{_clock(length * n / (TICKS - 1))}</span>" for n in range(TICKS))
    return (
        f'<figure class="{css}"><div class="labels">{labels}</div>'
        f'<svg viewBox="0 0 {length} {HEIGHT:.0f}" preserveAspectRatio="none">{drawing}</svg>'
        f'<div class="ticks">{ticks}</div><figcaption>{legend}</figcaption></figure>'
    )


def _faults(facts: Facts) -> str:
    rows = "".join(
        f"<tr><td>{number}</td><td>{_clock(fault.from_s - facts.from_s)}</td>"
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


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def _round_up(value: float) -> float:
    """The next of 10, 20, 30, 50, 100, ... that is no smaller."""
    power = 10.0 ** math.floor(math.log10(max(value, 10.0)))
    return next(step * power for step in (1, 2, 3, 5, 10) if step * power >= value)
