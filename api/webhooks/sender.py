"""HTTP as far as posting a message needs it, over connections whose address was checked.

No redirect is followed, since it would lead to an address of somebody else's choice. Of an
answer only status and ``Retry-After`` are kept; a body that is too long costs the connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import ip_address
from typing import NamedTuple

import httptools

from api.webhooks.targets import Rules, Target

ADDRESSES_MAX = 4  # Of one name, that are tried one after the other.
CONNECT_S = 5.0  # For each of them.
ANSWER_BYTES_MAX = 65_536
READ_BYTES = 16_384
IDLE_S = 20.0
AGE_MAX_S = 60.0  # After that the name is looked up again, on a new connection.

Resolve = Callable[[str, int], Awaitable[list[str]]]
Header = tuple[bytes, bytes]


class NoAnswer(Exception):
    """The connection broke, or what came was not HTTP; the receiver may have had the message."""


class Answer(NamedTuple):
    """What a receiver said."""

    status: int
    retry_after: str


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system knows them."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(row[4][0]) for row in found))


class Sender:
    """The connections of one subscription."""

    def __init__(self, rules: Rules, *, resolve: Resolve, tls: ssl.SSLContext) -> None:
        self._rules, self._resolve, self._tls = rules, resolve, tls
        self._idle: list[_Connection] = []

    async def post(self, target: Target, headers: Iterable[Header], body: bytes) -> Answer:
        """Post once; raises Forbidden, NoAnswer or OSError."""
        request = _request(target, headers, body)
        while (connection := self._reusable()) is not None:
            answer = await self._exchange(connection, request)
            if answer is not None:
                return answer
            # It was closed by the other side while it was idle: nothing was done.
        answer = await self._exchange(await self._connect(target), request)
        if answer is None:
            raise NoAnswer("the receiver closed the connection without an answer")
        return answer

    def close(self) -> None:
        """Close what is idle."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _exchange(self, connection: _Connection, request: bytes) -> Answer | None:
        """The answer; None if the connection broke before a byte of it came."""
        try:
            answer = await connection.exchange(request)
        except BaseException:
            connection.close()
            raise
        if answer is None or not connection.is_reusable():
            connection.close()
        else:
            self._idle.append(connection)
            connection.expire_after(IDLE_S, self._expire)
        return answer

    def _expire(self, connection: _Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
        connection.close()

    def _reusable(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            connection.keep()
            if connection.is_reusable():
                return connection
            connection.close()
        return None

    async def _connect(self, target: Target) -> _Connection:
        addresses = [self._rules.address(text) for text in await self._addresses(target)]
        failure: OSError = OSError("the name has no address")
        for address in addresses[:ADDRESSES_MAX]:
            try:
                async with asyncio.timeout(CONNECT_S):
                    return await self._open(str(address), target)
            except TimeoutError:
                failure = OSError(f"no connection to {address} within {CONNECT_S:g} s")
            except OSError as error:
                failure = error
        raise failure

    async def _addresses(self, target: Target) -> list[str]:
        try:
            return [str(ip_address(target.host))]
        except ValueError:
            return await self._resolve(target.host, target.port)

    async def _open(self, address: str, target: Target) -> _Connection:
        tls = self._tls if target.tls else None
        name = target.host.rstrip(".") if target.tls else None
        reader, writer = await asyncio.open_connection(
            address, target.port, ssl=tls, server_hostname=name
        )
        return _Connection(reader, writer)


class _Connection:
    """One connection, and one exchange at a time on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._loop = asyncio.get_running_loop()
        self._old_at = self._loop.time() + AGE_MAX_S
        self._keep_alive = True
        self._expiry: asyncio.TimerHandle | None = None

    async def exchange(self, request: bytes) -> Answer | None:
        """Send a request and read its answer."""
        parsing = _Parsing()
        try:
            self._writer.write(request)
            await self._writer.drain()
            await self._read(parsing)
        except ConnectionError as error:
            if parsing.size:
                raise NoAnswer(f"the connection broke: {error}") from error
            return None
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise NoAnswer(f"the answer is not HTTP: {error}") from error
        if parsing.answer is None:
            if parsing.size:
                raise NoAnswer("the answer is cut short, or its head too long")
            return None
        self._keep_alive = parsing.is_complete and parsing.keep_alive
        return parsing.answer

    def is_reusable(self) -> bool:
        """Whether another exchange may work."""
        fresh = self._loop.time() < self._old_at
        closed = self._writer.is_closing() or self._reader.at_eof()
        return self._keep_alive and fresh and not closed

    def expire_after(self, seconds: float, expire: Callable[[_Connection], None]) -> None:
        """Let it be closed unless it is used again."""
        self._expiry = self._loop.call_later(seconds, expire, self)

    def keep(self) -> None:
        """It is used again."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def close(self) -> None:
        """Close it at once."""
        self.keep()
        self._writer.transport.abort()

    async def _read(self, parsing: _Parsing) -> None:
        while not parsing.is_complete and parsing.size < ANSWER_BYTES_MAX:
            data = await self._reader.read(READ_BYTES)
            if not data:
                return
            parsing.feed(data)


class _Parsing:
    """An answer as it comes (callbacks of ``httptools``)."""

    def __init__(self) -> None:
        self.size = 0
        self.answer: Answer | None = None
        self.keep_alive = False
        self.is_complete = False
        self._retry_after = ""
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take in what has come."""
        self.size += len(data)
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        if name.lower() == b"retry-after":
            self._retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head is whole; that of an interim answer (1xx) does not count."""
        status = self._parser.get_status_code()
        if status >= 200 and self.answer is None:
            self.answer = Answer(status, self._retry_after)
            self.keep_alive = self._parser.should_keep_alive()

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self.is_complete = self.answer is not None


def _request(target: Target, headers: Iterable[Header], body: bytes) -> bytes:
    lines = [
        b"POST %b HTTP/1.1" % target.path.encode(),
        b"host: " + target.authority.encode(),
        b"user-agent: raftq",
        b"content-length: %d" % len(body),
        *[b"%b: %b" % header for header in headers if _is_one_line(header)],
    ]
    return b"\r\n".join([*lines, b"", body])


def _is_one_line(header: Header) -> bool:
    """A message that another front end took may have headers that HTTP does not allow."""
    return not any(byte in part for part in header for byte in (b"\r", b"\n", b"\x00"))
