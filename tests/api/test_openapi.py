"""The document is derived from the table; the answers must be as the document says."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.testclient import TestClient

from access import bearing, make_key
from api import problems
from api.access.principals import Role
from api.app import Application
from api.ports import AccessPolicy, Fairness, WebhookPolicy
from api.rest.requests import NDJSON
from api.rest.table import TABLE
from local_service import LocalService
from statemachine import audit
from statemachine.commands import NewMessage, PutSchedule, Timing

ACCOUNT = "/v1/shop"
QUEUE = f"{ACCOUNT}/queues/orders"
ABSENT_ID = "0" * 20
BURST_BYTES = 4_000_000
NIGHTLY = {"queue": "orders", "message": {"body": 1}, "cron": "0 3 * * *", "timezone": "Asia/Tokyo"}
HOURLY = {
    "queue": "orders",
    "message": {"body": None, "headers": {"a": "b"}, "ttl": 5, "zone": "south"},
    "every": 3600,
    "start": "2026-01-02T00:00:00+01:00",
    "end": "2027-01-01T00:00:00Z",
    "missed": "all",
}
ABSENT_CLAIM = "0" * 16
KEY = {"roles": ["consume"], "name": "worker", "queues": ["orders.*"], "expires_in": 60}
HOOK = {"url": "https://hook.example/x", "headers": {"a": "b"}, "retry": {"attempts": 3}}

Prepare = Callable[[TestClient, LocalService], dict[str, str]]


def nothing(client: TestClient, service: LocalService) -> dict[str, str]:
    return {}


def a_queue(client: TestClient, service: LocalService) -> dict[str, str]:
    client.put(QUEUE, json={"ttl": 60, "metadata": {"a": 1}})
    return {}


def a_message(client: TestClient, service: LocalService) -> dict[str, str]:
    answer = client.post(f"{QUEUE}/messages", json={"body": {"n": 1}, "headers": {"a": "b"}})
    return {"message": answer.json()["ids"][0]}


def a_text(client: TestClient, service: LocalService) -> dict[str, str]:
    answer = client.post(f"{QUEUE}/messages", content=b"x", headers={"Content-Type": "text/plain"})
    return {"message": answer.json()["ids"][0]}


def a_claim(client: TestClient, service: LocalService) -> dict[str, str]:
    found = a_message(client, service)
    return found | {"claim": client.post(f"{QUEUE}/claims").json()["claim"]}


def a_claim_and_a_message(client: TestClient, service: LocalService) -> dict[str, str]:
    return a_claim(client, service) | a_message(client, service)


def too_much_in_flight(client: TestClient, service: LocalService) -> dict[str, str]:
    a_claim(client, service)
    found = a_claim(client, service) | a_message(client, service)
    client.put(f"{ACCOUNT}/quotas", json={"in_flight": 1})
    return found


def a_dead_letter(client: TestClient, service: LocalService) -> dict[str, str]:
    claim = a_claim(client, service)["claim"]
    client.post(f"{QUEUE}/claims/{claim}/nack", json={"reason": "broken", "dead": True})
    return {"queue": "orders.dead"}


def a_job(client: TestClient, service: LocalService) -> dict[str, str]:
    """One that takes a second for each message."""
    found = a_dead_letter(client, service)
    a_dead_letter(client, service)
    client.post(f"{ACCOUNT}/queues/orders.dead/redrive", json={"rate": 1})
    return found


def an_account(client: TestClient, service: LocalService) -> dict[str, str]:
    client.put(ACCOUNT, json={"defaults": {"ttl": 60}})
    return {}


def encrypted(client: TestClient, service: LocalService) -> dict[str, str]:
    service.use_master_keys("k1 " + "A" * 43 + "=")
    client.put(ACCOUNT)
    client.put(f"{ACCOUNT}/encryption")
    return {}


def no_master_key(client: TestClient, service: LocalService) -> dict[str, str]:
    encrypted(client, service)
    service.use_master_keys("")
    return {}


def shredded(client: TestClient, service: LocalService) -> dict[str, str]:
    found = encrypted(client, service) | a_message(client, service)
    a_schedule(client, service)
    client.delete(f"{ACCOUNT}/encryption/keys")
    return found


def no_events(client: TestClient, service: LocalService) -> dict[str, str]:
    client.put(QUEUE, json={"history": 0})
    return a_message(client, service)


def few_events(client: TestClient, service: LocalService) -> dict[str, str]:
    client.put(QUEUE, json={"history_bytes": 200})
    for _ in range(20):
        found = a_message(client, service)
    return found


def stopping(client: TestClient, service: LocalService) -> dict[str, str]:
    service.stop()
    return a_message(client, service)


def a_binding(client: TestClient, service: LocalService) -> dict[str, str]:
    client.put(f"{QUEUE}/bindings/europe", json={"match": {"region": [{"prefix": "eu"}, "uk"]}})
    return {}


def many_bindings(client: TestClient, service: LocalService) -> dict[str, str]:
    for number in range(64):
        client.put(f"{QUEUE}/bindings/t{number}")
    return {}


def a_schedule(client: TestClient, service: LocalService) -> dict[str, str]:
    client.put(f"{ACCOUNT}/schedules/nightly", json=NIGHTLY)
    return {}


def many_schedules(client: TestClient, service: LocalService) -> dict[str, str]:
    new, timing = NewMessage(b"1", "application/json"), Timing(every_ms=1_000)

    async def put_all() -> None:
        for number in range(1_000):
            first_ms = service.now_ms() + 1_000
            await service.propose(PutSchedule("shop", f"s{number}", "q", new, timing, first_ms))

    asyncio.run(put_all())
    return {}


def a_subscription(client: TestClient, service: LocalService) -> dict[str, str]:
    client.put(f"{QUEUE}/subscriptions/hook", json=HOOK)
    return {}


def many_subscriptions(client: TestClient, service: LocalService) -> dict[str, str]:
    for number in range(16):
        client.put(f"{QUEUE}/subscriptions/{number}", json=HOOK)
    return {}


def no_webhooks(client: TestClient, service: LocalService) -> dict[str, str]:
    service.webhooks = WebhookPolicy(enabled=False)
    return {}


def a_full_account(client: TestClient, service: LocalService) -> dict[str, str]:
    client.put(f"{ACCOUNT}/queues/other/bindings/europe")
    client.put(f"{ACCOUNT}/schedules/other", json=NIGHTLY)
    client.put(f"{ACCOUNT}/quotas", json={"queues": 1, "schedules": 1})
    return {}


def as_much_in_flight_as_may_be(client: TestClient, service: LocalService) -> dict[str, str]:
    a_claim(client, service)
    client.put(f"{ACCOUNT}/quotas", json={"in_flight": 1})
    return a_message(client, service)


def not_ready(client: TestClient, service: LocalService) -> dict[str, str]:
    service.not_ready = "it is catching up"
    return {}


def no_key(client: TestClient, service: LocalService) -> dict[str, str]:
    service.access = AccessPolicy(required=True)
    return {}


def a_weak_key(client: TestClient, service: LocalService) -> dict[str, str]:
    client.headers.update(bearing(make_key(service, "shop", ["produce"], ["else"])))
    return no_key(client, service)


def a_good_key(client: TestClient, service: LocalService) -> dict[str, str]:
    client.headers.update(bearing(make_key(service, "shop", ["produce"])))
    return no_key(client, service)


def a_busy_account(client: TestClient, service: LocalService) -> dict[str, str]:
    client.post(f"{QUEUE}/messages", content=bytes(BURST_BYTES))
    return {}


def a_stale_replica(client: TestClient, service: LocalService) -> dict[str, str]:
    service.staleness_ms = 1_001
    return no_key(client, service)


def a_key(client: TestClient, service: LocalService) -> dict[str, str]:
    return {"key_id": client.post(f"{ACCOUNT}/keys", json=KEY).json()["id"]}


def an_operator_key(client: TestClient, service: LocalService) -> dict[str, str]:
    return {"key_id": client.post("/cluster/keys", json=KEY).json()["id"]}


def a_key_made_before(client: TestClient, service: LocalService) -> dict[str, str]:
    client.headers["Idempotency-Key"] = "k"
    return a_key(client, service)


def an_operator_key_made_before(client: TestClient, service: LocalService) -> dict[str, str]:
    client.headers["Idempotency-Key"] = "k"
    return an_operator_key(client, service)


def many_keys(client: TestClient, service: LocalService) -> dict[str, str]:
    for path in (f"{ACCOUNT}/keys", "/cluster/keys"):
        for _ in range(100):
            client.post(path, json=KEY)
    return {}


class Case(NamedTuple):
    """A request, and how it is answered."""

    operation: str
    status: int
    prepare: Prepare = nothing
    json: Any = None
    content: bytes | None = None
    query: str = ""
    lines: bytes | None = None


WANTED = {
    "match": {"k": ["v", {"prefix": ""}]},
    "match_mode": "any",
    "group": "",
    "priority": 4,
    "zone": "z",
    "min_age": 1,
    "max_age": 2,
    "min_deliveries": 3,
    "state": "delayed",
}
QUERY = (
    "?header.k=v&header.l=&group=g&priority=1&min_age=0&max_age=1.5&min_deliveries=1&state=ready"
)
REFUSING: dict[str, Prepare] = {
    "unauthorized": no_key,
    "forbidden": a_weak_key,
    "not_current": a_stale_replica,
    "rate_limited": a_busy_account,
}
CASES = [
    Case("put_messages", 201, json={"body": None}),
    Case("put_messages", 201, json={"messages": [{"body": 1, "ttl": 5}, {"body": "x"}]}),
    Case("put_messages", 201, content=b"raw", query="?delay=1&priority=3&group=g"),
    Case("put_messages", 201, json={"body": 1, "priority": 9, "group": "g"}),
    Case("put_messages", 201, json={"messages": [{"body": 1, "dedup_id": "x"}] * 2}),
    Case("put_messages", 201, json={"body": 1, "not_before": "2026-01-01T00:00:00Z"}),
    Case("put_messages", 202, json={"body": 1, "persistent": False}),
    Case("put_messages", 200, lines=b'{"body": 1}\n{"boddy": 2}\n', query="?ids=true"),
    Case("put_messages", 200, a_binding, lines=b'{"body": 1, "dedup_id": "x"}\n' * 2),
    Case("put_messages", 413, content=b"x" * 1_048_577),
    Case("put_messages", 431, json={"body": 1, "headers": {str(n): "" for n in range(65)}}),
    Case("put_messages", 400, json={"boddy": 1}),
    Case("browse_messages", 200, a_message),
    Case("browse_messages", 200, a_claim, query="?include_claimed=true&limit=1&zone=north"),
    Case("browse_messages", 200, a_text, query="?consistency=linearizable"),
    Case("browse_messages", 400, a_message, query="?limit=0"),
    Case("browse_messages", 200, a_message, query=QUERY),
    Case("browse_messages", 431, a_message, query=f"?header.k={'v' * 9000}"),
    Case("delete_messages", 200, a_message),
    Case("delete_messages", 200, a_message, query=f"?ids={ABSENT_ID}"),
    Case("delete_messages", 404),
    Case("get_message", 200, a_message),
    Case("get_message", 200, a_text),
    Case("get_message", 200, a_text, query="?raw=true"),
    Case("get_message", 404, a_queue),
    Case("delete_message", 204, a_message),
    Case("delete_message", 404, a_queue),
    Case("claim_messages", 201, a_message, json={"limit": 5, "lease": 1.5, "zone": "south"}),
    Case("claim_messages", 201, a_text),
    Case("claim_messages", 201, a_text, json={"zone_mode": "prefer", "locality_wait": 0.5}),
    Case("claim_messages", 200, a_text, json={"auto_ack": True}),
    Case("claim_messages", 204),
    Case("claim_messages", 400, json={"limit": 0}),
    Case("consume_messages", 200, a_message, lines=b'{"credit": 0}\n', query="?batch=5&lease=3"),
    Case("consume_messages", 200, lines=b'{"ack": "%s"}\n' % (b"0" * 16)),
    Case("consume_messages", 400, lines=b"\n", query="?batch=0"),
    Case("consume_messages", 415, json={"credit": 1}),
    Case("inspect_claim", 200, a_claim),
    Case("inspect_claim", 404, a_message),
    Case("extend_claim", 200, a_claim, json={"lease": 5}),
    Case("extend_claim", 200, a_claim),
    Case("extend_claim", 404, a_message),
    Case("extend_claim", 409, a_claim, json={"ids": [ABSENT_ID]}),
    Case("extend_claims", 200, a_claim, json={"claims": [ABSENT_CLAIM], "lease": 5}),
    Case(
        "transact",
        413,
        json={"puts": [{"queue": "q", "messages": [{"body": "x" * 1_048_577}]}]},
    ),
    Case("transact", 200, json={"puts": [{"queue": "q", "messages": [{"body": 1}]}]}),
    Case("transact", 400, json={"puts": [{"queue": "q", "messages": [{"body": 1}] * 1_001}]}),
    Case(
        "transact",
        200,
        json={"puts": [{"queue": "q", "messages": [{"body": 1}]}], "next": {"queue": "q"}},
    ),
    Case(
        "transact",
        200,
        too_much_in_flight,
        json={
            "puts": [{"queue": "q", "messages": [{"body": 1}]}],
            "next": {"queue": "q", "lease": 5},
        },
    ),
    Case("transact", 400, json={"next": {"queue": "q"}}),
    Case(
        "transact",
        409,
        json={
            "acks": [{"queue": "q", "claim": ABSENT_CLAIM}],
            "releases": [{"queue": "q", "claim": ABSENT_CLAIM, "ids": [ABSENT_ID], "reason": "x"}],
        },
    ),
    Case("start_redrive", 202, a_dead_letter, json={"limit": 5, "rate": 1}),
    Case("start_redrive", 404),
    Case("start_redrive", 409, a_job),
    Case("start_redrive", 400, json={"to": "orders"}),
    Case("start_job", 202, a_dead_letter, json={"act": "move", "to": "p", "filter": WANTED}),
    Case("start_job", 404, json={"act": "delete"}),
    Case("start_job", 409, a_job, json={"act": "delete"}),
    Case("start_job", 400, a_queue, json={"act": "move"}),
    Case("start_job", 431, a_queue, json={"act": "delete", "filter": {"match": {"k": "v" * 9000}}}),
    Case("show_job", 200, a_job),
    Case("show_job", 404, a_queue),
    Case("cancel_job", 200, a_job),
    Case("cancel_job", 404, a_queue),
    Case("release_claim", 200, a_claim, query="?delay=5"),
    Case("release_claim", 404, a_message),
    Case("release_claim", 409, a_claim, query=f"?ids={ABSENT_ID}"),
    Case("nack_messages", 200, a_claim, json={"reason": "broken", "delay": 5}),
    Case("nack_messages", 200, a_claim, json={"dead": True}),
    Case("nack_messages", 404, a_message),
    Case("nack_messages", 409, a_claim, json={"ids": [ABSENT_ID]}),
    Case("browse_messages", 200, a_dead_letter),
    Case("ack_messages", 200, a_claim),
    Case("ack_messages", 200, a_claim, json={"next": {"wait": 0.01}}),
    Case("ack_messages", 200, a_claim_and_a_message, json={"next": {"limit": 5, "zone": "z"}}),
    Case("ack_messages", 200, a_claim, json={"ids": [ABSENT_ID], "next": {}}),
    Case("ack_messages", 200, a_claim_and_a_message, json={"next": {"auto_ack": True}}),
    Case("ack_messages", 200, too_much_in_flight, json={"next": {}}),
    Case("ack_messages", 400, a_claim, json={"next": {"limit": 0}}),
    Case("ack_messages", 404, a_message),
    Case("ack_messages", 409, a_claim, json={"ids": [ABSENT_ID]}),
    Case("list_queues", 200, a_message, query="?limit=1&prefix=o"),
    Case("list_queues", 404),
    Case("put_queue", 201, json={"ttl": 60, "max_deliveries": 5, "dedup_window": 9}),
    Case("put_queue", 200, a_queue),
    Case("put_queue", 200, a_queue, json={"zone_mode": "only", "locality_wait": 1}),
    Case("get_queue", 200, a_queue),
    Case("get_queue", 404),
    Case("patch_queue", 200, a_queue, json={"lease": 5, "metadata": None}),
    Case("patch_queue", 404, json={"lease": 5}),
    Case("delete_queue", 204, a_queue),
    Case("delete_queue", 404),
    Case("queue_stats", 200, a_message),
    Case("queue_stats", 404),
    Case("queue_events", 200, stopping, query="?from=oldest&kind=acked"),
    Case("queue_events", 404),
    Case("queue_events", 409, no_events),
    Case("queue_events", 410, few_events, query="?from=1"),
    Case("account_events", 200, stopping, query="?from=1"),
    Case("account_events", 404),
    Case("account_events", 410, few_events, query="?from=1"),
    Case("message_history", 200, a_claim, query="?limit=1"),
    Case("message_history", 404, a_queue),
    Case("put_messages", 201, a_binding, json={"body": 1, "headers": {"region": "uk"}}),
    Case("list_bindings", 200, a_binding),
    Case("list_bindings", 404),
    Case("put_binding", 201, json={"match": {"a": "b", "c": {"prefix": ""}}, "match_mode": "any"}),
    Case("put_binding", 200, a_binding),
    Case("put_binding", 400, json={"match_mode": "any"}),
    Case("put_binding", 409, many_bindings),
    Case("get_binding", 200, a_binding),
    Case("get_binding", 404, a_queue),
    Case("delete_binding", 204, a_binding),
    Case("delete_binding", 404, a_queue),
    Case("list_schedules", 200, a_schedule),
    Case("list_schedules", 404),
    Case("put_schedule", 201, json=NIGHTLY),
    Case("put_schedule", 201, json=HOURLY),
    Case("put_schedule", 200, a_schedule, json=HOURLY),
    Case("put_schedule", 400, json=NIGHTLY | {"cron": "0 3 * *"}),
    Case("put_schedule", 409, many_schedules, json=NIGHTLY),
    Case("get_schedule", 200, a_schedule),
    Case("get_schedule", 404),
    Case("delete_schedule", 204, a_schedule),
    Case("delete_schedule", 404),
    Case("list_subscriptions", 200, a_subscription, query="?limit=1&prefix=h"),
    Case("list_subscriptions", 404),
    Case("put_subscription", 201, json=HOOK),
    Case("put_subscription", 200, a_subscription, json=HOOK),
    Case("put_subscription", 400, json={"url": "http://127.0.0.1/"}),
    Case("put_subscription", 403, no_webhooks, json=HOOK),
    Case("put_subscription", 409, many_subscriptions, json=HOOK),
    Case("get_subscription", 200, a_subscription),
    Case("get_subscription", 404, a_queue),
    Case("delete_subscription", 204, a_subscription),
    Case("delete_subscription", 404, a_queue),
    Case("list_accounts", 200, an_account),
    Case("put_account", 201, json={"defaults": {"lease": 5}}),
    Case("put_account", 200, an_account),
    Case("get_account", 200, an_account),
    Case("get_account", 404),
    Case("patch_account", 200, an_account, json={"defaults": {"ttl": None}}),
    Case("patch_account", 404, json={"defaults": {"ttl": 1}}),
    Case("delete_account", 204, an_account),
    Case("delete_account", 404),
    Case("delete_account", 409, a_queue),
    Case("list_keys", 200, a_key),
    Case("make_key", 201, json=KEY),
    Case("make_key", 200, a_key_made_before, json=KEY),
    Case("make_key", 400, json={"roles": ["admin"]}),
    Case("make_key", 409, many_keys, json=KEY),
    Case("get_key", 200, a_key),
    Case("get_key", 404, an_operator_key),
    Case("share_queue", 200, a_good_key, json={"methods": ["POST"], "paths": ["messages"]}),
    Case("rotate_key", 200, a_key, json={"grace": 5}),
    Case("rotate_key", 404, an_operator_key),
    Case("revoke_key", 204, a_key),
    Case("revoke_key", 404, an_operator_key),
    Case("list_operator_keys", 200, an_operator_key),
    Case("make_operator_key", 201, json={"roles": ["admin"]}),
    Case("make_operator_key", 200, an_operator_key_made_before, json=KEY),
    Case("make_operator_key", 409, many_keys, json=KEY),
    Case("get_operator_key", 200, an_operator_key),
    Case("get_operator_key", 404, a_key),
    Case("rotate_operator_key", 200, an_operator_key),
    Case("rotate_operator_key", 404, a_key),
    Case("revoke_operator_key", 204, an_operator_key),
    Case("revoke_operator_key", 404, a_key),
    Case("show_encryption", 200, encrypted),
    Case("show_encryption", 404),
    Case("switch_encryption", 200, encrypted, json={"enabled": False}),
    Case("switch_encryption", 404),
    Case("switch_encryption", 503, an_account),
    Case("rotate_encryption_key", 200, encrypted),
    Case("rotate_encryption_key", 404),
    Case("rotate_encryption_key", 409, an_account),
    Case("rotate_encryption_key", 503, no_master_key),
    Case("rewrap_encryption_keys", 200, encrypted),
    Case("rewrap_encryption_keys", 404),
    Case("rewrap_encryption_keys", 409, an_account),
    Case("rewrap_encryption_keys", 503, no_master_key),
    Case("destroy_encryption_keys", 200, encrypted),
    Case("destroy_encryption_keys", 404),
    Case("get_message", 410, shredded, query="?raw=true"),
    Case("get_message", 200, shredded),
    Case("claim_messages", 201, shredded),
    Case("get_schedule", 410, shredded),
    Case("get_usage", 200, a_full_account),
    Case("get_usage", 404),
    Case("put_quotas", 201, json={"queues": 5, "messages": None, "bytes": 0}),
    Case("put_quotas", 200, an_account, json={"queues": None}),
    Case("put_quotas", 400, json={"queues": -1}),
    Case("put_quotas", 400, json={"bodies": 1}),
    Case("patch_quotas", 200, an_account, json={"in_flight": 5, "history_bytes": 9}),
    Case("patch_quotas", 404, json={"in_flight": 5}),
    Case("put_messages", 403, a_full_account, json={"body": 1}),
    Case("claim_messages", 403, as_much_in_flight_as_may_be),
    Case(
        "transact",
        403,
        a_full_account,
        json={"puts": [{"queue": "q", "messages": [{"body": 1}]}]},
    ),
    Case("put_queue", 403, a_full_account),
    Case("put_binding", 403, a_full_account),
    Case("put_schedule", 403, a_full_account, json=NIGHTLY),
    Case("put_subscription", 403, a_full_account, json=HOOK),
    Case("list_acts", 200, an_account),
    Case("list_acts", 400, query="?marker=x"),
    Case("show_cluster", 200),
    Case("show_cluster", 200, query="?zone=south"),
    Case("show_cluster", 400, query="?zone=.south"),
    Case("show_zones", 200, a_claim),
    Case("list_members", 200),
    Case("live", 200),
    Case("ready", 200),
    Case("ready", 503, not_ready),
    Case("show_metrics", 200),
    Case("show_console", 200),
    Case("show_openapi", 200),
    Case("transact", 403, a_weak_key, json={"acks": [{"queue": "q", "claim": ABSENT_CLAIM}]}),
    *(
        Case(row.id, problems.KINDS[reason].status, prepare)
        for row in TABLE
        for reason, prepare in REFUSING.items()
        if reason in row.problems and reason not in row.refusals
    ),
]


@pytest.fixture
def service() -> LocalService:
    """Lets no account wait but one that is busy."""
    return LocalService(fairness=Fairness(bytes_per_s=1, bytes_burst=BURST_BYTES))


@pytest.fixture
def document(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_route_is_in_the_table(app: Application, document: dict[str, Any]) -> None:
    documented = {(path, method.upper()) for path, method, _ in operations(document)}
    assert documented == {(row.path, row.method) for row in TABLE}
    assert {route.path for route in app.routes} == {path for path, _ in documented}  # type: ignore[attr-defined]  # All are routes.


def test_every_answer_declared_has_a_case(document: dict[str, Any]) -> None:
    declared = {
        (operation["operationId"], status)
        for _, _, operation in operations(document)
        for status in operation["responses"]
        if status != "default"
    }
    assert declared - {(case.operation, str(case.status)) for case in CASES} == set()


def test_every_declared_refusal_has_a_kind() -> None:
    assert {reason for row in TABLE for reason in row.problems} <= problems.KINDS.keys()


def _validator(document: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator(schema | {"components": document["components"]})


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.operation}-{case.status}")
def test_an_operation_answers_as_it_says(
    client: TestClient, service: LocalService, document: dict[str, Any], case: Case
) -> None:
    [(_, _, operation)] = [
        found for found in operations(document) if found[2]["operationId"] == case.operation
    ]
    ids = case.prepare(client, service)
    _check_request(document, operation, case)
    answer = _ask(client, document, case, ids)
    assert answer.status_code == case.status, answer.text
    said = operation["responses"].get(str(case.status), operation["responses"]["default"])
    _check_answer(document, said, answer)


def _ask(client: TestClient, document: dict[str, Any], case: Case, ids: dict[str, str]) -> Any:
    [(path, method, _)] = [
        found for found in operations(document) if found[2]["operationId"] == case.operation
    ]
    values = {"account": "shop", "queue": "orders", "message": ABSENT_ID, "claim": ABSENT_CLAIM}
    values |= {"target": "europe", "schedule": "nightly"}
    values |= {"subscription": "hook", "key_id": "0" * 16}
    target = re.sub(r"{(\w+)}", lambda name: (values | ids)[name.group(1)], path)
    more: dict[str, Any] = {
        key: value for key, value in [("json", case.json), ("content", case.content)] if value
    }
    if case.lines:
        more = {"content": case.lines, "headers": {"Content-Type": NDJSON}}
    return client.request(method, target + case.query, **more)


ACTS = {
    row.id for row in TABLE if row.method != "GET" and row.access.role in (Role.MANAGE, Role.ADMIN)
} - {"delete_message"}
"""What managers and operators do. What became of single messages is in their queue's history."""


