"""Limits and intervals of the transport, and where it counts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from raftq.crossings import Traffic
from raftq.transport.frames import FRAME_BYTES_MAX

MIB = 1 << 20


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The defaults find a half-open connection in 2 to 2.5 s."""

    frame_bytes_max: int = FRAME_BYTES_MAX
    send_buffer_bytes_max: int = 32 * MIB  # Per peer; one frame may exceed it, alone.
    ping_interval_s: float = 0.5
    silence_s: float = 2.0  # No byte for so long: the peer is taken for dead.
    handshake_timeout_s: float = 5.0
    handshakes_max: int = 64  # Inbound at once; above it the oldest stranger has to go.
    goodbye_s: float = 2.0  # For a peer under TLS to say that it has heard the end.
    connect_timeout_s: float = 2.0
    backoff_min_s: float = 0.02
    backoff_max_s: float = 1.0
    log_again_s: float = 30.0  # The same complaint about the same peer at most so often.

    @property
    def silent_ticks_max(self) -> int:
        """``silence_s`` in ping intervals.

        Counted in ticks of our own timer and not in seconds: a node that stood still
        itself has one tick afterwards, and hears its peers before the next.
        """
        return max(2, math.ceil(self.silence_s / self.ping_interval_s))


class Meter(Protocol):
    """What the transport counts; ``raftq.metrics.Metrics`` is one."""

    frames_sent: int
    frames_received: int
    frame_bytes_sent: int
    frame_bytes_received: int
    frames_dropped: int
    peers_refused: int  # The handshake failed, or took too long.

    def of_peer(self, peer: str) -> Traffic:
        """What goes to and comes from a peer, or some peers together, is counted here."""
        ...


@dataclass(slots=True)
class Counts:
    """The smallest ``Meter``."""

    frames_sent: int = 0
    frames_received: int = 0
    frame_bytes_sent: int = 0
    frame_bytes_received: int = 0
    frames_dropped: int = 0
    peers_refused: int = 0
    traffic: dict[str, Traffic] = field(default_factory=dict)

    def of_peer(self, peer: str) -> Traffic:
        """See ``Meter``: each peer's own."""
        return self.traffic.setdefault(peer, Traffic())
