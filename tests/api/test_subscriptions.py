"""Subscriptions as clients set and see them."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from api.ports import Activity, WebhookPolicy
from api.webhooks import signing
from local_service import START_MS, LocalService
from statemachine import commands as c
from statemachine import hooks

QUEUE = "/v1/shop/queues/orders"
HOOK = f"{QUEUE}/subscriptions/hook"
URL = "https://hook.example/x"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NAMES = ("shop", "orders", "hook")


def put(client: TestClient, **fields: Any) -> Any:
    return client.put(HOOK, json={"url": URL} | fields)


def stored(service: LocalService) -> hooks.SubscriptionView:
    view = hooks.subscription(service.reader(), *NAMES)
    assert view is not None
    return view


def test_a_secret_is_made_and_shown_once(client: TestClient, service: LocalService) -> None:
    answer = put(client)
    assert answer.status_code == 201
    secret = answer.json()["secret"]
    assert signing.from_text(secret) == stored(service).secret
    assert answer.headers["Location"] == HOOK
    assert "secret" not in client.get(HOOK).text
    assert "secret" not in client.get(f"{QUEUE}/subscriptions").text
    again = put(client, lease=5)
    assert again.status_code == 200
    assert "secret" not in again.text
    assert signing.from_text(secret) == stored(service).secret, "it stays"


def test_the_same_request_again_has_the_same_answer(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    first, second = (client.put(HOOK, json={"url": URL}, headers=headers) for _ in range(2))
    assert first.json()["secret"] == second.json()["secret"]


def test_a_secret_that_is_given_is_not_shown(client: TestClient, service: LocalService) -> None:
    assert "secret" not in put(client, secret=SECRET).text
    assert signing.text(stored(service).secret) == SECRET
    put(client, secret=signing.text(b"n" * 24))
    assert stored(service).secret == b"n" * 24


def test_no_secret_is_in_what_could_be_logged(client: TestClient, service: LocalService) -> None:
    made = put(client, headers={"Authorization": "Bearer x"})
    put(client, secret=SECRET)
    outcome = service.proposed[0]
    for value in (outcome, service.proposed[1], stored(service), stored(service).settings):
        assert "Bearer" not in repr(value)
        assert repr(signing.from_text(SECRET)) not in repr(value)
        assert repr(signing.from_text(made.json()["secret"])) not in repr(value)


def test_what_is_stored_is_what_was_asked_for(client: TestClient, service: LocalService) -> None:
    put(
        client,
        lease=2.5,
        concurrency=3,
        timeout=0.5,
        headers={"X-Key": "v w"},
        retry={"base": 0.25, "max": 60, "attempts": 7},
    )
    assert stored(service).settings == c.SubscriptionSettings(
        URL, (("x-key", "v w"),), 2_500, 3, 500, 250, 60_000, 7
    )


def test_it_shows_who_runs_it_and_how_that_goes(client: TestClient, service: LocalService) -> None:
    put(client)
    shown = client.get(HOOK).json()
    assert (shown["node"], shown["activity"], shown["disabled_reason"]) == (None, None, None)

    def do(command: c.QueueCommand) -> None:
        service._apply(command)

    do(c.TakeSubscriptions("n1", 5_000, (NAMES,)))
    service.activity[NAMES] = Activity(
        in_flight=2, last_success_ms=START_MS, last_error_ms=START_MS, last_error="why"
    )
    shown = client.get(HOOK).json()
    assert shown["node"] == "n1"
    assert shown["activity"] == {
        "in_flight": 2,
        "last_success_at": "2026-01-01T00:00:00Z",
        "last_error_at": "2026-01-01T00:00:00Z",
        "last_error": "why",
    }
    do(c.DisableSubscription(*NAMES, stored(service).revision, "gone"))
    shown = client.get(HOOK).json()
    assert (shown["disabled_at"], shown["disabled_reason"]) == ("2026-01-01T00:00:00Z", "gone")
    put(client)
    assert client.get(HOOK).json()["disabled_reason"] is None


def test_they_are_listed_in_pages(client: TestClient) -> None:
    for name in ("b", "a", "c", "ax"):
        client.put(f"{QUEUE}/subscriptions/{name}", json={"url": URL})
    names, target = [], f"{QUEUE}/subscriptions?limit=3"
    while target:
        page = client.get(target)
        names += [one["name"] for one in page.json()["subscriptions"]]
        target = page.links.get("next", {}).get("url", "")
    assert names == ["a", "ax", "b", "c"]
    found = client.get(f"{QUEUE}/subscriptions?prefix=a").json()
    assert [one["name"] for one in found["subscriptions"]] == ["a", "ax"]


def test_it_creates_its_queue_and_goes_with_it(client: TestClient) -> None:
    put(client)
    assert client.get(QUEUE).status_code == 200
    client.delete(QUEUE)
    assert client.get(HOOK).status_code == 404


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"url": "http://hook.example/"}, "url_forbidden", "url"),
        ({"url": "https://127.0.0.1/"}, "url_forbidden", "url"),
        ({"url": "https://u:p@hook.example/"}, "url_forbidden", "url"),
        ({"secret": "x"}, "invalid_request", "secret"),
        ({"secret": "whsec_AAAA"}, "invalid_request", "secret"),
        ({"lease": 0.5}, "out_of_range", "lease"),
        ({"lease": 3_601}, "out_of_range", "lease"),
        ({"concurrency": 0}, "out_of_range", "concurrency"),
        ({"concurrency": 65}, "out_of_range", "concurrency"),
        ({"timeout": 0}, "out_of_range", "timeout"),
        ({"timeout": 301}, "out_of_range", "timeout"),
        ({"retry": {"base": 0}}, "out_of_range", "retry.base"),
        ({"retry": {"base": 2, "max": 1}}, "out_of_range", "retry.max"),
        ({"retry": {"attempts": 0}}, "out_of_range", "retry.attempts"),
        ({"retry": {"attempts": 1_001}}, "out_of_range", "retry.attempts"),
        ({"retry": {"bass": 1}}, "invalid_request", "retry.bass"),
        ({"headers": {"Host": "x"}}, "invalid_header", "headers"),
        ({"headers": {"Content-Length": "1"}}, "invalid_header", "headers"),
        ({"headers": {"Webhook-Id": "x"}}, "invalid_header", "headers"),
        ({"headers": {"Raftq-Queue": "x"}}, "invalid_header", "headers"),
        ({"headers": {"a b": "x"}}, "invalid_header", "headers"),
        ({"headers": {"a": "x\r\nb: c"}}, "invalid_header", "headers"),
        ({"headers": {"a": "é"}}, "invalid_header", "headers"),
        ({"headers": {"a": "1", "A": "2"}}, "headers_too_large", "headers"),
        ({"headers": {str(n): "" for n in range(17)}}, "headers_too_large", "headers"),
        ({"headers": {"a": "x" * 4_096}}, "headers_too_large", "headers"),
        ({"hint": 1}, "invalid_request", "hint"),
    ],
)
def test_what_is_refused(
    client: TestClient, service: LocalService, fields: Any, reason: str, field: str
) -> None:
    answer = put(client, **fields)
    assert (answer.json()["reason"], answer.json()["field"]) == (reason, field)
    assert service.proposed == []


def test_the_configuration_may_allow_more(client: TestClient, service: LocalService) -> None:
    service.webhooks = WebhookPolicy(http=True, allow=("127.0.0.0/8",))
    assert put(client, url="http://127.0.0.1:5000/").status_code == 201


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_name_is_one(client: TestClient, method: str) -> None:
    answer = client.request(method, f"{QUEUE}/subscriptions/.x", json={"url": URL})
    assert answer.json()["reason"] == "invalid_name"