REPEATED = {("make_key", 200), ("make_operator_key", 200)}
"""What was done before under the same idempotency key, and is not done again."""


def test_every_act_has_a_case() -> None:
    assert {case.operation for case in CASES if case.status < 300} >= ACTS


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in CASES
        if case.operation in ACTS
        and case.status < 300
        and "ids=" not in case.query
        and (case.operation, case.status) not in REPEATED
    ],
    ids=lambda case: f"{case.operation}-{case.status}",
)
def test_what_a_manager_or_an_operator_does_is_in_the_audit_log(
    client: TestClient, service: LocalService, document: dict[str, Any], case: Case
) -> None:
    ids = case.prepare(client, service)
    before = len(audit.page(service.reader(), limit=10_000).items)
    answer = _ask(client, document, case, ids)
    assert answer.status_code < 300, answer.text
    after = audit.page(service.reader(), limit=10_000).items[before:]
    assert [record.outcome for _, record in after] == ["done"]
    assert after[0][1].request == answer.headers["raftq-request-id"]


def _check_request(document: dict[str, Any], operation: dict[str, Any], case: Case) -> None:
    parameters = {item["name"] for item in operation["parameters"] if item["in"] == "query"}
    assert set(re.findall(r"[?&](\w+)=", case.query)) <= parameters
    if case.json is None or case.status in (400, 415):
        return
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    _validator(document, schema).validate(case.json)


