"""A run to read: as lines of text, or as one page with a lane for each node.

The page is one file with nothing from elsewhere. It carries the rows as JSON, and a small
script draws those that are in sight: forty thousand of them are no burden. It depends on
the result alone, so the same run gives the same page. Rows come from ``narration``.
"""

from __future__ import annotations

import html
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template
from typing import NamedTuple

import msgspec

from simulation.narration import Kind, Role, Row, Turn, narrate, plain, turns
from simulation.plan import LEADER, Fault, Plan
from simulation.run import Result
from simulation.sometimes import SOMETIMES
from simulation.trace import Record

PAGE = Path(__file__).with_name("diagram.html")
STYLE = Path(__file__).with_name("diagram.css")
SCRIPT = Path(__file__).with_name("diagram.js")
ROWS_MAX = 100_000  # A page of some 20 MB; of a longer run it has the end.
SLOTS = 4  # Faults drawn beside each other; more share the last slot.
TICKS = 6
GROUPS: tuple[tuple[str, tuple[Kind, ...], bool], ...] = (
    ("elections", (Kind.ELECTION,), True),
    ("replication", (Kind.REPLICATION,), True),
    ("proposals", (Kind.PROPOSAL,), True),
    ("snapshots", (Kind.SNAPSHOT,), True),
    ("greetings", (Kind.GREETING,), True),
    ("clients' answers", (Kind.ANSWER,), True),
    ("log lines", (Kind.LOG,), True),
    ("heartbeats, gossip, repeated replies", (Kind.QUIET,), False),
)
"""What can be hidden, and whether it is shown at first; everything else always is."""
HEIGHTS = {
    Role.DOWN: 1,
    Role.JOINING: 3,
    Role.FOLLOWER: 5,
    Role.CANDIDATE: 9,
    Role.LEADER: 12,
    Role.PAUSED: 5,
}
THIN = {"fault": 3.0, "violation": 8.0}  # How wide a moment is in a strip of 1,000.
LEGEND = "".join(
    [
        '<p class="legend">',
        *(f'<span><i class="role {role}"></i>{role}</span>' for role in reversed(Role)),
        '<span><i class="mark fault"></i>fault strikes</span>',
        '<span><i class="mark bar"></i>and lasts</span>',
        '<span><i class="mark violation"></i>violation</span></p>',
    ]
)


class Bar(NamedTuple):
    """A fault while it lasts, from row to row."""

    first: int
    last: int
    slot: int
    text: str


class Scale(NamedTuple):
    """Time along a strip that is 1,000 wide."""

    since: float
    seconds: float

    @property
    def until(self) -> float:
        """Where the strip ends."""
        return self.since + self.seconds

    def rect(
        self, css: str, first: float, last: float, top: float, height: float, text: str
    ) -> str:
        """From one time to another, and never too thin to be seen."""
        least = THIN.get(css, 1.5)
        left = 1000 * (first - self.since) / self.seconds
        width = max(1000 * (last - first) / self.seconds, least)
        return (
            f'<rect class="{css}" x="{min(left, 1000 - least):.2f}" y="{top:g}" '
            f'width="{width:.2f}" height="{height:g}"><title>{_text(text)}</title></rect>'
        )


class Scene(NamedTuple):
    """Everything that is drawn."""

    rows: list[Row]
    bars: list[Bar]
    turns: dict[str, list[Turn]]
    left_out: int


def lines(records: Sequence[Record]) -> Iterator[str]:
    """One line for each record."""
    for row in narrate(records):
        who = f"{row.node} > {row.peer}" if row.peer else row.node
        took = f"  (sent {row.sent_at:.6f}, took {_took(row)})" if row.peer else ""
        yield f"{row.at:11.6f}  {who:<8}  {row.text}{took}"


def diagram(result: Result, title: str, verdict: str) -> str:
    """The page."""
    scene = _scene(result)
    plan = result.plan
    return Template(PAGE.read_text()).substitute(
        title=_text(title),
        verdict=_text(verdict),
        judged="good" if result.violation is None else "bad",
        counts=_counts(result),
        glance=_glance(result, scene),
        plan=_plan(result) + _reached(result),
        left_out=_left_out(scene),
        hidden="" if scene.rows else "hidden",
        groups="".join(_group(number) for number in range(len(GROUPS))),
        nodes="".join(f"<option>{_text(name)}</option>" for name in plan.names),
        data=_data(plan, scene),
        style=STYLE.read_text(),
        script=SCRIPT.read_text(),
    )


# What is drawn.


