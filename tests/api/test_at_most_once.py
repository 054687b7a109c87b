"""Claims with ``auto_ack``: what is given out is gone with the answer, and so is given out once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import Application
from asgi_client import Exchange, request
from local_service import LocalService
from statemachine.commands import Take

QUEUE = "/v1/shop/queues/orders"
TAKING = {"auto_ack": True}
NOTHING = {"ready": 0, "delayed": 0, "claimed": 0, "blocked": 0}


def put(client: TestClient, count: int, **more: Any) -> list[str]:
    messages = [{"body": n, **more} for n in range(count)]
    ids: list[str] = client.post(f"{QUEUE}/messages", json={"messages": messages}).json()["ids"]
    return ids


def counts(client: TestClient) -> Any:
    return client.get(f"{QUEUE}/stats").json()["messages"]


def test_what_is_taken_is_gone(client: TestClient, service: LocalService) -> None:
    ids = put(client, 3)
    before = service.status().applied_index
    answer = client.post(f"{QUEUE}/claims", json=TAKING | {"limit": 2, "consumer": "w"})
    assert service.status().applied_index == before + 1
    told = answer.json()
    assert answer.status_code == 200
    assert "Location" not in answer.headers
    assert (told["claim"], told["lease_until"]) == (None, None)
    assert [message["id"] for message in told["messages"]] == ids[:2]
    assert {(one["state"], one["deliveries"]) for one in told["messages"]} == {("acked", 1)}
    assert counts(client) == NOTHING | {"ready": 1}
    service.advance(10**6)
    assert client.get(f"{QUEUE}/messages/{ids[0]}").status_code == 404


def test_nothing_to_take_is_no_content(client: TestClient) -> None:
    assert client.post(f"{QUEUE}/claims", json=TAKING).status_code == 204


def test_its_history_says_that_it_was_claimed_and_acknowledged(client: TestClient) -> None:
    [message] = put(client, 1)
    client.post(f"{QUEUE}/claims", json=TAKING | {"consumer": "w"})
    history = client.get(f"{QUEUE}/messages/{message}/history").json()
    put_, claimed, acked = history["events"]
    assert (put_["kind"], claimed["kind"], acked["kind"]) == ("enqueued", "claimed", "acked")
    assert claimed["claim"] == acked["claim"]
    assert claimed["consumer"] == "w"
    assert "lease_until" not in claimed


@pytest.mark.parametrize(
    ("asked", "headers", "field"),
    [({"lease": 5}, {}, "lease"), ({}, {"Idempotency-Key": "k"}, "auto_ack")],
)
def test_what_makes_no_sense_of_what_is_gone_is_refused(
    client: TestClient,
    service: LocalService,
    asked: dict[str, Any],
    headers: dict[str, str],
    field: str,
) -> None:
    put(client, 1)
    before = len(service.proposed)
    answer = client.post(f"{QUEUE}/claims", json=TAKING | asked, headers=headers)
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert len(service.proposed) == before


def test_nothing_is_in_flight(client: TestClient) -> None:
    put(client, 3)
    client.post(f"{QUEUE}/claims")
    client.put("/v1/shop/quotas", json={"in_flight": 1})
    assert client.post(f"{QUEUE}/claims").status_code == 403
    assert client.post(f"{QUEUE}/claims", json=TAKING).status_code == 200
    assert client.get("/v1/shop/usage").json()["in_flight"]["usage"] == 1


def test_what_is_next_can_be_taken_too(client: TestClient) -> None:
    ids = put(client, 2)
    claim = client.post(f"{QUEUE}/claims").json()["claim"]
    told = client.post(f"{QUEUE}/claims/{claim}/ack", json={"next": TAKING}).json()
    assert told["acked"] == 1
    assert told["next"]["claim"] is None
    assert [message["id"] for message in told["next"]["messages"]] == ids[1:]
    assert counts(client) == NOTHING


def test_it_is_counted_by_zone(client: TestClient, service: LocalService) -> None:
    put(client, 1, zone="south")
    client.post(f"{QUEUE}/claims", json=TAKING)
    assert service.claimed == {("south", "north"): 1}


def test_bodies_are_opened(client: TestClient, service: LocalService) -> None:
    service.use_master_keys("k1 " + "A" * 43 + "=")
    client.put("/v1/shop")
    client.put("/v1/shop/encryption")
    put(client, 1)
    assert client.post(f"{QUEUE}/claims", json=TAKING).json()["messages"][0]["body"] == 0
    put(client, 1)
    service.use_master_keys("")
    answer = client.post(f"{QUEUE}/claims", json=TAKING)
    assert (answer.status_code, answer.json()["reason"]) == (503, "encryption_key_missing")
    assert counts(client) == NOTHING | {"ready": 1}


@pytest.mark.anyio
async def test_what_is_waited_for_is_taken_when_it_comes(
    app: Application, service: LocalService
) -> None:
    exchange = Exchange(app, "POST", f"{QUEUE}/claims", body=TAKING | {"wait": 30})
    task = asyncio.create_task(exchange.run())
    async with asyncio.timeout(5):
        while not service.parked("shop", "orders"):  # noqa: ASYNC110 - it has no event.
            await asyncio.sleep(0.001)
        await request(app, "POST", f"{QUEUE}/messages", body={"body": 1})
        reply = await task
    assert (reply.status, len(reply.json()["messages"])) == (200, 1)


@pytest.mark.anyio
async def test_what_was_taken_for_a_client_that_left_is_gone(
    app: Application, service: LocalService
) -> None:
    await request(app, "POST", f"{QUEUE}/messages", body={"body": 1})
    exchange = Exchange(app, "POST", f"{QUEUE}/claims", body=TAKING | {"wait": 30})
    original = service.propose

    async def leave_then_propose(command):  # type: ignore[no-untyped-def]  # As original.
        exchange.left.set()
        for _ in range(3):
            await asyncio.sleep(0)
        return await original(command)

    service.propose = leave_then_propose  # type: ignore[method-assign]  # That is the test.
    async with asyncio.timeout(5):
        assert (await exchange.run()).status == 0
    assert isinstance(service.proposed[-1], Take)
    stats = await request(app, "GET", f"{QUEUE}/stats")
    assert stats.json()["messages"] == NOTHING
