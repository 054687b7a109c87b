"""Several nodes in one process under a virtual clock, network and disk, driven by one seed.

The nodes are the product's own ``Replica``; only what ``raftq.runtime``, ``raftq.disk``
and ``raftq.transport.network`` describe is replaced. One event at a time, in an order
that the seed alone decides.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from simulation.events import Events, Timer
from simulation.network import Links
from simulation.node import Failed, Node, Violation
from simulation.trace import Trace

__all__ = ["Failed", "Node", "Violation", "Watcher", "World"]


class Watcher(Protocol):
    """Whoever looks at the world after each thing that happened in it."""

    def watched(self, node: Node) -> None:
        """Something happened on a running node."""
        ...

    def delivered(self, node: Node, peer: str, frame: bytes) -> None:
        """A frame has come to a node, which is about to see it."""
        ...

    def dying(self, node: Node) -> None:
        """A node's process is about to end."""
        ...

    def died(self, node: Node) -> None:
        """A node's process has ended."""
        ...

    def lost_power(self, node: Node) -> None:
        """Power failed at a change to the node's disk."""
        ...

    def failed(self, node: Node, error: Exception) -> bool:
        """A node stopped itself; False if it had no reason to."""
        ...

    def logged(self, node: Node, event: str, fields: dict[str, object]) -> None:
        """A node logged something."""
        ...

    def appended(self, node: Node, commands: int) -> None:
        """A leader appended an entry."""
        ...


class World:
    """The clock, the event queue, the links and the nodes."""

    def __init__(
        self,
        seed: int,
        names: tuple[str, ...] = ("n1", "n2", "n3"),
        *,
        keep_trace: bool = False,
    ) -> None:
        self.random = random.Random(seed)
        self.events = Events()
        self.at: Callable[[float, Callable[[], None]], Timer] = self.events.at
        self.names = names
        self.links = Links()
        self.trace = Trace(keep=keep_trace)
        self.watcher: Watcher | None = None
        self.reached: Counter[str] = Counter()
        self.nodes = {name: Node(self, name) for name in names}
        self.fatal: list[tuple[str, Exception]] = []

    # Time.

    @property
    def now(self) -> float:
        """Virtual seconds since the world began."""
        return self.events.now

    def step(self) -> bool:
        """Run the next event; False when there is none."""
        return self.events.step()

    def run(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self.events.run(seconds)

    def until(self, condition: Callable[[], bool], seconds: float, what: str = "") -> None:
        """Let time pass until ``condition`` holds; AssertionError after ``seconds``."""
        end = self.now + seconds
        while not condition():
            assert self.now <= end, f"not within {seconds} virtual seconds: {what}"
            assert self.step(), f"nothing will ever happen: {what}"

    # Nodes.

    def start(self, *names: str) -> None:
        """Start nodes (all by default)."""
        for name in names or self.names:
            self.nodes[name].start()

    @property
    def alive(self) -> list[Node]:
        """Nodes whose process is there."""
        return [node for node in self.nodes.values() if node.replica is not None]

    def leader(self) -> Node | None:
        """The leader of the highest term that a running node believes to be."""
        found, term = None, -1
        for node in self.nodes.values():
            consensus = node.replica and node.replica.consensus
            if consensus and consensus.is_leader and consensus.term > term:
                found, term = node, consensus.term
        return found

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
        if leader is None:
            return False
        last = leader.running.consensus.last_index
        return all(node.running.machine.applied_index == last for node in self.alive)

    # Links.

    def cut(self, source: str, target: str) -> None:
        """Frames from ``source`` to ``target`` vanish, one way; the connection notices later."""
        self.links.cut.add((source, target))

    def isolate(self, name: str) -> None:
        """Cut a node off in both directions."""
        for other in self.names:
            if other != name:
                self.cut(name, other)
                self.cut(other, name)

    def heal(self) -> None:
        """All links work again."""
        self.links.cut.clear()

    # What the nodes tell.

    def note(self, kind: str, node: str, text: str) -> None:
        """For the trace."""
        self.trace.note(self.now, kind, node, text)

    def sometimes(self, what: str) -> None:
        """An interesting state was reached."""
        self.reached[what] += 1

    def watched(self, node: Node) -> None:
        """Something has happened on a running node."""
        if self.watcher is not None:
            self.watcher.watched(node)

    def delivered(self, node: Node, peer: str, frame: bytes, sent_at: float) -> None:
        """A frame has come to a node, which is about to see it."""
        self.trace.frame(self.now, sent_at, peer, node.name, frame)
        if self.watcher is not None:
            self.watcher.delivered(node, peer, frame)

    def dying(self, node: Node) -> None:
        """A process is about to end."""
        if self.watcher is not None:
            self.watcher.dying(node)

    def died(self, node: Node) -> None:
        """A process has ended."""
        if self.watcher is not None:
            self.watcher.died(node)

    def lost_power(self, node: Node) -> None:
        """Power failed at a change to the node's disk."""
        if self.watcher is not None:
            self.watcher.lost_power(node)

    def failed(self, node: Node, error: Exception) -> None:
        """A node stopped itself; raises ``Failed`` unless it had a reason."""
        self.fatal.append((node.name, error))
        if self.watcher is None or not self.watcher.failed(node, error):
            raise Failed(f"{node.name}: {error!r}") from error

    def logged(self, node: Node, event: str, fields: dict[str, object]) -> None:
        """A node logged something."""
        self.note("log", node.name, f"{event} {fields}")
        if self.watcher is not None:
            self.watcher.logged(node, event, fields)

    def appended(self, node: Node, commands: int) -> None:
        """A leader appended an entry."""
        if self.watcher is not None:
            self.watcher.appended(node, commands)
