"""Plots for pages that stand alone: SVG drawn here, no script, nothing from elsewhere.

Drawings stretch with the page, so no text is in them: what they say in words stands beside
them as HTML. ``STYLE`` is the sheet of such a page, readable in the light and in the dark.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

STYLE = Path(__file__).with_name("plots.css")
WIDTH, HEIGHT = 1000.0, 100.0
TICKS = 6
STEPS = (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10)


class Mark(NamedTuple):
    """A value that is named beside the drawing."""

    value: float
    text: str


class Axis(NamedTuple):
    """From one value to another, with what is written along it."""

    low: float
    high: float
    marks: Sequence[Mark]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """How far along the axis a value is: from 0 to 1, even if it is beyond."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = (math.log10(max(each, 1e-9)) for each in (low, high, value))
        return min(max((value - low) / (high - low), 0.0), 1.0)


class Series(NamedTuple):
    """One line of a plot."""

    css: str
    """A class of the style sheet: its colour."""
    name: str
    points: Sequence[tuple[float, float]]
    """No line where a value is NaN."""
    intervals: Sequence[tuple[float, float]] = ()
    """For each point, if there are any: from where to where its value may be."""


def page(title: str, parts: Iterable[str], *, style: str = "") -> str:
    """The whole document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>\n{STYLE.read_text()}{style}</style></head>"
        f"<body><main>\n{chr(10).join(parts)}\n</main></body></html>\n"
    )


def plot(x: Axis, y: Axis, series: Sequence[Series], *, behind: str = "") -> str:
    """Lines over a grid; ``behind`` is drawn first."""
    labels = "".join(
        f'<span style="top:{up(y, mark.value):.1f}%">{mark.text}</span>' for mark in y.marks
    )
    grid = "".join(
        f'<line class="grid" x1="0" x2="{WIDTH:.0f}" '
        f'y1="{up(y, mark.value):.1f}" y2="{up(y, mark.value):.1f}"/>'
        for mark in y.marks
    )
    lines = "".join(_line(x, y, one) for one in series)
    legend = "".join(f'<span class="{one.css}">{html.escape(one.name)}</span>' for one in series)
    return figure(x, labels, behind + grid + lines, legend=legend)


def figure(x: Axis, labels: str, drawing: str, *, legend: str = "", css: str = "") -> str:
    """Any drawing over a horizontal axis, ``WIDTH`` wide and ``HEIGHT`` high."""
    ticks = "".join(
        f'<span style="left:{100 * x.share(mark.value):.2f}%">{mark.text}</span>'
        for mark in x.marks
    )
    many = " many" if len(x.marks) >= TICKS else ""
    return (
        f'<figure class="{css}"><div class="labels">{labels}</div>'
        f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" preserveAspectRatio="none">{drawing}</svg>'
        f'<div class="ticks{many}">{ticks}</div><figcaption>{legend}</figcaption></figure>'
    )


def across(x: Axis, value: float) -> float:
    """Where a value is from the left, in units of the drawing."""
    return WIDTH * x.share(value)


def up(y: Axis, value: float) -> float:
    """Where a value is from the top, in units of the drawing."""
    return HEIGHT * (1 - y.share(value))


def linear(top: float, unit: str = "", *, ticks: int = 3) -> Axis:
    """From 0 to a round number that is no smaller."""
    high = round_up(top)
    values = [high * number / (ticks - 1) for number in range(ticks)]
    return Axis(0.0, high, [Mark(value, f"{value:,.10g}{unit}") for value in values])


def decades(lowest: float, highest: float, unit: str = "") -> Axis:
    """Whole powers of ten, as many as there must be."""
    low = math.floor(math.log10(max(lowest, 1e-3)))
    high = max(math.ceil(math.log10(max(highest, 1e-3))), low + 1)
    values = [10.0**power for power in range(low, high + 1)]
    return Axis(values[0], values[-1], [Mark(v, f"{v:,g}{unit}") for v in values], True)


def stops(values: Sequence[float], texts: Sequence[str]) -> Axis:
    """Some values, far apart, each of them named: by how many times they differ."""
    marks = [Mark(value, text) for value, text in zip(values, texts, strict=True)]
    low, high = min(values), max(values)
    return Axis(low, high if high > low else low * 10, marks, True)


def clock(seconds: float) -> Axis:
    """Time from the start."""
    values = [seconds * number / (TICKS - 1) for number in range(TICKS)]
    return Axis(0.0, max(seconds, 1e-9), [Mark(value, clock_text(value)) for value in values])


def clock_text(seconds: float) -> str:
    """Minutes and seconds, and hours if there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def round_up(value: float) -> float:
    """The next number of few digits that is no smaller."""
    power = 10.0 ** math.floor(math.log10(max(value, 1e-3)))
    return next(step * power for step in STEPS if step * power >= value)


def _line(x: Axis, y: Axis, one: Series) -> str:
    return (
        f'{"".join(_whiskers(x, y, one))}<path class="{one.css}" d="{_path(x, y, one.points)}">'
        f"<title>{html.escape(one.name)}</title></path>"
    )


def _whiskers(x: Axis, y: Axis, one: Series) -> Iterator[str]:
    if one.intervals:
        for (at, _), (low, high) in zip(one.points, one.intervals, strict=True):
            line = f"M{across(x, at):.1f},{up(y, low):.1f}V{up(y, high):.1f}"
            yield f'<path class="whisker {one.css}" d="{line}"/>'


def _path(x: Axis, y: Axis, points: Iterable[tuple[float, float]]) -> str:
    """A line with gaps where there is no value."""
    parts, drawing = [], False
    for at, value in points:
        if math.isnan(value):
            drawing = False
            continue
        where = f"{across(x, at):.1f},{up(y, value):.1f}"
        # A point alone between two gaps is a dot: of no length, but with a round end.
        parts.append(f"L{where}" if drawing else f"M{where}h0")
        drawing = True
    return "".join(parts)
