"""A cluster whose nodes live on hosts of their own (``hosts``), and what can be done to it.

A node binds its host's address only. The others reach it through the relay on its host
(``relay``), so that a delay can be put between them; clients reach it directly. Its disk is
small, its wall clock can be stepped while it runs, and its system calls can be made to fail.
"""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import stepped_clock
from cluster import (
    REQUEST_TIMEOUT_S,
    Answer,
    Cluster,
    Node,
    Settings,
    free_ports,
)
from hosts import Host, Hosts
from raftq.config import render
from relay import Delay
from relay_process import RelayProcess
from tracing import traced

STEPPED_CLOCK = Path(stepped_clock.__file__)
# Entries small enough for small segments, so that there soon are closed ones to damage.
SMALL: Settings = {
    "raft": {"entry_bytes_max": 256 << 10},
    "limits": {"body_bytes_max": 64 << 10, "request_bytes_max": 128 << 10},
    "storage": {
        "segment_bytes": 512 << 10,
        "journal_keep_bytes": 4 << 20,
        "flush_interval_ms": 2_000,
    },
}


class Abandoned(BaseException):
    """The run is over: whoever still waits for the cluster must not."""


class HostNode(Node):
    """One process on a host of its own."""

    def __init__(self, host: Host, zone: str, directory: Path) -> None:
        super().__init__(host.name, zone, directory)
        self.host = host
        self.address = host.address
        self.data_dir = host.disk / "data"
        self.clock_path = directory / "clock"
        (self.inner_port,) = free_ports(1)  # Where it listens behind the relay.
        self.abandoned = False

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        if not self.clock_path.exists():
            self.step_clock(0)
        python, *program = command
        stepped = [python, str(STEPPED_CLOCK), str(self.clock_path), *program]
        super().start([*self.host.enter, *stepped], environment)

    def step_clock(self, ms: int) -> None:
        """Its wall clock is ahead by that much, from the next moment on."""
        stepped_clock.step(self.clock_path, ms)

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> Answer:
        if self.abandoned:
            raise Abandoned
        return super().request(method, path, body, headers=headers, timeout_s=timeout_s)


class HostCluster(Cluster):
    """Nodes on these hosts, one on each, in zones of their own."""

    def __init__(
        self,
        hosts: Hosts,
        *,
        settings: Settings | None = None,
        sabotage: str | None = None,
    ) -> None:
        self.hosts = hosts
        self._relays: list[RelayProcess] = []
        size = len(list(hosts))
        super().__init__(hosts.directory / "nodes", size=size, settings=settings, sabotage=sabotage)
        try:
            self._relays += [_relay(node) for node in self]
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            # Somebody wants to go: no logs, and no waiting for nodes that may be cut off.
            self.kill()
            error = None
        super().__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[HostNode]:
        for node in super().__iter__():
            assert isinstance(node, HostNode)
            yield node

    def __getitem__(self, name: str) -> HostNode:
        node = super().__getitem__(name)
        assert isinstance(node, HostNode)
        return node

    @property
    def routes(self) -> dict[int, str]:
        """Where the ports of the API are."""
        return {node.api_port: node.host.address for node in self}

    def others(self, name: str) -> list[str]:
        return [node.name for node in self if node.name != name]

    def delay(self, delays: Mapping[tuple[str, str], Delay]) -> None:
        """These delays hold from now on, by names of sender and receiver, and no others."""
        addresses = {
            (self.hosts[sender].address, self.hosts[receiver].address): delay
            for (sender, receiver), delay in delays.items()
        }
        for relay in self._relays:
            relay.tell(addresses)

    def abandon(self) -> None:
        """End all waiting for this cluster, also in other threads."""
        for node in self:
            node.abandoned = True

    def close(self) -> None:
        """Stop whatever runs. What cannot be stopped goes with its host."""
        super().close()
        for relay in self._relays:
            relay.close()
        self._relays.clear()

    def _configure(self, settings: Settings) -> None:
        self.nodes = {
            name: HostNode(self.hosts[name], node.zone, node.directory)
            for name, node in self.nodes.items()
        }
        super()._configure(settings)
        for node in self:
            sections = tomllib.loads(node.config_path.read_text())
            host = node.host.address
            # On a network of hosts that nobody else can reach.
            sections["auth"]["anonymous_anywhere"] = True
            sections["tls"] = {"plain_http_anywhere": True, "plain_peers_anywhere": True}
            sections["node"]["api_listen"] = f"{host}:{node.api_port}"
            sections["node"]["peer_listen"] = f"{host}:{node.inner_port}"
            for member in sections["cluster"]["members"]:
                other = self[member["name"]]
                member["peer"] = f"{other.host.address}:{other.peer_port}"
            node.config_path.write_text(render(sections))


def _relay(node: HostNode) -> RelayProcess:
    """On its host, in front of the node."""
    address = node.host.address
    ends = (f"{address}:{node.peer_port}", f"{address}:{node.inner_port}")
    return RelayProcess(*ends, enter=node.host.enter)


@contextlib.contextmanager
def injected(node: Node, injection: str) -> Iterator[None]:
    """While it lasts, every fdatasync of the running node goes as ``strace`` is told.

    The kernel takes none meanwhile: what it does by itself is nothing that can be reached.
    """
    with traced(
        node.pid,
        *("-f", "-o", "/dev/null", "-e", "trace=fdatasync,io_submit"),
        *("-e", f"inject=fdatasync:{injection}", "-e", "inject=io_submit:error=EAGAIN"),
    ):
        yield
