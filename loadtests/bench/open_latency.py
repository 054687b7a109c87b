"""Latency at fixed rates: how long one waits who comes when he comes.

Requests are due at a rate that is a part of what was answered just before to clients that
wait for their answers. They count from when they were due, so a service that stops for a
moment is charged for all who came meanwhile (no "coordinated omission"; Tene, "How NOT to
Measure Latency", 2013).
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Iterator

import uvloop

import plots
from loadtests.bench import exchanges, machine
from loadtests.bench.client import Load, saying
from loadtests.bench.exchanges import CREATED, Puts
from loadtests.bench.open_loop import OpenLoop, Stage, peak_per_s
from loadtests.bench.plan import Plan
from loadtests.bench.records import Record, of_kind
from loadtests.bench.report import Plot, Section, Table
from loadtests.bench.service import Service
from plots import Series

QUEUE = "open"
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
CONNECTIONS = 1_000
CAPACITY_CONNECTIONS = 256
FIGURES = {"p50_ms": ("p50", "green"), "p99_ms": ("p99", "orange"), "max_ms": ("longest", "red")}


def records(service: Service, plan: Plan) -> Iterator[Record]:
    """One for each rate, from few requests to nearly all that can be answered."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        capacity_per_s = runner.run(_capacity_per_s(service, plan))
        for share in SHARES:
            found = runner.run(_at(service, plan, share * capacity_per_s))
            yield {"kind": "open", "capacity_per_s": round(capacity_per_s), "share": share, **found}
    service.forget(QUEUE)


def section(records: list[Record]) -> Section:
    """See the head of this module."""
    rates = of_kind(records, "open")
    x = plots.linear(max(one["offered_per_s"] for one in rates), ticks=5)
    values = [max(one[name], 1e-3) for one in rates for name in FIGURES]
    lines = [
        Series(colour, text, [(one["offered_per_s"], one[name]) for one in rates])
        for name, (text, colour) in FIGURES.items()
    ]
    rows = [
        (
            f"{one['offered_per_s']:,.0f}",
            f"{100 * one['share']:.0f} %",
            *(f"{one[name]:,.1f}" for name in FIGURES),
            f"{one['not_served']:,}",
            f"{one['server_cpu_share']:.2f}",
            f"{one['client_cpu_share']:.2f}",
        )
        for one in rates
    ]
    columns = ("puts a second", "of the peak", "p50 ms", "p99 ms")
    more = ("max ms", "not served", "server CPU", "client CPU")
    return Section(
        "Fixed rates",
        "Puts of 1 KiB that come when they are due, whatever became of those before; their time "
        "counts from then. CPU in cores.",
        [Table((*columns, *more), rows, names=0)],
        [
            Plot(
                "time to the answer, over puts a second",
                plots.plot(x, plots.decades(min(values), max(values), " ms"), lines),
            )
        ],
    )


async def _capacity_per_s(service: Service, plan: Plan) -> float:
    connections = min(CAPACITY_CONNECTIONS, plan.open_connections)
    load = Load(service.ports, connections, saying(lambda: Puts(QUEUE, 1, plan.body_bytes)))
    return await peak_per_s(load, 1, plan.warmup_s, plan.open_s / 2)


async def _at(service: Service, plan: Plan, rate_per_s: float) -> Record:
    put = exchanges.put_request(QUEUE, 1, plan.body_bytes)
    loop = OpenLoop(
        service.ports, min(CONNECTIONS, plan.open_connections), put, patience_s=math.inf
    )
    cpu_before_s, served_s = machine.cpu_s(os.getpid()), machine.total_cpu_s(service.pids)
    await loop.run([Stage(rate_per_s, plan.open_s)])
    seconds = loop.now_s()
    latencies_s = loop.outcomes.latencies_s(CREATED, since_s=0.0, until_s=plan.open_s)
    return {
        "offered_per_s": round(rate_per_s, 1),
        "seconds": plan.open_s,
        "served": len(latencies_s),
        **machine.percentiles(latencies_s),
        "max_ms": round(1000 * max(latencies_s, default=0.0), 1),
        "not_served": loop.due - len(latencies_s),
        "server_cpu_share": round((machine.total_cpu_s(service.pids) - served_s) / seconds, 2),
        "client_cpu_share": round((machine.cpu_s(os.getpid()) - cpu_before_s) / seconds, 2),
    }
