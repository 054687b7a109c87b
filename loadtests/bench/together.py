"""Three nodes in one process: what an entry costs each of them, without sockets, HTTP and syncs.

The nodes are whole (log, consensus, state machine, RocksDB) and take turns on one thread; frames
and the ends of syncs are calls that wait for their turn. So the CPU of each turn is one node's.
"""

from __future__ import annotations

import heapq
import itertools
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from loadtests.bench.records import Record
from raftq.config import Config
from raftq.config.schema import ClusterConfig, MemberConfig, NodeConfig
from raftq.disk import Ended, OsDisk
from raftq.metrics import Metrics
from raftq.replica.replica import Replica
from raftq.stores.home import Home
from raftq.transport.network import Address, Handler
from statemachine.commands import Enqueue, NewMessage

NAMES = ("n1", "n2", "n3")
STEP_S = 0.001  # From one entry to the next, by the nodes' clock.
ELECTED_S = 30.0
ENTRIES = 200
BODY_BYTES = 1024
WALL_START_MS = 1_700_000_000_000
NS = 1000

T = TypeVar("T")
Callback = Callable[[], None]


class Together:
    """The nodes, their clock, and whose turn it is."""

    def __init__(self, directory: Path) -> None:
        self.now_s = 0.0
        self.handlers: dict[str, Handler] = {}
        self._turns: deque[tuple[str, Callback]] = deque()
        self._timers: list[tuple[float, int, str, Callback, _Timer]] = []
        self._numbers = itertools.count()
        self._spent_ns: Counter[str] = Counter()
        self._nodes = {name: self._node(name, directory / name) for name in NAMES}
        for node in self._nodes.values():
            node.start()
        while not all(node.submitter.has_session for node in self._nodes.values()):
            assert self.now_s < ELECTED_S, "nobody was elected"
            self._pass(STEP_S)

    def round(self) -> Iterator[Record]:
        """A row for the leader and one for a follower: entries of one put that the leader got."""
        leader = next(name for name, node in self._nodes.items() if node.consensus.is_leader)
        message = NewMessage(bytes(BODY_BYTES), "application/json")
        command, answered = Enqueue("bench", "together", (message,)), Counter[str]()
        self._spent_ns.clear()
        for _ in range(ENTRIES):
            put = partial(
                self._nodes[leader].submit,
                command,
                BODY_BYTES,
                lambda answer: answered.update([type(answer).__name__]),
            )
            self.take_turn(leader, put)
            self._pass(STEP_S)
        assert answered == {"Enqueued": ENTRIES}, answered
        followers = [self._spent_ns[name] for name in NAMES if name != leader]
        yield {"part": "entry of one put, leader", "us": self._spent_ns[leader] / ENTRIES / NS}
        us = sum(followers) / len(followers) / ENTRIES / NS
        yield {"part": "entry of one put, a follower", "us": us}

    def close(self) -> None:
        """Let go of journals and stores."""
        for node in self._nodes.values():
            node.close()

    def take_turn(self, name: str, callback: Callback) -> None:
        """Call back on behalf of a node, behind all who wait already."""
        self._turns.append((name, callback))

    def later(self, name: str, delay_s: float, callback: Callback) -> _Timer:
        """The same, after a while."""
        timer = _Timer()
        due_s = self.now_s + delay_s
        heapq.heappush(self._timers, (due_s, next(self._numbers), name, callback, timer))
        return timer

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

    def _pass(self, seconds: float) -> None:
        """Let the clock run, and all turns be taken."""
        end_s = self.now_s + seconds
        self._take_turns()
        while self._timers and self._timers[0][0] <= end_s:
            self.now_s, _, name, callback, timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self.take_turn(name, callback)
                self._take_turns()
        self.now_s = end_s

    def _take_turns(self) -> None:
        while self._turns:
            name, callback = self._turns.popleft()
            began_ns = time.thread_time_ns()
            callback()
            self._spent_ns[name] += time.thread_time_ns() - began_ns


class _Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class _Runtime:
    """``raftq.runtime.Runtime`` of one node."""

    def __init__(self, together: Together, name: str) -> None:
        self._together, self._name = together, name

    def monotonic(self) -> float:
        return self._together.now_s

    def wall_ms(self) -> int:
        return WALL_START_MS + int(self._together.now_s * 1000)

    def random(self) -> float:
        """Another one for each node, so that they do not stand for election at the same moment."""
        return NAMES.index(self._name) / len(NAMES)

    def token(self, count: int) -> bytes:
        return secrets.token_bytes(count)

    def call_soon(self, callback: Callback) -> None:
        self._together.take_turn(self._name, callback)

    def call_later(self, delay_s: float, callback: Callback) -> _Timer:
        return self._together.later(self._name, delay_s, callback)

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
