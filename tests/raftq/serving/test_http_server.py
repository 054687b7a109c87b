"""The server of nodes over raw sockets, before an application that does little."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import uvloop
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from raftq.config import ApiConfig
from raftq.metrics import Metrics
from raftq.serving.protocol import PIPELINED_MAX, READ_BYTES
from raftq.serving.server import HttpServer

CHUNK = 8_192
UNTIL_TOO_LARGE = 1_000  # Chunks: far more than the limit and what the kernel holds.
LIMITS = ApiConfig(head_timeout_s=1, body_timeout_s=1, write_timeout_s=1, keep_alive_s=1)
HEAD_BYTES_MAX = LIMITS.head_bytes_max
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LARGE = 64 << 20
REQUEST_BYTES_MAX = 4 << 20


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Echoes; ``/early`` answers at once, ``/large`` at length, ``/parked`` not at all."""
    if scope["path"] == "/large":
        await PlainTextResponse(b"x" * LARGE)(scope, receive, send)
        return
    if scope["path"] == "/parked":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    try:
        body = b"" if scope["path"] == "/early" else await Request(scope, receive).body()
    except ClientDisconnect:
        return
    named = [f"{name.decode()}: {value.decode('latin-1')}" for name, value in scope["headers"]]
    said = f"{scope['method']} {len(body)} {named}"
    await PlainTextResponse(said)(scope, receive, send)


class Served:
    """A server and what it counts."""

    def __init__(self, port: int, metrics: Metrics) -> None:
        self.port = port
        self._metrics = metrics

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def exchange(self, *parts: bytes) -> bytes:
        """What it answers until it closes."""
        reader, writer = await self.connect()
        answer = b""
        # Whoever is refused while still sending may find the connection reset.
        with contextlib.suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()
            async with asyncio.timeout(20):
                answer = await reader.read()
        writer.close()
        return answer

    def ended(self) -> dict[str, int]:
        """Why it ended connections, and how many."""
        lines = self._metrics.render().decode().splitlines()
        found = (line for line in lines if line.startswith("raftq_connections_ended_total{"))
        return {line.split('"')[1]: int(float(line.split()[-1])) for line in found}

    async def until_ended(self, why: str) -> None:
        async with asyncio.timeout(20):
            while why not in self.ended():  # noqa: ASYNC110 - only a scrape tells
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def served(limits: ApiConfig = LIMITS) -> AsyncIterator[Served]:
    listener = socket.create_server(("127.0.0.1", 0))
    metrics = Metrics()
    server = HttpServer(app, limits, metrics, request_bytes_max=REQUEST_BYTES_MAX)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        yield Served(listener.getsockname()[1], metrics)
    finally:
        server.should_exit = True
        await serving
        listener.close()


def run(scenario: Any) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(scenario)


async def exchanged(*parts: bytes) -> bytes:
    async with served() as server:
        return await server.exchange(*parts)


def big_head(size: int) -> list[bytes]:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Fill: " + b"a" * size
    data = head + b"\r\n\r\n"
    return [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]


def fields(count: int) -> bytes:
    return LAST.replace(b"\r\n\r\n", b"\r\n" + b"a:\r\n" * count + b"\r\n")


