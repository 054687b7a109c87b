"""The page: one self-contained HTML file with a picture of what happened in each zone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from examples.three_zones.work import Done

WIDTH, PANEL, GAP, LEFT, TOP = 960, 150, 52, 48, 26
PLOT = WIDTH - LEFT - 12
TICK_S = 5

STYLE = """
:root { color-scheme: light dark; --ink: #1d2433; --paper: #fff; --soft: #667085; --line: #d5dae3;
  --local: #2b6cb0; --elsewhere: #dd6b20; --cut: rgba(200, 40, 60, .13); }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9f0; --paper: #14181f; --soft: #98a2b3;
  --line: #343b48; --local: #63a4e6; --elsewhere: #f0924e; --cut: rgba(240, 80, 100, .2); } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }
svg { width: 100%; height: auto; } text { fill: var(--soft); font-size: 12px; }
text.zone { fill: var(--ink); font-size: 14px; font-weight: 600; }
.local { fill: var(--local); } .elsewhere { fill: var(--elsewhere); }
.cut { fill: var(--cut); } .faint { opacity: .35; }
line { stroke: var(--line); } dl { display: flex; flex-wrap: wrap; gap: .5rem 2.5rem; }
dt { color: var(--soft); } dd { margin: 0; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.key { display: inline-block; width: .8em; height: .8em; margin-right: .4em; }
span.local { background: var(--local); } span.elsewhere { background: var(--elsewhere); }
span.cut { background: var(--cut); outline: 1px solid var(--line); }
p span.key { margin-left: 1.2em; } p span.key:first-child { margin-left: 0; }
"""


class Cut(NamedTuple):
    """Which zone was cut off, and when, in seconds."""

    zone: str
    began_s: float
    ended_s: float


def html(
    done: Mapping[Done, int], zones: Sequence[str], cut: Cut, totals: Mapping[str, float]
) -> str:
    """The whole document."""
    shown = "".join(
        f"<div><dt>{name}</dt><dd>{value:,}</dd></div>" for name, value in totals.items()
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Three zones, one cut off and healed</title><style>{STYLE}</style>
<h1>Three zones, one cut off and healed</h1>
<p>What the workers of each zone did, per second. Zone {cut.zone} was cut off from second
{cut.began_s:.1f} to {cut.ended_s:.1f}: its node, producer and workers reached each other only.</p>
<p><span class="key local"></span>messages of the own zone
<span class="key elsewhere"></span>messages of other zones
<span class="key cut"></span>zone {cut.zone} is cut off</p>
{picture(done, zones, cut)}
<dl>{shown}</dl>
</html>
"""


def picture(done: Mapping[Done, int], zones: Sequence[str], cut: Cut) -> str:
    """An SVG with a panel for each zone, all to one scale."""
    end_s = max([one.second for one in done] + [int(cut.ended_s)]) + 1
    sums: dict[tuple[int, str], int] = {}
    for one, count in done.items():
        sums[one.second, one.zone] = sums.get((one.second, one.zone), 0) + count
    scale = Scale(end_s, _round_up(max(sums.values(), default=1)))
    height = TOP + len(zones) * (PANEL + GAP)
    parts = [part for row, zone in enumerate(zones) for part in _panel(done, zone, row, cut, scale)]
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="Messages per second in each zone">{"".join(parts)}</svg>'
    )


class Scale(NamedTuple):
    """How far both axes go."""

    seconds: int
    messages: int

    def x(self, second: float) -> float:
        """Where a second begins."""
        return round(LEFT + PLOT * second / self.seconds, 1)

    def height(self, messages: float) -> float:
        """How high so many are."""
        return round(PANEL * messages / self.messages, 1)


def _panel(done: Mapping[Done, int], zone: str, row: int, cut: Cut, scale: Scale) -> Iterator[str]:
    bottom = TOP + row * (PANEL + GAP) + PANEL
    top = bottom - PANEL
    left, right = scale.x(cut.began_s), scale.x(cut.ended_s)
    is_cut = zone == cut.zone
    yield f'<text class="zone" x="{LEFT}" y="{top - 7}">zone {zone}</text>'
    kind = "cut" if is_cut else "cut faint"
    yield (
        f'<rect class="{kind}" x="{left}" y="{top}" width="{right - left:.1f}" height="{PANEL}"/>'
    )
    if is_cut:
        yield f'<text x="{left + 5}" y="{top + 14}">cut off</text>'
    for share in (0, 0.5, 1):
        y = bottom - PANEL * share
        yield f'<line x1="{LEFT}" x2="{WIDTH - 12}" y1="{y}" y2="{y}"/>'
        yield (
            f'<text x="{LEFT - 7}" y="{y + 4}" text-anchor="end">'
            f"{scale.messages * share:.0f}</text>"
        )
    wide = PLOT / scale.seconds * 0.8
    for second in range(scale.seconds):
        y = float(bottom)
        for kind, local in (("local", True), ("elsewhere", False)):
            count = done.get(Done(second, zone, local), 0)
            if count:
                y -= scale.height(count)
                yield (
                    f'<rect class="{kind}" x="{scale.x(second + 0.1)}" y="{y:.1f}" '
                    f'width="{wide:.1f}" height="{scale.height(count)}">'
                    f"<title>second {second}: {count}</title></rect>"
                )
        if second % TICK_S == 0:
            yield f'<text x="{scale.x(second)}" y="{bottom + 15}">{second} s</text>'


def _round_up(count: int) -> int:
    """To a number that halves well."""
    return -(-count // 20) * 20
