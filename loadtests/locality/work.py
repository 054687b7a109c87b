"""Producers and workers of all zones at one queue, and what they saw while it was measured."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import NamedTuple

from loadtests.bench.machine import percentiles
from loadtests.locality.wire import Wire

BACKLOG_MAX = 2_000  # Without a rate: puts wait while so much is in the queue.
PAUSE_S = 0.005
CPU_UNIT = 10_000


class Mode(NamedTuple):
    """A way to claim; the fields of the request that ask for it."""

    name: str
    fields: Mapping[str, object]


class Crew(NamedTuple):
    """The clients of each zone."""

    producers: int
    workers: int
    batch: int
    limit: int


class Seen:
    """What the workers of one zone were given while ``open``."""

    def __init__(self) -> None:
        self.own = 0
        self.foreign = 0
        self.latencies_s = array("d")  # From the put to the claim.

    def record(self, own: bool, latency_s: float) -> None:
        """One message."""
        self.own += own
        self.foreign += not own
        self.latencies_s.append(latency_s)


class Work:
    """One measurement."""

    def __init__(self, ports: Mapping[str, int], queue: str, crew: Crew, mode: Mode) -> None:
        self._ports, self._queue, self._crew, self._mode = ports, queue, crew, mode
        self._backlog = 0
        self._stopping = False
        self._open = False
        self._acked = 0
        self.seen = {zone: Seen() for zone in ports}

    async def run(
        self,
        warmup_s: float,
        measure_s: float,
        messages_per_s: float | None,
        cpu_s: Callable[[], float],
    ) -> dict[str, object]:
        """Figures; without a rate as much is put as is worked off. ``cpu_s``: the nodes' own."""
        async with asyncio.TaskGroup() as tasks:
            count = len(self._ports) * self._crew.producers
            gap_s = None if messages_per_s is None else count * self._crew.batch / messages_per_s
            place = 0
            for zone, port in self._ports.items():
                for _ in range(self._crew.producers):
                    first_s = perf_counter() + (gap_s or 0.0) * place / count
                    tasks.create_task(self._produce(port, first_s, gap_s))
                    place += 1
                for _ in range(self._crew.workers):
                    tasks.create_task(self._work(zone, port))
            await asyncio.sleep(warmup_s)
            self._open, self._acked, began_s, cpu_before_s = True, 0, perf_counter(), cpu_s()
            await asyncio.sleep(measure_s)
            self._open, took_s = False, perf_counter() - began_s
            acked, used_s = self._acked, cpu_s() - cpu_before_s
            self._stopping = True
        return self._figures(acked / took_s, used_s / max(acked, 1))

    async def _produce(self, port: int, due_s: float, gap_s: float | None) -> None:
        wire = await Wire.connect(port)
        while not self._stopping:
            if gap_s is None:
                if self._backlog > BACKLOG_MAX:
                    await asyncio.sleep(PAUSE_S)
                    continue
            else:
                # Late ones are made up for: the rate is kept as long as the node keeps up.
                await asyncio.sleep(max(0.0, due_s - perf_counter()))
                due_s += gap_s
            await wire.put(self._queue, self._crew.batch, perf_counter())
            self._backlog += self._crew.batch
        wire.close()

    async def _work(self, zone: str, port: int) -> None:
        wire, seen = await Wire.connect(port), self.seen[zone]
        while not self._stopping:
            claimed = await wire.claim(self._queue, self._crew.limit, dict(self._mode.fields))
            if claimed is None:
                continue
            now_s = perf_counter()
            if self._open:
                for message in claimed.messages:
                    seen.record(message.zone == zone, now_s - message.body)
            await wire.ack(self._queue, claimed.claim)
            self._backlog -= len(claimed.messages)
            self._acked += len(claimed.messages)
        wire.close()

    def _figures(self, messages_per_s: float, cpu_s: float) -> dict[str, object]:
        own = sum(seen.own for seen in self.seen.values())
        given = own + sum(seen.foreign for seen in self.seen.values())
        return {
            "mode": self._mode.name,
            "messages_per_s": round(messages_per_s, 1),
            "server_cpu_s_per_10k": round(cpu_s * CPU_UNIT, 2),
            "own_zone_share": round(own / max(given, 1), 4),
            "zones": {
                zone: {"own": seen.own, "foreign": seen.foreign, **percentiles(seen.latencies_s)}
                for zone, seen in self.seen.items()
            },
        }
