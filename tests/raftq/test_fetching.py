"""Documents from URLs: what is there in full, or an OSError."""

from __future__ import annotations

import asyncio

import pytest

from raftq.fetching import Fetcher

ANSWERS = {
    "/small": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    "/large": b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n" + b"x" * 2_000,
    "/moved": b"HTTP/1.1 302 Found\r\nlocation: /small\r\ncontent-length: 0\r\n\r\n",
    "/none": b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
    "/broken": b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n{",
    "/rubbish": b"\x00\x01\x02\r\n\r\n",
    "/bomb": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope",
}


async def fetched(path: str, most: int = 1_000) -> bytes:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        writer.write(ANSWERS[asked])
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        return await Fetcher().fetch(f"http://127.0.0.1:{port}{path}", most)


def test_a_document_is_fetched_whole() -> None:
    assert asyncio.run(fetched("/small")) == b"{}"


@pytest.mark.parametrize("path", [path for path in ANSWERS if path != "/small"])
def test_anything_else_is_an_error(path: str) -> None:
    with pytest.raises(OSError, match="http"):
        asyncio.run(fetched(path))


def test_nobody_there_is_an_error() -> None:
    with pytest.raises(OSError, match="127"):
        asyncio.run(Fetcher().fetch("http://127.0.0.1:1/", 10))
