"""Streams of messages over real sockets: what is confirmed, what ends them, and what they cost."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from api.access import minting, tokens
from api.app import create
from api.ports import AccessPolicy, Fairness, Limits, OutcomeUnknown, Unavailable
from asgi_client import request
from line_stream import LineStream, serving
from local_service import LocalService
from raftq.config import ApiConfig
from statemachine.commands import (
    Barrier,
    Enqueue,
    KeySettings,
    Once,
    PutKey,
    QueueCommand,
    RevokeKey,
)
from statemachine.outcomes import Outcome

pytestmark = pytest.mark.anyio

QUEUE = "/v1/shop/queues/orders"
PUT = f"{QUEUE}/messages"
SMALL = Limits(body_bytes_max=1_000, request_bytes_max=10_000, batch_messages_max=5)
DONE_ONE = {"put": 1, "done": True}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Gated(LocalService):
    """Its log takes nothing while ``gate`` is closed."""

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits)
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0

    async def propose(
        self, command: QueueCommand | Once | Barrier, *, account: str | None = None
    ) -> Outcome:
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1
        return await super().propose(command, account=account)


def put_bodies(service: LocalService) -> list[list[bytes]]:
    """The bodies of each batch, in the order of the log."""
    found = [command for command in service.proposed if isinstance(command, Enqueue)]
    return [[message.body for message in command.messages] for command in found]


def all_bodies(service: LocalService) -> list[bytes]:
    return [body for batch in put_bodies(service) for body in batch]


def numbered(first: int, end: int) -> list[dict[str, int]]:
    return [{"body": number} for number in range(first, end)]


async def until(holds: Any) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what is awaited has no event of its own.
            await asyncio.sleep(0.005)


async def test_a_line_is_confirmed_before_the_next_one_is_there() -> None:
    service = LocalService()
    async with serving(create(service)) as port, LineStream(port, f"{PUT}?ids=true") as stream:
        await stream.send(b'{"body": 1}\n{"bo')
        first = await stream.line()
        assert (stream.status, first["put"]) == (200, 1)
        await stream.send(b'dy": 2}\r\n\n  \n{"body": 3')
        second = await stream.line()
        assert second["put"] == 2
        # The end of the body ends a line, too.
        await stream.send(b"}")
        await stream.end()
        third, last = await stream.lines()
        assert (third["put"], last) == (3, {"put": 3, "done": True})
        ids = first["ids"] + second["ids"] + third["ids"]
    listed = await request(create(service), "GET", PUT)
    assert [(one["id"], one["body"]) for one in listed.json()["messages"]] == list(
        zip(ids, [1, 2, 3], strict=True)
    )
    assert service.put == {("north", "north"): 3}


async def test_what_comes_while_a_batch_is_under_way_is_the_next_one_in_order() -> None:
    service = Gated(SMALL)
    async with serving(create(service)) as port, LineStream(port, PUT) as stream:
        service.gate.clear()
        await stream.send_lines(*numbered(0, 1))
        await until(lambda: service.waiting)
        await stream.send_lines(*numbered(1, 8))
        await stream.end()
        service.gate.set()
        confirmed = await stream.lines()
    assert confirmed == [{"put": 1}, {"put": 6}, {"put": 8}, {"put": 8, "done": True}]
    batches = [[int(body) for body in batch] for batch in put_bodies(service)]
    assert batches == [[0], [1, 2, 3, 4, 5], [6, 7]]


async def test_lines_that_are_sent_at_once_are_one_batch_although_they_come_in_pieces() -> None:
    service = LocalService()
    lines = [{"body": "x" * 2_000}] * 100
    async with serving(create(service)) as port, LineStream(port, PUT) as stream:
        for number in range(1, 4):
            await stream.send_lines(*lines)
            assert await stream.line() == {"put": number * len(lines)}
    assert [len(batch) for batch in put_bodies(service)] == [len(lines)] * 3


async def test_a_stream_may_be_longer_than_a_request_and_another_request_may_follow_it() -> None:
    service = LocalService(SMALL)
    line = b'{"body": "%s"}\n' % (b"x" * 900)
    async with (
        serving(create(service), request_bytes_max=SMALL.request_bytes_max) as port,
        LineStream(port, PUT, length=50 * len(line)) as stream,
    ):
        for _ in range(50):
            await stream.send(line)
        assert (await stream.lines())[-1] == {"put": 50, "done": True}
        stream.writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await stream.answer() == {"status": "live"}


async def test_a_stream_of_nothing_is_done() -> None:
    async with serving(create(LocalService())) as port, LineStream(port, PUT) as stream:
        await stream.send(b"\n\n")
        await stream.end()
        assert await stream.lines() == [{"put": 0}, {"put": 0, "done": True}]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"boddy": 1}\n', "invalid_request"),
        (b'{"body": 1\n', "invalid_request"),
        (b'{"messages": [{"body": 1}]}\n', "invalid_request"),
        (b'{"body": "\xff"}\n', "invalid_request"),
        (b'{"body": %s}\n' % (b"[" * 5_000), "invalid_request"),
        (b'{"body": 1, "priority": 10}\n', "out_of_range"),
        (b'{"body": "%s"}\n' % (b"x" * 1_000), "body_too_large"),
        (b"x" * 10_001, "request_too_large"),
        (b'{"body": 1}' + b" " * 10_000 + b"\n", "request_too_large"),
    ],
)
async def test_at_a_bad_line_what_is_before_it_is_put_and_nothing_else(
    line: bytes, reason: str
) -> None:
    service = LocalService(SMALL)
    async with serving(create(service)) as port, LineStream(port, PUT) as stream:
        await stream.send(b'{"body": 1}\n\n{"body": 2}\n' + line + b'{"body": 3}\n')
        *_, last = await stream.lines()
    assert (last["put"], last["line"], last["problem"]["reason"]) == (2, 4, reason)
    assert all_bodies(service) == [b"1", b"2"]
    # The same at once is an answer like any other.
    async with serving(create(service)) as port, LineStream(port, PUT) as stream:
        await stream.send(line)
        problem = await stream.answer()
    assert (stream.status, problem["reason"]) == (last["problem"]["status"], reason)
    assert problem == last["problem"]


@pytest.mark.parametrize(
    ("query", "header", "field"),
    [
        ("?ttl=5", "X: y", None),
        ("?ids=perhaps", "X: y", "ids"),
        ("", "Idempotency-Key: k", "Idempotency-Key"),
        ("", "Content-Encoding: gzip", None),
    ],
)
async def test_what_a_stream_cannot_have_is_refused_at_once(
    query: str, header: str, field: str | None
) -> None:
    async with serving(create(LocalService())) as port, LineStream(port, PUT + query, header) as it:
        problem = await it.answer()
    assert (it.status, problem.get("field")) == (415 if "gzip" in header else 400, field)


async def test_ids_are_for_streams_alone() -> None:
    app = create(LocalService())
    for headers in ({}, {"content-type": "text/plain"}):
        reply = await request(app, "POST", f"{PUT}?ids=true", body={"body": 1}, headers=headers)
        assert (reply.status, reply.json()["field"]) == (400, "ids")


async def test_a_refused_batch_ends_the_stream_and_nothing_of_it_or_behind_it_is_put() -> None:
    service = LocalService()
    app = create(service)
    await request(app, "PUT", "/v1/shop/quotas", body={"messages": 3})
    async with serving(app) as port, LineStream(port, PUT) as stream:
        await stream.send_lines(*numbered(0, 2))
        assert await stream.line() == {"put": 2}
        await stream.send_lines(*numbered(2, 4))
        [last] = await stream.lines()
        assert (last["put"], last["line"], last["problem"]["quota"]) == (2, 3, "messages")
        async with LineStream(port, PUT) as another:
            await another.send_lines(*numbered(0, 2))
            assert (await another.answer())["reason"] == "quota_exceeded"
            assert another.status == 403
    stats = await request(app, "GET", f"{QUEUE}/stats")
    assert stats.json()["messages"]["ready"] == 2


async def test_what_nobody_knows_is_said_to_be_unknown() -> None:
    service = LocalService()
    async with serving(create(service)) as port, LineStream(port, PUT) as stream:
        await stream.send_lines(*numbered(0, 2))
        assert await stream.line() == {"put": 2}
        service.failures += [OutcomeUnknown("lost")]
        await stream.send_lines(*numbered(2, 5))
        [last] = await stream.lines()
    assert (last["put"], last["line"], last["unknown"]) == (2, 3, 3)
    assert last["problem"]["status"] == 504


async def test_without_a_leader_it_ends_and_while_the_node_is_overloaded_it_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.rest.putting.RETRY_S", 0.01)
    service = LocalService()
    async with serving(create(service)) as port, LineStream(port, PUT) as stream:
        service.failures += [Unavailable("overloaded", "full")] * 2
        await stream.send_lines(*numbered(0, 1))
        assert await stream.line() == {"put": 1}
        service.failures += [Unavailable("no_leader", "nobody")]
        await stream.send_lines(*numbered(1, 2))
        [last] = await stream.lines()
    assert (last["put"], last["line"], last["problem"]["reason"]) == (1, 2, "no_leader")
    assert "unknown" not in last


async def test_a_stopping_node_ends_a_stream_that_rests() -> None:
    service = LocalService()
    async with serving(create(service)) as port, LineStream(port, PUT) as stream:
        await stream.send(b'{"body": 1}\n{"bo')
        assert await stream.line() == {"put": 1}
        service.stop()
        [last] = await stream.lines()
    assert (last["put"], last["line"], last["problem"]["reason"]) == (1, 2, "stopping")


async def test_a_key_that_is_revoked_ends_the_stream_before_the_next_batch() -> None:
    service = LocalService(access=AccessPolicy(required=True, pepper=b"pepper"))
    tokens_of = {}
    for role in ("produce", "consume"):
        key_id = minting.new_id()
        token = tokens_of[role] = minting.new_token(key_id)
        granted = KeySettings("", (role,), ("*",))
        await service.propose(
            PutKey("shop", key_id, granted, tokens.digest(service.access.pepper, token))
        )
        if role == "produce":
            produce_id = key_id
    async with serving(create(service)) as port:
        for key, status in (("", 401), (tokens_of["consume"], 403)):
            async with LineStream(port, PUT, key=key) as refused:
                await refused.answer()
                assert refused.status == status
        async with LineStream(port, PUT, key=tokens_of["produce"]) as stream:
            await stream.send_lines(*numbered(0, 1))
            assert await stream.line() == {"put": 1}
            await service.propose(RevokeKey("shop", produce_id))
            await stream.send_lines(*numbered(1, 2))
            [last] = await stream.lines()
    assert (last["put"], last["line"], last["problem"]["reason"]) == (1, 2, "unauthorized")


async def test_silence_and_a_line_that_drips_end_it_and_empty_lines_keep_it() -> None:
    service = LocalService(Limits(wait_ms_max=300))
    async with serving(create(service)) as port:
        async with LineStream(port, PUT) as kept:
            began_s = time.monotonic()
            while time.monotonic() - began_s < 1:
                await kept.send(b"\n")
                await asyncio.sleep(0.05)
            await kept.send_lines(*numbered(0, 1))
            await kept.end()
            assert (await kept.lines())[-1] == DONE_ONE
        async with LineStream(port, PUT) as silent:
            await silent.send_lines(*numbered(0, 1))
            assert await silent.line() == {"put": 1}
            [last] = await silent.lines()
            assert (last["line"], last["problem"]["reason"]) == (2, "request_timeout")
        async with LineStream(port, PUT) as dripping:
            dripped = asyncio.ensure_future(drip(dripping, b'{"body": "' + b"x" * 1_000))
            assert (await dripping.answer())["reason"] == "request_timeout"
            dripped.cancel()


async def drip(stream: LineStream, data: bytes) -> None:
    for byte in data:
        await stream.send(bytes([byte]))
        await asyncio.sleep(0.02)


async def test_of_a_client_that_leaves_whole_lines_are_put_and_half_of_one_is_not() -> None:
    service = Gated()
    async with serving(create(service)) as port:
        async with LineStream(port, PUT) as stream:
            await stream.send(b'{"body": 1}\n{"body": 2}')
            await until(lambda: put_bodies(service))
        async with LineStream(port, PUT) as stream:
            service.gate.clear()
            await stream.send_lines(*numbered(3, 4))
            await until(lambda: service.waiting)
        service.gate.set()
        await until(lambda: len(service.observed) == 2)
    assert all_bodies(service) == [b"1", b"3"]


async def test_no_more_is_read_than_is_put_and_memory_does_not_grow_with_the_stream() -> None:
    service = Gated()
    piece = b'{"body": "%s"}\n' % (b"x" * 4_000) * 16
    async with serving(create(service)) as port, LineStream(port, PUT) as stream:
        service.gate.clear()
        sent: list[int] = []
        with pytest.raises(TimeoutError):
            await stream.flood(piece, sent, stalled_s=1)
        assert sum(sent) < 24 << 20  # A batch, the next one, and what sockets hold.
        service.gate.set()
        await until(lambda: len(put_bodies(service)) > 3)


async def test_a_client_that_does_not_read_is_not_read_and_then_cut_off() -> None:
    service = LocalService()
    app = create(service)
    for name in "abcdefgh":  # What is told of a message is a kilobyte, then.
        await request(app, "PUT", f"{QUEUE}/bindings/{name * 128}")
    async with (
        serving(app, ApiConfig(write_timeout_s=1)) as port,
        LineStream(port, f"{PUT}?ids=true") as stream,
    ):
        before = len(service.observed)
        with pytest.raises(ConnectionError):
            await stream.flood(b'{"body":1}\n' * 100, [], stalled_s=15)
        await until(lambda: len(service.observed) > before)
    assert len(all_bodies(service)) < 50_000


async def test_a_stream_is_within_the_limits_of_its_account() -> None:
    service = LocalService(fairness=Fairness(requests_per_s=10, requests_burst=2))
    async with serving(create(service)) as port, LineStream(port, PUT) as stream:
        began_s = time.monotonic()
        for number in range(1, 6):  # With the stream itself six requests, of which two at once.
            await stream.send_lines(*numbered(0, 1))
            assert await stream.line() == {"put": number}
        assert time.monotonic() - began_s > 0.35
    service = LocalService(fairness=Fairness(bytes_per_s=100_000, bytes_burst=1_000))
    async with serving(create(service)) as port, LineStream(port, PUT) as stream:
        began_s = time.monotonic()
        for number in range(1, 3):
            await stream.send_lines({"body": "x" * 30_000})
            assert await stream.line() == {"put": number}
        # The second one is paid off afterwards: by whoever asks next.
        assert time.monotonic() - began_s > 0.5


async def test_messages_that_need_not_persist_are_counted_when_the_leader_has_them() -> None:
    service = LocalService()
    async with serving(create(service)) as port, LineStream(port, f"{PUT}?ids=true") as stream:
        await stream.send_lines({"body": 1, "persistent": False})
        assert await stream.line() == {"put": 1}
        await stream.send_lines({"body": 2, "persistent": False}, {"body": 3, "dedup_id": "x"})
        assert len((await stream.line())["ids"]) == 2
        await stream.send_lines({"body": 4, "dedup_id": "x", "zone": "south", "group": "g"})
        assert (await stream.line())["duplicates"] == [0]
    assert service.put == {("north", "north"): 3, ("south", "north"): 1}
