"""How long nobody is answered whose leader has died: SIGKILL under load, again and again.

Puts come at a fixed rate to the nodes that are left, and wait there for a new leader. What
counts is the time from the signal until the first of those is acknowledged that came after it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from statistics import median

import uvloop

from cluster import NotInTime
from loadtests.bench import exchanges
from loadtests.bench.exchanges import CREATED
from loadtests.bench.open_loop import OpenLoop, Stage
from loadtests.bench.plan import Plan
from loadtests.bench.records import Record, of_kind
from loadtests.bench.report import Section, Table
from loadtests.bench.service import READY_S, Service

QUEUE = "failover"
RATE_PER_S = 200
CONNECTIONS = 2_000
BEFORE_S = 1.0
GIVE_UP_S = 30.0
POLL_S = 0.002


def records(service: Service, plan: Plan) -> Iterator[Record]:
    """One for each leader that was killed, and the median of them with the worst."""
    found = []
    for number in range(plan.kills):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            seconds = runner.run(_without_leader_s(service, plan))
        found.append(seconds)
        yield {"kind": "failover", "kill": number, "seconds": seconds}
        service.cluster.start().wait_ready(deadline_s=READY_S)
    yield {
        "kind": "failovers",
        "kills": plan.kills,
        "median_s": round(median(found), 3),
        "max_s": max(found),
    }
    service.forget(QUEUE)


def section(records: list[Record]) -> Section:
    """See ``records``."""
    rows = [
        (f"{one['kills']}", f"{one['median_s']:.2f}", f"{one['max_s']:.2f}")
        for one in of_kind(records, "failovers")
    ]
    about = "From the SIGKILL of the leader, under load, to the first acknowledged put."
    return Section("Fail-over", about, [Table(("kills", "median s", "longest s"), rows, names=0)])


async def _without_leader_s(service: Service, plan: Plan) -> float:
    leader = service.cluster.wait_leader()
    ports = [node.api_port for node in service.cluster if node is not leader]
    put = exchanges.put_request(QUEUE, 1, plan.body_bytes)
    loop = OpenLoop(ports, min(CONNECTIONS, plan.open_connections), put)
    running = asyncio.create_task(loop.run([Stage(RATE_PER_S, BEFORE_S + GIVE_UP_S)]))
    try:
        while len(loop.outcomes.status) < BEFORE_S * RATE_PER_S:
            await _look_again(running)
        killed_s = loop.now_s()
        leader.signal(signal.SIGKILL)
        while (done_s := loop.outcomes.first_s(CREATED, due_since_s=killed_s)) is None:
            await _look_again(running)
        return round(done_s - killed_s, 3)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        leader.exit_code()


async def _look_again(running: asyncio.Task[None]) -> None:
    if running.done():
        running.result()
        raise NotInTime("no put was acknowledged any more")
    await asyncio.sleep(POLL_S)
