"""``raftq.transport.network.Network`` of a node, and the links between all of them.

A connection keeps order and loses nothing but its end, as TCP does. A link that is cut
swallows frames, in one direction if so asked, until both ends find the connection dead.
What a cut or a reset has swallowed may turn up later on a newer connection, and a frame
may arrive twice (``ghosts``): more than TCP can do, because nothing in the consensus may
rest on the transport's good behaviour. A ``Hello`` belongs to its connection: it never does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from raftq.transport.network import Address, Handler

if TYPE_CHECKING:
    from simulation.disk import FaultyDisk
    from simulation.node import Node

HOP_S = (0.0001, 0.0011)
DIAL_S = (0.001, 0.011)
REDIAL_S = 0.2
GHOST_DELAY_S = 3.0  # At most.
SILENCE_S = 1.5  # After which a connection over a cut link is found dead.
HELLO = b"\x01"  # The tag of a greeting in an encoded frame, in its second byte.


class Delay(NamedTuple):
    """What a frame takes on a link, in seconds: at least, and how much more at most."""

    least_s: float
    jitter_s: float


class Links:
    """The state of every link of the world."""

    def __init__(self) -> None:
        self.cut: set[tuple[str, str]] = set()
        self.delays: dict[tuple[str, str], Delay] = {}
        self.ghosts = 0.0  # How likely a lost frame, or a second copy of one, arrives later.
        self._number = 0

    def new_connection(self) -> int:
        """A number that no other connection has."""
        self._number += 1
        return self._number

    def whole(self, one: str, other: str) -> bool:
        """Whether frames pass both ways."""
        return (one, other) not in self.cut and (other, one) not in self.cut


class VirtualNetwork:
    """One node's connections."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._handler: Handler | None = None
        self._links: dict[str, int] = {}  # To the number of the connection.
        self._arrival: dict[str, float] = {}  # Of the last frame sent, for the order.
        self._told: dict[str, int] = {}  # Connections that the handler has heard of.
        self._dialling: set[str] = set()

    # ``raftq.transport.network.Network``.

    def start(self, handler: Handler) -> None:
        self._handler = handler
        self._dialling.clear()
        self.dial_all()

    def set_peers(self, addresses: Mapping[str, Address]) -> None:
        """The world's nodes are all there are."""

    def connected(self) -> tuple[str, ...]:
        return tuple(sorted(self._links))

    def flush(self) -> None:
        """Frames are on their way once they are sent."""

    def buffered(self, peer: str) -> int:
        return 0

    def close(self) -> None:
        self.drop_all()

    def send(self, peer: str, frame: bytes) -> bool:
        number = self._links.get(peer)
        if number is None:
            return False
        world, name = self._node.world, self._node.name
        link = (name, peer)
        if link in world.links.cut:
            world.at(SILENCE_S, lambda: self._break(peer, number))
            self._haunt(peer, frame, self._node.disk)
            return True
        delay = world.links.delays.get(link)
        least_s, jitter_s = HOP_S if delay is None else delay
        arrival = world.now + least_s + world.random.random() * jitter_s
        arrival = max(arrival, self._arrival[peer] + 1e-9)
        self._arrival[peer] = arrival
        sent_at, disk = world.now, self._node.disk
        world.at(arrival - sent_at, partial(self._arrive, peer, number, frame, sent_at, disk))
        if world.links.ghosts and world.random.random() < world.links.ghosts:
            self._haunt(peer, frame, disk, certain=True)
        return True

    def disconnect(self, peer: str) -> None:
        number = self._links.get(peer)
        if number is not None:
            world = self._node.world
            world.at(0.0, lambda: self._break(peer, number))

    # The world's side.

    def dial_all(self) -> None:
        """Try to connect with everybody."""
        for peer in self._node.world.names:
            if peer != self._node.name:
                self._dial(peer)

    def drop_all(self) -> None:
        """The process is gone: the others find out at once."""
        world, name = self._node.world, self._node.name
        self._handler = None
        self._told.clear()
        for peer, number in list(self._links.items()):
            del self._links[peer]
            other = world.nodes[peer].net
            if other._links.get(name) == number:
                other._lost(name)

    def reset(self, peer: str) -> None:
        """The connection ends for both, with what is under way on it."""
        number = self._links.get(peer)
        if number is not None:
            self._break(peer, number)

    def _dial(self, peer: str) -> None:
        """The node of the lower name dials; each life and link only once at a time."""
        world, node = self._node.world, self._node
        if node.name > peer:
            world.nodes[peer].net._dial(node.name)
            return
        if peer in self._dialling or not node.is_up:
            return
        self._dialling.add(peer)
        life = node.life
        low, high = DIAL_S

        def connect() -> None:
            other = world.nodes[peer]
            if node.life != life:
                return
            if peer in self._links:
                self._dialling.discard(peer)
                return
            if not other.is_up or not world.links.whole(node.name, peer):
                world.at(REDIAL_S, connect)
                return
            self._dialling.discard(peer)
            number = world.links.new_connection()
            for one, its_peer in ((self, peer), (other.net, node.name)):
                one._links[its_peer] = number
                one._arrival[its_peer] = 0.0
            for one, its_peer in ((self, peer), (other.net, node.name)):
                one._tell_connected(its_peer, number)

        world.at(low + world.random.random() * (high - low), connect)

    def _tell_connected(self, peer: str, number: int) -> None:
        def tell(handler: Handler) -> None:
            if self._links.get(peer) == number:
                self._told[peer] = number
                handler.connected(peer)

        self._tell(tell)

    def _arrive(
        self, peer: str, number: int, frame: bytes, sent_at: float, disk: FaultyDisk
    ) -> None:
        world, name = self._node.world, self._node.name
        other = world.nodes[peer].net
        if other._links.get(name) != number:
            self._haunt(peer, frame, disk)
            return
        if (name, peer) in world.links.cut:
            self._haunt(peer, frame, disk)
            self._break(peer, number)
            return
        other._take(name, number, frame, sent_at)

    def _take(self, peer: str, number: int, frame: bytes, sent_at: float) -> None:
        if self._handler is not None:
            node = self._node
            node.run(node.life, partial(self._received, peer, number, frame, sent_at))

    def _received(self, peer: str, number: int, frame: bytes, sent_at: float) -> None:
        if self._handler is not None and self._told.get(peer) == number:
            self._node.world.delivered(self._node, peer, frame, sent_at)
            self._handler.received(peer, frame)

    def _haunt(self, peer: str, frame: bytes, disk: FaultyDisk, *, certain: bool = False) -> None:
        """Let a frame arrive at some later time, on whatever connection there is then.

        Not beyond the sender's identity, which goes with the ``disk`` that it was sent from:
        who speaks is said once for each connection, so there even ghosts keep to TCP.
        """
        world, name = self._node.world, self._node.name
        links = world.links
        if not links.ghosts or frame[1:2] == HELLO:
            return
        if not certain and world.random.random() >= links.ghosts:
            return
        sent_at = world.now

        def appear() -> None:
            other = world.nodes[peer].net
            number = other._links.get(name)
            if self._node.disk is not disk:
                return
            if number is not None and (name, peer) not in links.cut:
                world.sometimes("a frame arrived late or twice")
                other._take(name, number, frame, sent_at)

        # Mostly soon, while it can still be taken for a new one.
        world.at(world.random.random() ** 4 * GHOST_DELAY_S, appear)

    def _break(self, peer: str, number: int) -> None:
        if self._links.get(peer) != number:
            return
        other = self._node.world.nodes[peer].net
        self._lost(peer)
        if other._links.get(self._node.name) == number:
            other._lost(self._node.name)

    def _lost(self, peer: str) -> None:
        number = self._links.pop(peer)

        def tell(handler: Handler) -> None:
            # Only what the handler has heard of ends for it.
            if self._told.get(peer) == number:
                del self._told[peer]
                handler.disconnected(peer)

        self._tell(tell)
        self._dial(peer)

    def _tell(self, call: Callable[[Handler], None]) -> None:
        node = self._node

        def run() -> None:
            if self._handler is not None:
                call(self._handler)

        if self._handler is not None:
            node.run(node.life, run)
