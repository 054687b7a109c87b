"""A stream of lines over a raw connection: each side sends while the other does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from starlette.types import ASGIApp

from raftq.config import ApiConfig
from raftq.metrics import Metrics
from raftq.serving.server import HttpServer

PATIENCE_S = 10.0


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp, limits: ApiConfig | None = None, *, request_bytes_max: int = 4 << 20
) -> AsyncIterator[int]:
    """Behind the server that nodes have; gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    server = HttpServer(app, limits or ApiConfig(), Metrics(), request_bytes_max=request_bytes_max)
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


class LineStream:
    """One request; ``async with`` begins it, and hangs up at the end."""

    def __init__(
        self, port: int, path: str, *headers: str, length: int | None = None, key: str = ""
    ) -> None:
        """With a ``length`` the body is not in chunks."""
        self._port = port
        self._is_chunked = length is None
        framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        shown = [f"Authorization: Bearer {key}"] if key else []
        kind = "Content-Type: application/x-ndjson"
        lines = [f"POST {path} HTTP/1.1", "Host: raftq", kind, framing, *shown, *headers]
        self._head = "\r\n".join([*lines, "", ""]).encode()
        self.status = 0
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.writer.write(self._head)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.writer.transport.abort()

    async def send(self, data: bytes) -> None:
        """A piece of the body, as soon as there is room for it."""
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)
        await self.writer.drain()

    async def send_lines(self, *values: Any) -> None:
        """A line for each."""
        await self.send(b"".join([json.dumps(value).encode() + b"\n" for value in values]))

    async def end(self) -> None:
        """Of the body."""
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def flood(self, data: bytes, sent: list[int], *, stalled_s: float) -> None:
        """The same piece again and again, until it stalls; ``sent`` has what was taken."""
        while True:
            async with asyncio.timeout(stalled_s):
                await self.send(data)
            sent.append(len(data))

    async def line(self) -> Any:
        """The next line of the answer; None at its end. An empty line is ''."""
        async with asyncio.timeout(PATIENCE_S):
            if not self.status:
                await self._read_head()
            size = int(await self.reader.readline(), 16)
            text = (await self.reader.readexactly(size + 2))[:size]
        if not size:
            return None
        assert text.find(b"\n") == len(text) - 1, text
        return json.loads(text) if text != b"\n" else ""

    async def lines(self) -> list[Any]:
        """All that are still to come."""
        found = []
        while (line := await self.line()) is not None:
            found.append(line)
        return found

    async def answer(self) -> Any:
        """Of a request that is answered as a whole: the JSON; the status is ``status``."""
        async with asyncio.timeout(PATIENCE_S):
            length = int((await self._read_head())["content-length"])
            return json.loads(await self.reader.readexactly(length))

    async def _read_head(self) -> dict[str, str]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *fields = head.rstrip().split("\r\n")
        self.status = int(first.split(" ")[1])
        pairs = (field.split(": ", 1) for field in fields)
        return {name.lower(): value for name, value in pairs}
