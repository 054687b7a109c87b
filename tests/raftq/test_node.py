from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from raftq.node import HEAD_BYTES_MAX, BoundedHttp, HttpServer

CHUNK = 8_192
UNTIL_TOO_LARGE = 1_000  # Chunks: far more than the limit and what the kernel holds.
POST = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 200000\r\n\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await Request(scope, receive).body()
    await PlainTextResponse("fine")(scope, receive, send)


async def exchange(*parts: bytes) -> bytes:
    """What a server answers to these bytes until it closes, or has answered all requests."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=BoundedHttp, lifespan="off", log_config=None)
    server = HttpServer(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    answer = b""
    # Whoever is refused while it still sends may find the connection reset.
    with contextlib.suppress(ConnectionError):
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(20):
            answer = await reader.read()
    writer.close()
    server.should_exit = True
    await serving
    return answer


def big_head(size: int) -> list[bytes]:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Fill: " + b"a" * size
    data = head + b"\r\n\r\n"
    return [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        (big_head(100), b"200"),
        (big_head(HEAD_BYTES_MAX // 2), b"200"),
        (big_head(UNTIL_TOO_LARGE * CHUNK), b"431"),
        ([b"GET /" + b"a" * CHUNK] + [b"a" * CHUNK] * (UNTIL_TOO_LARGE - 1), b"431"),
        (
            [POST, *[b"b" * 10_000] * 20],
            b"200",
        ),
    ],
    ids=["small", "large", "too large", "endless request line", "a large body is no head"],
)
def test_the_head_of_a_request_has_a_limit(parts: list[bytes], status: bytes) -> None:
    answer = asyncio.run(exchange(*parts))
    if status == b"431" and not answer:
        return
    assert answer.split(b" ")[1] == status
