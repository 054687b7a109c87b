"""Nodes on loopback that write down what their network tells them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from raftq.clock import AsyncioRuntime
from raftq.transport.handshake import Acceptor, Dialler, Identity
from raftq.transport.listening import Tls
from raftq.transport.network import Address, Network
from raftq.transport.settings import Counts, Settings
from raftq.transport.tcp import TcpNetwork

CLUSTER = "east"
SECRET = b"sixteen bytes or more"
DEADLINE_S = 10.0

# Fast enough for tests, slow enough for a busy machine.
SETTINGS = Settings(backoff_min_s=0.005, backoff_max_s=0.05)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return ("asyncio", {"use_uvloop": True})


async def until(condition: Callable[[], object]) -> None:
    """Return when it holds; fail when it does not in time."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # Conditions on what others own: no event.
            await asyncio.sleep(0.002)


def encode(frames: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(frame)) + frame for frame in frames)


class Log:
    """The events of one node."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        self.events.append((event, fields))

    warning = info

    def reasons(self, event: str) -> list[object]:
        return [fields["reason"] for name, fields in self.events if name == event]


class Node:
    """A network and its handler. ``on_frame`` is for what a test wants to do in ``received``."""

    def __init__(
        self,
        name: str,
        *,
        port: int = 0,
        cluster: str = CLUSTER,
        secret: bytes = SECRET,
        settings: Settings = SETTINGS,
        tls: Tls | None = None,
    ) -> None:
        self.name = name
        self.told: list[str] = []
        self.frames: list[bytes] = []
        self.errors: list[BaseException] = []
        self.counts = Counts()
        self.log = Log()
        self.on_frame: Callable[[str, bytes], None] = lambda _peer, _frame: None
        self._executor = ThreadPoolExecutor(1)
        runtime = AsyncioRuntime(asyncio.get_running_loop(), self._executor, self.errors.append)
        self.network = TcpNetwork(
            runtime=runtime,
            identity=Identity(cluster, name, secret),
            listen=Address("127.0.0.1", port),
            fatal=runtime.fail,
            log=self.log,
            meter=self.counts,
            settings=settings,
            tls=tls,
        )
        self.contract: Network = self.network
        self.network.listen()
        self.address = self.network.address

    def start(self, *peers: Node) -> Node:
        self.network.set_peers({peer.name: peer.address for peer in peers})
        self.network.start(self)
        return self

    async def stop(self) -> None:
        self.network.close()
        await self.network.wait_closed()
        self._executor.shutdown()

    def connected(self, peer: str) -> None:
        self.told.append(f"+{peer}")

    def disconnected(self, peer: str) -> None:
        self.told.append(f"-{peer}")

    def received(self, peer: str, frame: bytes) -> None:
        self.frames.append(frame)
        self.on_frame(peer, frame)


class Wire:
    """A peer made of a plain socket: it can misbehave as none of ours would."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def prove(self, name: str, wants: str, *, secret: bytes = SECRET) -> None:
        """The dialler's part of the handshake; EOFError when it is refused."""
        end = Dialler(Identity(CLUSTER, name, secret), wants, bytes(32))
        self.writer.write(end.hello)
        self.writer.write(end.feed(await self.reader.readexactly(38)))
        end.feed(await self.reader.readexactly(32))
        assert end.done

    async def accept(self, name: str, *peers: str, then: Sequence[bytes] = ()) -> None:
        """The acceptor's part, with frames in the same write as the last of it."""
        end = Acceptor(Identity(CLUSTER, name, SECRET), peers, bytes(32))
        while not end.done:
            data = await self.reader.read(4096)
            assert data, "hung up in the handshake"
            reply = end.feed(data)
            self.writer.write(reply + encode(then) if end.done else reply)

    def send(self, *frames: bytes) -> None:
        self.writer.write(encode(frames))

    async def frame(self) -> bytes:
        (length,) = struct.unpack(">I", await self.reader.readexactly(4))
        return await self.reader.readexactly(length)

    async def ended(self) -> bytes:
        """What still came before the other end closed."""
        try:
            return await asyncio.wait_for(self.reader.read(), DEADLINE_S)
        except ConnectionError:
            return b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class Lab:
    """Makes nodes and wires, and takes them down after the test."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.wires: list[Wire] = []
        self.until = until

    def node(self, name: str, **options: object) -> Node:
        node = Node(name, **options)  # type: ignore[arg-type]  # Passed through as it came.
        self.nodes.append(node)
        return node

    async def pair(self, **options: object) -> tuple[Node, Node]:
        """n1, who dials, and n2, connected."""
        one, other = self.node("n1", **options), self.node("n2", **options)
        one.start(other)
        other.start(one)
        await until(lambda: one.told and other.told)
        return one, other

    async def wire(self, node: Node) -> Wire:
        """A stranger to the node, as yet."""
        return self.wrap(*await asyncio.open_connection(*node.address))

    def wrap(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Wire:
        wire = Wire(reader, writer)
        self.wires.append(wire)
        return wire

    async def proven(self, node: Node, name: str = "n1") -> Wire:
        """A peer of the node's."""
        wire = await self.wire(node)
        await wire.prove(name, node.name)
        return wire


@pytest.fixture
def free_ports() -> tuple[int, int]:
    """Two that nobody listened on a moment ago."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        return one.getsockname()[1], two.getsockname()[1]


@pytest.fixture
def make_lab() -> type[Lab]:
    """For a test that brings its own loop."""
    return Lab


@pytest.fixture
async def lab(anyio_backend: object) -> AsyncIterator[Lab]:
    """A test's nodes. At the end nothing of them may be left on the loop."""
    made = Lab()
    yield made
    for wire in made.wires:
        await wire.close()
    for node in made.nodes:
        await node.stop()
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("raftq")] == []
