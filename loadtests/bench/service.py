"""What is measured: three nodes as real processes, and a process for each baseline."""

from __future__ import annotations

import asyncio
import itertools
import os
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
from loadtests.bench.client import HTTP, Exchange, Load, Measured, saying
from loadtests.bench.consumers import Consumer
from loadtests.bench.exchanges import LINES, InTurn, Lifecycles, Puts, Rounds, Streams, Transactions
from loadtests.bench.plan import (
    ALL,
    BASELINES,
    CONSUME,
    LEADER,
    LIFECYCLE,
    ROUNDS,
    STREAM,
    TRANSACTION,
    WEAK_PUT,
    Cell,
    Plan,
)
from loadtests.bench.records import Record

READY_S = 60.0
DELETE_S = 60.0
OPENING_MAX = 8
KINDS: dict[str, Callable[..., Exchange]] = {
    LIFECYCLE: Lifecycles,
    ROUNDS: Rounds,
    TRANSACTION: Transactions,
    STREAM: Streams,
}
"""What is said by scenario, but for puts."""
CPU_UNIT = 10_000
LIMITS = {exchanges.LIMITED: {"bytes_per_s": 1 << 18, "bytes_burst": 1 << 16, "concurrent_max": 1}}
"""On each node: four batches of the noisy neighbour in a second, one at a time."""
CROWD: dict[str, object] = {"connections_per_address_max": 10_000}
PATIENT: Settings = {"api": {"wait_target_ms": 60_000, **CROWD}}
"""Clients that wait for each other's answers are no overload."""
CROWDED: Settings = {"fairness": {"accounts": LIMITS}, "api": CROWD}
"""Nodes shed as they do by default, and may be asked by many."""


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
        self.directory = directory
        self._guard = guard or Guard()
        authority = Authority() if self._guard.tls else None
        self._tls = authority and authority.trust()
        settings = {**PATIENT, **(self._guard.settings or {})}
        self.cluster = Cluster(directory, settings=settings, authority=authority)
        for node in self.cluster:
            node.key = self._guard.key
        self._baseline_ports = dict(zip(BASELINES, free_ports(len(BASELINES)), strict=True))
        self._baselines: dict[str, subprocess.Popen[bytes]] = {}
        self._queues = 0

    def __enter__(self) -> Self:
        try:
            for name, port in self._baseline_ports.items():
                self._baselines[name] = subprocess.Popen(
                    [sys.executable, "-m", "loadtests.bench.baselines", name, str(port)], cwd=ROOT
                )
            self.cluster.start().wait_ready(deadline_s=READY_S)
            until(self._baselines_answer, "the baselines answer")
            self._prepare()
        except BaseException:
            print(self.cluster.logs(), file=sys.stderr)
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
            print(self.cluster.logs(), file=sys.stderr)
        self._stop()

    @property
    def follower_port(self) -> int:
        """A node that does not lead, now."""
        return self.cluster.follower().api_port

    @property
    def ports(self) -> list[int]:
        """Of all nodes."""
        return [node.api_port for node in self.cluster]

    @property
    def pids(self) -> list[int]:
        """Of all nodes."""
        return [node.pid for node in self.cluster]

    def parked_polls(self) -> int:
        """Claims that wait, on all nodes together."""
        return round(sum(node.metric("raftq_parked_polls") for node in self.cluster))

    def term(self) -> int:
        """The latest term of any node: one more for each election since the first."""
        return round(max(node.metric("raftq_term") for node in self.cluster))

    def measure(self, cell: Cell, plan: Plan, repetition: int) -> Record:
        """One cell's record, and nothing left behind that would burden the next."""
        queue = "-".join(str(part) for part in (*cell, repetition))
        record = {"kind": "cell", **cell._asdict(), "repetition": repetition}
        record |= self.load(cell, plan, queue)
        if cell.scenario not in BASELINES and cell.queues == 1:
            self.forget(queue)
        return record

    def load(self, cell: Cell, plan: Plan, queue: str) -> Record:
        """What a cell comes to, with all messages in this queue if it is of one queue."""
        ports, pids, tls = self._ports(cell), self.pids, self._tls
        if cell.scenario in BASELINES:
            pids, tls = [self._baselines[cell.scenario].pid], None
        if cell.queues > 1:
            self._create(cell)
        places = itertools.count()

        def make() -> Exchange:
            if cell.queues == 1:
                return self._exchange(cell, queue)
            own = range(next(places) % cell.queues, cell.queues, cell.connections)
            return InTurn(self._exchange(cell, _one_of_many(number)) for number in own)

        def load() -> Load:
            if cell.scenario == CONSUME:
                assert cell.queues == 1, "consumers share a queue"
                opening = asyncio.Semaphore(OPENING_MAX)
                return Load(
                    ports,
                    cell.connections,
                    lambda measured: Consumer(
                        queue,
                        cell.batch,
                        cell.body_bytes,
                        measured,
                        opening,
                        key=self._guard.key,
                    ),
                    tls,
                )
            dialect = LINES if cell.scenario == STREAM else HTTP
            return Load(ports, cell.connections, saying(make, dialect), tls)

        figures = run_measured(load, plan, lambda: machine.total_cpu_s(pids))
        if cell.scenario not in BASELINES:
            figures["rss_mib"] = self.rss_mib()
        return figures

    def rss_mib(self) -> dict[str, float]:
        """Of each node."""
        return {node.name: machine.rss_mib(node.pid) for node in self.cluster}

    def _exchange(self, cell: Cell, queue: str) -> Exchange:
        kind = KINDS.get(cell.scenario)
        if kind is not None:
            return kind(queue, cell.batch, cell.body_bytes, key=self._guard.key)
        persistent = cell.scenario != WEAK_PUT
        return Puts(queue, cell.batch, cell.body_bytes, persistent=persistent, key=self._guard.key)

    def _create(self, cell: Cell) -> None:
        """The first put to a queue creates it; that is not what is measured."""
        missing = range(self._queues, cell.queues)
        if missing:
            places = itertools.count()

            def make() -> Exchange:
                own = missing[next(places) :: cell.connections]
                return InTurn(Puts(_one_of_many(number), 1, 0, 1) for number in own)

            run_out(lambda: Load(self.ports, min(cell.connections, len(missing)), saying(make)))
            self._queues = cell.queues

    def _ports(self, cell: Cell) -> list[int]:
        if cell.scenario in BASELINES:
            return [self._baseline_ports[cell.scenario]]
        if cell.target == ALL:
            return self.ports
        if cell.target == LEADER:
            return [self.cluster.wait_leader().api_port]
        return [self.follower_port]

    def _prepare(self) -> None:
        """Until all nodes know the key, and with bodies sealed if they are to be."""
        for node in self.cluster:
            until(lambda node=node: node.request("GET", "/cluster").status == 200, "it is let in")
        if self._guard.sealed:
            node, account = self.cluster.follower(), f"/v1/{exchanges.ACCOUNT}"
            for path, body in ((account, {}), (f"{account}/encryption", {"enabled": True})):
                answer = node.request("PUT", path, body)
                assert answer.status in (200, 201), answer

    def forget(self, queue: str, account: str = exchanges.ACCOUNT) -> None:
        """What one measurement leaves behind must not burden the next."""
        node = self.cluster.follower()
        answer = node.request("DELETE", exchanges.queue_path(queue, account), timeout_s=DELETE_S)
        assert answer.status in (200, 204), answer

    def _baselines_answer(self) -> bool:
        for name, process in self._baselines.items():
            if process.poll() is not None:
                raise NotInTime(f"the baseline {name} has ended with {process.returncode}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._baseline_ports[name])):
                    return False
        return True

    def _stop(self) -> None:
        self.cluster.close()
        for process in self._baselines.values():
            process.terminate()
        for process in self._baselines.values():
            process.wait(10)


def _one_of_many(number: int) -> str:
    return f"many-{number}"


def run_measured(
    make: Callable[[], Load], plan: Plan, servers_cpu_s: Callable[[], float]
) -> Record:
    """The figures of a load in the plan's window."""
    marks: list[tuple[float, float]] = []

    def mark() -> None:
        marks.append((servers_cpu_s(), machine.cpu_s(os.getpid())))

    async def load() -> Measured:
        return await make().run(plan.warmup_s, plan.measure_s, mark)

    return _figures(_in_loop(load()), marks)


def run_out(make: Callable[[], Load]) -> Measured:
    """Run a load until its exchanges have no more to say."""

    async def load() -> Measured:
        return await make().run_out()

    return _in_loop(load())


def _in_loop(work: Coroutine[Any, Any, Measured]) -> Measured:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def _figures(measured: Measured, marks: list[tuple[float, float]]) -> Record:
    (servers_before_s, client_before_s), (servers_s, client_s) = marks
    unit = max(measured.messages, 1) / CPU_UNIT
    figures: Record = {
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
