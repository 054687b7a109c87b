"""The course of an overload as a page: what was offered and what was answered in time."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, MARGIN = 900, 360, 56
LINES = (("offered_per_s", "offered", "#b8860b"), ("goodput", "answered in time", "#1f5fa8"))
STYLE = """body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; }
text { font-size: 12px; fill: #444; } .grid { stroke: #ddd; } .line { fill: none; stroke-width: 2; }
.peak { stroke: #2e7d32; stroke-dasharray: 6 4; } pre { color: #444; overflow: auto; }"""


def write(records: Iterable[dict[str, Any]], path: Path) -> Path | None:
    """The page of the overloads among these records, if there are any."""
    parts = [_section(one) for one in records if one["kind"] == "overload"]
    if not parts:
        return None
    path.write_text(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Overload</title>"
        f"<style>{STYLE}</style><h1>Overload</h1>{''.join(parts)}</html>\n"
    )
    return path


def _section(one: dict[str, Any]) -> str:
    series = {key for key, _, _ in LINES}
    figures = {name: value for name, value in one.items() if name not in series}
    return (
        f"<p>Requests of {one['batch']} messages in a second, {one['factor']} times the peak "
        f"for {one['seconds']:.0f} s: "
        f"goodput {100 * one['goodput_ratio']:.0f}&nbsp;% of the peak.</p>{_chart(one)}"
        f"<pre>{html.escape(json.dumps(figures, indent=1))}</pre>"
    )


def _chart(one: dict[str, Any]) -> str:
    top = max(*one["offered_per_s"], *one["goodput"], one["peak_per_s"], 1) * 1.05
    seconds = len(one["goodput"])
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    for fifth in range(6):
        value = top * fifth / 5
        y = _y(value, top)
        parts.append(f'<line class="grid" x1="{MARGIN}" x2="{WIDTH}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{MARGIN - 8}" y="{y + 4}" text-anchor="end">{value:,.0f}</text>')
    for second in range(0, seconds, max(seconds // 10, 1)):
        x = _x(second, seconds)
        parts.append(f'<text x="{x}" y="{HEIGHT - 8}" text-anchor="middle">{second} s</text>')
    y = _y(one["peak_per_s"], top)
    parts.append(f'<line class="peak" x1="{MARGIN}" x2="{WIDTH}" y1="{y}" y2="{y}"/>')
    parts.append(f'<text x="{MARGIN + 6}" y="{y - 6}">peak</text>')
    for place, (key, name, colour) in enumerate(LINES):
        points = _points(one[key], top)
        parts.append(f'<polyline class="line" stroke="{colour}" points="{points}"/>')
        x = MARGIN + 60 + 180 * place
        parts.append(f'<text x="{x}" y="16" style="fill: {colour}">{name}</text>')
    return "".join([*parts, "</svg>"])


def _points(values: Sequence[float], top: float) -> str:
    count = len(values)
    return " ".join(f"{_x(at, count)},{_y(value, top)}" for at, value in enumerate(values))


def _x(at: float, count: int) -> float:
    return round(MARGIN + (WIDTH - MARGIN - 8) * at / max(count - 1, 1), 1)


def _y(value: float, top: float) -> float:
    return round(HEIGHT - 28 - (HEIGHT - 56) * value / top, 1)
