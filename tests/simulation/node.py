"""One node of the world: a ``Replica`` that lives and dies, and a disk that outlives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from raftq.config import Config, MemberConfig
from raftq.config.schema import ClusterConfig, NodeConfig, RaftConfig, StorageConfig
from raftq.consensus.guard import Intervention
from raftq.replica.replica import Replica
from raftq.replica.submitter import Answer
from raftq.stores.home import Home
from simulation.disk import FaultyDisk, PowerLoss
from simulation.network import VirtualNetwork
from simulation.runtime import VirtualRuntime
from statemachine.commands import Command

if TYPE_CHECKING:
    from simulation.world import World

DATA = "data"
COMMAND_BYTES = 100


class Violation(AssertionError):
    """Something that must never happen has happened."""


class Failed(Violation):
    """A node stopped itself without a reason to."""


class Node:
    """See the module."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.disk = FaultyDisk(seed=world.random.getrandbits(32))
        self.replica: Replica | None = None
        self.life = 0
        self.net = VirtualNetwork(self)
        self.interventions: dict[Intervention, int] = {}
        self.log: list[str] = []
        self.wall_skew_ms = 0
        self.clock_rate = 1.0
        self.clock_origin = 0.0
        self.work_delay_s = 0.0
        self.storage = StorageConfig(engine="memory", segment_bytes=1 << 20)
        self.raft = RaftConfig()
        self.leader_zones: dict[str, int] = {}
        self.paused = False
        self.started: Callable[[Node], None] = lambda _node: None
        self._backlog: list[tuple[int, Callable[[], None]]] = []

    def tune(self, **changes: int) -> None:
        """Other storage settings than the default, from the next start on."""
        self.storage = msgspec.structs.replace(self.storage, **changes)

    @property
    def is_up(self) -> bool:
        """Whether its process is there, paused or not."""
        return self.replica is not None

    @property
    def running(self) -> Replica:
        assert self.replica is not None, f"{self.name} is down"
        return self.replica

    # Its process.

    def start(self) -> None:
        """Start the process on the disk as it is."""
        assert self.replica is None
        self.life += 1
        self.world.note("start", self.name, "")

        def begin() -> None:
            self.replica = self._make()
            self.replica.start()
            self.started(self)

        self._attempt(begin)

    def _make(self) -> Replica:
        world = self.world
        return Replica(
            self.config(),
            runtime=VirtualRuntime(world.events, world.random, self),
            disk=self.disk,
            network=self.net,
            home=Home(self.disk, DATA, "memory"),
            meter=self,
            log=self,
        )

    def crash(self, *, power: bool = False) -> None:
        """Kill the process; with ``power`` what was not synced is lost or torn."""
        self.world.note("crash", self.name, "power" if power else "")
        if self.replica is not None:
            self.world.dying(self)
        self.life += 1
        self.replica = None
        self.paused = False
        self._backlog.clear()
        self.net.drop_all()
        if power:
            self.disk.crash()
        else:
            self.disk.kill()
        self.world.died(self)

    def wipe(self) -> None:
        """Lose the disk."""
        assert self.replica is None
        self.world.note("wipe", self.name, "")
        self.disk = FaultyDisk(seed=self.world.random.getrandbits(32))

    def pause(self) -> None:
        """Stop the process as SIGSTOP does: nothing in it goes on, and nothing is closed."""
        if self.is_up and not self.paused:
            self.world.note("pause", self.name, "")
            self.paused = True

    def resume(self) -> None:
        """Let it go on, with the beliefs it had; all that came meanwhile comes now."""
        if not self.paused:
            return
        self.world.note("resume", self.name, "")
        self.paused = False
        backlog, self._backlog = self._backlog, []
        for life, callback in backlog:
            self.world.at(0.0, lambda life=life, callback=callback: self.run(life, callback))

    def run(self, life: int, callback: Callable[[], None]) -> None:
        """Call back on the node's loop; whatever it raises ends the process."""
        if life != self.life or self.replica is None:
            return
        if self.paused:
            self._backlog.append((life, callback))
            return
        self._attempt(callback)

    def _attempt(self, callback: Callable[[], None]) -> None:
        life = self.life
        try:
            callback()
        except PowerLoss:
            self._lost_power()
        except Violation:
            raise
        except Exception as error:
            self._failed(error)
        else:
            if life == self.life:
                self.world.watched(self)

    def _lost_power(self) -> None:
        self.crash(power=True)
        self.world.lost_power(self)

    def _failed(self, error: Exception) -> None:
        self.world.note("failed", self.name, repr(error))
        self.crash()
        self.world.failed(self, error)

    def submit(
        self,
        command: Command,
        done: Callable[[Answer], None] | None = None,
        *,
        early: bool = False,
    ) -> list[Answer]:
        """Submit; the list gets the answer when it comes, and ``done`` hears it."""
        answers: list[Answer] = []

        def take(answer: Answer) -> None:
            answers.append(answer)
            if done is not None:
                done(answer)

        self.running.submit(command, COMMAND_BYTES, take, early=early)
        return answers

    def config(self) -> Config:
        members = tuple(
            MemberConfig(name=n, zone=f"zone-{n}", peer=f"{n}:1", api_url=f"http://{n}")
            for n in self.world.names
        )
        return Config(
            node=NodeConfig(name=self.name, zone=f"zone-{self.name}", data_dir=DATA),
            cluster=ClusterConfig(members=members, leader_zones=self.leader_zones),
            raft=self.raft,
            storage=self.storage,
        )

    # ``meter.Meter`` and ``meter.Log``.

    def applied(self, entries: int, commands: int, seconds: float) -> None:
        pass

    def appended(self, commands: int, size_bytes: int) -> None:
        self.world.appended(self, commands)

    def committed(self, seconds: float) -> None:
        pass

    def synced(self, seconds: float) -> None:
        pass

    def leader_changed(self) -> None:
        pass

    def intervened(self, what: Intervention) -> None:
        self.interventions[what] = self.interventions.get(what, 0) + 1
        self.world.sometimes(f"guard: {what.name.lower()}")

    def debug(self, event: str, **fields: object) -> None:
        self.info(event, **fields)

    def info(self, event: str, **fields: object) -> None:
        self.log.append(f"{self.world.now:9.4f} {self.name} {event} {fields}")
        self.world.logged(self, event, fields)

    warning = info
