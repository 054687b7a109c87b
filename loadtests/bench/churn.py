"""Hours of messages that come and go: does anything grow that should not?

Every message is put, claimed and acknowledged, all in one queue that is as good as empty all
the time, for as long as the plan says. What is deleted must free its memory and its disk, and
must not make claims slower. Nobody fails, so a term that grows is an election for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median

import plots
from loadtests.bench import machine
from loadtests.bench.plan import ALL, LIFECYCLE, Cell, Plan
from loadtests.bench.records import Record, of_kind
from loadtests.bench.report import Plot, Section, Table
from loadtests.bench.service import Service
from plots import Axis, Series

QUEUE = "churn"
SAMPLES = 120
SAMPLE_S_MAX = 60.0
PARTS = 10


def records(service: Service, plan: Plan) -> Iterator[Record]:
    """Samples: what was done in a while, and what the nodes take at its end."""
    cell = Cell(LIFECYCLE, ALL, plan.several, 1, plan.body_bytes)
    sample_s = min(max(plan.churn_s / SAMPLES, plan.measure_s), SAMPLE_S_MAX)
    sample = plan._replace(warmup_s=0.0, measure_s=sample_s)
    began_s = time.monotonic()
    while (at_s := time.monotonic() - began_s) < plan.churn_s:
        found = service.load(cell, sample, QUEUE)
        disk_mib = {node.name: machine.disk_mib(node.data_dir) for node in service.cluster}
        about = {"kind": "churn", "at_s": round(at_s, 1), "seconds": sample_s}
        yield about | found | {"disk_mib": disk_mib, "term": service.term()}
    service.forget(QUEUE)


def section(records: list[Record]) -> Section:
    """See the head of this module."""
    samples = of_kind(records, "churn")
    nodes = dict(zip(samples[0]["rss_mib"], ("blue", "orange", "green"), strict=True))
    x = plots.clock(samples[-1]["at_s"])

    def line(css: str, name: str, value: Callable[[Record], float]) -> Series:
        return Series(css, name, [(one["at_s"], value(one)) for one in samples])

    def of_nodes(figure: str) -> list[Series]:
        return [
            line(css, node, lambda one, node=node: one[figure][node]) for node, css in nodes.items()
        ]

    latencies = [
        line("green", "p50", lambda one: one["p50_ms"]),
        line("orange", "p99", lambda one: one["p99_ms"]),
    ]
    rate = [line("blue", "put, claimed and acknowledged", lambda one: one["messages_per_s"])]
    return Section(
        "Churn",
        "Messages of 1 KiB that come and go, over time; a sample is taken at the end of each "
        f"{samples[0]['seconds']:g} s.",
        [_ends(samples)],
        [
            Plot("messages a second", _over_time(x, rate, "")),
            Plot("time of a put, a claim and an ack", _over_time(x, latencies, " ms")),
            Plot("memory of each node", _over_time(x, of_nodes("rss_mib"), " MiB")),
            Plot("disk of each node", _over_time(x, of_nodes("disk_mib"), " MiB")),
        ],
    )


def _over_time(x: Axis, lines: list[Series], unit: str) -> str:
    top = max(value for line in lines for _, value in line.points)
    return plots.plot(x, plots.linear(top, unit), lines)


def _ends(samples: Sequence[Record]) -> Table:
    """Medians at both ends: what grows shows."""
    part = max(len(samples) // PARTS, 1)
    rows = []
    for name, own in (("first", samples[:part]), ("last", samples[-part:])):
        rows.append(
            (
                f"{name} {part} of {len(samples)}",
                *(
                    f"{median(one[key] for one in own):,.1f}"
                    for key in ("messages_per_s", "p99_ms")
                ),
                *(
                    f"{median(max(one[key].values()) for one in own):,.1f}"
                    for key in ("rss_mib", "disk_mib")
                ),
                f"{own[-1]['term']}",
            )
        )
    return Table(("samples", "messages/s", "p99 ms", "RSS MiB", "disk MiB", "term"), rows)
