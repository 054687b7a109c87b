"""A receiver of webhooks on a port of this machine: it answers as it is told, and remembers."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

OK = b"HTTP/1.1 204 No Content\r\n\r\n"
DEADLINE_S = 20.0


def status(code: int, *headers: str) -> bytes:
    """An answer without a body."""
    return "\r\n".join([f"HTTP/1.1 {code} X", "content-length: 0", *headers, "", ""]).encode()


class Got(NamedTuple):
    """One request."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int


class Receiver:
    """``answers`` are used up in order, then ``default``; None answers nothing for ever."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[Got] = []
        self.answers: deque[bytes | None] = deque()
        self.default: bytes | None = OK
        self.hold: asyncio.Event | None = None
        """While it is there and not set, requests wait for their answers."""
        self.closes = False
        """Whether it closes each connection after the answer, without having said so."""
        self.connections = 0
        self.open = 0
        self.most_at_once = 0
        self._at_once = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def bodies(self) -> list[bytes]:
        return [got.body for got in self.requests]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while not self.closes or number not in {got.connection for got in self.requests}:
                    await self._answer(reader, writer, number)
        finally:
            self.open -= 1
            writer.close()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            answer = self.answers.popleft() if self.answers else self.default
            self.requests.append(Got(line, headers, body, number))
            if self.hold is not None:
                await self.hold.wait()
            if answer is None:
                await reader.read()  # Until the other side gives up.
                return
        finally:
            self._at_once -= 1
        writer.write(answer)
        await writer.drain()


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver that listens."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver._serve, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        if receiver.hold is not None:
            receiver.hold.set()


async def eventually(holds: Callable[[], bool], what: str, *, poll_s: float = 0.005) -> None:
    """Poll until it holds."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not holds():  # noqa: ASYNC110 - what is awaited has no event of its own.
                await asyncio.sleep(poll_s)
    except TimeoutError:
        raise AssertionError(f"not within {DEADLINE_S} s: {what}") from None
