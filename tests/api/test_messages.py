"""Putting, looking, deleting."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from api.app import create
from api.ports import Limits
from api.rest.browsing import AT_ONCE
from local_service import LocalService
from statemachine import queries

MESSAGES = "/v1/shop/queues/orders/messages"
JSON = {"Content-Type": "application/json"}


def put(client: TestClient, body: Any = 1, **more: Any) -> str:
    answer = client.post(MESSAGES, json={"body": body, **more})
    assert answer.status_code == 201, answer.text
    [message_id] = answer.json()["ids"]
    return str(message_id)


@pytest.mark.parametrize(
    "text",
    [
        "17",
        "null",
        '"\u20ac \U0001f40d"',
        '{"b": 1,  "a": [1.50, 1e400, -0.0, 12345678901234567890123]}',
        '{"twice": 1, "twice": 2}',
        '"\\u0000\\ud83d\\ude00"',
        " [ ] ",
        '"</script>"',
    ],
)
def test_a_json_body_comes_back_byte_for_byte(client: TestClient, text: str) -> None:
    data = f'{{"body": {text}}}'.encode()
    [message_id] = client.post(MESSAGES, content=data, headers=JSON).json()["ids"]
    envelope = client.get(f"{MESSAGES}/{message_id}").content
    claimed = client.post("/v1/shop/queues/orders/claims").content
    browsed = client.get(MESSAGES, params={"include_claimed": True}).content
    for content in (envelope, claimed, browsed):
        assert b'"body":' + text.strip().encode() + b"," in content


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(JSON_VALUES, min_size=1, max_size=4), escaped=st.booleans())
def test_any_json_value_comes_back_as_it_is(
    client: TestClient, values: list[Any], escaped: bool
) -> None:
    batch = {"messages": [{"body": value} for value in values]}
    data = json.dumps(batch, ensure_ascii=escaped).encode()
    answer = client.post(MESSAGES, content=data, headers=JSON)
    assert answer.status_code == 201, answer.text
    for message_id, value in zip(answer.json()["ids"], values, strict=True):
        assert client.get(f"{MESSAGES}/{message_id}").json()["body"] == value


@pytest.mark.parametrize(
    ("content_type", "body", "field", "shown"),
    [
        ("application/octet-stream", b"\x00\xff", "body_base64", base64.b64encode(b"\x00\xff")),
        ("text/plain", "gr\u00fcn".encode(), "body_text", "gr\u00fcn".encode()),
        ("text/plain; charset=UTF-8", b"x", "body_text", b"x"),
        ("text/plain; charset=latin-1", b"x", "body_base64", base64.b64encode(b"x")),
        ("text/plain", b"\xff", "body_base64", base64.b64encode(b"\xff")),
        ("application/vnd.shop+json", b"{}", "body_base64", base64.b64encode(b"{}")),
        ("image/png", b"", "body_base64", b""),
    ],
)
def test_a_raw_body_comes_back_with_its_type(
    client: TestClient, content_type: str, body: bytes, field: str, shown: bytes
) -> None:
    answer = client.post(MESSAGES, content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 201, answer.text
    [message_id] = answer.json()["ids"]
    envelope = client.get(answer.headers["Location"]).json()
    assert envelope["content_type"] == content_type
    assert envelope[field] == shown.decode()
    assert {"body", "body_text", "body_base64"} & envelope.keys() == {field}
    bare = client.get(f"{MESSAGES}/{message_id}", params={"raw": 1})
    assert (bare.content, bare.headers["Content-Type"]) == (body, content_type)


def test_a_body_without_a_type_is_bytes(client: TestClient) -> None:
    answer = client.post(MESSAGES, content=b"x")
    bare = client.get(answer.headers["Location"], params={"raw": 1})
    assert bare.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("accept", "bare"),
    [
        ("*/*", False),
        ("application/json", False),
        ("text/plain", True),
        ("TEXT/Plain;q=0.9, image/png", True),
        ("text/*", True),
        ("text/plain, application/json", False),
        ("text/html", False),
    ],
)
def test_accept_chooses_between_envelope_and_bare_body(
    client: TestClient, accept: str, bare: bool
) -> None:
    answer = client.post(MESSAGES, content=b"x", headers={"Content-Type": "text/plain"})
    got = client.get(answer.headers["Location"], headers={"Accept": accept})
    assert (got.content == b"x") is bare
    assert got.headers["Vary"] == "accept"


def test_a_bare_body_can_not_run_in_our_origin(client: TestClient) -> None:
    answer = client.post(MESSAGES, content=b"<script>", headers={"Content-Type": "text/html"})
    bare = client.get(answer.headers["Location"], params={"raw": 1})
    assert bare.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert bare.headers["X-Content-Type-Options"] == "nosniff"


def test_the_envelope_tells_everything_about_a_message(client: TestClient) -> None:
    message_id = put(
        client, {"n": 1}, ttl=60, headers={"Trace": "t-1"}, zone="south", priority=9, group="g"
    )
    assert client.get(f"{MESSAGES}/{message_id}").json() == {
        "id": message_id,
        "state": "ready",
        "body": {"n": 1},
        "content_type": "application/json",
        "headers": {"Trace": "t-1"},
        "enqueued_at": "2026-01-01T00:00:00Z",
        "expires_at": "2026-01-01T00:01:00Z",
        "deliveries": 0,
        "zone": "south",
        "priority": 9,
        "group": "g",
    }


def test_those_behind_the_first_of_a_group_are_blocked(client: TestClient) -> None:
    ids = [put(client, n, group="g") for n in range(2)]
    shown = client.get(MESSAGES).json()["messages"]
    assert [(one["id"], one["state"]) for one in shown] == [(ids[0], "ready"), (ids[1], "blocked")]
    client.delete(f"{MESSAGES}/{ids[0]}")
    assert client.get(f"{MESSAGES}/{ids[1]}").json()["state"] == "ready"


def test_a_message_without_a_zone_belongs_to_the_node_that_took_it(client: TestClient) -> None:
    assert client.get(f"{MESSAGES}/{put(client)}").json()["zone"] == "north"


def test_a_raw_message_takes_its_attributes_from_query_and_headers(client: TestClient) -> None:
    answer = client.post(
        MESSAGES,
        params={"ttl": "60.5", "delay": "2", "zone": "south", "priority": "4", "group": "g h"},
        content=b"x",
        headers={"Content-Type": "text/plain", "Raftq-Header-Trace": "t-1"},
    )
    envelope = client.get(answer.headers["Location"]).json()
    assert envelope["state"] == "delayed"
    assert envelope["headers"] == {"trace": "t-1"}
    assert envelope["expires_at"] == "2026-01-01T00:01:00.500000Z"
    assert (envelope["zone"], envelope["priority"], envelope["group"]) == ("south", 4, "g h")
    bare = client.get(answer.headers["Location"], params={"raw": True})
    assert bare.headers["Raftq-Header-Trace"] == "t-1"


def test_a_batch_gets_ids_in_its_order(client: TestClient) -> None:
    answer = client.post(MESSAGES, json={"messages": [{"body": n} for n in range(5)]})
    ids = answer.json()["ids"]
    assert ids == sorted(ids)
    assert "Location" not in answer.headers
    bodies = [message["body"] for message in client.get(MESSAGES).json()["messages"]]
    assert bodies == [0, 1, 2, 3, 4]


def test_a_message_runs_out_after_its_ttl(client: TestClient, service: LocalService) -> None:
    message_id = put(client, ttl=10)
    service.advance(9.9)
    assert client.get(f"{MESSAGES}/{message_id}").status_code == 200
    service.advance(0.1)
    assert client.get(f"{MESSAGES}/{message_id}").json()["reason"] == "no_message"


def test_browsing_pages_with_marker_and_link(client: TestClient) -> None:
    ids = client.post(MESSAGES, json={"messages": [{"body": n} for n in range(5)]}).json()["ids"]
    seen: list[str] = []
    target = f"{MESSAGES}?limit=2"
    for _ in range(3):
        page = client.get(target)
        seen += [message["id"] for message in page.json()["messages"]]
        if page.json()["marker"] is None:
            assert "Link" not in page.headers
            break
        link = page.headers["Link"]
        assert link.endswith('>; rel="next"')
        target = link[1 : link.index(">")]
        assert f"marker={page.json()['marker']}" in target
    assert seen == ids


def test_browsing_shows_claimed_messages_only_when_asked(client: TestClient) -> None:
    put(client, 1)
    client.post("/v1/shop/queues/orders/claims")
    put(client, 2)
    assert [m["body"] for m in client.get(MESSAGES).json()["messages"]] == [2]
    shown = client.get(MESSAGES, params={"include_claimed": "true"}).json()["messages"]
    assert [(m["body"], m["state"], m["deliveries"]) for m in shown] == [
        (1, "claimed", 1),
        (2, "ready", 0),
    ]


def test_browsing_can_look_at_one_zone(client: TestClient) -> None:
    put(client, 1, zone="south")
    put(client, 2)
    shown = client.get(MESSAGES, params={"zone": "south"}).json()["messages"]
    assert [message["body"] for message in shown] == [1]


def test_a_deleted_message_is_gone(client: TestClient) -> None:
    message_id = put(client)
    assert client.delete(f"{MESSAGES}/{message_id}").status_code == 204
    assert client.delete(f"{MESSAGES}/{message_id}").json()["reason"] == "no_message"
    assert client.get(f"{MESSAGES}/{message_id}").status_code == 404


def test_messages_are_deleted_by_name_or_all_at_once(client: TestClient) -> None:
    ids = [put(client, n) for n in range(4)]
    absent = "0" * 20
    answer = client.delete(MESSAGES, params={"ids": f"{ids[0]},{ids[2]},{ids[0]},{absent}"})
    assert answer.json() == {"deleted": 2}
    left = [message["id"] for message in client.get(MESSAGES).json()["messages"]]
    assert left == [ids[1], ids[3]]
    assert client.delete(MESSAGES).json() == {"deleted": 2}
    assert client.get(MESSAGES).json()["messages"] == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_what_is_no_id_names_no_message(client: TestClient, method: str) -> None:
    put(client)
    for text in ("x", "0" * 19, "0" * 21, "F" * 20, "0" * 20):
        answer = client.request(method, f"{MESSAGES}/{text}")
        assert (answer.status_code, answer.json()["reason"]) == (404, "no_message")


def test_queues_that_never_were_hold_nothing_to_look_at(client: TestClient) -> None:
    for method, path in [("GET", MESSAGES), ("DELETE", MESSAGES)]:
        answer = client.request(method, path)
        assert answer.status_code == 404
        assert answer.json()["reason"] in ("no_queue", "no_account")


def test_a_page_ends_early_rather_than_grow_beyond_a_request() -> None:
    client = TestClient(create(LocalService(Limits(request_bytes_max=1_000))))
    ids = [put(client, "x" * 300) for _ in range(5)]
    page = client.get(MESSAGES).json()
    assert [message["id"] for message in page["messages"]] == ids[:2]
    assert page["marker"] == ids[1]
    rest = client.get(MESSAGES, params={"marker": page["marker"]}).json()
    assert [message["id"] for message in rest["messages"]] == ids[2:4]


def test_a_body_of_the_size_of_a_request_still_fits_a_page() -> None:
    client = TestClient(create(LocalService(Limits(request_bytes_max=400, body_bytes_max=400))))
    answer = client.post(MESSAGES, content=b"x" * 400)
    page = client.get(MESSAGES).json()
    assert [message["id"] for message in page["messages"]] == answer.json()["ids"]


def test_a_page_may_be_larger_than_what_is_read_at_once(client: TestClient) -> None:
    count = 2 * AT_ONCE + 50
    client.post(MESSAGES, json={"messages": [{"body": n} for n in range(count)]})
    page = client.get(MESSAGES, params={"limit": count - 10}).json()
    assert [message["body"] for message in page["messages"]] == list(range(count - 10))
    rest = client.get(MESSAGES, params={"marker": page["marker"]}).json()
    assert [message["body"] for message in rest["messages"]] == list(range(count - 10, count))


def test_a_search_stops_after_a_while_says_so_and_can_go_on(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "SCANNED_MAX", 3)
    ids = [put(client, n, headers={"K": "south" if n == 4 else "north"}) for n in range(6)]
    wanted = {"header.k": "south"}
    page = client.get(MESSAGES, params=wanted).json()
    assert page == {"messages": [], "marker": ids[2], "partial": True}
    page = client.get(MESSAGES, params=wanted | {"marker": ids[2]}).json()
    assert [message["id"] for message in page["messages"]] == [ids[4]]
    assert (page["marker"], "partial" in page) == (None, False)


def test_messages_are_searched_by_all_that_a_filter_says(client: TestClient) -> None:
    ids = [put(client, 1, headers={"K": "v", "l": ""}, group="g"), put(client, 2, priority=9)]
    for query, found in (
        ("header.k=v", ids[:1]),
        ("header.k=", ids[:1]),
        ("header.k=w", []),
        ("header.k=v&header.L=&group=g&priority=0&min_age=0&state=ready", ids[:1]),
        ("group=", ids[1:]),
        ("priority=9&zone=north", ids[1:]),
        ("min_age=1", []),
        ("max_age=0", ids),
        ("min_deliveries=1", []),
        ("state=claimed", []),
    ):
        page = client.get(f"{MESSAGES}?{query}").json()
        assert [one["id"] for one in page["messages"]] == found, query


@pytest.mark.parametrize(
    "query",
    [
        "header.=v",
        "header.k=v&header.k=w",
        "header=v",
        "headers.k=v",
        "priority=10",
        "min_age=-1",
        "max_age=nan",
        "min_deliveries=-1",
        "state=lost",
        "zone=/",
        f"group={'g' * 129}",
    ],
)
def test_a_filter_that_means_nothing_is_refused(client: TestClient, query: str) -> None:
    assert client.get(f"{MESSAGES}?{query}").status_code == 400
