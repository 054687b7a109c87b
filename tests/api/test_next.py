"""What is claimed next, in the request that settles what was claimed before."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from local_service import LocalService
from statemachine.commands import Ack, Claim

QUEUE = "/v1/shop/queues/orders"
ABSENT = "0" * 20
NOTHING = {"acked": 0, "stale": [], "claim_ended": True, "next": None}


def put(client: TestClient, *messages: dict[str, Any]) -> list[str]:
    answer = client.post(f"{QUEUE}/messages", json={"messages": [*messages]})
    ids: list[str] = answer.json()["ids"]
    return ids


def claim(client: TestClient, **body: Any) -> str:
    """The id of a claim that was made."""
    found: str = client.post(f"{QUEUE}/claims", json=body).json()["claim"]
    return found


def ack(client: TestClient, claim: str, **body: Any) -> Any:
    return client.post(f"{QUEUE}/claims/{claim}/ack", json=body)


def ids(view: dict[str, Any]) -> list[str]:
    return [message["id"] for message in view["messages"]]


def test_an_ack_claims_what_is_next(client: TestClient) -> None:
    known = put(client, *[{"body": n} for n in range(4)])
    answer = ack(client, claim(client), next={"limit": 2, "lease": 45.5, "consumer": "w"})
    told = answer.json()
    assert answer.status_code == 200
    assert (told["acked"], told["stale"], told["claim_ended"]) == (1, [], False)
    assert ids(told["next"]) == known[1:3]
    assert told["next"]["lease_until"] == "2026-01-01T00:00:45.500000Z"
    shown = client.get(f"{QUEUE}/claims/{told['next']['claim']}")
    assert shown.json() == told["next"]
    assert ids(client.get(f"{QUEUE}/messages?include_claimed=true").json()) == known[1:]


def test_ack_and_claim_are_one_entry_and_the_ack_comes_first(
    client: TestClient, service: LocalService
) -> None:
    known = put(client, {"body": 1, "group": "g"}, {"body": 2, "group": "g"})
    held = claim(client)
    before = service.status().applied_index
    told = ack(client, held, next={"zone": "south"}).json()
    assert service.status().applied_index == before + 1
    first, second = service.proposed[-2:]
    assert isinstance(first, Ack)
    assert isinstance(second, Claim)
    assert second.zone == "south"
    # It was behind the one that was acknowledged.
    assert ids(told["next"]) == known[1:]


def test_nothing_next_is_null(client: TestClient) -> None:
    put(client, {"body": 1})
    told = {"acked": 1, "stale": [], "claim_ended": False, "next": None}
    assert ack(client, claim(client), next={}).json() == told


def test_a_stale_ack_is_told_beside_what_was_claimed(client: TestClient) -> None:
    known = put(client, {"body": 1}, {"body": 2})
    answer = ack(client, claim(client), ids=[ABSENT], next={})
    told = answer.json()
    assert (answer.status_code, told["acked"], told["stale"]) == (200, 0, [ABSENT])
    assert (told["why"], told["claim_ended"]) == ({ABSENT: "gone"}, False)
    assert ids(told["next"]) == known[1:]


@pytest.mark.parametrize("named", [None, "held"])
def test_a_claim_that_has_ended_is_told_beside_what_was_claimed(
    client: TestClient, service: LocalService, named: str | None
) -> None:
    known = put(client, {"body": 1})
    held = claim(client, lease=1)
    service.advance(1)
    answer = ack(client, held, ids=known if named else None, next={})
    told = answer.json()
    assert (answer.status_code, told["acked"], told["claim_ended"]) == (200, 0, True)
    assert told["stale"] == (known if named else [])
    assert ids(told["next"]) == known
    assert told["next"]["messages"][0]["deliveries"] == 2
    assert ack(client, held, next={}).json() == NOTHING


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"lease": 0}, "lease"),
        ({"wait": 61}, "wait"),
        ({"zone": "no zone"}, "zone"),
        ({"consumer": "a\nb"}, "consumer"),
        ({"colour": "red"}, "field"),
    ],
)
def test_a_bad_next_is_refused_before_anything_is_done(
    client: TestClient, service: LocalService, wanted: dict[str, Any], field: str
) -> None:
    put(client, {"body": 1})
    held = claim(client)
    before = len(service.proposed)
    answer = ack(client, held, next=wanted)
    assert answer.status_code == 400
    assert len(service.proposed) == before
    assert ack(client, held).json()["acked"] == 1


def test_an_id_that_is_none_claims_nothing(client: TestClient, service: LocalService) -> None:
    put(client, {"body": 1})
    before = len(service.proposed)
    answer = ack(client, "x", next={})
    assert (answer.status_code, answer.json()["reason"]) == (404, "no_claim")
    assert len(service.proposed) == before


def test_next_and_an_idempotency_key_exclude_each_other(
    client: TestClient, service: LocalService
) -> None:
    put(client, {"body": 1})
    held = claim(client)
    before = len(service.proposed)
    answer = client.post(
        f"{QUEUE}/claims/{held}/ack", json={"next": {}}, headers={"Idempotency-Key": "k"}
    )
    assert (answer.status_code, answer.json()["field"]) == (400, "next")
    assert len(service.proposed) == before


def test_what_is_acknowledged_makes_room_for_what_is_next(client: TestClient) -> None:
    known = put(client, {"body": 1}, {"body": 2})
    held = claim(client)
    client.put("/v1/shop/quotas", json={"in_flight": 1})
    assert client.post(f"{QUEUE}/claims").json()["quota"] == "in_flight"
    assert ids(ack(client, held, next={}).json()["next"]) == known[1:]


def test_an_ack_is_told_though_what_is_next_has_no_room(client: TestClient) -> None:
    put(client, *[{"body": n} for n in range(4)])
    held, _ = claim(client), claim(client, limit=2)
    client.put("/v1/shop/quotas", json={"in_flight": 1})
    answer = ack(client, held, next={})
    told = answer.json()
    assert (answer.status_code, told["acked"], told["next"]) == (200, 1, None)
    refused = client.post(f"{QUEUE}/claims").json()
    assert told["next_refused"] == refused
    assert (refused["reason"], refused["limit"], refused["usage"]) == ("quota_exceeded", 1, 2)


def test_messages_are_counted_by_zone(client: TestClient, service: LocalService) -> None:
    put(client, {"body": 1}, {"body": 2, "zone": "south"})
    ack(client, claim(client), next={})
    assert service.claimed == {("north", "north"): 1, ("south", "north"): 1}


def test_a_transaction_claims_what_is_next(client: TestClient, service: LocalService) -> None:
    known = put(client, {"body": 1}, {"body": 2})
    body = {
        "acks": [{"queue": "orders", "claim": claim(client)}],
        "puts": [{"queue": "done", "messages": [{"body": "x"}]}],
        "next": {"queue": "orders", "lease": 5, "consumer": "w"},
    }
    answer = client.post("/v1/shop/transactions", json=body)
    told = answer.json()
    assert (answer.status_code, told["acked"], len(told["puts"][0]["ids"])) == (200, [1], 1)
    assert ids(told["next"]) == known[1:]
    assert told["next"]["lease_until"] == "2026-01-01T00:00:05Z"
    assert service.claimed == {("north", "north"): 2}
    body |= {"acks": [], "next": {"queue": "done", "auto_ack": True, "wait": 1}}
    told = client.post("/v1/shop/transactions", json=body).json()
    assert told["next"]["claim"] is None
    assert [message["body"] for message in told["next"]["messages"]] == ["x"]


def test_a_stale_transaction_claims_nothing(client: TestClient) -> None:
    put(client, {"body": 1}, {"body": 2})
    body = {
        "acks": [{"queue": "orders", "claim": claim(client), "ids": [ABSENT]}],
        "next": {"queue": "orders"},
    }
    answer = client.post("/v1/shop/transactions", json=body)
    assert (answer.status_code, answer.json()["reason"]) == (409, "stale_transaction")
    assert client.get(f"{QUEUE}/stats").json()["messages"]["claimed"] == 1


def test_a_transaction_is_told_though_what_is_next_is_refused(client: TestClient) -> None:
    put(client, {"body": 1}, {"body": 2})
    claim(client)
    client.put("/v1/shop/quotas", json={"in_flight": 1})
    puts = [{"queue": "done", "messages": [{"body": "x"}]}]
    told = client.post(
        "/v1/shop/transactions", json={"puts": puts, "next": {"queue": "orders"}}
    ).json()
    assert len(told["puts"][0]["ids"]) == 1
    assert told["next"] is None
    assert told["next_refused"] == client.post(f"{QUEUE}/claims").json()


def test_nothing_next_of_a_transaction_is_null(client: TestClient) -> None:
    puts = [{"queue": "done", "messages": [{"body": "x"}]}]
    for body, is_there in (({"next": {"queue": "orders"}}, True), ({}, False)):
        told = client.post("/v1/shop/transactions", json={"puts": puts} | body).json()
        assert ("next" in told) is is_there
        assert told.get("next") is None
        assert "next_refused" not in told


@pytest.mark.parametrize(
    ("more", "headers", "field"),
    [
        ({}, {}, "next"),
        ({"queue": "no queue"}, {}, "queue"),
        ({"queue": "orders", "limit": 0}, {}, "limit"),
        ({"queue": "orders"}, {"Idempotency-Key": "k"}, "next"),
    ],
)
def test_a_transaction_with_a_bad_next_is_not_done(
    client: TestClient,
    service: LocalService,
    more: dict[str, Any],
    headers: dict[str, str],
    field: str,
) -> None:
    body = {"puts": [{"queue": "done", "messages": [{"body": 1}]}], "next": more}
    answer = client.post("/v1/shop/transactions", json=body, headers=headers)
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert not service.proposed
