"""A cluster on loopback whose nodes are as far from each other as one likes.

Between each two nodes there is a relay (``relay``): the one that dials is told the relay's
port in place of the other's. Clients reach each node directly: they are in its zone.
"""

from __future__ import annotations

import tomllib
from itertools import combinations
from pathlib import Path

from cluster import Cluster, Settings, free_ports
from raftq.config import render
from relay import Delay
from relay_process import RelayProcess

HOST = "127.0.0.1"


class ZonedCluster(Cluster):
    """Nodes n1, n2, ... in zones a, b, ..., and relays between all of them."""

    def __init__(self, directory: Path, *, size: int = 3, settings: Settings | None = None) -> None:
        self._relays: list[RelayProcess] = []
        super().__init__(directory, size=size, settings=settings)

    def delay(self, one_way_s: float) -> None:
        """So long is everything under way from one zone to another, from now on."""
        for relay in self._relays:
            relay.tell({(HOST, HOST): Delay(one_way_s)})

    def close(self) -> None:
        super().close()
        for relay in self._relays:
            relay.close()
        self._relays.clear()

    def _configure(self, settings: Settings) -> None:
        super()._configure(settings)
        # The node with the smaller name dials (``raftq.transport.tcp``).
        for dialler, other in combinations(sorted(self.nodes), 2):
            (port,) = free_ports(1)
            peer = f"{HOST}:{port}"
            self._relays.append(RelayProcess(peer, f"{HOST}:{self[other].peer_port}"))
            path = self[dialler].config_path
            sections = tomllib.loads(path.read_text())
            for member in sections["cluster"]["members"]:
                if member["name"] == other:
                    member["peer"] = peer
            path.write_text(render(sections))
