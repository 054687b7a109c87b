"""A real cluster: one process per node, on loopback, over a directory of its own.

Faults are signals to those processes, each by its own pid, and files under that
directory. Everything is synchronous; asynchronous tests call in through a thread.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import certificates
from certificates import LIFE, Authority
from raftq.config import render

CLUSTER = "test"
ROOT = Path(__file__).parents[2]
SABOTAGE = Path(__file__).with_name("sabotage.py")
# Below what the kernel hands to outgoing connections: a node that is down must find its
# ports free when it comes back, and nobody may connect to himself on them meanwhile.
PORTS = range(12_000, 30_000)
POLL_S = 0.02
REQUEST_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 15.0
LOG_LINES_SHOWN = 60

Settings = Mapping[str, Mapping[str, object]]


class NotInTime(AssertionError):
    """A node or the cluster did not get there before the deadline."""


class Answer(NamedTuple):
    """What a node said."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Node:
    """One process, its configuration and its files."""

    address = "127.0.0.1"

    def __init__(self, name: str, zone: str, directory: Path) -> None:
        self.name = name
        self.zone = zone
        self.directory = directory
        self.data_dir = directory / "data"
        self.config_path = directory / "node.toml"
        self.log_path = directory / "log"
        self.api_port, self.peer_port = free_ports(2)
        self.process: subprocess.Popen[bytes] | None = None
        self.trust: ssl.SSLContext | None = None  # With one, the API is under TLS.
        self.key = ""  # Shown with each request.

    @property
    def api_url(self) -> str:
        scheme = "http" if self.trust is None else "https"
        return f"{scheme}://{self.address}:{self.api_port}"

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} was never started"
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        """Everything it ever wrote, over all its lives."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        assert not self.running, f"{self.name} runs already"
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "serve", "--config", str(self.config_path)],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def signal(self, number: signal.Signals) -> None:
        if self.running:
            os.kill(self.pid, number)

    def exit_code(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait until it is gone."""
        assert self.process is not None
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise NotInTime(f"{self.name} still runs after {timeout_s} s") from None

    def metric(self, name: str) -> float:
        """A number of its metrics; ``name`` with its labels."""
        page = self.request("GET", "/metrics").body.decode()
        (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
        return float(value)

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> Answer:
        """One request on a connection of its own; OSError when nobody answers."""
        connection = self._connection(timeout_s)
        sent = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        sent |= headers or {}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        try:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())
        except http.client.HTTPException as error:
            raise ConnectionError(f"{self.name}: {error!r}") from error
        finally:
            connection.close()

    def get(self, path: str, **query: str) -> Any:
        """The JSON of a successful answer; anything else is an OSError or an assertion."""
        text = "&".join(f"{name}={value}" for name, value in query.items())
        answer = self.request("GET", f"{path}?{text}" if text else path)
        assert answer.status == 200, f"{self.name}: GET {path}: {answer.status} {answer.body!r}"
        return answer.json()

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        where = (self.address, self.api_port)
        if self.trust is None:
            return http.client.HTTPConnection(*where, timeout=timeout_s)
        return http.client.HTTPSConnection(*where, timeout=timeout_s, context=self.trust)

    def is_ready(self) -> bool:
        try:
            return self.running and self.request("GET", "/readyz").status == 200
        except OSError:
            return False

    def applied_index(self) -> int:
        return int(self.request("GET", "/livez").headers["raftq-applied-index"])


