"""Several nodes in one process under a virtual clock, network and disk, driven by one seed.

The nodes are the product's own ``Replica``; only what ``raftq.runtime``, ``raftq.disk``
and ``raftq.transport.network`` describe is replaced. One event at a time, in an order
that the seed alone decides.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from faulty_disk import FaultyDisk
from raftq.config import Config, MemberConfig
from raftq.config.schema import ClusterConfig, NodeConfig, RaftConfig, StorageConfig
from raftq.consensus.guard import Intervention
from raftq.replica.replica import Replica
from raftq.replica.submitter import Answer
from raftq.stores.home import Home
from raftq.transport.network import Handler
from statemachine.commands import Command

T = TypeVar("T")

WALL_START_MS = 1_700_000_000_000
DATA = "data"


class Failed(Exception):
    """A node stopped itself."""


class _Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class World:
    """The clock, the event queue, the links and the nodes."""

    def __init__(self, seed: int, names: tuple[str, ...] = ("n1", "n2", "n3")) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.names = names
        self._events: list[tuple[float, int, _Timer, Callable[[], None]]] = []
        self._count = 0
        self.blocked: set[tuple[str, str]] = set()
        self.nodes = {name: Node(self, name) for name in names}
        self.fatal: list[tuple[str, BaseException]] = []
        self.events_run = 0

    # Time.

    def at(self, delay_s: float, callback: Callable[[], None]) -> _Timer:
        """Run ``callback`` after ``delay_s`` virtual seconds."""
        timer = _Timer()
        self._count += 1
        heapq.heappush(self._events, (self.now + max(0.0, delay_s), self._count, timer, callback))
        return timer

    def step(self) -> bool:
        """Run the next event; False when there is none."""
        while self._events:
            when, _, timer, callback = heapq.heappop(self._events)
            if timer.cancelled:
                continue
            self.now = max(self.now, when)
            self.events_run += 1
            callback()
            return True
        return False

    def run(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.step()
        self.now = end

    def until(self, condition: Callable[[], bool], seconds: float, what: str = "") -> None:
        """Let time pass until ``condition`` holds; AssertionError after ``seconds``."""
        end = self.now + seconds
        while not condition():
            assert self._events, f"nothing will ever happen: {what}"
            assert self.now <= end, f"not within {seconds} virtual seconds: {what}"
            self.step()

    # Nodes.

    def start(self, *names: str) -> None:
        """Start nodes (all by default)."""
        for name in names or self.names:
            self.nodes[name].start()

    @property
    def alive(self) -> list[Node]:
        """Running nodes."""
        return [node for node in self.nodes.values() if node.replica is not None]

    def leader(self) -> Node | None:
        """The leader of the highest term that a running node believes to be."""
        leading = [n for n in self.alive if n.replica and n.replica.consensus.is_leader]
        return max(leading, key=lambda n: n.running.consensus.term, default=None)

    def settled(self) -> bool:
        """A leader is known to every running node, and each can take commands."""
        leader = self.leader()
        return leader is not None and all(
            node.running.leader == leader.name and node.running.submitter.has_session
            for node in self.alive
        )

    def converged(self) -> bool:
        """Every running node has applied what the leader has committed."""
        leader = self.leader()
        return leader is not None and all(
            node.running.machine.applied_index == leader.running.consensus.last_index
            for node in self.alive
        )

    # Links.

    def cut(self, source: str, target: str) -> None:
        """Frames from ``source`` to ``target`` vanish, one way; the connection notices later."""
        self.blocked.add((source, target))

    def isolate(self, name: str) -> None:
        """Cut a node off in both directions."""
        for other in self.names:
            if other != name:
                self.cut(name, other)
                self.cut(other, name)

    def heal(self) -> None:
        """All links work again."""
        self.blocked.clear()
        for node in self.alive:
            node.net.dial_all()


class Node:
    """One node of the world: its disk outlives its process."""

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
        self.storage = StorageConfig(engine="memory", segment_bytes=1 << 20)

    def tune(self, **changes: int) -> None:
        """Other storage settings than the default, from the next start on."""
        self.storage = msgspec.structs.replace(self.storage, **changes)

    @property
    def running(self) -> Replica:
        assert self.replica is not None, f"{self.name} is down"
        return self.replica

    def start(self) -> None:
        assert self.replica is None
        self.life += 1
        runtime = VirtualRuntime(self)
        self.replica = Replica(
            self.config(),
            runtime=runtime,
            disk=self.disk,
            network=self.net,
            home=Home(self.disk, DATA, "memory"),
            meter=self,
            log=self,
        )
        self.replica.start()

    def crash(self, *, power: bool = False) -> None:
        """Kill the process; with ``power`` what was not synced is lost or torn."""
        self.life += 1
        self.replica = None
        self.net.drop_all()
        if power:
            self.disk.crash()

    def wipe(self) -> None:
        """Lose the disk."""
        assert self.replica is None
        self.disk = FaultyDisk(seed=self.world.random.getrandbits(32))

    def failed(self, error: BaseException) -> None:
        self.world.fatal.append((self.name, error))
        self.crash()
        raise Failed(f"{self.name}: {error!r}") from error

    def submit(self, command: Command) -> list[Answer]:
        """Submit; the list gets the answer when it comes."""
        answers: list[Answer] = []
        self.running.submit(command, 100, answers.append)
        return answers

    def config(self) -> Config:
        members = tuple(
            MemberConfig(name=n, zone=f"zone-{n}", peer=f"{n}:1", api_url=f"http://{n}")
            for n in self.world.names
        )
        return Config(
            node=NodeConfig(name=self.name, zone=f"zone-{self.name}", data_dir=DATA),
            cluster=ClusterConfig(members=members),
            raft=RaftConfig(),
            storage=self.storage,
        )

    # ``meter.Meter`` and ``meter.Log``.

    def applied(self, entries: int, commands: int, seconds: float) -> None:
        pass

    def appended(self, commands: int, size_bytes: int) -> None:
        pass

    def committed(self, seconds: float) -> None:
        pass

    def synced(self, seconds: float) -> None:
        pass

    def leader_changed(self) -> None:
        pass

    def intervened(self, what: Intervention) -> None:
        self.interventions[what] = self.interventions.get(what, 0) + 1

    def debug(self, event: str, **fields: object) -> None:
        self.info(event, **fields)

    def info(self, event: str, **fields: object) -> None:
        self.log.append(f"{self.world.now:9.4f} {self.name} {event} {fields}")

    warning = info


class VirtualRuntime:
    """``raftq.runtime.Runtime`` of one life of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._life = node.life

    def monotonic(self) -> float:
        return self._node.world.now

    def wall_ms(self) -> int:
        return WALL_START_MS + int(self._node.world.now * 1000) + self._node.wall_skew_ms

    def random(self) -> float:
        return self._node.world.random.random()

    def token(self, count: int) -> bytes:
        return self._node.world.random.randbytes(count)

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.call_later(0.0, callback)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> _Timer:
        return self._node.world.at(delay_s, self._guarded(callback))

    def offload(
        self, work: Callable[[], T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        def run() -> None:
            try:
                result = work()
            except Exception as error:
                caught = error
                self.call_soon(lambda: done(None, caught))
            else:
                self.call_soon(lambda: done(result, None))

        self.call_later(0.0002 + self.random() * 0.002, run)

    def _guarded(self, callback: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            if self._node.life != self._life or self._node.replica is None:
                return
            try:
                callback()
            except Failed:
                raise
            except Exception as error:
                self._node.failed(error)

        return run


class VirtualNetwork:
    """``raftq.transport.network.Network``: connections that keep order, links that fail."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._handler: Handler | None = None
        self._links: dict[str, int] = {}  # peer -> the connection's number
        self._arrival: dict[str, float] = {}

    def start(self, handler: Handler) -> None:
        self._handler = handler
        self.dial_all()

    def set_peers(self, addresses: Mapping[str, Any]) -> None:
        pass

    def dial_all(self) -> None:
        for peer in self._node.world.names:
            if peer != self._node.name:
                self._dial(peer)

    def _dial(self, peer: str) -> None:
        world, node = self._node.world, self._node
        life = node.life

        def connect() -> None:
            other = world.nodes[peer]
            if node.life != life or node.replica is None or peer in self._links:
                return
            pair = ((node.name, peer), (peer, node.name))
            if other.replica is None or any(link in world.blocked for link in pair):
                world.at(0.2, connect)
                return
            other.net.dropped(node.name)
            number = world._count
            self._links[peer] = number
            other.net._links[node.name] = number
            self._arrival[peer] = other.net._arrival[node.name] = 0.0
            self._tell(lambda handler: handler.connected(peer))
            other.net._tell(lambda handler: handler.connected(node.name))

        if node.name < peer:
            world.at(0.001 + world.random.random() * 0.01, connect)
        elif world.nodes[peer].replica is not None:
            world.nodes[peer].net._dial(node.name)

    def send(self, peer: str, frame: bytes) -> bool:
        number = self._links.get(peer)
        if number is None:
            return False
        world, name = self._node.world, self._node.name
        if (name, peer) in world.blocked:
            # Silence: the connection is found dead after a while.
            world.at(1.5, lambda: self._break(peer, number))
            return True
        arrival = max(
            self._arrival[peer] + 1e-9, world.now + 0.0001 + world.random.random() * 0.001
        )
        self._arrival[peer] = arrival

        def arrive() -> None:
            other = world.nodes[peer]
            if other.net._links.get(name) != number or other.replica is None:
                return
            if (name, peer) in world.blocked:
                self._break(peer, number)
                return
            other.net._tell(lambda handler: handler.received(name, frame))

        world.at(arrival - world.now, arrive)
        return True

    def buffered(self, peer: str) -> int:
        return 0

    def disconnect(self, peer: str) -> None:
        number = self._links.get(peer)
        if number is not None:
            self._break(peer, number)

    def drop_all(self) -> None:
        for peer, number in list(self._links.items()):
            self._links.pop(peer)
            other = self._node.world.nodes[peer]
            if other.net._links.get(self._node.name) == number:
                other.net.dropped(self._node.name)

    def _break(self, peer: str, number: int) -> None:
        if self._links.get(peer) != number:
            return
        self.dropped(peer)
        self._node.world.nodes[peer].net.dropped(self._node.name)

    def dropped(self, peer: str) -> None:
        if self._links.pop(peer, None) is None:
            return
        self._tell(lambda handler: handler.disconnected(peer))
        self._dial(peer)

    def _tell(self, call: Callable[[Handler], None]) -> None:
        node, handler = self._node, self._handler
        if node.replica is None or handler is None:
            return
        try:
            call(handler)
        except Failed:
            raise
        except Exception as error:
            node.failed(error)
