"""Schedules over HTTP: what they put and when, and what is wrong with those that are refused."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from api.rest.messages import MessageToPut
from local_service import START_MS, LocalService

NIGHTLY = "/v1/shop/schedules/nightly"
ORDERS = "/v1/shop/queues/orders"


def schedule(**more: Any) -> dict[str, Any]:
    return {"queue": "orders", "message": {"body": {"n": 1}}} | more


def put(client: TestClient, **more: Any) -> dict[str, Any]:
    answer = client.put(NIGHTLY, json=schedule(**more))
    assert answer.status_code == 201, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def messages(client: TestClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"{ORDERS}/messages?limit=1000").json()["messages"]
    return found


def test_a_schedule_puts_its_message_at_every_tick(
    client: TestClient, service: LocalService
) -> None:
    put(client, cron="*/5 * * * *", message={"body": {"n": 1}, "headers": {"a": "b"}})
    service.advance(299)
    assert client.get(ORDERS).status_code == 404
    service.advance(1)
    service.advance(300)
    found = messages(client)
    assert [one["body"] for one in found] == [{"n": 1}] * 2
    assert [one["headers"] for one in found] == [
        {"a": "b", "raftq-schedule": "nightly", "raftq-tick": str(START_MS + after_ms)}
        for after_ms in (300_000, 600_000)
    ]
    shown = client.get(NIGHTLY).json()
    assert (shown["last_at"], shown["next_at"]) == ("2026-01-01T00:10:00Z", "2026-01-01T00:15:00Z")
    assert shown["ticks"] == 2


def test_an_interval_counts_from_its_start_and_stops_at_its_end(
    client: TestClient, service: LocalService
) -> None:
    start, end = "2026-01-01T01:00:30+01:00", "2026-01-01T00:02:00Z"
    shown = put(client, every=45, start=start, end=end)
    assert shown["next_at"] == shown["start"] == "2026-01-01T00:00:30Z"
    for _ in range(20):
        service.advance(15)
    assert [one["enqueued_at"] for one in messages(client)] == [
        "2026-01-01T00:00:30Z",
        "2026-01-01T00:01:15Z",
        "2026-01-01T00:02:00Z",
    ]
    assert client.get(NIGHTLY).json()["next_at"] is None


def test_a_calendar_goes_by_its_time_zone(client: TestClient) -> None:
    shown = put(client, cron="0 3 * * *", timezone="Asia/Tokyo")
    assert shown["next_at"] == "2026-01-01T18:00:00Z"


@pytest.mark.parametrize(("missed", "count"), [("once", 1), ("skip", 0), ("all", 10)])
def test_ticks_that_were_missed(
    client: TestClient, service: LocalService, missed: str, count: int
) -> None:
    put(client, every=60, missed=missed)
    service.advance(10 * 60 + 30)
    found = client.get(f"{ORDERS}/messages").json().get("messages", [])
    assert len(found) == count
    assert client.get(NIGHTLY).json()["next_at"] == "2026-01-01T00:11:00Z"


def test_the_same_schedule_again_changes_nothing(client: TestClient, service: LocalService) -> None:
    first = put(client, every=60)
    service.advance(59.999)
    again = client.put(NIGHTLY, json=schedule(every=60))
    assert (again.status_code, again.json()) == (200, first)
    service.advance(0.001)
    assert len(messages(client)) == 1
    other = client.put(NIGHTLY, json=schedule(every=120))
    assert other.json()["ticks"] == 1


def test_what_a_schedule_puts_goes_through_bindings(
    client: TestClient, service: LocalService
) -> None:
    client.put(f"{ORDERS}/bindings/north", json={"match": {"raftq-schedule": "nightly"}})
    client.put(f"{ORDERS}/bindings/south")
    put(client, every=60)
    service.advance(60)
    for queue in ("north", "south"):
        stats = client.get(f"/v1/shop/queues/{queue}/stats").json()
        assert stats["messages"]["ready"] == 1


def test_a_message_is_shown_as_it_was_put(client: TestClient) -> None:
    """All that a message may say: a field that is added must come back too."""
    message = {"body": [1], "ttl": 5.5, "delay": 2, "headers": {"a": "b"}, "zone": "south"}
    message |= {"priority": 7, "group": "g", "dedup_id": "d"}
    without_meaning = {"not_before": "2026-01-01T00:00:00Z", "persistent": False}
    assert message.keys() | without_meaning.keys() == {*MessageToPut.__struct_fields__}
    nothing = dict.fromkeys(without_meaning)
    assert put(client, every=60, message=message)["message"] == message | nothing
    for field, value in without_meaning.items():
        answer = client.put(NIGHTLY, json=schedule(every=60, message=message | {field: value}))
        assert (answer.status_code, answer.json()["field"]) == (400, f"message.{field}")


def test_schedules_are_listed_and_deleted(client: TestClient, service: LocalService) -> None:
    for name in ("b", "a", "c"):
        client.put(f"/v1/shop/schedules/{name}", json=schedule(every=60))
    page = client.get("/v1/shop/schedules?limit=2").json()
    assert [one["name"] for one in page["schedules"]] == ["a", "b"]
    page = client.get(f"/v1/shop/schedules?limit=2&marker={page['marker']}").json()
    assert [one["name"] for one in page["schedules"]] == ["c"]
    assert page["marker"] is None
    assert client.delete("/v1/shop").json()["reason"] == "account_in_use"
    for name in ("a", "b", "c"):
        assert client.delete(f"/v1/shop/schedules/{name}").status_code == 204
    service.advance(600)
    assert client.get("/v1/shop/queues").json()["queues"] == []
    assert client.delete("/v1/shop").status_code == 204


# What is asked for, the reason, the field at fault, and a part of what is said.
REFUSED = [
    ({"cron": "61 * * * *"}, "invalid_schedule", "cron", "Bad minute"),
    ({"cron": "@daily"}, "invalid_schedule", "cron", "Wrong number of fields"),
    ({"cron": "* * * * *", "timezone": "Mars/Base"}, "invalid_schedule", "timezone", "Mars/Base"),
    ({"every": 60, "timezone": "UTC"}, "invalid_schedule", "timezone", "goes with cron"),
    ({"every": 60, "cron": "* * * * *"}, "invalid_schedule", "cron", "either"),
    ({}, "invalid_schedule", "cron", "either"),
    ({"every": 0}, "out_of_range", "every", "a second at least"),
    ({"every": 0.5}, "out_of_range", "every", "a second at least"),
    ({"every": 1e12}, "out_of_range", "every", "at most"),
    ({"every": 60, "start": "2026-01-01T00:00:00"}, "invalid_schedule", "start", "UTC"),
    ({"every": 60, "start": "tomorrow"}, "invalid_request", "start", "RFC3339"),
    ({"every": 60, "start": "1969-01-01T00:00:00Z"}, "out_of_range", "start", "1970"),
    ({"cron": "* * * * *", "start": "9999-12-31T23:59:59Z"}, "out_of_range", "start", "from now"),
    ({"every": 60, "end": "2026-01-01T00:00:00Z"}, "invalid_schedule", "end", "never tick"),
    ({"every": 60, "missed": "twice"}, "invalid_request", "missed", "twice"),
    ({"every": 60, "queue": ".q"}, "invalid_name", "queue", "must be"),
    ({"every": 60, "message": {"body": 1, "priority": []}}, "invalid_request", None, ""),
    ({"every": 60, "message": {"body": 1, "ttl": -1}}, "out_of_range", "ttl", "at most"),
    ({"every": 60, "tick": 1}, "invalid_request", "tick", "unknown field"),
]


@pytest.mark.parametrize(("more", "reason", "field", "said"), REFUSED)
def test_what_can_not_be_followed_is_refused(
    client: TestClient, more: dict[str, Any], reason: str, field: str | None, said: str
) -> None:
    answer = client.put(NIGHTLY, json=schedule(**more))
    problem = answer.json()
    assert (answer.status_code, problem["reason"]) == (400, reason), answer.text
    assert field is None or problem["field"] == field
    assert said in problem["detail"]
    assert client.get(NIGHTLY).status_code == 404
