"""What becomes of three times the load that the service can carry.

Goodput is what was answered as it should and in time. It is measured at the peak, by as much
load as there is an answer for, and then second by second: at part of the peak, at three
times of it, and at part of it again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from statistics import mean

import uvloop

import plots
from loadtests.bench import exchanges, machine
from loadtests.bench.client import Load, saying
from loadtests.bench.exchanges import CREATED, Puts
from loadtests.bench.open_loop import GIVEN_UP, OpenLoop, Outcomes, Stage, peak_per_s
from loadtests.bench.plan import Plan
from loadtests.bench.records import Record, of_kind
from loadtests.bench.report import Plot, Section, Table
from loadtests.bench.service import Service
from plots import Series

QUEUE = "overload"
TIMELY_S = 2.0
"""Half of the time after which the Python client gives up on a replica and asks another."""
FACTOR = 3
CALM = 0.5  # Of the peak, before and after.
BACK = 0.95  # Of what is offered after the overload: it is answered again.
PEAK_CONNECTIONS = 192
BATCHES = (8, 1)
"""Messages of a request. By ones it is the hardest: to say no costs much of what a put does."""
OVERLOADED = 503


class Tries(Puts):
    """Puts that may be turned away, and then come again."""

    def next(self, status: int, body: bytes) -> bytes | None:
        """See ``Exchange``."""
        self.finished = self._batch if status == CREATED else 0
        return self._put


def records(service: Service, plan: Plan) -> Iterator[Record]:
    """The peak, and the whole course with its figures."""
    for batch in BATCHES:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            before_per_s = runner.run(_peak(service, plan, batch))
            course = runner.run(_course(service, plan, batch, before_per_s))
            after_per_s = runner.run(_peak(service, plan, batch))
        yield course | {"peak_after_per_s": round(after_per_s, 1)}
        service.forget(QUEUE)


def section(records: list[Record]) -> Section:
    """See the head of this module."""
    courses = of_kind(records, "overload")
    columns = ("messages in a request", "peak/s", "goodput/s", "of the peak", "shed", "not sent")
    more = ("late", "back after s", "RSS MiB", "server CPU", "client CPU")
    rows = [
        (
            f"{one['batch']}",
            f"{one['peak_per_s']:,.0f}",
            f"{one['goodput_per_s']:,.0f}",
            f"{100 * one['goodput_ratio']:.0f} %",
            *(f"{one[name]:,}" for name in ("shed", "not_sent", "late")),
            "not back" if one["back_after_s"] is None else f"{one['back_after_s']}",
            f"{one['rss_mib_max']:.0f}",
            f"{one['server_cpu_share']:.2f}",
            f"{one['client_cpu_share']:.2f}",
        )
        for one in courses
    ]
    return Section(
        "Overload",
        f"{FACTOR} times as many requests as the nodes can answer. Goodput is what is answered as "
        f"it should be, and within {TIMELY_S:g} s. CPU in cores.",
        [Table((*columns, *more), rows, names=0)],
        [
            Plot(f"requests of {one['batch']} messages a second, over time", _drawn(one))
            for one in courses
        ],
    )


def _drawn(one: Record) -> str:
    seconds = len(one["goodput"])
    peak = [(0.0, one["peak_per_s"]), (float(seconds), one["peak_per_s"])]
    lines = [
        Series("grey", "peak", peak),
        *(
            # Through the middle of each second.
            Series(colour, name, [(at + 0.5, value) for at, value in enumerate(one[key])])
            for key, name, colour in (
                ("offered_per_s", "offered", "orange"),
                ("goodput", "answered in time", "blue"),
            )
        ),
    ]
    top = max(value for line in lines for _, value in line.points)
    return plots.plot(plots.clock(seconds), plots.linear(top), lines)


async def _peak(service: Service, plan: Plan, batch: int) -> float:
    load = Load(
        service.ports, PEAK_CONNECTIONS, saying(lambda: Tries(QUEUE, batch, plan.body_bytes))
    )
    return await peak_per_s(load, batch, plan.warmup_s, plan.overload_s / 6)


async def _course(service: Service, plan: Plan, batch: int, peak_per_s: float) -> Record:
    calm_s = plan.overload_s / 6
    after_s = max(plan.overload_s / 3, 2.0)
    stages = (
        Stage(CALM * peak_per_s, calm_s),
        Stage(FACTOR * peak_per_s, plan.overload_s),
        Stage(CALM * peak_per_s, after_s),
    )
    request = exchanges.put_request(QUEUE, batch, plan.body_bytes)
    loop = OpenLoop(service.ports, plan.open_connections, request)
    rss_mib: list[float] = []
    cpu_before_s, served_s = machine.cpu_s(os.getpid()), machine.total_cpu_s(service.pids)

    def look() -> None:
        if loop.now_s() >= len(rss_mib):
            rss_mib.append(max(machine.rss_mib(pid) for pid in service.pids))

    await loop.run(stages, look)
    found = loop.outcomes
    ends_s = calm_s + plan.overload_s
    goodput = found.timely(CREATED, TIMELY_S, int(sum(stage.seconds for stage in stages)))
    during = goodput[int(calm_s) + 1 : int(ends_s)] or goodput
    back_at_s = _back_at_s(goodput, int(ends_s), BACK * CALM * peak_per_s)
    return {
        "kind": "overload",
        "batch": batch,
        "factor": FACTOR,
        "seconds": plan.overload_s,
        "peak_per_s": round(peak_per_s, 1),
        "goodput_per_s": round(mean(during), 1),
        "goodput_ratio": round(mean(during) / peak_per_s, 3),
        "back_after_s": None if back_at_s is None else round(max(back_at_s - ends_s, 0.0), 1),
        **_told(found, calm_s, ends_s),
        "rss_mib_before": rss_mib[0],
        "rss_mib_max": max(rss_mib),
        "server_cpu_share": round((machine.total_cpu_s(service.pids) - served_s) / loop.now_s(), 2),
        "client_cpu_share": round((machine.cpu_s(os.getpid()) - cpu_before_s) / loop.now_s(), 2),
        "offered_per_s": [round(rate) for rate in _offered(stages, len(goodput))],
        "goodput": goodput,
    }


def _told(found: Outcomes, since_s: float, until_s: float) -> Record:
    """What those heard who came during the overload."""
    served = found.latencies_s(CREATED, since_s=since_s, until_s=until_s)
    shed = found.latencies_s(OVERLOADED, since_s=since_s, until_s=until_s)
    return {
        "served": machine.percentiles(served),
        "shed": len(shed),
        "not_sent": found.count(GIVEN_UP, since_s=since_s, until_s=until_s),
        "late": sum(latency_s > TIMELY_S for latency_s in served),
    }


def _back_at_s(goodput: list[int], since_s: int, enough: float) -> int | None:
    """The second from which on there is enough, on average over what is left."""
    for at_s in range(since_s, len(goodput)):
        if goodput[at_s] >= enough and mean(goodput[at_s:]) >= enough:
            return at_s
    return None


def _offered(stages: tuple[Stage, ...], seconds: int) -> list[float]:
    return [
        next((s.rate_per_s for s, end in _ends(stages) if at_s < end), stages[-1].rate_per_s)
        for at_s in range(seconds)
    ]


def _ends(stages: tuple[Stage, ...]) -> Iterator[tuple[Stage, float]]:
    end_s = 0.0
    for stage in stages:
        end_s += stage.seconds
        yield stage, end_s
