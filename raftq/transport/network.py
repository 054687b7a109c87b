"""The network as node logic sees it; ``tcp`` is the real one, the simulator has its own.

Between ``connected`` and ``disconnected`` of a peer, frames arrive in the order in which
they were sent, each once, but the last ones may be lost. Those two alternate. The handler
is called on the loop's thread, and never from inside a call to the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol


class Address(NamedTuple):
    """Where a node listens for its peers."""

    host: str
    port: int


class Handler(Protocol):
    """What the network tells a node. An exception in here stops the node."""

    def connected(self, peer: str) -> None:
        """Frames may be sent to ``peer`` and will come from it; it has proved its name."""
        ...

    def disconnected(self, peer: str) -> None:
        """What was sent and not answered may be lost."""
        ...

    def received(self, peer: str, frame: bytes) -> None:
        """The next frame of ``peer``."""
        ...


class Network(Protocol):
    """All peers of one node, by name."""

    def start(self, handler: Handler) -> None:
        """Listen, and connect to the peers; OSError if the address cannot be had."""
        ...

    def send(self, peer: str, frame: bytes) -> bool:
        """Queue a frame (not empty); False: not connected or its buffer is full, and it is dropped.

        An empty buffer takes any frame. True promises nothing about its arrival.
        """
        ...

    def flush(self) -> None:
        """Hand what is queued to the operating system now, not with the next turn of the loop."""
        ...

    def buffered(self, peer: str) -> int:
        """Bytes queued for the peer that the operating system has not taken yet."""
        ...

    def connected(self) -> tuple[str, ...]:
        """The peers that frames can be sent to, sorted."""
        ...

    def set_peers(self, addresses: Mapping[str, Address]) -> None:
        """These and no others; own name is ignored. Others are disconnected."""
        ...

    def disconnect(self, peer: str) -> None:
        """Drop the connection with all that is buffered; it will be made anew."""
        ...

    def close(self) -> None:
        """Stop, and call the handler no more."""
        ...
