"""Bindings: where a put goes, what the answer says of it, and what can be asked for."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

QUEUES = "/v1/shop/queues"
ORDERS = f"{QUEUES}/orders"


def bind(client: TestClient, target: str, **settings: Any) -> None:
    answer = client.put(f"{ORDERS}/bindings/{target}", json=settings)
    assert answer.status_code == 201, answer.text


def bodies(client: TestClient, queue: str) -> list[Any]:
    answer = client.get(f"{QUEUES}/{queue}/messages")
    return [one["body"] for one in answer.json()["messages"]] if answer.is_success else []


def test_one_put_goes_to_every_queue_that_matches(client: TestClient) -> None:
    bind(client, "eu", match={"region": "eu"})
    bind(client, "audit")
    put = client.post(
        f"{ORDERS}/messages",
        json={
            "messages": [
                {"body": "one", "headers": {"Region": "eu"}},
                {"body": "two", "headers": {"region": "us"}},
            ]
        },
    ).json()
    queues = [[place["queue"] for place in message] for message in put["routed"]]
    assert queues == [["audit", "eu"], ["audit"]]
    assert put["ids"] == [message[0]["id"] for message in put["routed"]]
    assert bodies(client, "audit") == ["one", "two"]
    assert bodies(client, "eu") == ["one"]
    assert bodies(client, "orders") == []
    for place in put["routed"][0]:
        path = f"{QUEUES}/{place['queue']}/messages/{place['id']}"
        assert client.get(path).json()["body"] == "one"


def test_what_nothing_matches_stays(client: TestClient) -> None:
    bind(client, "eu", match={"region": "eu"})
    put = client.post(f"{ORDERS}/messages", json={"body": 1})
    (places,) = put.json()["routed"]
    assert places == [{"queue": "orders", "id": put.json()["ids"][0]}]
    assert client.get(put.headers["Location"]).json()["body"] == 1


def test_the_location_of_a_message_is_where_it_went(client: TestClient) -> None:
    bind(client, "eu", match={"region": "eu"})
    headers = {"Content-Type": "text/plain", "Raftq-Header-Region": "eu"}
    put = client.post(f"{ORDERS}/messages", content=b"x", headers=headers)
    assert put.headers["Location"].startswith(f"{QUEUES}/eu/messages/")
    assert client.get(put.headers["Location"]).json()["body_text"] == "x"


def test_without_bindings_an_answer_is_as_it_ever_was(client: TestClient) -> None:
    assert list(client.post(f"{ORDERS}/messages", json={"body": 1}).json()) == ["ids"]
    bind(client, "eu", match={"region": "eu"})
    client.delete(f"{ORDERS}/bindings/eu")
    assert list(client.post(f"{ORDERS}/messages", json={"body": 1}).json()) == ["ids"]


def test_a_put_that_is_repeated_is_answered_alike(client: TestClient) -> None:
    bind(client, "eu")
    bind(client, "us")
    headers = {"Idempotency-Key": "k"}
    first, again = (
        client.post(f"{ORDERS}/messages", json={"body": 1}, headers=headers) for _ in range(2)
    )
    assert first.json() == again.json()
    assert bodies(client, "eu") == [1]


# Match and mode, headers, and whether it goes.
MATCHES = [
    ({"a": "x"}, "all", {"a": "x"}, True),
    ({"a": "x"}, "all", {"a": "xy"}, False),
    ({"a": ["x", "y"]}, "all", {"A": "y"}, True),
    ({"a": {"prefix": "x"}}, "all", {"a": "xy"}, True),
    ({"a": {"prefix": ""}}, "all", {"a": ""}, True),
    ({"a": {"prefix": ""}}, "all", {"b": ""}, False),
    ({"a": ["x", {"prefix": "z"}]}, "all", {"a": "zz"}, True),
    ({"a": "x", "b": "y"}, "all", {"a": "x"}, False),
    ({"a": "x", "b": "y"}, "any", {"a": "x"}, True),
    ({"a": "x", "b": "y"}, "any", {"c": "x"}, False),
    ({}, "all", {}, True),
]


@pytest.mark.parametrize(("match", "mode", "headers", "goes"), MATCHES)
def test_matching(
    client: TestClient, match: Any, mode: str, headers: dict[str, str], goes: bool
) -> None:
    bind(client, "other", match=match, match_mode=mode)
    client.post(f"{ORDERS}/messages", json={"body": 1, "headers": headers})
    assert bodies(client, "other") == [1] * goes
    assert bodies(client, "orders") == [1] * (not goes)


def test_a_binding_is_shown_as_it_was_put(client: TestClient) -> None:
    match = {"a": "x", "b": ["y", {"prefix": "z"}], "c": {"prefix": ""}}
    bind(client, "eu", match=match, match_mode="any")
    shown = client.get(f"{ORDERS}/bindings/eu").json()
    assert shown == {
        "target": "eu",
        "match": match,
        "match_mode": "any",
        "created_at": "2026-01-01T00:00:00Z",
    }
    bind(client, "all")
    listed = client.get(f"{ORDERS}/bindings").json()["bindings"]
    assert [one["target"] for one in listed] == ["all", "eu"]
    assert listed[1] == shown


# Settings, status, reason, and the field at fault.
REFUSED = [
    ({"match_mode": "any"}, 400, "invalid_request", "match_mode"),
    ({"match": {"a b": "x"}}, 400, "invalid_header", "match.a b"),
    ({"match": {"a": "x\ny"}}, 400, "invalid_header", "match.a"),
    ({"match": {"a": []}}, 400, "out_of_range", "match.a"),
    ({"match": {"a": ["x"] * 65}}, 400, "out_of_range", "match.a"),
    ({"match": {str(n): "x" for n in range(17)}}, 400, "out_of_range", "match"),
    ({"match": {"a": "x" * 8_192}}, 431, "headers_too_large", "match"),
    ({"match": {"a": 1}}, 400, "invalid_request", "match[...]"),
    ({"match": {"a": {"suffix": "x"}}}, 400, "invalid_request", "match[...].suffix"),
    ({"topics": {}}, 400, "invalid_request", "topics"),
]


@pytest.mark.parametrize(("settings", "status", "reason", "field"), REFUSED)
def test_what_can_not_be_matched_is_refused(
    client: TestClient, settings: Any, status: int, reason: str, field: str
) -> None:
    answer = client.put(f"{ORDERS}/bindings/eu", json=settings)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason), answer.text
    assert answer.json()["field"] == field


def test_a_target_has_a_name_like_any_queue(client: TestClient) -> None:
    answer = client.put(f"{ORDERS}/bindings/.hidden")
    assert (answer.status_code, answer.json()["field"]) == (400, "target")
