"""Who may what: every route with every role, of the account, of another one, and without a key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from access import bearing, make_key
from api.app import Application, create
from api.ports import AccessPolicy
from api.rest.requests import KNOWN
from api.rest.table import TABLE
from local_service import LocalService

PRODUCE, CONSUME, MANAGE, ADMIN = "produce", "consume", "manage", "admin"
ANY = frozenset({PRODUCE, CONSUME, MANAGE})
PUBLIC = frozenset({"nobody"})
OPERATOR = frozenset[str]()

MAY: dict[str, frozenset[str]] = {
    "put_messages": frozenset({PRODUCE}),
    "browse_messages": frozenset({CONSUME}),
    "delete_messages": frozenset({MANAGE}),
    "get_message": frozenset({CONSUME}),
    "delete_message": frozenset({MANAGE}),
    "message_history": frozenset({CONSUME}),
    "claim_messages": frozenset({CONSUME}),
    "consume_messages": frozenset({CONSUME}),
    "ack_messages": frozenset({CONSUME}),
    "nack_messages": frozenset({CONSUME}),
    "inspect_claim": frozenset({CONSUME}),
    "extend_claim": frozenset({CONSUME}),
    "extend_claims": frozenset({CONSUME}),
    "release_claim": frozenset({CONSUME}),
    "transact": frozenset({PRODUCE}),  # With the body below, which puts.
    "list_queues": ANY,
    "put_queue": frozenset({MANAGE}),
    "get_queue": ANY,
    "share_queue": ANY,
    "patch_queue": frozenset({MANAGE}),
    "delete_queue": frozenset({MANAGE}),
    "queue_stats": frozenset({CONSUME}),
    "start_job": frozenset({MANAGE}),
    "show_job": frozenset({MANAGE}),
    "cancel_job": frozenset({MANAGE}),
    "start_redrive": frozenset({MANAGE}),
    "list_bindings": frozenset({MANAGE}),
    "put_binding": frozenset({MANAGE}),
    "get_binding": frozenset({MANAGE}),
    "delete_binding": frozenset({MANAGE}),
    "list_schedules": frozenset({MANAGE}),
    "put_schedule": frozenset({MANAGE}),
    "get_schedule": frozenset({MANAGE}),
    "delete_schedule": frozenset({MANAGE}),
    "list_subscriptions": frozenset({MANAGE}),
    "put_subscription": frozenset({MANAGE}),
    "get_subscription": frozenset({MANAGE}),
    "delete_subscription": frozenset({MANAGE}),
    "list_accounts": OPERATOR,
    "put_account": OPERATOR,
    "get_account": ANY,
    "patch_account": frozenset({MANAGE}),
    "delete_account": OPERATOR,
    "list_keys": frozenset({MANAGE}),
    "make_key": frozenset({MANAGE}),
    "get_key": frozenset({MANAGE}),
    "revoke_key": frozenset({MANAGE}),
    "rotate_key": frozenset({MANAGE}),
    "list_operator_keys": OPERATOR,
    "make_operator_key": OPERATOR,
    "get_operator_key": OPERATOR,
    "revoke_operator_key": OPERATOR,
    "rotate_operator_key": OPERATOR,
    "show_encryption": OPERATOR,
    "switch_encryption": OPERATOR,
    "rotate_encryption_key": OPERATOR,
    "rewrap_encryption_keys": OPERATOR,
    "destroy_encryption_keys": OPERATOR,
    "list_acts": OPERATOR,
    "get_usage": ANY,
    "put_quotas": OPERATOR,
    "patch_quotas": OPERATOR,
    "queue_events": frozenset({CONSUME}),
    "account_events": frozenset({CONSUME}),
    "show_cluster": ANY,
    "list_members": ANY,
    "show_zones": OPERATOR,
    "show_metrics": OPERATOR,
    "live": PUBLIC,
    "ready": PUBLIC,
    "show_console": PUBLIC,
    "show_openapi": PUBLIC,
}
"""To every route the roles of its account with which it may be used; the operator may all."""

BODIES: dict[str, Any] = {
    "put_messages": {"body": 1},
    "transact": {"puts": [{"queue": "orders", "messages": [{"body": 1}]}]},
    "start_job": {"act": "delete"},
    "put_schedule": {"queue": "orders", "message": {"body": 1}, "every": 60},
    "put_subscription": {"url": "https://hook.example/"},
    "extend_claims": {"claims": []},
    "make_key": {"roles": ["manage"]},
    "make_operator_key": {"roles": ["admin"]},
}
VALUES = {
    "account": "shop",
    "queue": "orders",
    "message": "0" * 20,
    "claim": "0" * 16,
    "target": "europe",
    "schedule": "nightly",
    "subscription": "hook",
    "key_id": "0" * 16,
}
ROWS = {row.id: row for row in TABLE}
MESSAGES = "/v1/shop/queues/orders/messages"


@pytest.fixture
def service() -> LocalService:
    found = LocalService(access=AccessPolicy(required=True, pepper=b"pepper"))
    found.stop()  # So that streams of events end by themselves.
    return found


@pytest.fixture
def client(service: LocalService) -> Iterator[TestClient]:
    with TestClient(create(service), base_url="http://test") as client:
        yield client


def ask(client: TestClient, name: str, token: str | None) -> Any:
    """The route, with as little as it takes."""
    row = ROWS[name]
    path = re.sub(r"{(\w+)}", lambda found: VALUES[found.group(1)], row.path)
    headers = {} if token is None else bearing(token)
    return client.request(row.method, path, json=BODIES.get(name), headers=headers)


def test_every_route_has_a_row_here() -> None:
    assert MAY.keys() == ROWS.keys()


@pytest.mark.parametrize("name", MAY)
def test_without_a_key_only_what_is_public_is_answered(client: TestClient, name: str) -> None:
    answer = ask(client, name, None)
    assert (answer.status_code == 401) is (MAY[name] is not PUBLIC)
    if answer.status_code == 401:
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("role", [PRODUCE, CONSUME, MANAGE, ADMIN])
@pytest.mark.parametrize("name", MAY)
def test_a_key_of_the_account_may_what_its_role_may(
    client: TestClient, service: LocalService, name: str, role: str
) -> None:
    answer = ask(client, name, make_key(service, "shop", [role]))
    refused = not MAY[name] & {role, "nobody"}
    # An administrator of an account is none: he has no role of an account either.
    if role == ADMIN and MAY[name] is ANY:
        refused = False
    assert (answer.status_code == 403) is refused, answer.text
    assert answer.status_code != 401


@pytest.mark.parametrize("role", [PRODUCE, CONSUME, MANAGE, ADMIN])
@pytest.mark.parametrize("name", [one for one in MAY if "{account}" in ROWS[one].path])
def test_a_key_of_another_account_is_none(
    client: TestClient, service: LocalService, name: str, role: str
) -> None:
    own = make_key(service, "shop", [MANAGE])
    assert ask(client, "put_queue", own).status_code == 201
    answer = ask(client, name, make_key(service, "other", [role]))
    assert (answer.status_code, answer.json()["reason"]) == (401, "unauthorized")


@pytest.mark.parametrize("name", MAY)
def test_the_operator_may_all(client: TestClient, service: LocalService, name: str) -> None:
    assert ask(client, name, make_key(service)).status_code not in (401, 403)


@pytest.mark.parametrize("name", [one for one in MAY if "{queue}" in ROWS[one].path])
def test_a_key_for_other_queues_may_nothing_in_this_one(
    client: TestClient, service: LocalService, name: str
) -> None:
    answer = ask(client, name, make_key(service, "shop", sorted(ANY), ["order", "orders.*"]))
    assert (answer.status_code, answer.json()["reason"]) == (403, "forbidden")
    answer = ask(client, name, make_key(service, "shop", sorted(ANY), ["x", "o*s"]))
    assert answer.status_code not in (401, 403) or name.endswith("_binding")


class Named(NamedTuple):
    """A request that names a queue of which its path does not tell."""

    method: str
    path: str
    body: Any


ELSEWHERE = [
    Named("PUT", "/v1/shop/queues/orders", {"dead_letter_queue": "secret"}),
    Named("PATCH", "/v1/shop/queues/orders", {"dead_letter_queue": "secret"}),
    Named("PUT", "/v1/shop/queues/orders/bindings/secret", {}),
    Named("GET", "/v1/shop/queues/orders/bindings/secret", None),
    Named("DELETE", "/v1/shop/queues/orders/bindings/secret", None),
    Named("POST", "/v1/shop/queues/orders/job", {"act": "move", "to": "secret"}),
    Named("POST", "/v1/shop/queues/orders/redrive", {"to": "secret"}),
    Named("PUT", "/v1/shop/schedules/s", {"queue": "secret", "message": {"body": 1}, "every": 60}),
    Named(
        "POST",
        "/v1/shop/transactions",
        {"puts": [{"queue": "secret", "messages": [{"body": 1}]}]},
    ),
    Named("POST", "/v1/shop/transactions", {"acks": [{"queue": "secret", "claim": "0" * 16}]}),
    Named("POST", "/v1/shop/transactions", {"releases": [{"queue": "secret", "claim": "0" * 16}]}),
    Named(
        "POST",
        "/v1/shop/transactions",
        {"puts": [{"queue": "orders", "messages": [{"body": 1}]}], "next": {"queue": "secret"}},
    ),
    Named("PATCH", "/v1/shop", {"defaults": {"ttl": 5}}),
]


@pytest.mark.parametrize("asked", ELSEWHERE, ids=lambda one: f"{one.method} {one.path}")
def test_a_queue_that_is_named_elsewhere_is_asked_for_too(
    client: TestClient, service: LocalService, asked: Named
) -> None:
    operator = bearing(make_key(service))
    client.put("/v1/shop/queues/orders", headers=operator)
    client.put("/v1/shop/queues/orders/bindings/secret", headers=operator)
    some = bearing(make_key(service, "shop", sorted(ANY), ["orders"]))
    every = bearing(make_key(service, "shop", sorted(ANY)))
    before = len(service.proposed)
    answer = client.request(asked.method, asked.path, json=asked.body, headers=some)
    assert (answer.status_code, answer.json()["reason"]) == (403, "forbidden")
    assert len(service.proposed) == before
    answer = client.request(asked.method, asked.path, json=asked.body, headers=every)
    assert answer.status_code not in (401, 403), answer.text


def test_what_is_next_needs_the_role_of_a_consumer(
    client: TestClient, service: LocalService
) -> None:
    puts = [{"queue": "q", "messages": [{"body": 1}]}]
    for held, status in (([PRODUCE], 403), ([PRODUCE, MANAGE], 403), ([PRODUCE, CONSUME], 200)):
        headers = bearing(make_key(service, "shop", held))
        before = len(service.proposed)
        body = {"puts": puts, "next": {"queue": "q"}}
        answer = client.post("/v1/shop/transactions", json=body, headers=headers)
        assert answer.status_code == status
        assert (len(service.proposed) == before) is (status == 403)


@pytest.mark.parametrize(
    ("part", "role"), [("puts", PRODUCE), ("acks", CONSUME), ("releases", CONSUME)]
)
def test_each_part_of_a_transaction_needs_its_role(
    client: TestClient, service: LocalService, part: str, role: str
) -> None:
    one: dict[str, Any] = {"queue": "q", "claim": "0" * 16}
    if part == "puts":
        one = {"queue": "q", "messages": [{"body": 1}]}
    for held in (PRODUCE, CONSUME, MANAGE):
        headers = bearing(make_key(service, "shop", [held]))
        answer = client.post("/v1/shop/transactions", json={part: [one]}, headers=headers)
        assert (answer.status_code == 403) is (held != role)


def test_a_schedule_is_out_of_reach_with_its_queue(
    client: TestClient, service: LocalService
) -> None:
    every = bearing(make_key(service, "shop", [MANAGE]))
    some = bearing(make_key(service, "shop", [MANAGE], ["orders"]))
    body = {"message": {"body": 1}, "every": 60}
    client.put("/v1/shop/schedules/mine", json=body | {"queue": "orders"}, headers=every)
    client.put("/v1/shop/schedules/other", json=body | {"queue": "secret"}, headers=every)
    listed = client.get("/v1/shop/schedules", headers=some).json()["schedules"]
    assert [one["name"] for one in listed] == ["mine"]
    for method in ("GET", "DELETE", "PUT"):
        json = body | {"queue": "orders"} if method == "PUT" else None
        answer = client.request(method, "/v1/shop/schedules/other", json=json, headers=some)
        assert answer.status_code == 403
    assert client.delete("/v1/shop/schedules/mine", headers=some).status_code == 204


def test_lists_show_what_is_the_keys_and_tell_of_nothing_else(
    client: TestClient, service: LocalService
) -> None:
    every = bearing(make_key(service, "shop", [MANAGE]))
    some = bearing(make_key(service, "shop", [MANAGE], ["b*"]))
    for name in ("a", "b1", "b2", "c", "b3", "d"):
        client.put(f"/v1/shop/queues/{name}", headers=every)
    client.put("/v1/shop/queues/b1/bindings/b2", headers=every)
    client.put("/v1/shop/queues/b1/bindings/c", headers=every)
    seen, marker = [], ""
    while marker is not None:
        query = f"?limit=2{marker and '&marker='}{marker}"
        page = client.get(f"/v1/shop/queues{query}", headers=some)
        seen += [one["name"] for one in page.json()["queues"]]
        marker = page.json()["marker"]
        assert marker in ("b2", None)
    assert seen == ["b1", "b2", "b3"]
    bound = client.get("/v1/shop/queues/b1/bindings", headers=some).json()["bindings"]
    assert [one["target"] for one in bound] == ["b2"]


def test_events_of_an_account_are_those_of_the_keys_queues(
    client: TestClient, service: LocalService
) -> None:
    every = bearing(make_key(service, "shop", [PRODUCE, MANAGE]))
    some = bearing(make_key(service, "shop", [CONSUME], ["b*"]))
    for name in ("a", "b1", "c", "b2"):
        client.post(f"/v1/shop/queues/{name}/messages", json={"body": 1}, headers=every)
    client.delete("/v1/shop/queues/a", headers=every)
    client.delete("/v1/shop/queues/b2", headers=every)
    text = client.get("/v1/shop/events?from=1", headers=some).text
    assert set(re.findall(r'"queue":"(\w+)"', text)) == {"b1", "b2"}


@pytest.mark.anyio
async def test_nothing_of_the_body_is_read_before_the_key_is_good(
    service: LocalService, app: Application
) -> None:
    async def receive() -> Any:
        raise AssertionError("the body was asked for")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": MESSAGES,
        "query_string": b"no=such&query",
        "http_version": "1.1",
        "headers": [(b"host", b"test"), (b"content-length", b"99999999999")],
    }
    service.access = AccessPolicy(required=True)
    await app(scope, receive, send)
    assert sent[0]["status"] == 401


@pytest.mark.parametrize(
    ("path", "roles", "status"),
    [
        (MESSAGES, (CONSUME,), 404),
        (MESSAGES, (PRODUCE,), 403),
        (MESSAGES, (), 401),
        ("/livez", (), 200),
    ],
)
def test_the_server_is_told_when_it_is_known_who_asks(
    service: LocalService, path: str, roles: tuple[str, ...], status: int
) -> None:
    app, told = create(service), []
    token = make_key(service, "shop", roles) if roles else "rq_none"

    async def knowing(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["extensions"] = {KNOWN: lambda: told.append(scope["path"])}
        await app(scope, receive, send)

    with TestClient(knowing, base_url="http://test") as client:
        assert client.get(path, headers=bearing(token)).status_code == status
    assert told == ([MESSAGES] if roles == (CONSUME,) else [])