def _scene(result: Result) -> Scene:
    rows = _rows(result)
    left_out = max(0, len(rows) - ROWS_MAX)
    known = turns(rows, result.plan.names)
    bars = _bars(rows, result.plan.seconds)
    return Scene(
        rows[left_out:],
        [
            bar._replace(first=max(0, bar.first - left_out), last=bar.last - left_out)
            for bar in bars
            if bar.last >= left_out
        ],
        {name: _later(some, left_out) for name, some in known.items()},
        left_out,
    )


def _later(known: list[Turn], row: int) -> list[Turn]:
    """Turns from ``row`` on, counted from there; the first is what holds at it."""
    before = [turn for turn in known if turn.row <= row][-1:]
    after = [turn for turn in known if turn.row > row]
    return [turn._replace(row=max(0, turn.row - row)) for turn in (*before, *after)]


def _rows(result: Result) -> list[Row]:
    """The rows of the trace, and those that only the plan and the verdict know of."""
    rows = list(narrate(result.records))
    peace = result.plan.seconds
    extra = []
    for row in rows:
        if (end := _end(row)) is not None and end < min(peace, result.seconds):
            text = plain(f"over: {row.fault.kind if row.fault else ''}")
            extra.append(Row(end, Kind.OVER, row.node, "", text, end))
    if rows and result.seconds > peace:
        text = "all faults are over, every node is started, and clients ask for nothing new"
        extra.append(Row(peace, Kind.OVER, "", "", text, peace))
    if result.violation is not None and not any(row.kind is Kind.VIOLATION for row in rows):
        text = plain(f"VIOLATION: {result.violation}")
        extra.append(Row(result.seconds, Kind.VIOLATION, "", "", text, result.seconds))
    return sorted([*rows, *extra], key=lambda row: row.at)


def _end(row: Row) -> float | None:
    """When the time of a fault that lasts is over."""
    return row.at + row.fault.seconds if row.fault is not None and row.fault.lasts else None


def _bars(rows: Sequence[Row], peace: float) -> list[Bar]:
    bars = []
    free_from = [0.0] * SLOTS
    times = [row.at for row in rows]
    for first, row in enumerate(rows):
        if (end := _end(row)) is None:
            continue
        until = min(end, peace)
        last = max(first, bisect_right(times, until) - 1)
        slot = next((n for n, free in enumerate(free_from) if free <= row.at), SLOTS - 1)
        free_from[slot] = max(free_from[slot], until)
        bars.append(Bar(first, last, slot, row.text))
    return bars


def _took(row: Row) -> str:
    seconds = row.at - row.sent_at
    return f"{seconds:.3f} s" if seconds >= 1 else f"{seconds * 1000:.3f} ms"


# What is drawn without a script.


def _text(value: object) -> str:
    """Escaped, and encodable whatever it is."""
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode("utf-8"))


def _counts(result: Result) -> str:
    plan = result.plan
    counts = {
        "seed": plan.seed,
        "nodes": plan.nodes,
        "virtual time": f"{result.seconds:.3f} s",
        "of it with faults": f"{min(plan.seconds, result.seconds):g} s",
        "events": f"{result.events:,}",
        "trace records": f"{len(result.records):,}",
        "requests": f"{result.requests:,}",
        "entries": f"{result.entries:,}",
        "trace hash": result.hash,
    }
    cells = (f"<div><dt>{name}</dt><dd>{_text(value)}</dd></div>" for name, value in counts.items())
    return f"<dl>{''.join(cells)}</dl>"


def _glance(result: Result, scene: Scene) -> str:
    """Who was what over the whole time, on a linear axis; of a long run, its end."""
    rows = scene.rows
    if not rows:
        return "<p>No trace was kept.</p>"
    since, until = (rows[0].at if scene.left_out else 0.0), max(result.seconds, rows[-1].at)
    scale = Scale(since, max(until - since, 1e-9))
    strips = [_strip("world", _struck_strip(scene, scale))]
    strips += [_strip(name, _role_strip(known, rows, scale)) for name, known in scene.turns.items()]
    ticks = (since + (until - since) * number / TICKS for number in range(TICKS + 1))
    return (
        f'<div id="glance" data-since="{since:.6f}" data-until="{until:.6f}">{"".join(strips)}'
        f'<div class="ticks">{"".join(f"<span>{tick:.1f} s</span>" for tick in ticks)}</div></div>'
        + LEGEND
    )


def _strip(name: str, shapes: str) -> str:
    return (
        f'<div class="strip"><span>{_text(name)}</span><svg viewBox="0 0 1000 12" '
        f'preserveAspectRatio="none" aria-hidden="true">{shapes}</svg></div>'
    )


