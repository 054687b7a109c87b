"""Three nodes in one process: what an entry costs each of them, without sockets, HTTP and syncs.

The nodes are whole (log, consensus, state machine, RocksDB) and take turns on one thread; frames
and the ends of syncs are calls that wait for their turn. So the CPU of each turn is one node's.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from loadtests.bench import calls
from loadtests.bench.plan import BODY_BYTES
from loadtests.bench.records import Record
from raftq.config import Config
from raftq.config.schema import ClusterConfig, MemberConfig, NodeConfig
from raftq.disk import Ended, OsDisk
from raftq.metrics import Metrics
from raftq.replica.replica import Replica
from raftq.stores.home import Home
from raftq.transport.network import Address, Handler
from simulation.events import Events, Timer
from simulation.runtime import WALL_START_MS
from statemachine.commands import Enqueue, NewMessage

NAMES = ("n1", "n2", "n3")
STEP_S = 0.001  # From one entry to the next, by the nodes' clock.
ELECTED_S = 30.0
ENTRIES = 200
PUTS = 64
NS = 1000

T = TypeVar("T")
Callback = Callable[[], None]


class Together:
    """The nodes, their clock, and whose turn it is."""

    def __init__(self, directory: Path) -> None:
        self.events = Events()
        self.handlers: dict[str, Handler] = {}
        self._spent_ns: Counter[str] = Counter()
        self._counts: dict[str, Counter[str]] | None = None  # While calls are counted.
        self._nodes = {name: self._node(name, directory / name) for name in NAMES}
        for node in self._nodes.values():
            node.start()
        while not all(node.submitter.has_session for node in self._nodes.values()):
            assert self.events.now < ELECTED_S, "nobody was elected"
            self.events.run(STEP_S)

    def round(self) -> Iterator[Record]:
        """A row for the leader and one for a follower: entries of one put that the leader got."""
        leader, *followers = self._in_order()
        self._spent_ns.clear()
        for _ in range(ENTRIES):
            self._put(leader, 1)
        yield {
            "part": "entry of one put, leader",
            "us": self._spent_ns[leader] / ENTRIES / NS,
        }
        spent_ns = [self._spent_ns[name] for name in followers]
        us = sum(spent_ns) / len(spent_ns) / ENTRIES / NS
        yield {"part": "entry of one put, a follower", "us": us}

    def calls(self) -> Iterator[Record]:
        """A row for each node: entries of many puts that a follower got."""
        leader, asked, other = self._in_order()
        counts = {name: Counter[str]() for name in NAMES}
        self._put(asked, PUTS)  # Once before it counts.
        self._counts = counts
        self._put(asked, PUTS)
        self._counts = None
        for what, name in (("leader", leader), ("asked", asked), ("other", other)):
            yield calls.row(f"put, {PUTS} in an entry, {what}", counts[name], PUTS)

    def _in_order(self) -> list[str]:
        """The leader, and the others."""
        return sorted(NAMES, key=lambda name: not self._nodes[name].consensus.is_leader)

    def _put(self, asked: str, count: int) -> None:
        """Have one node be asked for so many puts at once, and all go on until they are done."""
        message = NewMessage(bytes(BODY_BYTES), "application/json")
        command, answered = Enqueue("bench", "together", (message,)), Counter[str]()

        def put() -> None:
            for _ in range(count):
                self._nodes[asked].submit(
                    command, BODY_BYTES, lambda answer: answered.update([type(answer).__name__])
                )

        self.take_turn(asked, put)
        self.events.run(STEP_S)
        assert answered == {"Enqueued": count}, answered

    def close(self) -> None:
        """Let go of journals and stores."""
        for node in self._nodes.values():
            node.close()

    def take_turn(self, name: str, callback: Callback, delay_s: float = 0.0) -> Timer:
        """Call back on behalf of a node, after a while, and behind all who wait already."""
        return self.events.at(delay_s, partial(self._turn, name, callback))

    def _node(self, name: str, directory: Path) -> Replica:
        members = tuple(
            MemberConfig(name=one, zone=one, peer=f"{one}:1", api_url=f"http://{one}")
            for one in NAMES
        )
        config = Config(
            node=NodeConfig(name=name, zone=name, data_dir=str(directory)),
            cluster=ClusterConfig(members=members),
        )

        def begin_sync(_descriptor: int, ended: Ended) -> bool:
            self.take_turn(name, lambda: ended(None))
            return True

        disk = OsDisk(begin_sync)
        disk.make_directory(config.node.data_dir)
        return Replica(
            config,
            runtime=_Runtime(self, name),
            disk=disk,
            network=_Network(self, name),
            home=Home(disk, config.node.data_dir, config.storage.engine),
            meter=Metrics(node=name, zone=name, peers={one: one for one in NAMES if one != name}),
            log=_Quiet(),
        )

    def _turn(self, name: str, callback: Callback) -> None:
        if self._counts is not None:
            with calls.counted(self._counts[name]):
                callback()
            return
        began_ns = time.thread_time_ns()
        callback()
        self._spent_ns[name] += time.thread_time_ns() - began_ns


class _Runtime:
    """``raftq.runtime.Runtime`` of one node."""

    def __init__(self, together: Together, name: str) -> None:
        self._together, self._name = together, name

    def monotonic(self) -> float:
        return self._together.events.now

    def wall_ms(self) -> int:
        return WALL_START_MS + int(self._together.events.now * 1000)

    def random(self) -> float:
        """Another one for each node, so that they do not stand for election at the same moment."""
        return NAMES.index(self._name) / len(NAMES)

    def token(self, count: int) -> bytes:
        return secrets.token_bytes(count)

    def call_soon(self, callback: Callback) -> None:
        self._together.take_turn(self._name, callback)

    def call_later(self, delay_s: float, callback: Callback) -> Timer:
        return self._together.take_turn(self._name, callback, delay_s)

    def offload(
        self, work: Callable[[], T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        result = work()  # Whoever has offloaded it does not pay.
        self.call_soon(lambda: done(result, None))


class _Network:
    """``raftq.transport.network.Network`` of one node: all are connected, and none is slow."""

    def __init__(self, together: Together, name: str) -> None:
        self._together, self._name = together, name

    def start(self, handler: Handler) -> None:
        others = self._together.handlers
        for name, other in others.items():
            self._together.take_turn(self._name, partial(handler.connected, name))
            self._together.take_turn(name, partial(other.connected, self._name))
        others[self._name] = handler

    def send(self, peer: str, frame: bytes) -> bool:
        received = self._together.handlers[peer].received
        self._together.take_turn(peer, partial(received, self._name, frame))
        return True

    def flush(self) -> None:
        """Frames are calls: there is nothing to hand over."""

    def buffered(self, _peer: str) -> int:
        return 0

    def connected(self) -> tuple[str, ...]:
        return tuple(name for name in NAMES if name != self._name)

    def set_peers(self, _addresses: Mapping[str, Address]) -> None:
        """They are who they are."""

    def disconnect(self, peer: str) -> None:
        raise AssertionError(f"{self._name} has heard rubbish of {peer}")

    def close(self) -> None:
        """Nothing is held."""


class _Quiet:
    """A log that nobody reads."""

    def debug(self, _event: str, **_fields: object) -> None:
        """Nothing."""

    info = warning = debug
