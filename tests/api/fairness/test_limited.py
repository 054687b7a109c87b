"""Limits of accounts over the real application: who is beyond his hears 429, others are served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from api.app import Application, create
from api.ports import AccessPolicy, Fairness
from asgi_client import Exchange, Reply, request
from event_reader import EventReader
from local_service import LocalService

pytestmark = pytest.mark.anyio

SHOP = "/v1/shop/queues/orders"
OTHER = "/v1/other/queues/orders"
DEADLINE_S = 5


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def limited(**limits: int) -> tuple[Application, LocalService]:
    service = LocalService(fairness=Fairness(**limits))  # type: ignore[arg-type]
    return create(service), service


async def put(app: Application, queue: str = SHOP, body: object = 1) -> Reply:
    return await request(app, "POST", f"{queue}/messages", body={"body": body})


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 - what is awaited has no event of its own.
            await asyncio.sleep(0.001)


def is_limited(reply: Reply) -> bool:
    return (reply.status, reply.json()["reason"]) == (429, "rate_limited")


async def test_an_account_at_its_rate_is_told_when_to_come_back_and_others_are_served() -> None:
    app, service = limited(requests_per_s=1, requests_burst=3)
    served = [await put(app) for _ in range(3)]
    assert [reply.status for reply in served] == [201] * 3
    assert [reply.headers["ratelimit"].split(";")[1] for reply in served] == ["r=2", "r=1", "r=0"]
    assert {r.headers["ratelimit-policy"] for r in served} == {'"requests";q=3;qu="requests";w=3'}
    refused = await put(app)
    assert is_limited(refused)
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["ratelimit-policy"] == served[0].headers["ratelimit-policy"]
    assert refused.headers["ratelimit"].startswith('"requests";r=0;t=')
    assert (await put(app, OTHER)).status == 201
    assert service.limited == {"requests": 1}


async def test_every_route_of_an_account_counts_and_routes_of_none_do_not() -> None:
    app, _ = limited(requests_per_s=1, requests_burst=3)
    for path in ("/v1/shop", f"{SHOP}/stats", SHOP):
        reply = await request(app, "GET", path)
        assert reply.status == 404
        assert "ratelimit" in reply.headers
    assert is_limited(await request(app, "GET", SHOP))
    for path in ("/v1", "/livez", "/cluster", "/metrics", "/openapi.json"):
        for _ in range(4):
            reply = await request(app, "GET", path)
            assert reply.status == 200
            assert "ratelimit" not in reply.headers


async def test_who_is_nobody_uses_up_nobodys_limits() -> None:
    service = LocalService(
        fairness=Fairness(requests_per_s=1), access=AccessPolicy(required=True, pepper=b"p" * 16)
    )
    app = create(service)
    for _ in range(5):
        assert (await put(app)).status == 401
    assert service.limited == {}


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "in chunks"])
async def test_bytes_that_come_in_are_paid_for(*, chunked: bool) -> None:
    app, service = limited(bytes_per_s=1_000)
    data = b"x" * 3_000
    headers = {"content-type": "text/plain"} | ({} if chunked else {"content-length": "3000"})
    chunks = [data[:1_000], data[1_000:]]
    sent = Exchange(app, "POST", f"{SHOP}/messages", chunks=chunks, headers=headers)
    assert (await sent.run()).status == 201
    refused = await request(app, "GET", SHOP)
    assert is_limited(refused)
    assert 2 <= int(refused.headers["retry-after"]) <= 4
    assert (await put(app, OTHER)).status == 201
    assert service.limited == {"bytes": 1}


async def test_bytes_that_go_out_are_paid_for() -> None:
    app, service = limited(bytes_per_s=1_000, bytes_burst=120_000)
    await put(app, body="x" * 50_000)
    assert (await request(app, "GET", f"{SHOP}/messages")).status == 200
    assert (await request(app, "POST", f"{SHOP}/claims")).status == 201
    assert is_limited(await request(app, "GET", f"{SHOP}/messages"))
    assert service.limited == {"bytes": 1}


async def test_claims_that_wait_have_a_limit_and_nothing_else_waits_for_them() -> None:
    app, service = limited(parked_max=2, concurrent_max=1)
    polls = []
    for number in range(2):
        polls.append(Exchange(app, "POST", f"{SHOP}/claims", body={"wait": 30}))
        polls[-1].task = asyncio.create_task(polls[-1].run())  # type: ignore[attr-defined]
        await until(lambda want=number + 1: service.parked("shop", "orders") == want)  # type: ignore[misc]  # Bound now.
    assert is_limited(await request(app, "POST", f"{SHOP}/claims", body={"wait": 30}))
    assert (await request(app, "POST", f"{SHOP}/claims")).status == 204
    assert (await put(app)).status == 201
    async with asyncio.timeout(DEADLINE_S):
        assert (await polls[0].task).status == 201  # type: ignore[attr-defined]
    third = Exchange(app, "POST", f"{SHOP}/claims", body={"wait": 30})
    task = asyncio.create_task(third.run())
    await until(lambda: service.parked("shop", "orders") == 2)
    for poll in (polls[1], third):
        poll.left.set()
    await task
    assert service.limited == {"parked": 1}


async def test_streams_of_events_count_as_waiting_until_they_end() -> None:
    app, service = limited(parked_max=1)
    await put(app)
    async with EventReader(app, f"{SHOP}/events"):
        assert is_limited(await request(app, "GET", f"{SHOP}/events"))
        assert (await put(app)).status == 201
    async with EventReader(app, f"{SHOP}/events") as reader:
        assert reader.started.result()["status"] == 200
    bad = await request(app, "GET", f"{SHOP}/events", headers={"last-event-id": "999999"})
    assert bad.status == 503
    async with EventReader(app, f"{SHOP}/events?from=1"):
        assert service.limited == {"parked": 1}


async def test_requests_at_once_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    app, service = limited(concurrent_max=2)
    going_on = asyncio.Event()
    propose = service.propose

    async def slowly(command, **more):  # type: ignore[no-untyped-def]  # As original.
        await going_on.wait()
        return await propose(command, **more)

    monkeypatch.setattr(service, "propose", slowly)
    tasks = [asyncio.create_task(put(app)) for _ in range(2)]
    await asyncio.sleep(0)
    assert is_limited(await request(app, "GET", SHOP))
    assert (await request(app, "GET", OTHER)).status == 404
    going_on.set()
    assert [(await task).status for task in tasks] == [201, 201]
    assert (await request(app, "GET", SHOP)).status == 200
    assert service.limited == {"concurrent": 1}
