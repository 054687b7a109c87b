"""One connection to a node, and the requests of producers and workers."""

from __future__ import annotations

import asyncio
import json
from typing import Self

import msgspec

from loadtests.bench.exchanges import queue_path, request

LEASE_S = 60
WAIT_S = 1.0


class Given(msgspec.Struct):
    """A message as a worker sees it: the body is when it was put."""

    body: float
    zone: str


class Claimed(msgspec.Struct):
    """What a worker was given."""

    claim: str
    messages: list[Given]


_decode_claimed = msgspec.json.Decoder(Claimed).decode


class Refused(Exception):
    """The node did not do what it was asked."""


class Wire:
    """Asks one thing at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def connect(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def close(self) -> None:
        self._writer.close()

    async def put(self, queue: str, batch: int, now_s: float) -> None:
        """Messages that carry the time."""
        body = json.dumps({"messages": [{"body": now_s}] * batch}).encode()
        await self._ask("POST", f"{queue_path(queue)}/messages", body, 201)

    async def claim(self, queue: str, limit: int, mode: dict[str, object]) -> Claimed | None:
        """Up to so many messages, or None after a while."""
        asked = {"limit": limit, "lease": LEASE_S, "wait": WAIT_S, **mode}
        path = f"{queue_path(queue)}/claims"
        body = await self._ask("POST", path, json.dumps(asked).encode(), 201, 204)
        return _decode_claimed(body) if body else None

    async def ack(self, queue: str, claim: str) -> None:
        """All that the claim holds."""
        await self._ask("POST", f"{queue_path(queue)}/claims/{claim}/ack", b"", 200)

    async def _ask(self, method: str, path: str, body: bytes, *expected: int) -> bytes:
        self._writer.write(request(method, path, body))
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        answer = await self._reader.readexactly(int(length or 0))
        if int(head[9:12]) not in expected:
            raise Refused(f"{method} {path}: {head[9:12]!r} {answer[:300]!r}")
        return answer
