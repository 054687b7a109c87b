"""A server that is behind says no over raw sockets: before it reads, and in the right order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import uvloop
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from api.fairness import admission
from raftq.config import ApiConfig
from raftq.metrics import Metrics
from raftq.serving import shedding
from raftq.serving.server import HttpServer

ACTIVE_MIN = 9  # One account can have eight of them.
MIB = 1 << 20
REQUEST_BYTES_MAX = 4 * MIB
PUT = "/v1/{}/queues/q/messages"
ACK = "/v1/a/queues/q/claims/0123/ack"
DEADLINE_S = 20.0


class Slow:
    """An application that reads the body, and answers when it is told to."""

    def __init__(self) -> None:
        self.waiting = 0
        self._turns = asyncio.Semaphore(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(ClientDisconnect):
            body = await Request(scope, receive).body()
            if scope["path"].startswith("/v1/"):
                self.waiting += 1
                await self._turns.acquire()
                self.waiting -= 1
            await PlainTextResponse(f"read {len(body)}")(scope, receive, send)

    def serve(self, count: int) -> None:
        """Let so many be answered: the oldest first."""
        for _ in range(count):
            self._turns.release()


class Served:
    """A server whose application is slow."""

    def __init__(self, port: int, metrics: Metrics) -> None:
        self.app = Slow()
        self.port = port
        self._metrics = metrics
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def ask(self, path: str, *, method: str = "POST", head: str = "") -> bytes:
        """The head of the answer, and what follows until it closes if it does."""
        reader, writer = await self.connect()
        writer.write(request(path, method=method, head=head))
        async with asyncio.timeout(DEADLINE_S):
            answer = await reader.readuntil(b"\r\n\r\n")
            if b"connection: close" in answer:
                answer += await reader.read()
        return answer

    async def fill(self, count: int, *, accounts: int = ACTIVE_MIN) -> None:
        """So many requests that are being worked on."""
        before = self.app.waiting
        for number in range(count):
            _, writer = await self.connect()
            writer.write(request(PUT.format(f"a{number % accounts}")))
        await until(lambda: self.app.waiting == before + count)

    def shed(self) -> dict[str, int]:
        lines = self._metrics.render().decode().splitlines()
        found = [one for one in lines if one.startswith("raftq_requests_shed_total{")]
        return {one.split('"')[1]: int(float(one.split()[-1])) for one in found}


def request(path: str, *, method: str = "POST", head: str = "", body: bytes = b"") -> bytes:
    length = "" if "ontent-" in head or "Transfer" in head else f"Content-Length: {len(body)}\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{head}{length}\r\n".encode() + body


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 - what is awaited has no event of its own.
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def served(limits: ApiConfig) -> AsyncIterator[Served]:
    listener = socket.create_server(("127.0.0.1", 0))
    metrics = Metrics()
    node = Served(listener.getsockname()[1], metrics)
    server = HttpServer(node.app, limits, metrics, request_bytes_max=REQUEST_BYTES_MAX)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        yield node
    finally:
        node.app.serve(1_000)
        for writer in node.writers:
            writer.close()
        server.should_exit = True
        await serving
        listener.close()


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few requests are a queue, and one that stands at once."""
    monkeypatch.setattr(admission, "ACTIVE_MIN", ACTIVE_MIN)
    monkeypatch.setattr(admission, "INTERVAL_S", 0.0)
    monkeypatch.setattr(shedding, "RETRY_AFTER_S", 0.05)


def run(scenario: Callable[[Served], Any], limits: ApiConfig | None = None) -> None:
    async def whole() -> None:
        async with served(limits or ApiConfig()) as node:
            await scenario(node)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


def told_to_come_back(answer: bytes) -> bool:
    return answer.startswith(b"HTTP/1.1 503 ") and b"\r\nretry-after: 1\r\n" in answer


@pytest.mark.usefixtures("behind")
def test_a_large_body_is_refused_before_any_of_it_is_read() -> None:
    async def scenario(node: Served) -> None:
        await node.fill(ACTIVE_MIN)
        answer = await node.ask(PUT.format("b"), head=f"Content-Length: {4 * MIB}\r\n")
        assert told_to_come_back(answer)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"connection: close" in head
        problem = msgspec.json.decode(body)
        assert (problem["status"], problem["reason"]) == (503, "overloaded")
        assert node.app.waiting == ACTIVE_MIN
        assert node.shed() == {"work": 1}

    run(scenario)


@pytest.mark.usefixtures("behind")
def test_nobody_is_asked_to_send_what_will_not_be_read() -> None:
    async def scenario(node: Served) -> None:
        await node.fill(ACTIVE_MIN)
        head = f"Expect: 100-continue\r\nContent-Length: {MIB}\r\n"
        assert told_to_come_back(await node.ask(PUT.format("b"), head=head))

    run(scenario)


