"""What ``raftq dev`` keeps in its data directory: a configuration per node, and a secret."""

from __future__ import annotations

import errno
import os
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from api.access import minting
from raftq.cli.failure import Exit, Failure
from raftq.config import render

HOST = "127.0.0.1"
PEER_PORT_OFFSET = 1_000
SECRET = "cluster.secret"  # noqa: S105 - the name of its file
KEY = "operator.key"
ZONES = {"n1": "a", "n2": "b", "n3": "c"}


class DevNode(NamedTuple):
    """One of the three."""

    name: str
    zone: str
    api_port: int
    peer_port: int

    @property
    def api_url(self) -> str:
        """Where its API answers."""
        return f"http://{HOST}:{self.api_port}"


def nodes(base_port: int) -> list[DevNode]:
    """Three nodes in three zones on adjacent ports."""
    return [
        DevNode(name, zone, base_port + position, base_port + PEER_PORT_OFFSET + position)
        for position, (name, zone) in enumerate(ZONES.items())
    ]


def check_ports(cluster: Sequence[DevNode]) -> None:
    """A Failure that names every taken port and says how to choose others."""
    taken = [
        f"{port} ({what} of {node.name})"
        for node in cluster
        for port, what in ((node.api_port, "API"), (node.peer_port, "peers"))
        if not _free(port)
    ]
    if taken:
        raise Failure(
            f"taken on {HOST}: {', '.join(taken)}. Stop what listens there, or choose others: "
            f"raftq dev --base-port {cluster[0].api_port + 10_000}",
            Exit.USAGE,
        )


def write(
    directory: Path, cluster: Sequence[DevNode], *, engine: str, log_format: str, keys: bool
) -> list[Path]:
    """The nodes' configuration files, written anew; what is secret is made once and kept."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _keep(directory / SECRET, secrets.token_hex(32))
    auth: dict[str, object] = {"required": keys}
    if keys:
        _keep(directory / KEY, minting.new_token(minting.new_id()))
        auth["bootstrap_key_file"] = KEY
    members = [
        {"name": n.name, "zone": n.zone, "peer": f"{HOST}:{n.peer_port}", "api_url": n.api_url}
        for n in cluster
    ]
    paths = []
    for node in cluster:
        sections: dict[str, dict[str, object]] = {
            "node": {
                "name": node.name,
                "data_dir": node.name,
                "api_listen": f"{HOST}:{node.api_port}",
                "peer_listen": f"{HOST}:{node.peer_port}",
            },
            "cluster": {"name": "dev", "secret_file": SECRET, "members": members},
            "auth": auth,
            "storage": {"engine": engine},
            "log": {"format": log_format},
        }
        path = directory / f"{node.name}.toml"
        path.write_text(f"# Written by raftq dev at every start.\n\n{render(sections)}")
        paths.append(path)
    return paths


def _keep(path: Path, secret: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with open(descriptor, "w") as file:
        file.write(secret + "\n")


def key(directory: Path) -> str:
    """The operator's key, which only a cluster with keys has."""
    return (directory / KEY).read_text("utf-8").strip()


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise Failure(f"port {port}: {error.strerror}", Exit.USAGE) from None
            return False
    return True
