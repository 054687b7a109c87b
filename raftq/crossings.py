"""What crosses from zone to zone, counted on one node as it goes by.

Frames to and from the other nodes by their zone, and messages by their own zone and that of
the client who put or claimed them. Zones are those of the configuration; every other name a
client comes up with is counted as ``other``, so that nobody can make new time series.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OTHER = "other"


@dataclass(slots=True)
class Traffic:
    """Frames between this node and all nodes of one zone, and their bytes."""

    frames_sent: int = 0
    frame_bytes_sent: int = 0
    frames_received: int = 0
    frame_bytes_received: int = 0


class Crossings:
    """One node's counters."""

    def __init__(self, zone: str, peers: Mapping[str, str]) -> None:
        """``peers``: the zone of each other node."""
        self._peers = peers
        self._known = dict.fromkeys([zone, *peers.values()])
        self.traffic = {zone: Traffic() for zone in sorted(dict.fromkeys(peers.values()))}
        self.put: Counter[tuple[str, str]] = Counter()  # By (message's zone, client's zone).
        self.claimed: Counter[tuple[str, str]] = Counter()

    def of_peer(self, peer: str) -> Traffic:
        """The counters of the zone that a node is in."""
        return self.traffic[self._peers[peer]]

    def count_put(self, message_zones: Sequence[str], client_zone: str) -> None:
        """A client has put messages."""
        self._count(self.put, message_zones, client_zone)

    def count_claimed(self, message_zones: Sequence[str], client_zone: str) -> None:
        """A client was given messages."""
        self._count(self.claimed, message_zones, client_zone)

    def _count(
        self, counts: Counter[tuple[str, str]], message_zones: Sequence[str], client_zone: str
    ) -> None:
        known = self._known
        client = client_zone if client_zone in known else OTHER
        # Counter is quick at many and slow at one, and most requests are of one message.
        many = Counter(message_zones).items() if len(message_zones) > 1 else ()
        for zone, count in many or ((message_zones[0], 1),):
            counts[zone if zone in known else OTHER, client] += count
