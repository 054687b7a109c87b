"""What a cluster takes that nobody asks anything."""

from __future__ import annotations

import time
from collections.abc import Iterator

from loadtests.bench import machine
from loadtests.bench.plan import Plan
from loadtests.bench.records import Record, of_kind
from loadtests.bench.report import Section, Table
from loadtests.bench.service import Service


def records(service: Service, plan: Plan) -> Iterator[Record]:
    """CPU in percent of a core, and memory, of each node, once what a start leaves is done."""
    time.sleep(plan.idle_s / 2)
    shares = machine.cpu_percents(service.pids, plan.idle_s)
    yield {
        "kind": "idle",
        "seconds": plan.idle_s,
        "cpu_percent": {
            node.name: round(share, 2) for node, share in zip(service.cluster, shares, strict=True)
        },
        "rss_mib": service.rss_mib(),
    }


def section(records: list[Record]) -> Section:
    """See ``records``."""
    rows = [
        (node, f"{percent:.2f}", f"{one['rss_mib'][node]:.0f}")
        for one in of_kind(records, "idle")
        for node, percent in one["cpu_percent"].items()
    ]
    table = Table(("node", "% of a core", "RSS MiB"), rows)
    return Section("Idle", "What a cluster takes that nobody asks anything.", [table])
