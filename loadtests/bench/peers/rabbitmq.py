"""RabbitMQ: a cluster of three, a quorum queue with a replica on each, publisher confirms.

Put waits for the confirms. Take is what is delivered to a consumer, which each connection
has, with as much prefetch as it takes. AMQP 0-9-1 has no answer to an ack: a lifecycle ends
when it is sent, but the next delivery on this connection comes only when it has arrived.
"""

from __future__ import annotations

import os
import secrets
import socket
from functools import partial
from pathlib import Path
from shutil import which

from cluster import free_ports, until
from loadtests.bench.client import HOST, BadAnswer, Dialect
from loadtests.bench.peers import amqp_wire as wire
from loadtests.bench.peers.amqp_wire import AmqpFraming, AmqpSession, Method
from loadtests.bench.peers.peer import NODES, READY_S, Peer, Talk
from loadtests.bench.plan import LIFECYCLE, Cell

SCRIPTS = Path("/usr/lib/rabbitmq/bin")
"""Of Debian, without the wrappers that change to a user and to the files of its service."""
REFUSALS = (Method.NACK, Method.CHANNEL_CLOSE, Method.CLOSE)
LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"
"""For what Erlang's nodes say to each other."""


class RabbitMq(Peer):
    """r1, r2 and r3, with a port mapper of their own."""

    name = "rabbitmq"

    def __init__(self, directory: Path) -> None:
        (self._mapper_port,) = free_ports(1)
        environment = {
            "HOME": str(directory),
            "ERL_EPMD_PORT": f"{self._mapper_port}",
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": LOOPBACK,
            "RABBITMQ_CTL_ERL_ARGS": LOOPBACK,
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory / "logs"),
        }
        super().__init__(directory, environment)

    @staticmethod
    def missing() -> str:
        """See ``Peer``."""
        there = (SCRIPTS / "rabbitmq-server").exists() and which("epmd")
        return "" if there else "apt-get install rabbitmq-server"

    def version(self) -> str:
        """See ``Peer``."""
        with AmqpSession(self.ports[0]) as session:
            return session.version

    def start(self) -> None:
        """See ``Peer``."""
        self.ports = free_ports(NODES)
        names = [f"r{number}@localhost" for number in range(1, NODES + 1)]
        self._write(names)
        epmd = which("epmd")
        assert epmd is not None, "it is missing"
        self.processes.start("epmd", [epmd])
        until(self._maps, "the port mapper answers", READY_S)
        own = free_ports(NODES)
        for name, port, own_port in zip(names, self.ports, own, strict=True):
            environment = {
                "RABBITMQ_NODENAME": name,
                "RABBITMQ_NODE_IP_ADDRESS": HOST,
                "RABBITMQ_NODE_PORT": f"{port}",
                "RABBITMQ_DIST_PORT": f"{own_port}",
            }
            server = str(SCRIPTS / "rabbitmq-server")
            self.processes.start(name.partition("@")[0], [server], environment)
        until(self._answers, "all nodes answer", READY_S)
        control = str(SCRIPTS / "rabbitmqctl")
        self.processes.run([control, "--node", names[0], "await_online_nodes", f"{NODES}"])

    def create(self, queue: str) -> None:
        """See ``Peer``."""
        with AmqpSession(self.ports[0]) as session:
            session.declare_quorum(queue, NODES)

    def delete(self, queue: str) -> None:
        """See ``Peer``."""
        with AmqpSession(self.ports[0]) as session:
            session.delete(queue)

    def talk(self, cell: Cell, queue: str, body: bytes) -> Talk:
        """See ``Peer``."""
        taking = cell.batch if cell.scenario == LIFECYCLE else 0
        return Talk(
            Dialect(partial(_connect, queue, taking), AmqpFraming),
            partial(Publishing, queue, cell.batch, body, taking=taking),
        )

    def _write(self, names: list[str]) -> None:
        directory = self.processes.directory
        cookie = directory / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        (directory / "plugins").write_text("[].\n")
        lines = ["cluster_formation.peer_discovery_backend = classic_config"]
        lines += [
            f"cluster_formation.classic_config.nodes.{number} = {name}"
            for number, name in enumerate(names, start=1)
        ]
        (directory / "rabbitmq.conf").write_text("\n".join([*lines, ""]))

    def _maps(self) -> bool:
        self.processes.all_run()
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self._mapper_port)) == 0

    def _answers(self) -> bool:
        self.processes.all_run()
        try:
            for port in self.ports:
                with AmqpSession(port):
                    pass
        except OSError:
            return False
        return True


class Publishing:
    """Publishes and waits for all confirms; takes as many and acks them if it is to."""

    def __init__(self, queue: str, batch: int, body: bytes, *, taking: int) -> None:
        self.finished = 0
        self._batch, self._taking = batch, taking
        self._put = wire.publish(queue, body) * batch
        self._sent = 0
        self._unconfirmed: set[int] = set()
        self._taken = self._last = 0

    def first(self) -> bytes:
        """See ``Exchange``."""
        self._unconfirmed = set(range(self._sent + 1, self._sent + self._batch + 1))
        self._sent += self._batch
        return self._put

    def next(self, status: int, body: bytes) -> bytes:
        """See ``Exchange``."""
        self.finished = 0
        for method, arguments in wire.methods(body):
            if method == Method.ACK:
                self._confirm(*wire.acked(arguments))
            elif method == Method.DELIVER:
                self._taken += 1
                self._last = wire.delivered(arguments)
            elif method in REFUSALS:
                raise BadAnswer
        if self._unconfirmed or self._taken < self._taking:
            return b""
        self.finished = self._batch
        acks = wire.ack(self._last) if self._taking else b""
        self._taken = 0
        return acks + self.first()

    def _confirm(self, tag: int, before: bool) -> None:
        if before:
            self._unconfirmed = {one for one in self._unconfirmed if one > tag}
        else:
            self._unconfirmed.discard(tag)


def _connect(queue: str, taking: int, port: int) -> socket.socket:
    session = AmqpSession(port)
    session.confirm()
    if taking:
        session.consume(queue, taking)
    return session.socket
