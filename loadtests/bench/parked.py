"""Claims that wait: what many of them cost while nothing happens, and how soon they wake."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from cluster import until
from loadtests.bench import exchanges, machine
from loadtests.bench.client import HEAD_END
from loadtests.bench.plan import Plan
from loadtests.bench.records import Record, of_kind
from loadtests.bench.report import Section, Table
from loadtests.bench.service import Service

QUEUE = "quiet"
BODY_BYTES = 32
WAIT_S = 60.0
WAKE_WITHIN_S = 10.0
PARKED_S = 50.0  # Less than they wait.
LINGER_S = 0.5
"""Between the last claim that was parked and the time in which nothing happens."""


def records(service: Service, plan: Plan) -> Iterator[Record]:
    """The nodes' CPU time with nobody waiting, and with ``plan.parked`` claims on each of them.

    Then messages are put one by one: the time from a put to the claim that is given it.
    """
    yield from asyncio.run(_measure(service, plan))


def section(records: list[Record]) -> Section:
    """See ``records``."""
    return Section(
        "Claims that wait",
        "What parked claims cost while nothing happens, and how long after a put one of them is "
        "answered.",
        [
            Table(
                ("claims on each node", "% of a core for a node"),
                [
                    (f"{one['parked']:,}", f"{100 * one['server_cpu_share']:.2f}")
                    for one in of_kind(records, "parked")
                ],
                names=0,
            ),
            Table(
                ("claims woken, one by one", "p50 ms", "p99 ms"),
                [
                    (f"{one['wakes']:,}", f"{one['p50_ms']:.2f}", f"{one['p99_ms']:.2f}")
                    for one in of_kind(records, "wake")
                ],
                names=0,
            ),
        ],
    )


async def _measure(service: Service, plan: Plan) -> list[Record]:
    found = [await _quiet(service, 0, plan.parked_s)]
    woken: asyncio.Queue[float] = asyncio.Queue()
    polls = [
        asyncio.create_task(_poll(port, woken))
        for _ in range(plan.parked)
        for port in service.ports
    ]
    try:
        await asyncio.to_thread(
            until,
            lambda: service.parked_polls() >= len(polls),
            "all claims wait",
            PARKED_S,
            poll_s=0.1,
        )
        found.append(await _quiet(service, plan.parked, plan.parked_s))
        latencies_s = [await _wake(service.follower_port, woken) for _ in range(plan.wakes)]
    finally:
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)
    wakes = {"kind": "wake", "parked": plan.parked, "wakes": plan.wakes}
    return [*found, wakes | machine.percentiles(latencies_s)]


async def _quiet(service: Service, parked: int, seconds: float) -> Record:
    await asyncio.sleep(LINGER_S)
    before_s = machine.total_cpu_s(service.pids)
    await asyncio.sleep(seconds)
    used_s = machine.total_cpu_s(service.pids) - before_s
    return {
        "kind": "parked",
        "parked": parked,
        "seconds": seconds,
        "server_cpu_s": round(used_s, 2),
        "server_cpu_share": round(used_s / seconds / len(service.pids), 4),
    }


async def _poll(port: int, woken: asyncio.Queue[float]) -> None:
    """One claim on a connection of its own; tells when it was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(exchanges.claim_request(QUEUE, 1, WAIT_S))
        head = await reader.readuntil(HEAD_END)
        assert head[9:12] == b"201", head
        woken.put_nowait(time.perf_counter())
    finally:
        writer.transport.abort()


async def _wake(port: int, woken: asyncio.Queue[float]) -> float:
    """Put a message; the seconds until somebody has it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        started_s = time.perf_counter()
        writer.write(exchanges.put_request(QUEUE, 1, BODY_BYTES))
        head = await reader.readuntil(HEAD_END)
        assert head[9:12] == b"201", head
        return await asyncio.wait_for(woken.get(), WAKE_WITHIN_S) - started_s
    finally:
        writer.transport.abort()
