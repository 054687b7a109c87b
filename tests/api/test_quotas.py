"""Quotas over HTTP: what an account has, what it may have, and what is said when it is full."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

SHOP = "/v1/shop"
ORDERS = f"{SHOP}/queues/orders"


def usage(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"{SHOP}/usage").json()
    return {name: (quota["usage"], quota["limit"]) for name, quota in found.items()}


def put(client: TestClient, *bodies: object) -> Any:
    messages = [{"body": body} for body in bodies]
    return client.post(f"{ORDERS}/messages", json={"messages": messages})


def test_usage_tells_what_there_is_and_what_may_be(client: TestClient) -> None:
    client.put(f"{SHOP}/quotas", json={"messages": 5, "bytes": 100})
    put(client, "one", "two")
    client.post(f"{ORDERS}/claims")
    client.put(f"{ORDERS}/bindings/eu", json={"match": {"k": "v"}})
    client.put(
        f"{SHOP}/schedules/s", json={"queue": "q", "message": {"body": 1}, "cron": "0 6 * * *"}
    )
    client.put(f"{ORDERS}/subscriptions/h", json={"url": "https://hook.example/"})
    found = usage(client)
    assert found.pop("history_bytes")[0] > 0
    assert found == {
        "queues": (1, None),
        "messages": (2, 5),
        "bytes": (10, 100),
        "in_flight": (1, None),
        "subscriptions": (1, None),
        "schedules": (1, None),
        "bindings": (1, None),
    }


def test_a_batch_that_does_not_fit_is_refused_whole_with_the_limit_and_the_usage(
    client: TestClient,
) -> None:
    client.put(f"{SHOP}/quotas", json={"messages": 3})
    put(client, 1, 2)
    refused = put(client, 3, 4)
    assert refused.status_code == 403
    problem = refused.json()
    assert problem["reason"] == "quota_exceeded"
    assert (problem["quota"], problem["limit"], problem["usage"]) == ("messages", 3, 2)
    assert usage(client)["messages"] == (2, 3)
    assert put(client, 3).status_code == 201


@pytest.mark.parametrize("nothing", [None, 0])
def test_patch_changes_what_is_named_and_put_all_of_it(
    client: TestClient, nothing: int | None
) -> None:
    assert client.put(f"{SHOP}/quotas", json={"messages": 1, "queues": 2}).status_code == 201
    answer = client.patch(f"{SHOP}/quotas", json={"messages": nothing, "in_flight": 7})
    assert answer.json() == client.get(f"{SHOP}/usage").json()
    limits = {name: quota["limit"] for name, quota in answer.json().items() if quota["limit"]}
    assert limits == {"queues": 2, "in_flight": 7}
    client.put(f"{SHOP}/quotas", json={"bytes": 9})
    assert [name for name, (_, limit) in usage(client).items() if limit] == ["bytes"]


def test_a_claim_gets_what_there_is_room_for_and_is_refused_without_waiting(
    client: TestClient,
) -> None:
    put(client, 1, 2, 3)
    client.put(f"{SHOP}/quotas", json={"in_flight": 2})
    claimed = client.post(f"{ORDERS}/claims", json={"limit": 3}).json()
    assert len(claimed["messages"]) == 2
    refused = client.post(f"{ORDERS}/claims", json={"wait": 30})
    assert (refused.status_code, refused.json()["quota"]) == (403, "in_flight")
    client.post(f"{ORDERS}/claims/{claimed['claim']}/ack")
    assert client.post(f"{ORDERS}/claims").status_code == 201


def test_limits_are_whole_numbers_that_every_client_can_read(client: TestClient) -> None:
    for limit in (-1, 2**53 + 1):
        answer = client.put(f"{SHOP}/quotas", json={"messages": limit})
        assert (answer.status_code, answer.json()["field"]) == (400, "messages")
    assert client.put(f"{SHOP}/quotas", json={"messages": 1.5}).status_code == 400