def _check_answer(document: dict[str, Any], said: dict[str, Any], answer: Any) -> None:
    if "content" not in said:
        assert answer.content == b""
        assert "Content-Type" not in answer.headers
        return
    media_type = answer.headers["Content-Type"].partition(";")[0]
    content = said["content"]
    assert media_type in content or "*/*" in content
    schema = content.get(media_type, {}).get("schema")
    if schema is not None:
        shown = answer.text.splitlines() if media_type == NDJSON else [answer.text]
        for text in filter(None, shown):
            _validator(document, schema).validate(json.loads(text))


def test_answers_have_no_fields_that_the_document_does_not_know(
    client: TestClient, service: LocalService, document: dict[str, Any]
) -> None:
    a_claim(client, service)
    message = client.get(f"{QUEUE}/messages?include_claimed=1").json()["messages"][0]
    known = document["components"]["schemas"]["Message"]["properties"]
    assert message.keys() <= known.keys()


def test_wrong_fields_are_wrong_in_the_document_too(document: dict[str, Any]) -> None:
    for name in ("MessageToPut", "BatchToPut", "ClaimToMake", "Done", "Lease", "Nack", "Settings"):
        assert document["components"]["schemas"][name]["additionalProperties"] is False, name


def test_every_write_takes_an_idempotency_key_and_every_read_a_consistency(
    document: dict[str, Any],
) -> None:
    for path, method, operation in operations(document):
        names = {parameter["name"] for parameter in operation["parameters"]}
        if path.startswith("/v1"):
            repeats = method != "get" and not path.endswith("/consume")
            assert ("Idempotency-Key" in names) is repeats, path
            assert ("Raftq-Min-Index" in names) is (method == "get"), path
            assert ("consistency" in names) is (method == "get"), path
