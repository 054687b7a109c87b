"""PostgreSQL: a primary and two standbys, a commit on disk on it and on any one of those.

A table is the queue, as the manual has it under SKIP LOCKED: put inserts, take marks what
nobody else has locked, ack deletes. All clients talk to the primary, as only it can write.

Each of its processes begins a session. Where the kernel groups processes by session
(``kernel.sched_autogroup_enabled``) and others use the machine as well, it so gets more of the
processors than raftq does: compare on a machine that does nothing else.
"""

from __future__ import annotations

import contextlib
import socket
from functools import partial
from pathlib import Path
from shutil import which
from signal import SIGINT
from typing import ClassVar

from cluster import free_ports, until
from loadtests.bench.client import HOST, BadAnswer, Dialect
from loadtests.bench.peers import postgresql_wire as wire
from loadtests.bench.peers.peer import READY_S, Peer, Talk
from loadtests.bench.peers.postgresql_wire import PostgresFraming, PostgresSession
from loadtests.bench.peers.processes import unprivileged
from loadtests.bench.plan import LIFECYCLE, Cell

DEBIAN = Path("/usr/lib/postgresql")
NEEDED = ("initdb", "pg_basebackup", "postgres")
STANDBYS = ("s1", "s2")
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "300",
    "fsync": "on",
    "synchronous_commit": "on",
    "synchronous_standby_names": f"ANY 1 ({', '.join(STANDBYS)})",
}
TABLE = """
CREATE TABLE queue (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea NOT NULL, taken_at timestamptz
);
CREATE INDEX ON queue (id) WHERE taken_at IS NULL
"""
"""In a schema for each queue."""
PUT_ONE = "INSERT INTO queue (body) VALUES ($1::bytea)"
PUT_MORE = "INSERT INTO queue (body) SELECT unnest($1::bytea[])"
TAKE = """
UPDATE queue SET taken_at = now() WHERE id IN (
  SELECT id FROM queue WHERE taken_at IS NULL ORDER BY id FOR UPDATE SKIP LOCKED LIMIT $1::bigint
) RETURNING id, body
"""
ACK = "DELETE FROM queue WHERE id = ANY($1::bigint[])"
# The statistics of a queue are soon those of another one: planned from them, a take sorts all
# that is there. Like this it follows the index, as with better statistics it would as well.
PLANNING = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off;"
PLANNING += "SET enable_bitmapscan = off; SET enable_sort = off"
STREAMING = (
    "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'quorum'"
)


class PostgreSql(Peer):
    """The primary, s1 and s2."""

    name = "postgresql"
    stop_signal: ClassVar = SIGINT  # "Fast": without waiting for clients.

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, user=unprivileged())

    @staticmethod
    def missing() -> str:
        """See ``Peer``."""
        with contextlib.suppress(KeyError):
            unprivileged()
            if _programs() is not None:
                return ""
        return "apt-get install postgresql"

    def version(self) -> str:
        """See ``Peer``."""
        return self.processes.run([_program("postgres"), "--version"]).strip()

    def start(self) -> None:
        """See ``Peer``."""
        port, *ports = free_ports(1 + len(STANDBYS))
        self.ports = [port]
        primary = self._data("primary")
        self.processes.run(
            [
                *(_program("initdb"), "-D", primary, "--no-sync"),
                *("-U", wire.USER, "-A", "trust", "-E", "UTF8"),
            ]
        )
        self._serve("primary", port)
        until(self._answers, "the primary answers", READY_S)
        for name, own_port in zip(STANDBYS, ports, strict=True):
            source = f"host={HOST} port={port} user={wire.USER}"
            self.processes.run(
                [
                    *(_program("pg_basebackup"), "-d", source, "-D", self._data(name)),
                    *("-R", "-X", "stream", "-c", "fast", "--no-sync"),
                ]
            )
            self._serve(name, own_port)
        until(self._streams, "both standbys follow", READY_S)

    def create(self, queue: str) -> None:
        """See ``Peer``."""
        self._query(f"CREATE SCHEMA {queue}; SET search_path TO {queue}; {TABLE}")

    def delete(self, queue: str) -> None:
        """See ``Peer``."""
        self._query(f"DROP SCHEMA {queue} CASCADE")

    def talk(self, cell: Cell, queue: str, body: bytes) -> Talk:
        """See ``Peer``."""
        kind = Lifecycles if cell.scenario == LIFECYCLE else Puts
        return Talk(
            Dialect(partial(_connect, queue, cell.batch), PostgresFraming),
            partial(kind, cell.batch, body),
        )

    def _data(self, name: str) -> str:
        return str(self.processes.directory / name)

    def _serve(self, name: str, port: int) -> None:
        settings = SETTINGS | {"port": f"{port}", "cluster_name": name}
        told = (part for key, value in settings.items() for part in ("-c", f"{key}={value}"))
        self.processes.start(name, [_program("postgres"), "-D", self._data(name), *told])

    def _answers(self) -> bool:
        self.processes.all_run()
        try:
            return self._query("SELECT 1") == [[b"1"]]
        except (OSError, BadAnswer):
            return False

    def _streams(self) -> bool:
        self.processes.all_run()
        return self._query(STREAMING) == [[b"%d" % len(STANDBYS)]]

    def _query(self, sql: str) -> list[list[bytes]]:
        with PostgresSession(*self.ports) as session:
            return session.query(sql)


