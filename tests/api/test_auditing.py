"""Who did what: the audit log, the access log, and the id that ties a request to both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.access import minting, tokens
from api.app import create
from api.ports import AccessPolicy
from local_service import LocalService
from statemachine import commands as c

SHOP = "/v1/shop"
ORDERS = f"{SHOP}/queues/orders"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


def acts(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/audit", params=query).json()["acts"]
    return found


def test_an_act_is_written_down_with_who_asked_from_where_and_under_which_id(
    client: TestClient,
) -> None:
    answer = client.put(
        ORDERS, json={"ttl": 60}, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"}
    )
    assert answer.headers["raftq-request-id"] == TRACE
    refused = client.delete(f"{SHOP}/queues/other")
    assert refused.status_code == 404
    first, second = acts(client)
    assert first.pop("id") < second.pop("id")
    assert first == {
        "time": "2026-01-01T00:00:00Z",
        "actor": "anyone:anyone",
        "source": "testclient",
        "request_id": TRACE,
        "account": "shop",
        "act": "put_queue",
        "subject": "orders",
        "detail": "",
        "outcome": "done",
    }
    assert (second["act"], second["outcome"]) == ("delete_queue", "no_queue")
    assert second["request_id"] == refused.headers["raftq-request-id"]


def test_work_with_messages_is_no_act(client: TestClient) -> None:
    client.post(f"{ORDERS}/messages", json={"body": 1})
    claim = client.post(f"{ORDERS}/claims").json()["claim"]
    client.post(f"{ORDERS}/claims/{claim}/ack")
    assert acts(client) == []


def test_an_act_that_is_repeated_with_its_idempotency_key_is_one(client: TestClient) -> None:
    for _ in range(2):
        client.put(ORDERS, json={}, headers={"idempotency-key": "k"})
    assert len(acts(client)) == 1


def test_the_audit_log_comes_in_pages(client: TestClient) -> None:
    for number in range(5):
        client.put(f"{SHOP}/queues/q{number}")
    page = client.get("/audit?limit=3")
    assert [one["subject"] for one in page.json()["acts"]] == ["q0", "q1", "q2"]
    assert page.json()["marker"] == page.json()["acts"][-1]["id"]
    rest = client.get(page.links["next"]["url"]).json()
    assert [one["subject"] for one in rest["acts"]] == ["q3", "q4"]
    assert rest["marker"] is None
    assert client.get("/audit?marker=x").json()["reason"] == "invalid_id"
    assert client.get(f"/audit?marker={'f' * 16}").json()["acts"] == []


@pytest.fixture
def guarded() -> Iterator[tuple[TestClient, LocalService]]:
    policy = AccessPolicy(required=True, pepper=tokens.pepper(b"p" * 32))
    service = LocalService(access=policy)
    with TestClient(create(service), base_url="http://test") as client:
        yield client, service


def key_for(service: LocalService, account: str, *roles: str) -> dict[str, str]:
    """Headers with a new key; it is not made through the API."""
    key_id = minting.new_id()
    token = minting.new_token(key_id)
    digest = tokens.digest(service.access.pepper, token)
    service._apply(c.PutKey(account, key_id, c.KeySettings("k", roles, ("*",)), digest))
    return {"authorization": f"Bearer {token}"}


def test_a_stranger_writes_to_the_access_log_and_never_to_the_audit_log(
    guarded: tuple[TestClient, LocalService],
) -> None:
    client, service = guarded
    operator = key_for(service, "", "admin")
    tenant = key_for(service, "shop", "produce")
    for headers in ({}, {"authorization": "Bearer rubbish"}, tenant):
        assert client.put(ORDERS, json={}, headers=headers).status_code in (401, 403)
    assert client.get("/audit", headers=operator).json()["acts"] == []
    assert client.get("/audit", headers=key_for(service, "shop", "manage")).status_code == 403
    lines = [(one.status, one.actor.partition(":")[0]) for one in service.access_log[:3]]
    assert lines == [(401, ""), (401, ""), (403, "key")]
    client.put(ORDERS, json={}, headers=operator)
    [act] = client.get("/audit", headers=operator).json()["acts"]
    key_id = operator["authorization"].split("_")[1]
    assert act["actor"] == f"key:{key_id}"


def test_a_line_of_the_access_log_says_what_was_asked_and_nothing_secret(
    client: TestClient, service: LocalService
) -> None:
    service.access_log_from = 0
    answer = client.get("/v1/sh%0Aop/queues/orders?signature=secret", headers={"x-y": "secret"})
    [line] = service.access_log
    assert line.request == answer.headers["raftq-request-id"]
    assert (line.client, line.method, line.status) == ("testclient", "GET", answer.status_code)
    assert line.path == "/v1/sh%0Aop/queues/orders"
    assert line.route == "/v1/{account}/queues/{queue}"
    assert line.ms > 0
    assert "secret" not in repr(line)


@pytest.mark.parametrize(("lowest", "lines"), [(0, 3), (400, 1), (1_000, 0)])
def test_only_answers_from_a_status_on_are_in_the_access_log(
    client: TestClient, service: LocalService, lowest: int, lines: int
) -> None:
    service.access_log_from = lowest
    service.not_ready = "it has only begun"
    for path in ("/livez", "/nowhere", "/readyz"):
        client.get(path)
    assert len(service.access_log) == lines


@pytest.mark.parametrize(
    ("given", "is_taken"),
    [
        (f"00-{TRACE}-{PARENT}-01", True),
        (f"00-{TRACE}-{PARENT}-00", True),
        (f"cc-{TRACE}-{PARENT}-01-more", True),
        (f"00-{TRACE}-{PARENT}-01-more", False),
        (f"ff-{TRACE}-{PARENT}-01", False),
        (f"00-{'0' * 32}-{PARENT}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{PARENT}-01", False),
        (f"00-{TRACE}-{PARENT}", False),
        (TRACE, False),
        ("", False),
        ("%s" * 20, False),
    ],
)
def test_a_good_traceparent_names_the_request(
    client: TestClient, given: str, is_taken: bool
) -> None:
    found = client.get("/livez", headers={"traceparent": given}).headers["raftq-request-id"]
    assert (found == TRACE) is is_taken
    assert len(found) == 32


def test_requests_have_ids_of_their_own(client: TestClient) -> None:
    ids = {client.get(path).headers["raftq-request-id"] for path in ("/livez", "/nowhere") * 10}
    assert len(ids) == 20