ANSWERED = {
    "small": (big_head(100), b"200"),
    "large": (big_head(HEAD_BYTES_MAX // 2), b"200"),
    "as large as it may be": (big_head(HEAD_BYTES_MAX - 100), b"200"),
    "a little too large": (big_head(HEAD_BYTES_MAX + 2 * CHUNK), b"431"),
    "too large": (big_head(UNTIL_TOO_LARGE * CHUNK), b"431"),
    "too large, in one piece": ([b"".join(big_head(HEAD_BYTES_MAX))], b"431"),
    "endless request line": (
        [b"GET /" + b"a" * CHUNK] + [b"a" * CHUNK] * (UNTIL_TOO_LARGE - 1),
        b"431",
    ),
    "a large body is no head": (
        [POST + b"Content-Length: 200000\r\n\r\n", *[b"b" * 10_000] * 20],
        b"200",
    ),
    "many headers": ([fields(100)], b"200"),
    "too many headers": ([fields(LIMITS.header_fields_max)], b"431"),
    "too many headers, without end": ([fields(4_000)[:-2]], b"431"),
    "a long target": ([LAST.replace(b"/ ", b"/" + b"a" * 8_000 + b" ")], b"200"),
    "a target too long": ([LAST.replace(b"/ ", b"/" + b"a" * 8_192 + b" ")], b"414"),
    "an encoded slash": ([LAST.replace(b"/ ", b"/a%2fb ")], b"400"),
    "an encoded backslash": ([LAST.replace(b"/ ", b"/a%5Cb ")], b"400"),
    "an encoded slash in the query": ([LAST.replace(b"/ ", b"/?a=%2f ")], b"200"),
    "HTTP/1.0 needs no host": ([b"GET / HTTP/1.0\r\n\r\n"], b"200"),
    "HTTP/0.9": ([b"GET /\r\n\r\n"], b"400"),
    "HTTP/2.0": ([LAST.replace(b"1.1", b"2.0")], b"400"),
    "rubbish": ([b"\x16\x03\x01\x00\xa5\x01\x00"], b"400"),
    "two lengths": ([POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"], b"400"),
    "length and chunks": (
        [POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
        b"400",
    ),
    "chunks in HTTP/1.0": ([CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n"], b"400"),
    "chunks": ([CHUNKED + b"3\r\nabc\r\n0\r\n\r\n"], b"200"),
    "a chunk of no size": ([CHUNKED + b"x\r\n"], b"400"),
    "a chunk too large to count": ([CHUNKED + b"f" * 17 + b"\r\n"], b"400"),
    "a body of tiny chunks": ([CHUNKED, *[b"1\r\nx\r\n" * 1_000] * 20], b"400"),
    "an endless chunk extension": ([CHUNKED + b"1;", *[b"x" * CHUNK] * UNTIL_TOO_LARGE], b"400"),
    "endless trailers": ([CHUNKED + b"0\r\n", *[b"x: y\r\n" * 1_000] * 1_000], b"400"),
    "an upgrade is ignored": (
        [GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n") + b"PRI *"],
        b"200",
    ),
}


@pytest.mark.parametrize(("parts", "status"), ANSWERED.values(), ids=ANSWERED)
def test_a_request_is_served_or_refused_and_the_connection_closed(
    parts: list[bytes], status: bytes
) -> None:
    answer = run(exchanged(*parts))
    if status != b"200" and len(parts) > 1 and not answer:
        return  # Reset while it was still sending.
    assert answer.split(b" ")[1] == status
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert answer.count(b"HTTP/1.1 ") == 1
    if status != b"200":
        assert b"content-type: application/problem+json" in head
        assert msgspec.json.decode(body)["status"] == int(status)


def test_a_head_is_the_same_in_pieces_of_any_size() -> None:
    head = LAST.replace(b"\r\n\r\n", b"\r\nA: b\r\nEmpty:\r\nTwice: c\r\nTwice: d\r\n\r\n")

    async def in_pieces(size: int) -> bytes:
        async with served() as server:
            reader, writer = await server.connect()
            for at in range(0, len(head), size):
                writer.write(head[at : at + size])
                await asyncio.sleep(0.001)  # Or they leave together.
            answer = await reader.read()
            writer.close()
            return answer.partition(b"\r\n\r\n")[2]

    whole = run(in_pieces(len(head)))
    headers = ["host: x", "connection: close", "a: b", "empty: ", "twice: c", "twice: d"]
    assert str(headers).encode() in whole
    for size in (1, 2, 3, 7, 20):
        assert run(in_pieces(size)) == whole


def test_trailers_do_not_become_headers() -> None:
    trailer = CHUNKED + b"1\r\nx\r\n0\r\nAuthorization: me\r\n\r\n"
    answer = run(exchanged(trailer))
    assert b"200 OK" in answer
    assert b"authorization" not in answer


def test_requests_one_behind_the_other_are_answered_in_order() -> None:
    answer = run(exchanged(GET * (PIPELINED_MAX - 1) + LAST))
    assert answer.count(b"HTTP/1.1 200") == PIPELINED_MAX


def test_too_many_requests_at_once_end_the_connection() -> None:
    answer = run(exchanged(GET * (PIPELINED_MAX + 2)))
    assert answer.count(b"HTTP/1.1 200") == 1


def test_rubbish_behind_a_request_does_not_get_into_its_answer() -> None:
    answer = run(exchanged(GET + b"\x00rubbish\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"HTTP/1.1 ") == 1


SLOW = {
    "says nothing": (b"", "idle", b""),
    "half a head": (b"GET / HTTP/1.1\r\nHost:", "head_too_slow", b"408"),
    "half a body": (POST + b"Content-Length: 9\r\n\r\nab", "body_too_slow", b"408"),
    "half a chunk": (CHUNKED + b"9\r\nab", "body_too_slow", b"408"),
    "idle after a request": (GET, "idle", b"200"),
    "empty lines": (b"\r\n\r\n", "idle", b""),
    "half a body after the answer": (
        POST.replace(b"/ ", b"/early ").replace(b"close", b"keep-alive")
        + b"Content-Length: 9\r\n\r\nab",
        "body_too_slow",
        b"200",
    ),
}


@pytest.mark.parametrize(("sent", "why", "status"), SLOW.values(), ids=SLOW)
def test_a_client_that_is_too_slow_is_cut_off(sent: bytes, why: str, status: bytes) -> None:
    async def scenario() -> bytes:
        async with served() as server:
            answer = await server.exchange(sent)
            assert server.ended() == {why: 1}
            return answer

    answer: bytes = run(scenario())
    assert answer.split(b" ")[1:2] == ([status] if status else [])


def test_a_head_that_drips_does_not_live_longer() -> None:
    async def scenario() -> dict[str, int]:
        async with served() as server:
            reader, writer = await server.connect()
            ending = asyncio.ensure_future(reader.read())
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(20):
                    writer.write(b"GET / HTTP/1.1\r\n")
                    while not ending.done():
                        writer.write(b"X: y\r\n")
                        await asyncio.wait([ending], timeout=0.05)
            writer.close()
            return server.ended()

    assert run(scenario()) == {"head_too_slow": 1}


def test_a_client_that_does_not_read_its_answer_is_cut_off() -> None:
    async def scenario() -> None:
        async with served() as server:
            _, writer = await server.connect()
            writer.transport.pause_reading()
            writer.write(GET.replace(b"/ ", b"/large "))
            await server.until_ended("reads_too_slowly")
            writer.transport.abort()

    run(scenario())


def test_a_client_that_reads_slowly_but_does_is_kept() -> None:
    async def scenario() -> int:
        limits = msgspec.structs.replace(LIMITS, write_timeout_s=2)
        async with served(limits) as server:
            reader, writer = await server.connect()
            writer.write(LAST.replace(b"/ ", b"/large "))
            got, began_s = 0, time.monotonic()
            while part := await reader.read(1 << 20):
                got += len(part)
                await asyncio.sleep(0.025)
            assert time.monotonic() - began_s > 2 * limits.write_timeout_s
            writer.close()
            assert server.ended() == {}
            return got

    assert run(scenario()) > LARGE


def test_a_parked_request_whose_client_sends_more_and_leaves_is_told() -> None:
    async def scenario() -> None:
        async with served() as server:
            reader, writer = await server.connect()
            writer.write(GET.replace(b"/ ", b"/parked ") + GET)
            await asyncio.sleep(0.1)
            writer.transport.abort()
            assert await reader.read() == b""
        # The server's end waits for its requests: had it not been told, it would take long.

    async def in_time() -> None:
        async with asyncio.timeout(3):
            await scenario()

    run(in_time())


def test_half_a_head_behind_a_parked_request_is_counted_once_and_does_not_end_that() -> None:
    async def scenario() -> None:
        async with served() as server:
            reader, writer = await server.connect()
            writer.write(GET.replace(b"/ ", b"/parked ") + b"GET / HTTP")
            await server.until_ended("head_too_slow")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.5):
                    assert await reader.read() == b"never: it is parked"
            assert server.ended() == {"head_too_slow": 1}
            writer.transport.abort()

    run(scenario())


def test_a_body_is_left_with_the_kernel_until_it_is_asked_for() -> None:
    held: list[int] = []

    async def unasking(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.5)
        held.append(len(receive.__self__.body))  # type: ignore[attr-defined]
        await PlainTextResponse("fine")(scope, receive, send)

    async def scenario() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        server = HttpServer(unasking, LIMITS, Metrics(), request_bytes_max=REQUEST_BYTES_MAX)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(POST + b"Content-Length: 4000000\r\n\r\n" + b"x" * 4_000_000)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.transport.abort()
        server.should_exit = True
        await serving
        listener.close()

    run(scenario())
    assert 0 < held[0] <= READ_BYTES


class Ticking(HttpServer):
    """Notes when it ticks."""

    def __init__(self) -> None:
        super().__init__(app, LIMITS, Metrics(), request_bytes_max=REQUEST_BYTES_MAX)
        self.ticked_at: list[float] = []

    async def on_tick(self, counter: int) -> bool:
        self.ticked_at.append(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    async def until_ticked(self, times: int) -> None:
        async with asyncio.timeout(20):
            while len(self.ticked_at) < times:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("connected", [False, True])
def test_a_server_ticks_seldom_while_nobody_is_connected_and_stops_at_once(
    connected: bool,
) -> None:
    async def scenario() -> tuple[float, float]:
        listener = socket.create_server(("127.0.0.1", 0))
        server = Ticking()
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        if connected:
            _, writer = await asyncio.open_connection(*listener.getsockname())
        await server.until_ticked(3)
        if connected:
            writer.transport.abort()
        server.should_exit = True
        await serving
        listener.close()
        _, second, third = server.ticked_at[:3]
        return third - second, asyncio.get_running_loop().time() - third

    between_s, to_stop_s = run(scenario())
    assert (between_s < 0.9) == connected
    assert to_stop_s < 0.9


def test_connections_beyond_an_address_s_share_are_refused() -> None:
    async def scenario() -> None:
        limits = msgspec.structs.replace(LIMITS, connections_per_address_max=2, keep_alive_s=20)
        async with served(limits) as server:
            held = [await server.connect() for _ in range(2)]
            for reader, writer in held:
                writer.write(GET)
                assert b"200" in await reader.readline()
            answer = await server.exchange()
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 1" in answer
            assert server.ended() == {"address_full": 1}
            held.pop()[1].close()
            async with asyncio.timeout(20):
                while b"200 OK" not in await server.exchange(LAST):  # noqa: ASYNC110 - likewise
                    await asyncio.sleep(0.02)
            for _, writer in held:
                writer.close()

    run(scenario())


def test_a_full_server_hangs_up_on_who_is_idle_for_longest() -> None:
    async def scenario() -> None:
        limits = msgspec.structs.replace(LIMITS, connections_max=2, keep_alive_s=20)
        async with served(limits) as server:
            held = [await server.connect() for _ in range(2)]
            for reader, writer in held:
                writer.write(GET)
                await reader.readuntil(b"]")
            assert b"200 OK" in await server.exchange(LAST)
            assert await held[0][0].read() == b""
            assert server.ended() == {"evicted": 1}
            held[1][1].write(LAST)
            assert b"200 OK" in await held[1][0].read()
            for _, writer in held:
                writer.close()

    run(scenario())
