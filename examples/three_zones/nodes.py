"""Three real nodes in three zones, each a process of its own, with links between them."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import httpx2

from examples.three_zones.network import HOST, Network
from raftq.cli.children import Child
from raftq.config import render

ZONES = ("a", "b", "c")
READY_WITHIN_S = 60.0
STOP_WITHIN_S = 15.0


class Node(NamedTuple):
    """One of the three."""

    name: str
    zone: str
    api_port: int
    peer_port: int

    @property
    def api_url(self) -> str:
        """Where its API answers."""
        return f"http://{HOST}:{self.api_port}"


@asynccontextmanager
async def running(directory: Path, network: Network) -> AsyncIterator[list[Node]]:
    """The nodes, as soon as all of them serve; they end with the block."""
    ports = _free_ports(2 * len(ZONES))
    nodes = [
        Node(f"n{number}", zone, ports.pop(), ports.pop()) for number, zone in enumerate(ZONES, 1)
    ]
    said: list[str] = []
    children = []
    for node, path in zip(nodes, await _configure(directory, nodes, network), strict=True):
        command = [sys.executable, "-m", "raftq", "serve", "--config", str(path)]
        children.append(
            Child(node.name, command, os.environ, lambda name, line: said.append(f"{name} {line}"))
        )
    tasks = [asyncio.create_task(child.run()) for child in children]
    try:
        try:
            async with asyncio.timeout(READY_WITHIN_S), httpx2.AsyncClient() as http:
                for node in nodes:
                    await _ready(http, node)
        except TimeoutError:
            raise SystemExit("the nodes do not serve:\n" + "\n".join(said[-30:])) from None
        yield nodes
    finally:
        for child in children:
            child.stop()
        _, late = await asyncio.wait(tasks, timeout=STOP_WITHIN_S)
        if late:
            for child in children:
                child.kill()
            await asyncio.wait(late)
        network.close()


async def _configure(directory: Path, nodes: list[Node], network: Network) -> list[Path]:
    """A file for each node. Of two nodes the one with the smaller name dials, through a link."""
    secret = directory / "cluster.secret"
    secret.touch(mode=0o600)
    secret.write_text(secrets.token_hex(32) + "\n")
    links = {
        (one.name, other.name): await network.link(one.zone, other.zone, other.peer_port)
        for one, other in combinations(nodes, 2)
    }
    paths = []
    for node in nodes:
        members = [
            {
                "name": other.name,
                "zone": other.zone,
                "peer": f"{HOST}:{links.get((node.name, other.name), other.peer_port)}",
                "api_url": other.api_url,
            }
            for other in nodes
        ]
        sections: dict[str, dict[str, object]] = {
            "node": {
                "name": node.name,
                "data_dir": node.name,
                "api_listen": f"{HOST}:{node.api_port}",
                "peer_listen": f"{HOST}:{node.peer_port}",
            },
            "cluster": {"name": "three-zones", "secret_file": secret.name, "members": members},
            "auth": {"required": False},
        }
        path = directory / f"{node.name}.toml"
        path.write_text(render(sections))
        paths.append(path)
    return paths


async def _ready(http: httpx2.AsyncClient, node: Node) -> None:
    while True:
        try:
            if (await http.get(f"{node.api_url}/readyz")).status_code == 200:
                return
        except httpx2.TransportError:
            pass  # Not there yet.
        await asyncio.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
