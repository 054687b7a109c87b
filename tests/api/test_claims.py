"""Claims: lease, extend, acknowledge, release."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from local_service import LocalService

QUEUE = "/v1/shop/queues/orders"
ABSENT = "0" * 20


def put(client: TestClient, count: int, **more: Any) -> list[str]:
    messages = [{"body": n, **more} for n in range(count)]
    ids: list[str] = client.post(f"{QUEUE}/messages", json={"messages": messages}).json()["ids"]
    return ids


def claim(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post(f"{QUEUE}/claims", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"{QUEUE}/claims/{found['claim']}"
    return found


def test_a_claim_takes_the_oldest_messages_under_a_lease(client: TestClient) -> None:
    ids = put(client, 3)
    taken = claim(client, limit=2, lease=45.5)
    assert [message["id"] for message in taken["messages"]] == ids[:2]
    assert taken["lease_until"] == "2026-01-01T00:00:45.500000Z"
    assert {(m["state"], m["deliveries"]) for m in taken["messages"]} == {("claimed", 1)}


def test_without_a_body_a_claim_takes_one_message(client: TestClient) -> None:
    put(client, 2)
    answer = client.post(f"{QUEUE}/claims")
    assert len(answer.json()["messages"]) == 1


def test_nothing_to_claim_is_no_content(client: TestClient) -> None:
    answer = client.post(f"{QUEUE}/claims", json={})
    assert (answer.status_code, answer.content) == (204, b"")
    assert "Content-Length" not in answer.headers


def test_a_claim_tells_the_machine_where_the_consumer_is(
    client: TestClient, service: LocalService
) -> None:
    client.post(f"{QUEUE}/claims", json={"zone": "south"})
    client.post(f"{QUEUE}/claims")
    zones = [command.zone for command in service.proposed]  # type: ignore[union-attr]  # Claims.
    assert zones == ["south", "north"]


def test_a_claim_says_whose_messages_it_takes(client: TestClient, service: LocalService) -> None:
    for zone, priority in (("south", 0), ("north", 0), ("north", 5)):
        client.post(f"{QUEUE}/messages", json={"body": 1, "zone": zone, "priority": priority})
    asked = {"zone_mode": "only", "limit": 3}
    [high, low] = client.post(f"{QUEUE}/claims", json=asked).json()["messages"]
    assert [(one["zone"], one["priority"]) for one in (high, low)] == [("north", 5), ("north", 0)]
    assert client.post(f"{QUEUE}/claims", json=asked).status_code == 204
    asked = {"zone_mode": "prefer", "locality_wait": 5}
    assert client.post(f"{QUEUE}/claims", json=asked).status_code == 204
    service.advance(5)
    assert client.post(f"{QUEUE}/claims", json=asked).status_code == 201


def test_a_queue_says_whose_messages_its_claims_take(client: TestClient) -> None:
    client.put(QUEUE, json={"zone_mode": "only", "locality_wait": 1.5})
    described = client.get(QUEUE).json()
    assert described["settings"] == {"zone_mode": "only", "locality_wait": 1.5}
    client.post(f"{QUEUE}/messages", json={"body": 1, "zone": "south"})
    assert client.post(f"{QUEUE}/claims").status_code == 204
    assert client.post(f"{QUEUE}/claims", json={"zone_mode": "any"}).status_code == 201
    patched = client.patch(QUEUE, json={"zone_mode": None}).json()
    assert patched["settings"] == {"locality_wait": 1.5}
    assert patched["effective"]["zone_mode"] == "any"


def test_a_lease_that_ran_out_gives_the_message_back(
    client: TestClient, service: LocalService
) -> None:
    put(client, 1)
    first = claim(client, lease=10)
    service.advance(10)
    second = claim(client)
    assert second["messages"][0]["deliveries"] == 2
    late = client.post(f"{QUEUE}/claims/{first['claim']}/ack")
    assert (late.status_code, late.json()["reason"]) == (404, "no_claim")
    assert client.post(f"{QUEUE}/claims/{second['claim']}/ack").json()["acked"] == 1


def test_a_claim_can_be_inspected_until_it_runs_out(
    client: TestClient, service: LocalService
) -> None:
    put(client, 2)
    taken = claim(client, limit=2, lease=10)
    assert client.get(f"{QUEUE}/claims/{taken['claim']}").json() == taken
    service.advance(9.999)
    assert client.get(f"{QUEUE}/claims/{taken['claim']}").status_code == 200
    service.advance(0.001)
    assert client.get(f"{QUEUE}/claims/{taken['claim']}").json()["reason"] == "no_claim"


def test_a_lease_can_be_extended_from_now(client: TestClient, service: LocalService) -> None:
    put(client, 1)
    taken = claim(client, lease=10)
    service.advance(9)
    answer = client.patch(f"{QUEUE}/claims/{taken['claim']}", json={"lease": 20})
    assert answer.json() == {"lease_until": "2026-01-01T00:00:29Z"}
    service.advance(19)
    assert client.post(f"{QUEUE}/claims", json={}).status_code == 204


def test_ack_of_all_deletes_what_the_claim_holds(client: TestClient) -> None:
    put(client, 3)
    taken = claim(client, limit=2)
    answer = client.post(f"{QUEUE}/claims/{taken['claim']}/ack")
    assert answer.json() == {"acked": 2, "stale": []}
    assert len(client.get(f"{QUEUE}/messages").json()["messages"]) == 1
    assert client.post(f"{QUEUE}/claims/{taken['claim']}/ack").json()["reason"] == "no_claim"


def test_ack_of_some_names_what_the_claim_did_not_hold(client: TestClient) -> None:
    ids = put(client, 2)
    path = f"{QUEUE}/claims/{claim(client, limit=2)['claim']}/ack"
    answer = client.post(path, json={"ids": [ids[0], ABSENT]})
    assert (answer.status_code, answer.json()) == (200, {"acked": 1, "stale": [ABSENT]})
    nothing = client.post(path, json={"ids": [ids[0]]})
    assert (nothing.status_code, nothing.json()["reason"]) == (409, "stale_claim")
    assert client.post(path, json={"ids": None}).json() == {"acked": 1, "stale": []}


def test_release_gives_messages_back_at_once_or_later(
    client: TestClient, service: LocalService
) -> None:
    ids = put(client, 3)
    path = f"{QUEUE}/claims/{claim(client, limit=3)['claim']}"
    some = client.delete(path, params={"ids": ids[1]})
    assert some.json() == {"released": 1, "stale": []}
    assert [m["id"] for m in claim(client)["messages"]] == [ids[1]]
    rest = client.delete(path, params={"delay": 5})
    assert rest.json() == {"released": 2, "stale": []}
    assert client.post(f"{QUEUE}/claims", json={}).status_code == 204
    service.advance(5)
    assert [m["id"] for m in claim(client, limit=9)["messages"]] == [ids[0], ids[2]]


@pytest.mark.parametrize("text", ["x", "0" * 15, "F" * 16, "0" * 17, "0" * 16])
def test_what_is_no_claim_id_names_no_claim(client: TestClient, text: str) -> None:
    put(client, 1)
    path = f"{QUEUE}/claims/{text}"
    for method, target in [
        ("GET", path),
        ("PATCH", path),
        ("DELETE", path),
        ("POST", f"{path}/ack"),
    ]:
        answer = client.request(method, target)
        assert (answer.status_code, answer.json()["reason"]) == (404, "no_claim"), method


def test_a_claim_works_only_on_its_own_queue(client: TestClient) -> None:
    put(client, 1)
    taken = claim(client)
    client.post("/v1/shop/queues/other/messages", json={"body": 1})
    answer = client.post(f"/v1/shop/queues/other/claims/{taken['claim']}/ack")
    assert answer.status_code == 404
    assert client.post(f"{QUEUE}/claims/{taken['claim']}/ack").json()["acked"] == 1