@pytest.mark.usefixtures("behind")
def test_what_finishes_work_and_how_the_node_is_are_answered_longer() -> None:
    async def scenario(node: Served) -> None:
        await node.fill(ACTIVE_MIN)
        assert told_to_come_back(await node.ask(PUT.format("b")))
        for _ in range(ACTIVE_MIN - 2):
            _, writer = await node.connect()
            writer.write(request(ACK))
        await until(lambda: node.app.waiting == 2 * ACTIVE_MIN - 2)
        for path in ("/livez", "/readyz", "/metrics", "/cluster"):
            assert (await node.ask(path, method="GET")).startswith(b"HTTP/1.1 200 ")
        for number in range(2 * ACTIVE_MIN):
            _, writer = await node.connect()
            writer.write(request(ACK.replace("/a/", f"/c{number}/")))
        await until(lambda: node.shed().get("finishing", 0) >= ACTIVE_MIN // 2)
        assert node.shed()["work"] == 1

    run(scenario)


@pytest.mark.usefixtures("behind")
def test_the_connection_of_small_requests_stays_and_serves_later() -> None:
    async def scenario(node: Served) -> None:
        await node.fill(ACTIVE_MIN)
        reader, writer = await node.connect()
        body = b"x" * 1_000
        for _ in range(3):
            # The body comes late, and must not be taken for a request.
            writer.write(request(PUT.format("b"), head="Content-Length: 1000\r\n"))
            async with asyncio.timeout(DEADLINE_S):
                answer = await reader.readuntil(b"\r\n\r\n")
                assert told_to_come_back(answer)
                await reader.readexactly(int(answer.split(b"content-length: ")[1].split()[0]))
            writer.write(body)
        writer.write(request("/v1", method="HEAD"))
        async with asyncio.timeout(DEADLINE_S):
            assert told_to_come_back(await reader.readuntil(b"\r\n\r\n"))
        node.app.serve(100)
        await until(lambda: node.app.waiting == 0)
        writer.write(request(PUT.format("b"), body=body))
        async with asyncio.timeout(DEADLINE_S):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(9) == b"read 1000"
        assert node.shed() == {"work": 4}

    run(scenario)


@pytest.mark.usefixtures("behind")
def test_each_of_the_requests_that_came_ahead_is_answered_in_its_turn() -> None:
    async def scenario(node: Served) -> None:
        await node.fill(ACTIVE_MIN)
        reader, writer = await node.connect()
        writer.write(request(PUT.format("b")) * 4 + request("/livez", method="GET"))
        statuses = []
        async with asyncio.timeout(DEADLINE_S):
            for _ in range(5):
                head = await reader.readuntil(b"\r\n\r\n")
                statuses.append(head[9:12])
                await reader.readexactly(int(head.split(b"content-length: ")[1].split()[0]))
        assert statuses == [b"503"] * 4 + [b"200"]

    run(scenario)


@pytest.mark.usefixtures("behind")
def test_who_was_told_to_come_back_is_not_heard_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shedding, "RETRY_AFTER_S", 0.5)

    async def scenario(node: Served) -> None:
        await node.fill(ACTIVE_MIN)
        reader, writer = await node.connect()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for _ in range(3):
            writer.write(request(PUT.format("b")))
            async with asyncio.timeout(DEADLINE_S):
                answer = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(answer.split(b"content-length: ")[1].split()[0]))
        assert loop.time() - began_s >= 2 * 0.5 - 0.1

    run(scenario)


@pytest.mark.usefixtures("behind")
def test_an_account_that_floods_the_node_is_shed_and_another_is_served() -> None:
    async def scenario(node: Served) -> None:
        flood = [asyncio.ensure_future(node.ask(PUT.format("noisy"))) for _ in range(30)]
        await until(lambda: sum(one.done() for one in flood) == 30 - ACTIVE_MIN)
        node.app.serve(2)
        await until(lambda: sum(one.done() for one in flood) == 30 - ACTIVE_MIN + 2)
        flood += [asyncio.ensure_future(node.ask(PUT.format("noisy"))) for _ in range(10)]
        await until(lambda: sum(one.done() for one in flood) == 40 - (ACTIVE_MIN - 1))
        quiet = asyncio.ensure_future(node.ask(PUT.format("quiet")))
        await until(lambda: quiet.done() or node.app.waiting == ACTIVE_MIN)
        node.app.serve(ACTIVE_MIN)
        assert (await quiet).startswith(b"HTTP/1.1 200 ")
        answers = [await one for one in flood]
        assert sum(map(told_to_come_back, answers)) == 40 - (ACTIVE_MIN + 1)

    run(scenario)


LENGTHS = {
    "announced": f"Content-Length: {4 * MIB}\r\n",
    "larger than is ever read": f"Content-Length: {1 << 40}\r\n",
    "of unknown length": "Transfer-Encoding: chunked\r\n",
}


@pytest.mark.parametrize("head", LENGTHS.values(), ids=LENGTHS)
def test_bodies_that_are_being_read_have_a_bound_together(head: str) -> None:
    async def scenario(node: Served) -> None:
        writers = []
        for number in range(2):
            _, writer = await node.connect()
            writer.write(request(PUT.format(f"a{number}"), head=head))
            writers.append(writer)
        probe = f"Content-Length: {MIB}\r\n"
        await until_told(node, probe, to_come_back=True)
        assert (await node.ask("/livez", method="GET")).startswith(b"HTTP/1.1 200 ")
        for writer in writers:
            writer.transport.abort()
        await until_told(node, probe, to_come_back=False)

    run(scenario, ApiConfig(bodies_bytes_max=8 * MIB))


async def until_told(node: Served, head: str, *, to_come_back: bool) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while told_to_come_back(await peek(node, PUT.format("b"), head)) != to_come_back:
            pass


async def peek(node: Served, path: str, head: str) -> bytes:
    """What is said to a head alone, at once or not at all."""
    reader, writer = await node.connect()
    writer.write(request(path, head=head))
    try:
        async with asyncio.timeout(0.1):
            return await reader.readuntil(b"\r\n\r\n")
    except TimeoutError:
        return b""
    finally:
        writer.transport.abort()