class Cluster:
    """Nodes n1, n2, ...; in zones a, b, ...; a context manager that stops them all."""

    def __init__(
        self,
        directory: Path,
        *,
        size: int = 3,
        settings: Settings | None = None,
        sabotage: str | None = None,
        environment: Mapping[str, str] | None = None,
        authority: Authority | None = None,
    ) -> None:
        """``authority``: everything is under TLS, with certificates that it signs."""
        self.authority = authority
        self.environment = dict(environment or {})
        self.command = (
            [sys.executable, "-m", "raftq"]
            if sabotage is None
            else [sys.executable, str(SABOTAGE), sabotage, "--"]
        )
        self.nodes = {
            f"n{n}": Node(f"n{n}", "abcdefghi"[n - 1], directory / f"n{n}")
            for n in range(1, size + 1)
        }
        self._configure(settings or {})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            print(self.logs())
        self.close()

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    @property
    def running(self) -> list[Node]:
        return [node for node in self if node.running]

    # Faults.

    def start(self, *names: str) -> Self:
        """Start the named nodes, or all that do not run."""
        for node in self._chosen(names):
            if not node.running:
                node.start(self.command, self.environment)
        return self

    def stop(self, *names: str) -> None:
        """SIGTERM, all at once, and wait until they are gone."""
        chosen = [node for node in self._chosen(names) if node.running]
        for node in chosen:
            node.signal(signal.SIGCONT)
            node.signal(signal.SIGTERM)
        for node in chosen:
            node.exit_code()

    def kill(self, *names: str) -> None:
        """SIGKILL, all at once."""
        chosen = [node for node in self._chosen(names) if node.running]
        for node in chosen:
            node.signal(signal.SIGKILL)
        for node in chosen:
            node.exit_code()

    def pause(self, name: str) -> None:
        """SIGSTOP: it keeps its connections and its beliefs."""
        self[name].signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self[name].signal(signal.SIGCONT)

    def wipe(self, name: str) -> None:
        """Lose a disk."""
        assert not self[name].running, "a running node would write on"
        shutil.rmtree(self[name].data_dir)

    def close(self) -> None:
        """Stop whatever runs, politely first."""
        for node in self.running:
            node.signal(signal.SIGCONT)
            node.signal(signal.SIGTERM)
        for node in self:
            if node.process is None:
                continue
            try:
                node.exit_code()
            except NotInTime:
                node.signal(signal.SIGKILL)
                node.exit_code()

    def certify(self, name: str, *, life: timedelta = LIFE) -> None:
        """Write the node a certificate, as the authority's tools would."""
        assert self.authority is not None
        self.authority.node(CLUSTER, name, life=life).write(self[name].directory, name)

    # Views.

    def wait_ready(self, *names: str, deadline_s: float = 30.0) -> Self:
        """Until the named nodes, or all that run, can serve; at once when one has died."""
        chosen = self._chosen(names) if names else self.running

        def all_ready() -> bool:
            for node in chosen:
                if not node.running:
                    raise NotInTime(f"{node.name} has ended with {node.exit_code()}")
            return all(node.is_ready() for node in chosen)

        until(all_ready, "the nodes are ready", deadline_s)
        return self

    def leader(self, *, beside: str | None = None) -> Node | None:
        """The leader that most of the running nodes name, ``beside`` not counted."""
        votes: list[str] = []
        for node in self.running:
            if node.name == beside:
                continue
            with contextlib.suppress(OSError, AssertionError):
                named = node.get("/cluster")["leader"]
                if named is not None and named != beside:
                    votes.append(named)
        best = max(votes, key=votes.count, default=None)
        if best is None or 2 * votes.count(best) <= len(self.nodes):
            return None
        return self[best]

    def wait_leader(self, *, beside: str | None = None, deadline_s: float = 30.0) -> Node:
        found: list[Node] = []

        def has_leader() -> bool:
            found[:] = [node for node in [self.leader(beside=beside)] if node is not None]
            return bool(found)

        until(has_leader, "a leader is known", deadline_s)
        return found[0]

    def followers(self) -> list[Node]:
        leader = self.wait_leader()
        return [node for node in self.running if node is not leader]

    def follower(self) -> Node:
        return self.followers()[0]

    def wait_member(self, name: str, *, deadline_s: float = 30.0) -> None:
        """Until the node itself says that it is one of those that vote."""

        def is_member() -> bool:
            try:
                role = self[name].request("GET", "/livez").headers["raftq-role"]
            except OSError:
                return False
            return role in ("leader", "follower")

        until(is_member, f"{name} is a member", deadline_s)

    def wait_converged(self, *, deadline_s: float = 30.0) -> int:
        """Until all running nodes have applied the same index and stay there; the index."""
        last: list[int] = [-1]

        def converged() -> bool:
            try:
                indexes = {node.applied_index() for node in self.running}
            except OSError:
                return False
            before, last[0] = last[0], max(indexes)
            return indexes == {before}

        until(converged, "the nodes have applied the same", deadline_s, poll_s=0.3)
        return last[0]

    def logs(self) -> str:
        """The end of each node's log, for a failed test's report."""
        parts = []
        for node in self:
            code = None if node.process is None else node.process.poll()
            parts.append(f"--- {node.name} pid={node.process and node.pid} exit={code}")
            parts += node.log.splitlines()[-LOG_LINES_SHOWN:]
        return "\n".join(parts)

    def _chosen(self, names: Sequence[str]) -> list[Node]:
        return [self[name] for name in names] if names else list(self)

    def _configure(self, settings: Settings) -> None:
        secret = secrets.token_hex(16)
        for node in self:
            node.trust = self.authority and self.authority.trust()
        members = [
            {
                "name": node.name,
                "zone": node.zone,
                "peer": f"127.0.0.1:{node.peer_port}",
                "api_url": node.api_url,
            }
            for node in self
        ]
        for node in self:
            sections: dict[str, dict[str, object]] = {
                "node": {
                    "name": node.name,
                    "zone": node.zone,
                    "data_dir": str(node.data_dir),
                    "api_listen": f"127.0.0.1:{node.api_port}",
                    "peer_listen": f"127.0.0.1:{node.peer_port}",
                },
                "cluster": {"name": CLUSTER, "secret": secret, "members": members},
                "auth": {"required": False},
            }
            if self.authority is not None:
                sections["tls"] = certificates.settings(node.directory, node.name)
            for section, keys in settings.items():
                sections.setdefault(section, {}).update(keys)
            node.directory.mkdir(parents=True)
            if self.authority is not None:
                self.certify(node.name)
                (node.directory / "ca.pem").write_bytes(self.authority.certificate)
            node.config_path.write_text(render(sections))
            node.config_path.chmod(0o600)


_handed_out: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, and that nobody here was given before."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(PORTS)
        if port in _handed_out:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _handed_out.add(port)
        found.append(port)
    return found


def until(
    holds: Callable[[], bool], what: str, deadline_s: float = 30.0, *, poll_s: float = POLL_S
) -> None:
    """Poll until it holds; NotInTime says what did not."""
    give_up_s = time.monotonic() + deadline_s
    while not holds():
        if time.monotonic() > give_up_s:
            raise NotInTime(f"not within {deadline_s} s: {what}")
        time.sleep(poll_s)
