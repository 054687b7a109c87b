"""Streams of claims over real sockets: credit, acks, what ends them, and what is held then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from api.access import minting, tokens
from api.app import create
from api.ports import AccessPolicy, Fairness, Limits, OutcomeUnknown
from asgi_client import request
from line_stream import LineStream, serving
from local_service import LocalService
from statemachine.commands import KeySettings, PutKey, RevokeKey

pytestmark = pytest.mark.anyio

QUEUE = "/v1/shop/queues/orders"
CONSUME = f"{QUEUE}/consume"
GONE = "00000000000000ff"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def put(service: LocalService, *bodies: int) -> None:
    batch = {"messages": [{"body": body} for body in bodies]}
    assert (await request(create(service), "POST", f"{QUEUE}/messages", body=batch)).status == 201


async def counts(service: LocalService) -> tuple[int, int]:
    """Ready and claimed."""
    found = (await request(create(service), "GET", f"{QUEUE}/stats")).json()["messages"]
    return found["ready"], found["claimed"]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what is awaited has no event of its own.
            await asyncio.sleep(0.005)


def taken(line: Any) -> list[int]:
    return [message["body"] for message in line["messages"]]


async def test_as_many_are_given_as_there_is_credit_for_and_acks_are_answered() -> None:
    service = LocalService()
    await put(service, *range(5))
    async with (
        serving(create(service)) as port,
        LineStream(port, f"{CONSUME}?batch=2&lease=60&consumer=w") as stream,
    ):
        await stream.send_lines({"credit": 3})
        first, second = await stream.line(), await stream.line()
        assert (taken(first), taken(second)) == ([0, 1], [2])
        assert first["lease_until"] == "2026-01-01T00:01:00Z"
        await until(lambda: service.parked("shop", "orders") == 0)
        assert await counts(service) == (2, 3)
        # What comes together is settled together, and answered line by line.
        await stream.send_lines({"ack": first["claim"]}, {"ack": [second["claim"], GONE]})
        assert await stream.line() == {"acked": 2}
        assert await stream.line() == {"acked": 1, "stale": [GONE]}
        await stream.send_lines({"credit": 2})
        third = await stream.line()
        assert taken(third) == [3, 4]
        await stream.send_lines({"nack": third["claim"], "reason": "no", "dead": True})
        assert await stream.line() == {"released": 2}
        await stream.end()
        assert await stream.lines() == [{"done": True}]
    assert await counts(service) == (0, 0)
    assert service.claimed == {("north", "north"): 5}


async def test_what_is_acked_at_once_is_gone_and_belongs_to_no_claim() -> None:
    service = LocalService()
    await put(service, *range(3))
    async with (
        serving(create(service)) as port,
        LineStream(port, f"{CONSUME}?batch=2&auto_ack=true") as stream,
    ):
        await stream.send_lines({"credit": 2})
        given = await stream.line()
        assert taken(given) == [0, 1]
        assert (given["claim"], given["lease_until"]) == (None, None)
        assert await counts(service) == (1, 0)
        await stream.end()
        assert await stream.lines() == [{"done": True}]


async def test_with_credit_and_nothing_ready_it_waits_and_is_woken() -> None:
    service = LocalService()
    async with serving(create(service)) as port, LineStream(port, CONSUME) as stream:
        await stream.send_lines({"credit": 10})
        for number in range(3):
            await until(lambda: service.parked("shop", "orders") == 1)
            await put(service, number)
            assert taken(await stream.line()) == [number]
        # The end of what the client says ends the waiting, too.
        await until(lambda: service.parked("shop", "orders") == 1)
        await stream.end()
        assert await stream.lines() == [{"done": True}]
    assert service.parked("shop", "orders") == 0


async def test_a_consumer_of_nothing_may_rest_and_hears_that_somebody_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.rest.consuming.HEARTBEAT_S", 0.1)
    service = LocalService(Limits(wait_ms_max=50))
    async with serving(create(service)) as port:
        async with LineStream(port, CONSUME) as stream:
            assert [await stream.line() for _ in range(3)] == ["", "", ""]
            await stream.end()
            assert (await stream.lines())[-1] == {"done": True}
        async with LineStream(port, CONSUME) as stream:
            await stream.send(b'{"credit"')  # A line that was begun has to end.
            assert (await stream.lines())[-1]["problem"]["reason"] == "request_timeout"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"credit": 0}\n', "out_of_range"),
        (b'{"credit": 1e3}\n', "invalid_request"),
        (b'{"credits": 1}\n', "invalid_request"),
        (b"{}\n", "invalid_request"),
        (b'{"ack": "x"}\n', "invalid_id"),
        (b'{"ack": []}\n', "out_of_range"),
        (b'{"ack": "\xff"}\n', "invalid_request"),
        (b'{"credit": 1, "dead": true}\n', "invalid_request"),
        (b'{"nack": "%s", "dead": true, "delay": 1}\n' % GONE.encode(), "invalid_request"),
        (b"x" * 3_000, "request_too_large"),
    ],
)
async def test_a_bad_line_ends_it_after_those_before_it(line: bytes, reason: str) -> None:
    limits = Limits(body_bytes_max=1_000, request_bytes_max=2_000)
    service = LocalService(limits)
    await put(service, 1)
    claim = (await request(create(service), "POST", f"{QUEUE}/claims")).json()["claim"]
    async with serving(create(service)) as port, LineStream(port, CONSUME) as stream:
        await stream.send(b'{"ack": "%s"}\n\n' % claim.encode() + line)
        acked, last = await stream.lines()
    assert acked == {"acked": 1}
    assert (last["problem"]["reason"], last["line"]) == (reason, 3)


async def test_what_has_no_lines_or_a_key_to_repeat_it_is_refused() -> None:
    async with serving(create(LocalService())) as port:
        async with LineStream(port, CONSUME, "Idempotency-Key: k") as stream:
            assert (await stream.answer())["field"] == "Idempotency-Key"
        async with LineStream(port, f"{CONSUME}?wait=1") as stream:
            assert (await stream.answer())["field"] == "wait"
    reply = await request(create(LocalService()), "POST", CONSUME, body={"credit": 1})
    assert reply.status == 415


async def test_a_client_that_leaves_while_it_waits_holds_nothing() -> None:
    service = LocalService()
    async with serving(create(service)) as port:
        async with LineStream(port, CONSUME) as stream:
            await stream.send_lines({"credit": 1})
            await until(lambda: service.parked("shop", "orders") == 1)
        await until(lambda: service.parked("shop", "orders") == 0)
    await put(service, 1)
    assert await counts(service) == (1, 0)


async def test_a_stopping_node_ends_it_and_a_revoked_key_too() -> None:
    service = LocalService(access=AccessPolicy(required=True, pepper=b"pepper"))
    key_id = minting.new_id()
    token = minting.new_token(key_id)
    digest = tokens.digest(service.access.pepper, token)
    await service.propose(PutKey("shop", key_id, KeySettings("", ("consume",), ("*",)), digest))
    async with serving(create(service)) as port:
        async with LineStream(port, CONSUME) as unknown:
            await unknown.answer()
            assert unknown.status == 401
        async with LineStream(port, CONSUME, key=token) as stream:
            await stream.send_lines({"ack": GONE})
            assert await stream.line() == {"acked": 0, "stale": [GONE]}
            await service.propose(RevokeKey("shop", key_id))
            await stream.send_lines({"ack": GONE})
            [last] = await stream.lines()
            assert (last["problem"]["reason"], last["line"]) == ("unauthorized", 2)
    for credit in (False, True):
        service = LocalService()
        async with serving(create(service)) as port, LineStream(port, CONSUME) as stream:
            if credit:
                await stream.send_lines({"credit": 1})
                await until(lambda: service.parked("shop", "orders") == 1)  # noqa: B023 - at once.
            else:
                await stream.send_lines({"ack": GONE})
                await stream.line()
            service.stop()
            [last] = await stream.lines()
            assert last["problem"]["reason"] == "stopping"


async def test_of_an_ack_that_nobody_knows_of_the_line_is_named() -> None:
    service = LocalService()
    async with serving(create(service)) as port, LineStream(port, CONSUME) as stream:
        service.failures += [OutcomeUnknown("lost")]
        await stream.send_lines({"ack": GONE}, {"ack": GONE})
        [last] = await stream.lines()
    assert (last["problem"]["status"], last["line"]) == (504, 1)


async def test_it_counts_as_parked_and_waits_for_what_its_account_may() -> None:
    service = LocalService(fairness=Fairness(parked_max=1))
    async with (
        serving(create(service)) as port,
        LineStream(port, CONSUME) as first,
        LineStream(port, CONSUME) as second,
    ):
        await first.send_lines({"ack": GONE})
        await first.line()
        [last] = await second.lines()
        assert last["problem"]["reason"] == "rate_limited"
    service = LocalService()
    app = create(service)
    await request(app, "PUT", "/v1/shop/quotas", body={"in_flight": 1})
    await put(service, 1, 2)
    async with serving(app) as port, LineStream(port, CONSUME) as stream:
        await stream.send_lines({"credit": 2})
        first_claim = await stream.line()
        await stream.send_lines({"ack": first_claim["claim"]})
        assert await stream.line() == {"acked": 1}
        assert taken(await stream.line()) == [2]
