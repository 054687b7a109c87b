"""One keep-alive HTTP/1.1 connection, light enough for hundreds of them beside a cluster.

What a caller must be able to tell apart is whether a request can have had an effect:
``NotSent`` says that it cannot, ``Lost`` that nobody knows.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

HEAD_END = b"\r\n\r\n"


class NotSent(Exception):
    """There was no connection: the request had no effect."""


class Lost(Exception):
    """The connection broke, or the answer did not come in time: anything may have happened."""


class Answer(NamedTuple):
    """What a node said, and when in its own log it said it."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The stable word of a problem, or nothing."""
        if self.headers.get("content-type") != "application/problem+json":
            return ""
        return str(self.json().get("reason", ""))


class Connection:
    """Requests one after the other; connects when it must."""

    def __init__(self, port: int, *, timeout_s: float) -> None:
        self.port = port
        self._timeout_s = timeout_s
        self._wire: _Wire | None = None

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Raises NotSent or Lost; then the connection is closed."""
        data = b"" if body is None else json.dumps(body).encode()
        head = [f"{method} {path} HTTP/1.1", "Host: raftq", f"Content-Length: {len(data)}"]
        if data:
            head.append("Content-Type: application/json")
        head += [f"{name}: {value}" for name, value in (headers or {}).items()]
        request = "\r\n".join([*head, "", ""]).encode() + data
        wire = await self._connected()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await wire.exchange(request)
        except TimeoutError as error:
            raise Lost(f"no answer in {self._timeout_s} s") from error
        finally:
            if not wire.usable:
                self.close()

    def close(self) -> None:
        """Hang up."""
        if self._wire is not None:
            self._wire.abort()
            self._wire = None

    async def _connected(self) -> _Wire:
        if self._wire is not None and self._wire.usable:
            return self._wire
        self.close()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                _, self._wire = await loop.create_connection(_Wire, "127.0.0.1", self.port)
        except (OSError, TimeoutError) as error:
            raise NotSent(str(error)) from error
        return self._wire


class _Wire(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = b""
        self._waiting: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None
        self._closing = False

    @property
    def usable(self) -> bool:
        return self._transport is not None and self._waiting is None and not self._closing

    async def exchange(self, request: bytes) -> Answer:
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        # A cancelled wait leaves ``_waiting`` in place: the late answer must not be the next one's.
        answer = await self._waiting
        self._waiting = None
        return answer

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(HEAD_END)
        if end < 0 or self._waiting is None or self._waiting.done():
            return
        head, rest = self._buffer[:end].decode("latin-1"), self._buffer[end + len(HEAD_END) :]
        start, *lines = head.split("\r\n")
        pairs = (line.split(":", 1) for line in lines)
        headers = {name.lower(): value.strip() for name, value in pairs}
        if len(rest) < int(headers.get("content-length", "0")):
            return
        self._buffer = b""
        self._closing |= headers.get("connection", "").lower() == "close"
        self._waiting.set_result(Answer(int(start.split(" ")[1]), headers, rest))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(Lost(str(error or "the node hung up")))
