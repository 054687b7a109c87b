"""What all peers have in common: they are started, measured like raftq, and stopped."""

from __future__ import annotations

import abc
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from signal import SIGTERM
from types import TracebackType
from typing import ClassVar, NamedTuple, Self

from loadtests.bench.client import Dialect, Exchange, Load, saying
from loadtests.bench.peers.processes import Processes
from loadtests.bench.plan import Cell, Plan
from loadtests.bench.records import Record
from loadtests.bench.service import run_measured

READY_S = 60.0
NODES = 3


class Talk(NamedTuple):
    """What connections say to one queue."""

    dialect: Dialect
    make: Callable[[], Exchange]


class Peer(abc.ABC):
    """A context manager: three nodes run while it is open."""

    name: ClassVar[str]
    stop_signal: ClassVar = SIGTERM

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        """``environment`` and ``user``: of all its processes."""
        self.processes = Processes(directory, environment, user)
        self.ports: list[int] = []
        """That clients connect to."""

    @staticmethod
    @abc.abstractmethod
    def missing() -> str:
        """What must be done before it can run; nothing if it can."""

    @abc.abstractmethod
    def version(self) -> str:
        """As it says itself."""

    @abc.abstractmethod
    def start(self) -> None:
        """Start all nodes and wait until they keep the promise."""

    @abc.abstractmethod
    def create(self, queue: str) -> None:
        """A queue on all nodes."""

    @abc.abstractmethod
    def delete(self, queue: str) -> None:
        """With all that is in it."""

    @abc.abstractmethod
    def talk(self, cell: Cell, queue: str, body: bytes) -> Talk:
        """The load of a cell."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._leave(failed=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave(failed=error is not None)

    def measure(self, cell: Cell, plan: Plan, repetition: int) -> Record:
        """One cell's record, with the fields of ``Service.measure``."""
        queue = f"{cell.scenario}_{cell.connections}_{cell.batch}_{repetition}"
        self.create(queue)
        talk = self.talk(cell, queue, b"x" * cell.body_bytes)

        def load() -> Load:
            return Load(self.ports, cell.connections, saying(talk.make, talk.dialect))

        record: Record = {"kind": "cell", **cell._asdict(), "repetition": repetition}
        record |= run_measured(load, plan, self.cpu_s)
        self.processes.all_run()  # A majority would have gone on without one.
        record["rss_mib"] = self.processes.memory_mib()
        self.delete(queue)
        return record

    def cpu_s(self) -> float:
        """Of all nodes, since they were started."""
        return self.processes.cpu_s()

    def _leave(self, *, failed: bool) -> None:
        if failed:
            print(self.processes.logs(), file=sys.stderr)
        self.processes.stop(self.stop_signal)
