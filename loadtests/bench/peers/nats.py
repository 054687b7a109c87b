"""NATS JetStream: a stream of three replicas, each write on disk before it counts.

The stream is a work queue: what is acked is gone. Put waits for the PubAcks, take is a
fetch of a pull consumer that all share, and each ack waits for its answer ("ack sync").
"""

from __future__ import annotations

import json
import os
from functools import partial
from shutil import which
from socket import socket

from cluster import free_ports, until
from loadtests import ROOT
from loadtests.bench.client import HOST, BadAnswer, Dialect
from loadtests.bench.peers import nats_wire as wire
from loadtests.bench.peers.nats_wire import NatsFraming, NatsSession
from loadtests.bench.peers.peer import NODES, READY_S, Peer, Talk
from loadtests.bench.plan import LIFECYCLE, Cell

INSTALLED = ROOT / ".venv-peers" / "bin"
CONSUMER = "workers"
NS = 10**9
LEASE_S = 600
FETCH_S = 30
INFO_S = 0.5
"""Before they have a leader, they do not say so."""


class Nats(Peer):
    """j1, j2 and j3."""

    name = "nats"

    @staticmethod
    def missing() -> str:
        """See ``Peer``."""
        return "" if _program() else "make .venv-peers/.installed, or put nats-server on the path"

    def version(self) -> str:
        """See ``Peer``."""
        return self.processes.run([_program(), "--version"]).strip()

    def start(self) -> None:
        """See ``Peer``."""
        program = _program()
        self.ports, own = free_ports(NODES), free_ports(NODES)
        for number, (port, own_port) in enumerate(zip(self.ports, own, strict=True), start=1):
            name = f"j{number}"
            settings = {
                "server_name": name,
                "listen": f"{HOST}:{port}",
                "ping_interval": "10m",  # No client here answers.
                "jetstream": {
                    "store_dir": str(self.processes.directory / name),
                    "sync_interval": "always",
                },
                "cluster": {
                    "name": "bench",
                    "listen": f"{HOST}:{own_port}",
                    "routes": [f"nats://{HOST}:{other}" for other in own],
                },
            }
            path = self.processes.directory / f"{name}.conf"
            path.write_text(json.dumps(settings))  # Which its format includes.
            self.processes.start(name, [program, "--config", str(path)])
        until(self._answers, "a stream can be created", READY_S)

    def create(self, queue: str) -> None:
        """See ``Peer``."""
        stream = {
            "name": queue,
            "subjects": [queue],
            "retention": "workqueue",
            "storage": "file",
            "num_replicas": NODES,
        }
        consumer = {
            "durable_name": CONSUMER,
            "ack_policy": "explicit",
            "ack_wait": LEASE_S * NS,
            "max_ack_pending": -1,
        }
        with NatsSession(self.ports[0]) as session:
            session.ask(f"STREAM.CREATE.{queue}", stream)
            asked = {"stream_name": queue, "config": consumer}
            session.ask(f"CONSUMER.DURABLE.CREATE.{queue}.{CONSUMER}", asked)

    def delete(self, queue: str) -> None:
        """See ``Peer``."""
        with NatsSession(self.ports[0]) as session:
            session.ask(f"STREAM.DELETE.{queue}")

    def talk(self, cell: Cell, queue: str, body: bytes) -> Talk:
        """See ``Peer``."""
        kind = Lifecycles if cell.scenario == LIFECYCLE else Puts
        return Talk(Dialect(_connect, NatsFraming), partial(kind, queue, cell.batch, body))

    def _answers(self) -> bool:
        self.processes.all_run()
        try:
            with NatsSession(self.ports[0], INFO_S) as session:
                session.ask("INFO")
            self.create("first")
            self.delete("first")
        except (OSError, BadAnswer):
            return False
        return True


class Puts:
    """Publishes and waits for all PubAcks, for ever."""

    def __init__(self, queue: str, batch: int, body: bytes) -> None:
        self.finished = 0
        self._batch = batch
        self._inbox = wire.inbox()
        self._subscribe = wire.subscribe(self._inbox, wire.LOAD)
        self._put = wire.publish(queue, body, self._inbox) * batch
        self._missing = 0

    def first(self) -> bytes:
        """See ``Exchange``."""
        self._missing = self._batch
        subscribe, self._subscribe = self._subscribe, b""
        return subscribe + self._put

    def next(self, status: int, body: bytes) -> bytes:
        """See ``Exchange``."""
        self.finished = 0
        for line, payload in wire.messages(body):
            if line.startswith(b"MSG "):
                self.heard(line, payload)
            elif line.startswith((b"HMSG ", b"-ERR")):
                raise BadAnswer
        return b"" if self._missing else self.whole()

    def heard(self, line: bytes, payload: bytes) -> None:
        """One of the answers."""
        if b'"error"' in payload:
            raise BadAnswer
        self._missing -= 1

    def whole(self) -> bytes:
        """What to say when all answers are there."""
        self.finished = self._batch
        return self.first()


class Lifecycles(Puts):
    """Put, take as many, ack them."""

    def __init__(self, queue: str, batch: int, body: bytes) -> None:
        super().__init__(queue, batch, body)
        fetch = json.dumps({"batch": batch, "expires": FETCH_S * NS}).encode()
        call = f"{wire.API}.CONSUMER.MSG.NEXT.{queue}.{CONSUMER}"
        self._fetch = wire.publish(call, fetch, self._inbox)
        self._fetching = self._acking = False
        self._acks: list[bytes] = []

    def first(self) -> bytes:
        """See ``Exchange``."""
        self._fetching = self._acking = False
        return super().first()

    def heard(self, line: bytes, payload: bytes) -> None:
        """See ``Puts``."""
        if self._fetching:
            settled = line.split(b" ")[3].decode()
            self._acks.append(wire.publish(settled, b"+ACK", self._inbox))
        super().heard(line, payload)

    def whole(self) -> bytes:
        """See ``Puts``."""
        if self._acking:
            return super().whole()
        self._missing = self._batch
        if self._fetching:
            self._fetching, self._acking = False, True
            return b"".join(self._acks)
        self._fetching = True
        self._acks = []
        return self._fetch


def _connect(port: int) -> socket:
    return NatsSession(port).socket


def _program() -> str:
    """Nothing if there is none."""
    return which("nats-server", path=os.pathsep.join((str(INSTALLED), os.environ["PATH"]))) or ""
