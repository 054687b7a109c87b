"""A node that has lost its disk, as ``raftq.replica.transfer`` makes it whole: by snapshots.

Each group's leader sends a MiB at a time, and the next one is asked for when one is on the
disk. A process fetches some of its groups at once; the others wait.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial

from loadtests.bench.plan import KIB
from loadtests.groups.machines import Port
from loadtests.groups.raft import SMALL_KIB, Replica
from loadtests.groups.world import Node, World

AT_ONCE = 4
GIVE_UP_S = 600.0
STEP_S = 0.05


def lose_disk(world: World, node: Node, mib: float) -> float:
    """Seconds from the restart until the node has all its groups; ``mib`` are in all groups."""
    world.kill(node)
    world.run(1.0)  # For those that it led to have other leaders.
    began_s = world.events.now_s
    world.restart(node)
    waiting: dict[Port, deque[Replica]] = defaultdict(deque)
    for replica in node.replicas.values():
        waiting[replica.port].append(replica)
    each_mib = mib / len(world.groups)

    def fetch_next(port: Port) -> None:
        if waiting[port]:
            _fetch(world, waiting[port].popleft(), each_mib, lambda: fetch_next(port))

    for port in list(waiting):
        for _ in range(AT_ONCE):
            world.events.after(world.costs.rejoin_s, partial(fetch_next, port))
    while not all(replica.has_log for replica in node.replicas.values()):
        assert world.events.now_s < GIVE_UP_S, "it is never whole again"
        world.run(STEP_S)
    return world.events.now_s - began_s


def _fetch(world: World, replica: Replica, mib: float, fetched: Callable[[], None]) -> None:
    costs = world.costs
    port = replica.port
    unasked = unwritten = math.ceil(mib)

    def ask() -> None:
        nonlocal unasked
        unasked -= 1
        leader = replica.group.leader
        assert leader is not None
        sender = leader

        def sent() -> None:
            sender.port.send(port, KIB, come)

        def read() -> None:
            sender.port.process.run(costs.chunk_us, sent)

        port.send(sender.port, SMALL_KIB, lambda: sender.disk.transfer(KIB, read))

    def come() -> None:
        port.process.run(costs.chunk_us, lambda: replica.disk.transfer(KIB, written))

    def written() -> None:
        nonlocal unwritten
        unwritten -= 1
        if unasked:
            ask()
        elif not unwritten:
            world.events.after(costs.install_s, installed)

    def installed() -> None:
        replica.join()
        fetched()

    for _ in range(min(costs.chunks_at_once, unasked)):
        ask()
