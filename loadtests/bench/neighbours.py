"""Does one tenant notice another that asks for as much as the service can do?

The quiet one puts single messages at a steady rate. The noisy one puts batches, as many in a
second as are answered when nobody else is there; once without limits, and once with some.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from statistics import median

import uvloop

from loadtests.bench import exchanges, machine
from loadtests.bench.client import Load, saying
from loadtests.bench.exchanges import CREATED, LIMITED, NOISY, QUIET, Puts
from loadtests.bench.open_loop import OpenLoop, Stage, peak_per_s
from loadtests.bench.plan import Plan
from loadtests.bench.records import Record, of_kind
from loadtests.bench.report import Section, Table
from loadtests.bench.service import Service

QUEUE = "orders"
QUIET_PER_S = 50
QUIET_CONNECTIONS = 30
NOISES = {"none": None, "limits on": LIMITED, "limits off": NOISY}
NOISY_BATCH = 64
NOISY_CONNECTIONS = 16
LIMITED_STATUS = 429
OVERLOADED = 503


def records(service: Service, plan: Plan) -> Iterator[Record]:
    """The quiet one's latency alone, beside a noisy one, and beside one with limits.

    Round by round, so that a machine that is slower for a while does not decide the ratios.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for repetition in range(plan.repetitions):
            capacity_per_s = runner.run(_capacity(service, plan))
            alone_ms = 0.0
            for noisy, account in NOISES.items():
                found = runner.run(_beside(service, plan, account, capacity_per_s))
                alone_ms = alone_ms or found["p99_ms"]
                ratio = round(found["p99_ms"] / max(alone_ms, 1e-9), 2)
                about = {"kind": "neighbour", "noisy": noisy, "repetition": repetition}
                yield {**about, **found, "p99_ratio": ratio}
    for account in (QUIET, NOISY, LIMITED):
        service.forget(QUEUE, account)


def section(records: list[Record]) -> Section:
    """See ``records``; medians of the rounds."""
    rounds = of_kind(records, "neighbour")
    rows = []
    for noisy in dict.fromkeys(one["noisy"] for one in rounds):
        own = [one for one in rounds if one["noisy"] == noisy]
        figures = [median(one[name] for one in own) for name in ("p50_ms", "p99_ms", "p99_ratio")]
        rows.append((noisy, *(f"{figure:.1f}" for figure in figures)))
    return Section(
        "Neighbours",
        f"A quiet tenant with {QUIET_PER_S} puts a second, beside one that asks for as much as the "
        "nodes can do.",
        [Table(("noisy neighbour", "p50 ms", "p99 ms", "p99 x alone"), rows)],
    )


async def _capacity(service: Service, plan: Plan) -> float:
    """Batches that are answered in a second."""

    def make() -> Puts:
        return Puts(QUEUE, NOISY_BATCH, plan.body_bytes, account=NOISY)

    load = Load(service.ports, NOISY_CONNECTIONS, saying(make))
    return await peak_per_s(load, NOISY_BATCH, plan.warmup_s, plan.noisy_s / 4)


async def _beside(
    service: Service, plan: Plan, noisy: str | None, noisy_per_s: float
) -> dict[str, float]:
    put = exchanges.put_request(QUEUE, 1, plan.body_bytes, account=QUIET)
    quiet = OpenLoop(service.ports, QUIET_CONNECTIONS, put, patience_s=math.inf)
    running = [quiet.run([Stage(QUIET_PER_S, plan.noisy_s)])]
    found: dict[str, float] = {}
    if noisy is not None:
        found["noisy_per_s"] = round(noisy_per_s, 1)
        puts = exchanges.put_request(QUEUE, NOISY_BATCH, plan.body_bytes, account=noisy)
        other = OpenLoop(service.ports, NOISY_CONNECTIONS * len(service.ports), puts)
        running.append(other.run([Stage(noisy_per_s, plan.noisy_s)]))
    await asyncio.gather(*running)
    latencies_s = quiet.outcomes.latencies_s(CREATED, since_s=0.0, until_s=plan.noisy_s)
    found |= machine.percentiles(latencies_s)
    found["errors"] = quiet.due - len(latencies_s)
    if noisy is not None:
        for status in (CREATED, LIMITED_STATUS, OVERLOADED):
            found[f"noisy_{status}"] = other.outcomes.count(status)
    return found
