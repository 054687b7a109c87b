"""Nodes with groups on them, clients that ask, and what came of it."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from statistics import quantiles
from typing import NamedTuple

from loadtests.bench.plan import BODY_BYTES, KIB, PUT
from loadtests.groups import placement
from loadtests.groups.costs import REQUESTS, Costs
from loadtests.groups.events import Events
from loadtests.groups.machines import US, Disk, Machine, Port, Process
from loadtests.groups.raft import SMALL_KIB, Command, Group, Replica

ACCOUNTS = 1_000
SETTLE_S = 2.0
STEP_S = 0.02
BEGIN_S = 0.01
"""Within this all clients begin."""


class Setup(NamedTuple):
    """What there is, and what is asked of it."""

    groups: int = 1
    nodes: int = 3
    cores: int = 1
    """Of each node; of the one machine, if they are ``together``."""
    processes: int = 1
    """Of each node; the groups are dealt out to them."""
    together: bool = False
    """All nodes and the clients on one machine with one disk."""
    direct: bool = False
    """Clients know which process of a node has the group, and ask that one."""
    coalesced: bool = True
    """Groups that have the same two processes share heartbeats."""
    zipf: float = 0.0
    """How unlike the accounts are: the n-th gets n ** -zipf of what the first gets."""
    scenario: str = PUT
    batch: int = 1
    clients: int = 0
    """That each ask again when they are answered."""
    rate_per_s: float = 0.0
    """Requests that come whether others are answered or not."""
    seed: int = 0


class Node:
    """Processes that share cores and a disk."""

    def __init__(self, name: str, ports: list[Port], disk: Disk) -> None:
        self.name, self.ports, self.disk = name, ports, disk
        self.replicas: dict[Group, Replica] = {}


class World:
    """See the module; ``run`` lets time pass."""

    def __init__(self, setup: Setup, costs: Costs) -> None:
        self.setup, self.costs = setup, costs
        self.events = Events()
        self.chance = random.Random(setup.seed)
        self.answered: list[tuple[float, float]] = []
        """When each operation was answered, and how long it took, in seconds."""
        self._shared: tuple[Machine, Disk] | None = None
        if setup.together:
            self._shared = Machine(setup.cores, costs.shared_share), Disk(self.events, costs)
        self.nodes = [self._node(f"n{number}") for number in range(setup.nodes)]
        self._alive = list(self.nodes)
        self.groups = [
            Group(self.events, costs, self.chance, number) for number in range(setup.groups)
        ]
        self._client = Process(self.events, self._shared[0]) if self._shared else None
        self._place()
        self._weigh()
        self._start_beating()
        self._start_load()

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.events.run(self.events.now_s + seconds)

    def processes(self) -> list[Process]:
        """Of all nodes."""
        return [port.process for node in self.nodes for port in node.ports]

    def kill(self, node: Node) -> None:
        """Its processes end at once, and whoever was connected sees that."""
        self._alive.remove(node)
        for port in node.ports:
            port.process.kill()
            port.clear()
        for replica in node.replicas.values():
            replica.forget()
            if replica.group.leader is replica:
                replica.group.lose_leader()

    def restart(self, node: Node) -> None:
        """It is there again with an empty disk, and clients find it."""
        self._alive.append(node)
        for port in node.ports:
            port.process.restart()
        for replica in node.replicas.values():
            replica.has_log = False

    # What there is.

    def _node(self, name: str) -> Node:
        machine, disk = self._shared or (Machine(self.setup.cores), Disk(self.events, self.costs))
        network_us = self.costs.loopback_us if self.setup.together else self.costs.network_us
        ports = [
            Port(self.events, self.costs, Process(self.events, machine), network_us)
            for _ in range(self.setup.processes)
        ]
        return Node(name, ports, disk)

    def _place(self) -> None:
        by_name = {node.name: node for node in self.nodes}
        numbers = range(self.setup.groups)
        zones = {name: name for name in by_name}
        members = placement.spread(numbers, zones)
        leading = placement.leaders(members, list(by_name))
        # Those that a node leads are dealt out first, so that no process leads more than its part.
        places = [(group, name) for group in self.groups for name in members[group.number]]
        places.sort(key=lambda place: leading[place[0].number] != place[1])
        for group, name in places:
            node = by_name[name]
            port = node.ports[len(node.replicas) % len(node.ports)]
            replica = node.replicas[group] = Replica(group, port, node.disk)
            group.members.append(replica)
            if leading[group.number] == name:
                group.start(replica)

    def _weigh(self) -> None:
        map_ = placement.first_map(range(self.setup.groups))
        self._owners = [map_.group_of(f"account-{number}") for number in range(ACCOUNTS)]
        weights = [(number + 1) ** -self.setup.zipf for number in range(ACCOUNTS)]
        self._weights = list(accumulate(weights))

    # What is asked.

    def _start_load(self) -> None:
        for _ in range(self.setup.clients):
            self.events.after(self.chance.random() * BEGIN_S, self._operation(again=True))
        if self.setup.rate_per_s:
            self._arrive()

    def _arrive(self) -> None:
        self._operation(again=False)()
        self.events.after(self.chance.expovariate(self.setup.rate_per_s), self._arrive)

    def _operation(self, *, again: bool) -> Callable[[], None]:
        """A put, or a lifecycle: one request after the other, and then the next such."""
        kinds = REQUESTS[self.setup.scenario]

        def begin() -> None:
            account = bisect_left(self._weights, self.chance.random() * self._weights[-1])
            ask(0, self.groups[self._owners[account]], self.events.now_s)

        def ask(place: int, group: Group, since_s: float) -> None:
            if place < len(kinds):
                self._ask(kinds[place], group, lambda: ask(place + 1, group, since_s))
                return
            self.answered.append((self.events.now_s, self.events.now_s - since_s))
            if again:
                begin()

        return begin

    def _ask(self, kind: str, group: Group, answered: Callable[[], None]) -> None:
        node = self.chance.choice(self._alive)
        local = node.replicas.get(group) if self.setup.direct else None
        front = self.chance.choice(node.ports) if local is None else local.port
        costs, batch = self.costs, self.setup.batch
        in_us = costs.request_in_us + costs.request_io_us / 2
        in_us += (batch - 1) * costs.message_in_us
        kib = batch * BODY_BYTES / KIB if kind == PUT else SMALL_KIB
        back = answered if self._client is None else partial(self._client.run, 0.0, answered)
        command = Command(costs.apply_us(kind, batch), kib, front, back)
        if self._client is None:
            front.process.run(in_us, lambda: _route(group, node, command))
        else:
            sent = partial(front.process.run, in_us, lambda: _route(group, node, command))
            self._client.run(costs.client_us, sent)

    # Heartbeats.

    def _start_beating(self) -> None:
        if self.setup.coalesced:
            self.events.after(self.costs.heartbeat_s, self._beat_together)
        else:
            for group in self.groups:
                phase_s = self.chance.random() * self.costs.heartbeat_s
                self.events.after(phase_s, partial(self._beat, group))

    def _quiet(self, group: Group) -> bool:
        """Whether followers have heard nothing for so long (floats may miss it by a little)."""
        return self.events.now_s - group.sent_at_s >= 0.99 * self.costs.heartbeat_s

    def _beat(self, group: Group) -> None:
        leader = group.leader
        if leader is not None and leader.alive and self._quiet(group):
            for follower in group.others():
                _exchange(leader.port, follower.port, SMALL_KIB)
        self.events.after(self.costs.heartbeat_s, partial(self._beat, group))

    def _beat_together(self) -> None:
        pairs: dict[tuple[Port, Port], int] = {}
        for group in self.groups:
            leader = group.leader
            if leader is not None and leader.alive and self._quiet(group):
                for follower in group.others():
                    pair = (leader.port, follower.port)
                    pairs[pair] = pairs.get(pair, 0) + 1
        for (source, target), count in pairs.items():
            for port in (source, target):
                port.process.owe((count - 1) * self.costs.beat_us)
            _exchange(source, target, SMALL_KIB)
        self.events.after(self.costs.heartbeat_s, self._beat_together)


class Window(NamedTuple):
    """What was seen in some time."""

    operations_per_s: float
    messages_per_s: float
    p50_ms: float
    p99_ms: float
    mean_s: float
    node_us: float
    """CPU of all nodes for a message."""
    busiest: float
    """Share of its time that the process with the most to do was busy."""
    disk: float
    """Syncs under way on the busiest disk, of those that go at once."""
    commands_per_entry: float


def settle(world: World) -> float:
    """Until as many were answered as there are clients; how many seconds that took."""
    began_s = world.events.now_s
    while len(world.answered) < world.setup.clients and world.events.now_s < began_s + SETTLE_S:
        world.run(STEP_S)
    return world.events.now_s - began_s


def observe(world: World, warmup_s: float, measure_s: float) -> Window:
    """Let time pass and see what happens after the warm-up."""
    world.run(warmup_s)
    world.answered.clear()
    busy_s = [process.busy_s for process in world.processes()]
    disks_s = [node.disk.busy_s for node in world.nodes]
    before = _counted(world)
    world.run(measure_s)
    spent_s = [now.busy_s - was for now, was in zip(world.processes(), busy_s, strict=True)]
    synced_s = [node.disk.busy_s - was for node, was in zip(world.nodes, disks_s, strict=True)]
    commands, entries = (now - was for now, was in zip(_counted(world), before, strict=True))
    took_s = [seconds for _, seconds in world.answered]
    messages = len(took_s) * world.setup.batch
    p50_s, p99_s = _percentiles(took_s)
    return Window(
        operations_per_s=len(took_s) / measure_s,
        messages_per_s=messages / measure_s,
        p50_ms=p50_s * 1e3,
        p99_ms=p99_s * 1e3,
        mean_s=sum(took_s) / max(len(took_s), 1),
        node_us=sum(spent_s) / US / max(messages, 1),
        busiest=max(spent_s) / measure_s,
        disk=max(synced_s) / measure_s / world.costs.disk_syncs_at_once,
        commands_per_entry=commands / max(entries, 1),
    )


def _route(group: Group, node: Node, command: Command) -> None:
    """To the replica of this node, or else to the leader."""
    home = node.replicas.get(group)
    if home is None or not home.alive:
        home = group.leader or next((one for one in group.members if one.alive), None)
    if home is None:
        return  # Nobody is left to ask.
    taker = home
    if taker.port is command.front:
        taker.submit(command)
    else:
        command.front.send(taker.port, command.kib, lambda: taker.submit(command))


def _exchange(source: Port, target: Port, kib: float) -> None:
    source.send(target, kib, lambda: target.send(source, kib, lambda: None))


def _counted(world: World) -> tuple[int, int]:
    """Commands and entries so far, of all groups."""
    groups = world.groups
    return sum(group.commands for group in groups), sum(group.entries for group in groups)


def _percentiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return (values[0], values[0]) if values else (0.0, 0.0)
    cuts = quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[98]