class Puts:
    """Inserts of one row or of several, for ever."""

    def __init__(self, batch: int, body: bytes) -> None:
        self.finished = self._batch = batch
        bodies = body if batch == 1 else wire.array(wire.BYTEA, [body] * batch)
        self._put = wire.execute("put", bodies)

    def first(self) -> bytes:
        """See ``Exchange``."""
        return self._put

    def next(self, status: int, body: bytes) -> bytes:
        """See ``Exchange``."""
        if status != wire.OK or wire.affected(body) != self._batch:
            raise BadAnswer
        return self._put


class Lifecycles:
    """Put, take as many, ack them.

    What was put before the snapshot of a take may be taken by another who put after it. So
    a take that finds too little is followed by one of the rest.
    """

    def __init__(self, batch: int, body: bytes) -> None:
        self.finished = 0
        self._batch = batch
        self._put = Puts(batch, body)
        self._take = wire.execute("take", wire.integer(batch))
        self._taken: list[bytes] = []
        self._stage = self._on_put

    def first(self) -> bytes:
        """See ``Exchange``."""
        self.finished = 0
        self._taken = []
        self._stage = self._on_put
        return self._put.first()

    def next(self, status: int, body: bytes) -> bytes:
        """See ``Exchange``."""
        if status != wire.OK:
            raise BadAnswer
        self.finished = 0
        return self._stage(body)

    def _on_put(self, answer: bytes) -> bytes:
        self._put.next(wire.OK, answer)
        self._stage = self._on_take
        return self._take

    def _on_take(self, answer: bytes) -> bytes:
        self._taken += (next(columns) for columns in wire.rows(answer))
        if missing := self._batch - len(self._taken):
            return wire.execute("take", wire.integer(missing))
        self._stage = self._on_ack
        return wire.execute("ack", wire.array(wire.INT8, self._taken))

    def _on_ack(self, answer: bytes) -> bytes:
        if wire.affected(answer) != self._batch:
            raise BadAnswer
        request = self.first()
        self.finished = self._batch
        return request


def _connect(queue: str, batch: int, port: int) -> socket.socket:
    session = PostgresSession(port)
    session.query(f"SET search_path TO {queue}; {PLANNING}")
    session.prepare({"put": PUT_ONE if batch == 1 else PUT_MORE, "take": TAKE, "ack": ACK})
    return session.socket


def _programs() -> Path | None:
    """The directory with all that is needed, of the newest version there is."""
    found = [path / "bin" for path in sorted(DEBIAN.glob("[0-9]*"), reverse=True)]
    if there := which("pg_basebackup"):
        found.append(Path(there).resolve().parent)
    for directory in found:
        if all((directory / name).exists() for name in NEEDED):
            return directory
    return None


def _program(name: str) -> str:
    directory = _programs()
    assert directory is not None, "it is missing"
    return str(directory / name)
