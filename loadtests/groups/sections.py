"""What the records say, as tables and plots for ``loadtests.bench.report``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

import plots
from loadtests.bench.records import Record, of_kind
from loadtests.bench.report import Plot, Section, Table
from loadtests.groups.costs import (
    REAL_FAILOVER_S,
    REAL_IDLE_PERCENT,
    REAL_LOST_DISK,
    REAL_SEVERAL_US,
)
from loadtests.groups.experiments import AFTER_S, BUCKET_S, LATE_S, SOON_S
from plots import Axis, Series

COLOURS = ("blue", "orange", "green", "purple", "teal", "red", "grey")


def of(records: Sequence[Record]) -> list[Section]:
    """One for each part of which there are records."""
    return [make(records) for part, make in _SECTIONS.items() if of_kind(records, part)]


def _reality(records: Sequence[Record]) -> Section:
    rows = [
        (
            f"{one['scenario']}, {one['clients']} at once, batches of {one['batch']}",
            *_both(one, "messages_per_s", ",.0f"),
            f"{one['ratio']:.2f}",
            *_both(one, "node_us", ",.0f"),
            f"{one['node_us'] / one['real_node_us']:.2f}",
            *_both(one, "commands_per_entry", ".1f"),
        )
        for one in of_kind(records, "reality")
    ]
    columns = ["three nodes and the client on two cores", "messages/s", "real", "x"]
    columns += ["CPU us", "real", "x", "commands an entry", "real"]
    about = "One group as it is, and the model of it. CPU of all nodes, for a message."
    return Section("The model and the real thing", about, [Table(columns, rows)])


def _several(records: Sequence[Record]) -> Section:
    rows = [
        (
            f"{one['groups']}",
            f"{one['messages_per_s']:,.0f}",
            f"{one['node_us']:,.0f}",
            f"{REAL_SEVERAL_US[one['groups']]:,}",
            f"{one['node_us'] / REAL_SEVERAL_US[one['groups']]:.2f}",
        )
        for one in of_kind(records, "several")
    ]
    about = (
        "What several groups cost can be measured too: as clusters beside each other, each of "
        "which has a part of 64 clients. CPU of all nodes for a put."
    )
    table = Table(("groups", "puts/s", "CPU us", "real", "x"), rows)
    return Section("Several groups, and several real clusters", about, [table])


def _here(records: Sequence[Record]) -> Section:
    return _load_section(
        "More groups on two cores",
        "The same three nodes and client on two cores, if the nodes had more groups.",
        of_kind(records, "here"),
        "clients",
    )


def _scale(records: Sequence[Record]) -> Section:
    found = of_kind(records, "scale")
    rows, drawn = [], []
    for nodes, of_nodes in _by(found, "nodes"):
        for cores, own in _by(of_nodes, "cores"):
            best = max(own, key=lambda one: float(one["messages_per_s"]))
            alone = own[0]["messages_per_s"]
            rows.append(
                (
                    f"{nodes}",
                    f"{cores}",
                    *(f"{one['messages_per_s']:,.0f}" for one in own),
                    f"{best['groups']}",
                    f"{best['messages_per_s'] / alone:.1f}",
                    f"{best['p50_ms']:.0f}",
                    f"{best['node_us']:.0f}",
                )
            )
        drawn.append(
            Plot(
                f"puts a second over groups, {nodes} nodes with so many cores",
                _over_groups(of_nodes, "messages_per_s", "cores", "{}"),
            )
        )
    columns = (
        "nodes",
        "cores",
        *_numbers_of_groups(found),
        "best",
        "x 1 group",
        "p50 ms",
        "CPU us",
    )
    about = (
        "Single puts of 64 clients for each core, all groups asked alike. Each node has a process "
        "for each core: all take requests, and each has its part of the groups. With one group "
        "that is one log process beside others that only speak HTTP."
    )
    return Section("Throughput", about, [Table(columns, rows, names=2)], drawn)


def _one(records: Sequence[Record]) -> Section:
    return _load_section(
        "All groups in one process of a node",
        "What the table above shows for many cores, with one process on each of three nodes: an "
        "interpreter runs on one core, and more groups make more and smaller entries.",
        of_kind(records, "one"),
    )


def _skew(records: Sequence[Record]) -> Section:
    about = (
        "The same, when 1,000 accounts are unlike: the n-th gets n ** -1.1 of what the first gets. "
        "An account is in one group, so the largest one bounds what more groups give."
    )
    return _varied("Unlike accounts", about, "Zipf 1.1, puts/s", records, "skew")


def _direct(records: Sequence[Record]) -> Section:
    about = (
        "The same, when clients ask any node, and on it the process that has the group, if one "
        "has. Nothing is passed on inside a node, but with few groups few processes are asked."
    )
    return _varied("Clients that know the map", about, "asked directly, puts/s", records, "direct")


def _varied(title: str, about: str, column: str, records: Sequence[Record], kind: str) -> Section:
    usual = {(one["nodes"], one["cores"], one["groups"]): one for one in of_kind(records, "scale")}
    rows = []
    for one in of_kind(records, kind):
        sizes = one["nodes"], one["cores"], one["groups"]
        rate = usual[sizes]["messages_per_s"] if sizes in usual else math.nan
        rows.append(
            (
                *(f"{size}" for size in sizes),
                f"{rate:,.0f}",
                f"{one['messages_per_s']:,.0f}",
                f"{one['messages_per_s'] / rate:.2f}",
                f"{one['p50_ms']:.0f}",
                f"{one['node_us']:.0f}",
            )
        )
    columns = ("nodes", "cores", "groups", "as above, puts/s", column, "x", "p50 ms", "CPU us")
    return Section(title, about, [Table(columns, rows, names=3)])


def _latency(records: Sequence[Record]) -> Section:
    return _load_section(
        "Latency at fixed rates",
        "Puts that come by chance at such a rate to three nodes of four cores with four processes.",
        of_kind(records, "latency"),
        "rate_per_s",
        "{:,.0f}/s",
    )


def _idle(records: Sequence[Record]) -> Section:
    found = _apart(records, "idle")
    rows = [
        (f"{groups}", *(f"{one['busiest_percent']:.2f}" for one in own))
        for groups, own in _by(found, "groups")
    ]
    table = Table(("groups", "a frame for each group, %", "one for all groups, %"), rows)
    about = (
        "CPU of the busiest of three nodes, in percent of a core, for heartbeats alone: of each "
        "group, or shared by all groups that have the same two nodes."
    )
    named = [{**one, "how": _shared(one)} for one in found]
    drawing = _over_groups(named, "busiest_percent", "how", "{}", "%")
    beside = _beside_real(
        records, "idle", "busiest_percent", "leader, % of a core", f"{REAL_IDLE_PERCENT:.2f}"
    )
    return Section("Idle groups", about, [beside, table], [Plot("percent of a core", drawing)])


def _failover(records: Sequence[Record]) -> Section:
    found = _apart(records, "failover")
    rows = [
        (
            f"{one['nodes']}",
            f"{one['groups']}",
            f"{one['moved']:.0f}",
            f"{one['all_led_s']:.3f}",
            f"{100 * one['late_share']:.0f}",
            f"{one['longest_s']:.3f}",
        )
        for one in found
    ]
    columns = ["nodes", "groups", "led by it", "all led again, s"]
    columns += ["late, %", "longest, s"]
    about = (
        "A node with a leader of a group is killed while 4,000 puts come in a second; medians of "
        f"several kills. Late is what comes within {SOON_S:.2f} s and takes longer than "
        f"{LATE_S:.2f} s; requests that the node had are lost and not counted."
    )
    drawn = [
        Plot(f"share of the usual rate after the kill, {nodes} nodes", _after_kill(own))
        for nodes, own in _by(found, "nodes")
    ]
    beside = _beside_real(
        records,
        "failover",
        "all_led_s",
        "seconds to the next leader's first entry",
        f"{REAL_FAILOVER_S[0]:.2f}, at most {REAL_FAILOVER_S[1]:.2f}, to an answer",
    )
    table = Table(columns, rows, names=2)
    return Section("A node is killed", about, [beside, table], drawn)


def _lost_disk(records: Sequence[Record]) -> Section:
    found = _apart(records, "lost_disk")
    rows = [
        (f"{nodes}", *(f"{one['seconds']:.1f}" for one in own))
        for nodes, own in _by(found, "nodes")
    ]
    about = (
        f"Seconds until a node that has lost its disk has all its groups again, of which there are "
        f"{found[0]['mib']:,.0f} MiB in the whole cluster. A group asks for a MiB at a time."
    )
    drawing = _over_groups(found, "seconds", "nodes", "{} nodes", " s")
    mib, seconds = REAL_LOST_DISK
    beside = _beside_real(
        records, "lost_disk", "seconds", f"seconds for {mib:.0f} MiB", f"{seconds:.1f} (fitted to)"
    )
    table = Table(("nodes", *_numbers_of_groups(found)), rows)
    return Section("A lost disk", about, [beside, table], [Plot("seconds over groups", drawing)])


def _load_section(
    title: str, about: str, found: list[Record], by: str = "processes", name: str = "{}"
) -> Section:
    rows = [
        (
            f"{one['groups']}",
            name.format(one[by]),
            f"{one['messages_per_s']:,.0f}",
            f"{one['p50_ms']:.1f}",
            f"{one['p99_ms']:.1f}",
            f"{one['node_us']:,.0f}",
            f"{one['commands_per_entry']:.1f}",
            f"{100 * one['busiest']:.0f}",
        )
        for one in found
    ]
    columns = ["groups", by.replace("_per_s", ""), "puts/s", "p50 ms", "p99 ms", "CPU us"]
    columns += ["commands an entry", "busiest process, %"]
    return Section(title, about, [Table(columns, rows, names=2)])


def _beside_real(records: Sequence[Record], kind: str, figure: str, what: str, real: str) -> Table:
    """The one case that was measured too: one group of three nodes on two cores."""
    here = next(one for one in of_kind(records, kind) if one["together"])
    columns = ("one group on two cores", "model", "real")
    return Table(columns, [(what, f"{here[figure]:.2f}", real)])


def _over_groups(records: Iterable[Record], figure: str, by: str, name: str, unit: str = "") -> str:
    kept = list(records)
    groups = sorted({one["groups"] for one in kept})
    series = [
        Series(colour, name.format(value), [(one["groups"], one[figure]) for one in own])
        for colour, (value, own) in zip(COLOURS, _by(kept, by), strict=False)
    ]
    x = plots.stops(groups, [str(number) for number in groups])
    return plots.plot(x, plots.linear(max(one[figure] for one in kept), unit), series)


def _after_kill(records: Sequence[Record]) -> str:
    ends = [number * BUCKET_S for number in range(round(AFTER_S / BUCKET_S) + 1)]
    marks = [plots.Mark(end, f"{1000 * end:.0f} ms") for end in ends[::4]]
    few = records if len(records) <= 4 else records[::2]
    series = [
        Series(
            colour,
            _groups(one["groups"]),
            [(end, rate) for end, rate in zip(ends[1:], one["rates"], strict=True)],
        )
        for colour, one in zip(COLOURS, few, strict=False)
    ]
    top = max(max(one["rates"]) for one in few)
    return plots.plot(Axis(0.0, AFTER_S, marks), plots.linear(top), series)


def _apart(records: Sequence[Record], kind: str) -> list[Record]:
    """Of nodes that are machines of their own."""
    return [one for one in of_kind(records, kind) if not one["together"]]


def _by(records: Iterable[Record], name: str) -> list[tuple[object, list[Record]]]:
    ordered = sorted(records, key=lambda one: one[name])
    return [(value, list(own)) for value, own in groupby(ordered, key=lambda one: one[name])]


def _numbers_of_groups(records: Iterable[Record]) -> list[str]:
    """Columns."""
    return [_groups(number) for number in sorted({one["groups"] for one in records})]


def _groups(number: int) -> str:
    return "1 group" if number == 1 else f"{number} groups"


def _both(record: Record, name: str, form: str) -> tuple[str, str]:
    return f"{record[name]:{form}}", f"{record[f'real_{name}']:{form}}"


def _shared(record: Record) -> str:
    return "one frame for all" if record["coalesced"] else "a frame for each"


_SECTIONS: dict[str, Callable[[Sequence[Record]], Section]] = {
    "reality": _reality,
    "several": _several,
    "here": _here,
    "scale": _scale,
    "one": _one,
    "skew": _skew,
    "direct": _direct,
    "latency": _latency,
    "idle": _idle,
    "failover": _failover,
    "lost_disk": _lost_disk,
}
