"""What is measured: three nodes as real processes, and the empty handler as a fourth."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import uvloop

from certificates import Authority
from cluster import Cluster, NotInTime, Settings, free_ports, until
from loadtests import ROOT
from loadtests.bench import exchanges, machine
from loadtests.bench.client import Exchange, Load, Measured
from loadtests.bench.exchanges import Lifecycles, Puts
from loadtests.bench.plan import ALL, LIFECYCLE, NULL, WEAK_PUT, Cell, Plan

READY_S = 60.0
DELETE_S = 60.0
CPU_UNIT = 10_000
LIMITS = {exchanges.LIMITED: {"bytes_per_s": 1 << 18, "bytes_burst": 1 << 16, "concurrent_max": 1}}
"""On each node: four batches of the noisy neighbour in a second, one at a time."""
PATIENT: Settings = {"api": {"wait_target_ms": 60_000}}
"""Clients that wait for each other's answers are no overload."""
CROWDED: Settings = {
    "fairness": {"accounts": LIMITS},
    "api": {"connections_per_address_max": 10_000},
}
"""Nodes shed as they do by default, and may be asked by many."""

_PARKED = re.compile(r"^raftq_parked_polls (\S+)$", re.MULTILINE)


class Guard(NamedTuple):
    """What the cluster is protected by; by nothing at first."""

    settings: Settings | None = None
    key: str = ""
    """Shown with each request."""
    tls: bool = False
    sealed: bool = False
    """Bodies are encrypted at rest."""


class Service:
    """A context manager: all processes run while it is open."""

    def __init__(self, directory: Path, guard: Guard | None = None) -> None:
        self._guard = guard or Guard()
        authority = Authority() if self._guard.tls else None
        self._tls = authority and authority.trust()
        settings = {**PATIENT, **(self._guard.settings or {})}
        self._cluster = Cluster(directory, settings=settings, authority=authority)
        for node in self._cluster:
            node.key = self._guard.key
        (self._null_port,) = free_ports(1)
        self._null: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._null = subprocess.Popen(
                [sys.executable, "-m", "loadtests.bench.null_server", str(self._null_port)],
                cwd=ROOT,
            )
            until(self._null_answers, "the empty handler answers")
            self._cluster.start().wait_ready(deadline_s=READY_S)
            self._prepare()
        except BaseException:
            print(self._cluster.logs(), file=sys.stderr)
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            print(self._cluster.logs(), file=sys.stderr)
        self._stop()

    @property
    def follower_port(self) -> int:
        """A node that does not lead, now."""
        return self._cluster.follower().api_port

    @property
    def ports(self) -> list[int]:
        """Of all nodes."""
        return [node.api_port for node in self._cluster]

    @property
    def pids(self) -> list[int]:
        """Of all nodes."""
        return [node.pid for node in self._cluster]

    def parked_polls(self) -> int:
        """Claims that wait, on all nodes together."""
        pages = [node.request("GET", "/metrics").body.decode() for node in self._cluster]
        return sum(int(float(number)) for page in pages for number in _PARKED.findall(page))

    def measure(self, cell: Cell, plan: Plan, repetition: int) -> dict[str, object]:
        """One cell's record."""
        queue = f"{cell.scenario}-{cell.target}-{cell.connections}-{cell.batch}-{repetition}"
        ports = self._ports(cell)
        pids = self.pids if cell.scenario != NULL else [self._null_pid]
        marks: list[tuple[float, float]] = []

        def mark() -> None:
            marks.append((machine.total_cpu_s(pids), machine.cpu_s(os.getpid())))

        def make() -> Exchange:
            if cell.scenario == LIFECYCLE:
                return Lifecycles(queue, cell.batch, plan.body_bytes, key=self._guard.key)
            persistent = cell.scenario != WEAK_PUT
            return Puts(
                queue, cell.batch, plan.body_bytes, persistent=persistent, key=self._guard.key
            )

        async def load() -> Measured:
            running = Load(
                ports, cell.connections, make, self._tls if cell.scenario != NULL else None
            )
            return await running.run(plan.warmup_s, plan.measure_s, mark)

        measured = _in_loop(load())
        record: dict[str, object] = {"kind": "cell", **cell._asdict(), "repetition": repetition}
        record |= _figures(measured, marks)
        if cell.scenario != NULL:
            record["rss_mib"] = {node.name: machine.rss_mib(node.pid) for node in self._cluster}
            self.forget(queue)
        return record

    def _ports(self, cell: Cell) -> list[int]:
        if cell.scenario == NULL:
            return [self._null_port]
        if cell.target == ALL:
            return self.ports
        return [self.follower_port]

    def _prepare(self) -> None:
        """Until all nodes know the key, and with bodies sealed if they are to be."""
        for node in self._cluster:
            until(lambda node=node: node.request("GET", "/cluster").status == 200, "it is let in")
        if self._guard.sealed:
            node, account = self._cluster.follower(), f"/v1/{exchanges.ACCOUNT}"
            for path, body in ((account, {}), (f"{account}/encryption", {"enabled": True})):
                answer = node.request("PUT", path, body)
                assert answer.status in (200, 201), answer

    def forget(self, queue: str, account: str = exchanges.ACCOUNT) -> None:
        """What one measurement leaves behind must not burden the next."""
        node = self._cluster.follower()
        answer = node.request("DELETE", exchanges.queue_path(queue, account), timeout_s=DELETE_S)
        assert answer.status in (200, 204), answer

    @property
    def _null_pid(self) -> int:
        assert self._null is not None
        return self._null.pid

    def _null_answers(self) -> bool:
        assert self._null is not None
        if self._null.poll() is not None:
            raise NotInTime(f"the empty handler has ended with {self._null.returncode}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._null_port)) == 0

    def _stop(self) -> None:
        self._cluster.close()
        if self._null is not None:
            self._null.terminate()
            self._null.wait(10)


def run_out(make: Callable[[], Load]) -> Measured:
    """Run a load until its exchanges have no more to say."""

    async def load() -> Measured:
        return await make().run_out()

    return _in_loop(load())


def _in_loop(work: Coroutine[Any, Any, Measured]) -> Measured:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def _figures(measured: Measured, marks: list[tuple[float, float]]) -> dict[str, object]:
    (servers_before_s, client_before_s), (servers_s, client_s) = marks
    unit = max(measured.messages, 1) / CPU_UNIT
    figures: dict[str, object] = {
        "messages_per_s": round(measured.messages / measured.seconds, 1),
        "requests_per_s": round(measured.requests / measured.seconds, 1),
        **machine.percentiles(measured.latencies_s),
        "server_cpu_s_per_10k": round((servers_s - servers_before_s) / unit, 3),
        "client_cpu_s_per_10k": round((client_s - client_before_s) / unit, 3),
        "client_cpu_share": round((client_s - client_before_s) / measured.seconds, 2),
        "errors": len(measured.errors),
    }
    if measured.errors:
        figures["first_error"] = measured.errors[0]
    return figures
