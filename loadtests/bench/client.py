"""Closed-loop load from one process: each connection sends when it has been answered.

Requests are prebuilt bytes and answers are only looked at as far as the next request
needs it, so that the client does not become what is measured; its own CPU time is
reported all the same. What an answer is depends on the ``Dialect`` that is spoken.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from array import array
from collections.abc import Callable, Sequence
from itertools import cycle
from time import perf_counter
from typing import NamedTuple, Protocol, cast

HOST = "127.0.0.1"
HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"
ERRORS_MAX = 100
CONNECT_S = 10.0


class Exchange(Protocol):
    """What one connection says: an operation is one request or several."""

    finished: int
    """Messages that the answer just given to ``next`` has completed; 0 within an operation."""

    def first(self) -> bytes:
        """The request that begins an operation."""
        ...

    def next(self, status: int, body: bytes) -> bytes | None:
        """The next request; nothing: wait for more; None: the end. ``BadAnswer``: begin anew."""
        ...


class Framing(Protocol):
    """Recognises answers in the bytes that come over one connection."""

    def feed(self, data: bytes) -> tuple[int, bytes] | None:
        """Status and body of what is whole now; None: it has only begun."""
        ...


class BadAnswer(Exception):
    """The operation failed."""


class TooManyErrors(Exception):
    """What is measured is not the service but its failing."""


class HttpFraming:
    """Answers of HTTP/1.1 with a length, one after the other."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> tuple[int, bytes] | None:
        """See ``Framing``."""
        if self._buffer:
            data = self._buffer + data
        end = data.find(HEAD_END)
        if end < 0 or len(data) - end - len(HEAD_END) < content_length(data[:end]):
            self._buffer = data
            return None
        self._buffer = b""
        return int(data[9:12]), data[end + len(HEAD_END) :]


def connect(port: int) -> socket.socket:
    """A connection on which what is sent goes out at once."""
    connection = socket.create_connection((HOST, port), CONNECT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Dialect(NamedTuple):
    """What is spoken on a connection."""

    connect: Callable[[int], socket.socket]
    """To a port, as far as the first request; blocks."""
    framing: Callable[[], Framing]


HTTP = Dialect(connect, HttpFraming)


class Measured:
    """What all clients did while ``open`` was true."""

    def __init__(self) -> None:
        self.open = False
        self.messages = 0
        self.requests = 0
        self.errors: list[str] = []
        self.latencies_s = array("d")
        self.seconds = 0.0


class Client(Protocol):
    """Who waits for his answers, on one connection or on several."""

    ended: asyncio.Future[None]

    async def open(self, port: int, tls: ssl.SSLContext | None) -> None:
        """Connect."""
        ...

    def start(self) -> None:
        """Begin the first operation."""
        ...

    def stop(self) -> None:
        """End with the operation that is under way."""
        ...


class Load:
    """Some clients of some ports, all saying the same kind of thing."""

    def __init__(
        self,
        ports: Sequence[int],
        clients: int,
        make: Callable[[Measured], Client],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """``make``: a client that counts what it does there."""
        self.measured = Measured()
        self._ports, self._tls = ports, tls
        self._clients = [make(self.measured) for _ in range(clients)]

    async def connect(self) -> None:
        """Connect all; client n goes to port n modulo their number."""
        ports = cycle(self._ports)
        await asyncio.gather(*(client.open(next(ports), self._tls) for client in self._clients))

    async def run(self, warmup_s: float, measure_s: float, marked: Callable[[], None]) -> Measured:
        """Warm up, measure, hang up; ``marked`` is called as the window opens and closes."""
        await self.connect()
        for client in self._clients:
            client.start()
        await self._healthy(warmup_s)
        marked()
        self.measured.open = True
        started_s = perf_counter()
        await self._healthy(measure_s)
        self.measured.open = False
        self.measured.seconds = perf_counter() - started_s
        marked()
        for client in self._clients:
            client.stop()
        await asyncio.wait([client.ended for client in self._clients], timeout=10)
        return self.measured

    async def run_out(self) -> Measured:
        """Go on until every exchange has no more to say."""
        await self.connect()
        self.measured.open = True
        started_s = perf_counter()
        for client in self._clients:
            client.start()
        while not all(client.ended.done() for client in self._clients):
            await self._healthy(0.01)
        self.measured.seconds = perf_counter() - started_s
        return self.measured

    async def _healthy(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if len(self.measured.errors) > ERRORS_MAX:
            raise TooManyErrors(self.measured.errors[-1])


async def opened(
    connect: Callable[[int], socket.socket],
    port: int,
    tls: ssl.SSLContext | None,
    protocol: asyncio.Protocol,
) -> None:
    """Connect, and let ``protocol`` have the connection: it exists before that does."""
    loop = asyncio.get_running_loop()
    connection = await loop.run_in_executor(None, connect, port)
    connection.setblocking(False)
    named = HOST if tls else None
    await loop.create_connection(lambda: protocol, sock=connection, ssl=tls, server_hostname=named)


def saying(make: Callable[[], Exchange], dialect: Dialect = HTTP) -> Callable[[Measured], Client]:
    """Clients with a connection each, on which that is said."""
    return lambda measured: _Wire(make(), dialect, measured)


class _Wire(asyncio.Protocol):
    def __init__(self, exchange: Exchange, dialect: Dialect, measured: Measured) -> None:
        self._exchange = exchange
        self._connect, self._framing = dialect.connect, dialect.framing()
        self._measured = measured
        self._began_s = 0.0
        self._stopping = False
        self._transport: asyncio.Transport | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self, port: int, tls: ssl.SSLContext | None) -> None:
        await opened(self._connect, port, tls, self)

    def start(self) -> None:
        assert self._transport is not None
        self._began_s = perf_counter()
        self._transport.write(self._exchange.first())

    def stop(self) -> None:
        """End with the operation that is under way."""
        self._stopping = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has no such base.

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self._measured.errors.extend([f"hung up: {error}"] * ERRORS_MAX)
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        answer = self._framing.feed(data)
        if answer is not None:
            self._answered(*answer)

    def _answered(self, status: int, body: bytes) -> None:
        measured = self._measured
        exchange = self._exchange
        try:
            request = exchange.next(status, body)
            finished = exchange.finished
        except BadAnswer:
            measured.errors.append(f"{status} {body[:300]!r}")
            request, finished = exchange.first(), 0
            self._began_s = perf_counter()
        if request == b"":
            return
        if measured.open:
            measured.requests += 1
            measured.messages += finished
        if finished:
            now_s = perf_counter()
            if measured.open:
                measured.latencies_s.append(now_s - self._began_s)
            self._began_s = now_s
        assert self._transport is not None
        if request is None or (self._stopping and finished):
            self.ended.set_result(None)
            self._transport.close()
        else:
            self._transport.write(request)


def content_length(head: bytes) -> int:
    """What the head of an answer says of its body."""
    at = head.lower().find(LENGTH)
    if at < 0:
        return 0
    end = head.find(b"\r", at)
    return int(head[at + len(LENGTH) : end if end > 0 else None])
