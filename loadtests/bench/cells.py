"""Closed-loop load: what so many connections get done that each wait for their answers.

In every repetition everything has its turn, the disk alone as well, so that a machine that
is slower for a while slows all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import median

import plots
from loadtests.bench import machine
from loadtests.bench.plan import ALL, BASELINES, KIB, LIFECYCLE, PUT, Cell, Plan
from loadtests.bench.records import Record, of_kind
from loadtests.bench.report import Plot, Section, Table
from loadtests.bench.service import Service
from plots import Axis, Series

SYNC_SHARE = 0.5
SYNC_BYTES = (KIB, 64 * KIB)
COLOURS = ("blue", "orange", "green", "purple", "teal", "red", "grey")
SIZES = {"connections": "clients", "batch": "batch", "body_bytes": "bytes", "queues": "queues"}
NOTES = (
    "Bars are 95 % intervals of the medians over the repetitions. "
    "CPU in seconds for 10,000 messages, that of all nodes together."
)
WIDE = {
    "p50_ms": ("p50, all nodes asked", " ms"),
    "p99_ms": ("p99, all nodes asked", " ms"),
    "server_cpu_s_per_10k": ("CPU of the nodes", " s"),
    "client_cpu_s_per_10k": ("CPU of the load generator", " s"),
}


def by_connections(service: Service, plan: Plan) -> Iterator[Record]:
    """From one connection to many, to each target, beside all baselines and the disk alone."""
    for repetition in range(plan.repetitions):
        for size in SYNC_BYTES:
            synced = machine.sync_loop(service.directory, size, plan.measure_s * SYNC_SHARE)
            yield {"kind": "sync_loop", "repetition": repetition, **synced}
        yield from _measured(service, plan, repetition, plan.by_connections())


def by_batch(service: Service, plan: Plan) -> Iterator[Record]:
    """More messages in a request."""
    yield from _repeated(service, plan, plan.by_batch())


def by_body(service: Service, plan: Plan) -> Iterator[Record]:
    """Smaller and larger messages."""
    yield from _repeated(service, plan, plan.by_body())


def by_queues(service: Service, plan: Plan) -> Iterator[Record]:
    """More and more queues, all of which there are before anything is measured."""
    yield from _repeated(service, plan, plan.by_queues())


def connections_section(records: list[Record]) -> Section:
    """See ``by_connections``."""
    section = _section(
        "Connections",
        "Clients that each wait for their answers: messages of 1 KiB, one in a request, to all "
        "nodes, to a follower alone, or to the leader alone, beside servers that do nothing. A "
        "lifecycle is a put, a claim and an ack.",
        records,
        "connections",
    )
    return section._replace(tables=[*section.tables, _syncs(of_kind(records, "sync_loop"))])


def batches_section(records: list[Record]) -> Section:
    """See ``by_batch``."""
    about = "Messages of 1 KiB in one request."
    return _section("Batches", about, records, "batch")


def bodies_section(records: list[Record]) -> Section:
    """See ``by_body``."""
    about = "Messages of other sizes, in bytes, one in a request."
    return _section("Bodies", about, records, "body_bytes")


def queues_section(records: list[Record]) -> Section:
    """See ``by_queues``."""
    about = "The same messages, spread over more and more queues."
    return _section("Queues", about, records, "queues")


def _repeated(service: Service, plan: Plan, cells: list[Cell]) -> Iterator[Record]:
    for repetition in range(plan.repetitions):
        yield from _measured(service, plan, repetition, cells)


def _measured(
    service: Service, plan: Plan, repetition: int, cells: Iterable[Cell]
) -> Iterator[Record]:
    for cell in cells:
        yield service.measure(cell, plan.lasting(cell), repetition)


def _section(title: str, about: str, records: list[Record], size: str) -> Section:
    """Everything over one size; latencies and CPU only where all nodes are asked."""
    summaries = of_kind(records, "median")
    asked = [one for one in summaries if one["scenario"] not in BASELINES]
    empty = [one for one in summaries if one["scenario"] in BASELINES]
    durable = [one for one in asked if one["target"] == ALL and one["scenario"] in (PUT, LIFECYCLE)]
    over = f", over {title.lower()}"
    drawn = [Plot(f"messages a second{over}", _rates(asked, "messages_per_s", size))]
    if len({one[size] for one in empty}) > 1:
        drawn.append(
            Plot(f"requests a second to baselines{over}", _rates(empty, "requests_per_s", size))
        )
    for figure, (of, unit) in WIDE.items():
        drawn.append(Plot(f"{of}{over}", _wide(durable, figure, size, unit)))
    told = f"{about} {_fixed(summaries)}{NOTES}"
    return Section(title, told, [_cells(summaries)], drawn)


def _rates(summaries: list[Record], figure: str, size: str) -> str:
    top = max(one["interval"][figure][1] for one in summaries)
    return plots.plot(_sizes(summaries, size), plots.linear(top), _lines(summaries, figure, size))


def _wide(summaries: list[Record], figure: str, size: str, unit: str) -> str:
    values = [max(value, 1e-3) for one in summaries for value in one["interval"][figure]]
    y = plots.decades(min(values), max(values), unit)
    return plots.plot(_sizes(summaries, size), y, _lines(summaries, figure, size))


def _sizes(summaries: list[Record], size: str) -> Axis:
    values = sorted({one[size] for one in summaries})
    return plots.stops(values, [f"{value:,}" for value in values])


def _lines(summaries: list[Record], figure: str, size: str) -> list[Series]:
    """One for each scenario and target."""
    lines: dict[str, list[Record]] = {}
    for one in summaries:
        lines.setdefault(_name(one), []).append(one)
    return [
        Series(
            colour,
            name,
            [(one[size], one[figure]) for one in own],
            [one["interval"][figure] for one in own],
        )
        for colour, (name, own) in zip(COLOURS, lines.items(), strict=False)
    ]


def _name(one: Record) -> str:
    return (
        one["scenario"] if one["scenario"] in BASELINES else f"{one['scenario']}, {one['target']}"
    )


def _cells(summaries: list[Record]) -> Table:
    sizes = [name for name in SIZES if len({one[name] for one in summaries}) > 1]
    figures = ("messages/s", "95 %", "x null", "p50 ms", "p99 ms", "server CPU", "client CPU")
    rows = []
    for one in summaries:
        low, high = one["interval"]["messages_per_s"]
        rows.append(
            (
                one["scenario"],
                one["target"],
                *(f"{one[name]:,}" for name in sizes),
                f"{one['messages_per_s']:,.0f}",
                f"{low:,.0f} to {high:,.0f}",
                f"{one['ratio_to_null']:.2f}" if "ratio_to_null" in one else "",
                f"{one['p50_ms']:.2f}",
                f"{one['p99_ms']:.2f}",
                f"{one['server_cpu_s_per_10k']:.2f}",
                f"{one['client_cpu_s_per_10k']:.2f}",
                f"{one['rss_mib_max']:.0f}" if "rss_mib_max" in one else "",
            )
        )
    columns = ("scenario", "to", *(SIZES[name] for name in sizes), *figures, "RSS MiB")
    return Table(columns, rows, names=2)


def _fixed(summaries: list[Record]) -> str:
    """The sizes that are the same everywhere; those that differ have their columns."""
    found = {name: {one[name] for one in summaries} for name in SIZES}
    told = [f"{SIZES[name]} {min(of):,}" for name, of in found.items() if len(of) == 1]
    return f"Everywhere: {', '.join(told)}. " if told else ""


def _syncs(loops: list[Record]) -> Table:
    rows = []
    for size in SYNC_BYTES:
        own = [one for one in loops if one["append_bytes"] == size]
        figures = [median(one[name] for one in own) for name in ("syncs_per_s", "p50_ms", "p99_ms")]
        rows.append((f"{size:,}", *(f"{figure:,.2f}" for figure in figures)))
    return Table(("bytes, each with an fdatasync", "a second", "p50 ms", "p99 ms"), rows)