def _struck_strip(scene: Scene, scale: Scale) -> str:
    rows, shapes = scene.rows, []
    for bar in scene.bars:
        first, last = rows[bar.first].at, rows[bar.last].at
        shapes.append(scale.rect("bar", first, last, 12 * bar.slot / SLOTS, 12 / SLOTS, bar.text))
    for row in rows:
        if row.kind is Kind.FAULT:
            shapes.append(scale.rect("fault", row.at, row.at, 0, 12, row.text))
        elif row.kind is Kind.VIOLATION:
            shapes.append(scale.rect("violation", row.at, row.at, 0, 12, row.text))
    return "".join(shapes)


def _role_strip(known: list[Turn], rows: Sequence[Row], scale: Scale) -> str:
    ends = [*(rows[min(turn.row, len(rows) - 1)].at for turn in known[1:]), scale.until]
    shapes = []
    for turn, end in zip(known, ends, strict=True):
        start = rows[min(turn.row, len(rows) - 1)].at if turn.row else scale.since
        height = HEIGHTS[turn.role]
        text = f"{turn.role} in term {turn.term} from {start:.3f} s"
        shapes.append(scale.rect(turn.role, start, end, 12 - height, height, text))
    return "".join(shapes)


def _plan(result: Result) -> str:
    plan = result.plan
    faults = [_fault(fault, result) for fault in plan.faults]
    clocks = [
        (name, f"{clock.rate:.4f}", f"{clock.origin_s:.1f} s", f"{clock.wall_skew_ms:,} ms")
        for name, clock in zip(plan.names, plan.clocks, strict=False)
    ]
    tuning = msgspec.structs.asdict(plan.tuning).items()
    workload = msgspec.structs.asdict(plan.workload)
    weights = workload.pop("operations") | workload.pop("standing")
    return (
        _table(
            f"{len(faults)} faults", ("at", "kind", "node", "other", "seconds", "amount"), faults
        )
        + _table("Workload", ("setting", "value"), [(k, _text(v)) for k, v in workload.items()])
        + _table(
            "Operations", ("kind", "weight"), [(_text(k), f"{v:g}") for k, v in weights.items()]
        )
        + _table("Tuning", ("setting", "value"), [(_text(k), f"{v:,}") for k, v in tuning])
        + _table("Clocks", ("node", "rate", "starts at", "wall clock is off by"), clocks)
    )


def _fault(fault: Fault, result: Result) -> tuple[str, ...]:
    hit = next((r.node for r in result.records if r.kind == "fault" and r.at == fault.at_s), "")
    node = f"{fault.node} ({hit})" if fault.node == LEADER and hit else fault.node
    when = f"{fault.at_s:.4f}"
    if hit:
        when = f'<button type="button" data-at="{fault.at_s!r}">{when}</button>'
    elif result.records:
        when += " (not reached)"
    numbers = (f"{fault.seconds:g}", f"{fault.amount:g}")
    return when, _text(fault.kind), _text(node), _text(fault.other), *numbers


def _reached(result: Result) -> str:
    rows = [
        (_text(name), f"{count:,}", _text(SOMETIMES.get(name, "")))
        for name, count in sorted(result.reached.items())
    ]
    return _table(f"{len(rows)} states that were reached", ("state", "times", "what it is"), rows)


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """``rows`` are escaped already."""
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<details><summary>{title}</summary><div class="wide" tabindex="0"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


# What the script fills.


def _group(number: int) -> str:
    name, _, shown = GROUPS[number]
    box = f'<input type="checkbox" name="group" value="{number}"{" checked" * shown}>'
    return f"<label>{box} {_text(name)}</label>"


def _left_out(scene: Scene) -> str:
    if not scene.left_out:
        return ""
    return (
        f'<p class="bad">Of a run this long the page has the last {len(scene.rows):,} rows; the '
        f"first {scene.left_out:,} are not in it. The lines of text have them all.</p>"
    )


def _data(plan: Plan, scene: Scene) -> str:
    lanes = ["", *plan.names]
    places = {name: number for number, name in enumerate(lanes)}
    kinds = list(Kind)
    numbers = {kind: number for number, kind in enumerate(kinds)}
    roles = {role: number for number, role in enumerate(Role)}
    rows: list[list[object]] = []
    for row in scene.rows:
        lane = places.get(row.node, 0)
        data = [round(row.at, 6), numbers[row.kind], lane, row.text]
        if row.peer:
            data += [places.get(row.peer, 0), round(row.sent_at, 6)]
        rows.append(data)
    whole = {
        "lanes": lanes,
        "kinds": kinds,
        "roles": list(Role),
        "groups": [[numbers[kind] for kind in some] for _, some, _ in GROUPS],
        "rows": rows,
        "turns": [
            [[turn.row, roles[turn.role], turn.term] for turn in scene.turns[name]]
            for name in plan.names
        ],
        "bars": [[bar.first, bar.last, bar.slot] for bar in scene.bars],
    }
    text = json.dumps(whole, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
