"""Queues and accounts: their settings, lists and counts."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from local_service import LocalService

ACCOUNT = "/v1/shop"
QUEUES = "/v1/shop/queues"
QUEUE = "/v1/shop/queues/orders"


def put(client: TestClient, queue: str, count: int = 1, **more: Any) -> None:
    messages = [{"body": n, **more} for n in range(count)]
    answer = client.post(f"{QUEUES}/{queue}/messages", json={"messages": messages})
    assert answer.status_code == 201, answer.text


def test_a_queue_is_created_once(client: TestClient) -> None:
    new = client.put(QUEUE, json={"ttl": 60, "metadata": {"team": "a"}})
    assert (new.status_code, new.headers["Location"]) == (201, QUEUE)
    assert new.json()["settings"] == {"ttl": 60, "metadata": {"team": "a"}}
    again = client.put(QUEUE, json={"lease": 5})
    assert again.status_code == 200
    assert again.json()["settings"] == {"lease": 5}
    assert client.get(QUEUE).json() == again.json()
    assert client.put(QUEUE).json()["settings"] == {}


def test_metadata_is_kept_as_it_comes(client: TestClient) -> None:
    text = b'{"a":  1.50, "b": "\\u20ac"}'
    headers = {"Content-Type": "application/json"}
    answer = client.put(QUEUE, content=b'{"metadata": ' + text + b"}", headers=headers)
    assert b'"metadata":' + text in answer.content


def test_too_much_metadata_is_refused(client: TestClient) -> None:
    answer = client.put(QUEUE, json={"metadata": {"a": "x" * 16_384}})
    assert (answer.status_code, answer.json()["field"]) == (413, "metadata")


def test_patch_changes_only_what_is_named(client: TestClient) -> None:
    client.put(QUEUE, json={"ttl": 60, "lease": 5, "metadata": {"a": 1}})
    answer = client.patch(QUEUE, json={"lease": 7, "metadata": None})
    assert answer.json()["settings"] == {"ttl": 60, "lease": 7}
    answer = client.patch(QUEUE, json={"ttl": None})
    assert answer.json()["settings"] == {"lease": 7}


def test_settings_in_force_come_from_queue_then_account_then_the_built_in_ones(
    client: TestClient,
) -> None:
    put(client, "orders")
    built_in = client.get(QUEUE).json()["effective"]
    client.put(ACCOUNT, json={"defaults": {"ttl": 60, "lease": 5}})
    client.patch(QUEUE, json={"lease": 7})
    assert client.get(QUEUE).json()["effective"] == built_in | {"ttl": 60, "lease": 7}


def test_settings_apply_to_messages_and_claims(client: TestClient, service: LocalService) -> None:
    client.put(QUEUE, json={"ttl": 60, "delay": 5, "lease": 7})
    put(client, "orders")
    assert client.post(f"{QUEUE}/claims").status_code == 204
    service.advance(5)
    taken = client.post(f"{QUEUE}/claims").json()
    assert taken["lease_until"] == "2026-01-01T00:00:12Z"
    assert taken["messages"][0]["expires_at"] == "2026-01-01T00:01:00Z"


def test_a_ttl_of_nought_is_for_ever(client: TestClient) -> None:
    put(client, "orders", ttl=0)
    [message] = client.get(f"{QUEUE}/messages").json()["messages"]
    assert message["expires_at"] is None


def test_stats_count_messages_by_state(client: TestClient, service: LocalService) -> None:
    put(client, "orders", 3)
    put(client, "orders", 2, delay=60)
    client.post(f"{QUEUE}/claims")
    service.advance(1)
    found = client.get(f"{QUEUE}/stats").json()
    assert found.pop("bytes") >= 5
    assert found == {
        "messages": {"ready": 2, "delayed": 2, "claimed": 1, "blocked": 0},
        "oldest_ready_at": "2026-01-01T00:00:00Z",
    }


def test_an_empty_queue_has_no_oldest_message(client: TestClient) -> None:
    client.put(QUEUE)
    assert client.get(f"{QUEUE}/stats").json() == {
        "messages": {"ready": 0, "delayed": 0, "claimed": 0, "blocked": 0},
        "bytes": 0,
        "oldest_ready_at": None,
    }


def test_a_deleted_queue_is_gone_with_its_messages(client: TestClient) -> None:
    put(client, "orders")
    assert client.delete(QUEUE).status_code == 204
    for method, path in [
        ("GET", QUEUE),
        ("PATCH", QUEUE),
        ("DELETE", QUEUE),
        ("GET", f"{QUEUE}/stats"),
        ("GET", f"{QUEUE}/messages"),
    ]:
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()["reason"]) == (404, "no_queue"), (method, path)
    client.put(QUEUE)
    assert client.get(f"{QUEUE}/messages").json()["messages"] == []


@pytest.mark.parametrize("limit", [1, 2, 5, 6])
def test_queues_are_listed_in_order_page_by_page(client: TestClient, limit: int) -> None:
    names = ["A", "a", "a-1", "a.b", "b"]
    for name in reversed(names):
        put(client, name)
    client.post("/v1/other/queues/hidden/messages", json={"body": 1})
    seen: list[str] = []
    target: str | None = f"{QUEUES}?limit={limit}"
    while target is not None:
        page = client.get(target)
        seen += [queue["name"] for queue in page.json()["queues"]]
        link = page.headers.get("Link")
        assert (link is None) is (page.json()["marker"] is None)
        target = None if link is None else link[1 : link.index(">")]
    assert seen == names


def test_a_prefix_narrows_the_list_and_survives_paging(client: TestClient) -> None:
    for name in ("a", "a-1", "a-2", "b"):
        put(client, name)
    page = client.get(QUEUES, params={"prefix": "a-", "limit": 1})
    assert [queue["name"] for queue in page.json()["queues"]] == ["a-1"]
    link = page.headers["Link"]
    rest = client.get(link[1 : link.index(">")])
    assert [queue["name"] for queue in rest.json()["queues"]] == ["a-2"]
    assert rest.json()["marker"] is None


def test_a_list_shows_counts(client: TestClient) -> None:
    put(client, "orders", 2)
    [queue] = client.get(QUEUES).json()["queues"]
    assert queue["messages"] == {"ready": 2, "delayed": 0, "claimed": 0, "blocked": 0}
    assert queue["bytes"] > 0


def test_an_account_comes_with_its_first_message_and_goes_when_it_is_empty(
    client: TestClient,
) -> None:
    assert client.get(ACCOUNT).json()["reason"] == "no_account"
    put(client, "orders")
    found = client.get(ACCOUNT).json()
    assert found == {
        "name": "shop",
        "defaults": {},
        "queues": 1,
        "created_at": "2026-01-01T00:00:00Z",
    }
    refused = client.delete(ACCOUNT)
    assert (refused.status_code, refused.json()["reason"]) == (409, "account_in_use")
    client.delete(QUEUE)
    assert client.delete(ACCOUNT).status_code == 204
    assert client.get(ACCOUNT).status_code == 404
    assert client.patch(ACCOUNT, json={"defaults": {"ttl": 1}}).json()["reason"] == "no_account"


def test_account_defaults_are_replaced_and_changed(client: TestClient) -> None:
    new = client.put(ACCOUNT, json={"defaults": {"ttl": 60, "lease": 5}})
    assert (new.status_code, new.headers["Location"]) == (201, ACCOUNT)
    changed = client.patch(ACCOUNT, json={"defaults": {"lease": None, "delay": 1.5}})
    assert changed.json()["defaults"] == {"ttl": 60, "delay": 1.5}
    replaced = client.put(ACCOUNT, json={})
    assert (replaced.status_code, replaced.json()["defaults"]) == (200, {})


def test_accounts_are_listed(client: TestClient) -> None:
    for name in ("b", "a", "c"):
        client.put(f"/v1/{name}")
    page = client.get("/v1", params={"limit": 2})
    assert page.json() == {
        "accounts": [{"name": "a", "queues": 0}, {"name": "b", "queues": 0}],
        "marker": "b",
    }
    rest = client.get("/v1", params={"marker": "b"})
    assert [account["name"] for account in rest.json()["accounts"]] == ["c"]


def test_queues_of_an_unknown_account_are_not_listed(client: TestClient) -> None:
    answer = client.get("/v1/nobody/queues")
    assert (answer.status_code, answer.json()["reason"]) == (404, "no_account")
