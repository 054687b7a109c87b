"""What is refused at the door, and in which words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from api.app import create
from api.fairness.admission import PLACE
from api.ports import Limits, OutcomeUnknown, Unavailable
from api.rest import requests
from asgi_client import Exchange
from local_service import LocalService

QUEUE = "/v1/shop/queues/orders"
MESSAGES = f"{QUEUE}/messages"
CLAIM = f"{QUEUE}/claims/{'0' * 16}"
JSON = {"Content-Type": "application/json"}

SMALL = Limits(
    body_bytes_max=100,
    request_bytes_max=400,
    batch_messages_max=3,
    headers_max=2,
    header_bytes_max=20,
    claim_messages_max=5,
    wait_ms_max=1_000,
    duration_ms_max=10_000,
    page_max=7,
)


@pytest.fixture
def small() -> TestClient:
    return TestClient(create(LocalService(SMALL)), base_url="http://test")


def problem(answer: Any) -> tuple[int, str, Any, Any]:
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == answer.status_code
    assert document["type"] == f"urn:raftq:problem:{document['reason']}"
    assert document["title"]
    assert document["detail"]
    return (
        document["status"],
        document["reason"],
        document.get("field"),
        document.get("limit"),
    )


@pytest.mark.parametrize(
    ("method", "target", "body", "expected"),
    [
        # Messages.
        ("POST", MESSAGES, {"body": "x" * 99}, (413, "body_too_large", "body", 100)),
        (
            "POST",
            MESSAGES,
            {"messages": [{"body": 1}] * 4},
            (400, "too_many_messages", "messages", 3),
        ),
        ("POST", MESSAGES, {"messages": []}, (400, "invalid_request", "messages", None)),
        ("POST", MESSAGES, {"body": "x" * 400}, (413, "request_too_large", None, 400)),
        ("POST", MESSAGES, {}, (400, "invalid_request", None, None)),
        ("POST", MESSAGES, [], (400, "invalid_request", None, None)),
        ("POST", MESSAGES, {"body": 1, "tll": 5}, (400, "invalid_request", "tll", None)),
        (
            "POST",
            MESSAGES,
            {"messages": [{"body": 1}, {"body": 1, "tll": 5}]},
            (400, "invalid_request", "messages[1].tll", None),
        ),
        (
            "POST",
            MESSAGES,
            {"messages": [{"body": 1}], "body": 1},
            (400, "invalid_request", "body", None),
        ),
        ("POST", MESSAGES, {"body": 1, "ttl": -1}, (400, "out_of_range", "ttl", 10)),
        ("POST", MESSAGES, {"body": 1, "ttl": 10.001}, (400, "out_of_range", "ttl", 10)),
        ("POST", MESSAGES, {"body": 1, "delay": 1e300}, (400, "out_of_range", "delay", 10)),
        ("POST", MESSAGES, {"body": 1, "ttl": "5"}, (400, "invalid_request", "ttl", None)),
        ("POST", MESSAGES, {"body": 1, "zone": "a b"}, (400, "invalid_name", "zone", None)),
        ("POST", MESSAGES, {"body": 1, "zone": ""}, (400, "invalid_name", "zone", None)),
        ("POST", MESSAGES, {"body": 1, "priority": 10}, (400, "out_of_range", "priority", 9)),
        ("POST", MESSAGES, {"body": 1, "priority": -1}, (400, "out_of_range", "priority", 9)),
        (
            "POST",
            MESSAGES,
            {"body": 1, "priority": 1.5},
            (400, "invalid_request", "priority", None),
        ),
        ("POST", MESSAGES, {"body": 1, "group": ""}, (400, "out_of_range", "group", 128)),
        (
            "POST",
            MESSAGES,
            {"body": 1, "group": "\u20ac" * 43},
            (400, "out_of_range", "group", 128),
        ),
        (
            "POST",
            f"{QUEUE}/claims",
            {"zone_mode": "near"},
            (400, "invalid_request", "zone_mode", None),
        ),
        (
            "POST",
            f"{QUEUE}/claims",
            {"locality_wait": -1},
            (400, "out_of_range", "locality_wait", 10),
        ),
        ("PUT", QUEUE, {"zone_mode": "near"}, (400, "invalid_request", "zone_mode", None)),
        ("PATCH", QUEUE, {"locality_wait": 11}, (400, "out_of_range", "locality_wait", 10)),
        (
            "POST",
            MESSAGES,
            {"body": 1, "headers": {"a": "1", "b": "2", "c": "3"}},
            (431, "headers_too_large", "headers", 2),
        ),
        (
            "POST",
            MESSAGES,
            {"body": 1, "headers": {"a": "x" * 20}},
            (431, "headers_too_large", "headers", 20),
        ),
        (
            "POST",
            MESSAGES,
            {"body": 1, "headers": {"a b": "x"}},
            (400, "invalid_header", "headers", None),
        ),
        (
            "POST",
            MESSAGES,
            {"body": 1, "headers": {"a": "x\r\ny: z"}},
            (400, "invalid_header", "headers", None),
        ),
        ("POST", f"{MESSAGES}?ttl=1", {"body": 1}, (400, "invalid_request", None, None)),
        ("GET", f"{MESSAGES}?limit=8", None, (400, "out_of_range", "limit", 7)),
        ("GET", f"{MESSAGES}?limit=0", None, (400, "out_of_range", "limit", 7)),
        ("GET", f"{MESSAGES}?limit=x", None, (400, "invalid_request", "limit", None)),
        ("GET", f"{MESSAGES}?limits=1", None, (400, "invalid_request", "limits", None)),
        ("GET", f"{MESSAGES}?limit=1&limit=2", None, (400, "invalid_request", "limit", None)),
        ("GET", f"{MESSAGES}?marker=x", None, (400, "invalid_id", "marker", None)),
        ("GET", f"{MESSAGES}?zone=%FF", None, (400, "invalid_request", None, None)),
        (
            "GET",
            f"{MESSAGES}?" + "&".join(f"a{n}" for n in range(40)),
            None,
            (400, "invalid_request", None, None),
        ),
        ("DELETE", f"{MESSAGES}?ids=x", None, (400, "invalid_id", "ids", None)),
        ("DELETE", f"{MESSAGES}?ids=", None, (400, "invalid_id", "ids", None)),
        ("DELETE", f"{MESSAGES}?ids=a,b,c,d", None, (400, "out_of_range", "ids", 3)),
        # Claims.
        ("POST", f"{QUEUE}/claims", {"limit": 0}, (400, "out_of_range", "limit", 5)),
        ("POST", f"{QUEUE}/claims", {"limit": 6}, (400, "out_of_range", "limit", 5)),
        ("POST", f"{QUEUE}/claims", {"limit": 1.5}, (400, "invalid_request", "limit", None)),
        ("POST", f"{QUEUE}/claims", {"wait": 1.5}, (400, "out_of_range", "wait", 1)),
        ("POST", f"{QUEUE}/claims", {"lease": 0}, (400, "out_of_range", "lease", 10)),
        ("POST", f"{QUEUE}/claims", {"leese": 1}, (400, "invalid_request", "leese", None)),
        ("POST", f"{QUEUE}/claims?limit=1", None, (400, "invalid_request", "limit", None)),
        ("POST", f"{CLAIM}/ack", {"ids": []}, (400, "out_of_range", "ids", 5)),
        ("POST", f"{CLAIM}/ack", {"ids": ["x"]}, (400, "invalid_id", "ids", None)),
        ("DELETE", f"{CLAIM}?delay=nan", None, (400, "out_of_range", "delay", 10)),
        ("DELETE", f"{CLAIM}?delay=inf", None, (400, "out_of_range", "delay", 10)),
        ("PATCH", CLAIM, {"lease": -1}, (400, "out_of_range", "lease", 10)),
        # Names.
        ("GET", "/v1/a%20b/queues", None, (400, "invalid_name", "account", None)),
        ("GET", "/v1/.a/queues", None, (400, "invalid_name", "account", None)),
        ("GET", f"/v1/a/queues/{'q' * 129}", None, (400, "invalid_name", "queue", None)),
        ("GET", "/v1/a/queues/%E2%82%AC", None, (400, "invalid_name", "queue", None)),
        ("POST", "/v1/a/queues/q%0A/messages", {"body": 1}, (400, "invalid_name", "queue", None)),
        # Queues.
        ("PUT", QUEUE, {"lease": 0}, (400, "out_of_range", "lease", 10)),
        ("PUT", QUEUE, {"metadata": [1]}, (400, "invalid_request", "metadata", None)),
        ("PATCH", QUEUE, {"colour": 1}, (400, "invalid_request", "colour", None)),
        # Nowhere.
        ("GET", "/", None, (404, "no_route", None, None)),
        ("GET", "/v1/", None, (404, "no_route", None, None)),
        ("GET", f"{QUEUE}/stats/", None, (404, "no_route", None, None)),
        ("PUT", MESSAGES, None, (405, "method_not_allowed", None, None)),
        ("BREW", "/cluster", None, (405, "method_not_allowed", None, None)),
    ],
)
def test_a_wrong_request_is_refused_by_name(
    small: TestClient, method: str, target: str, body: Any, expected: tuple[Any, ...]
) -> None:
    answer = (
        small.request(method, target) if body is None else small.request(method, target, json=body)
    )
    assert problem(answer) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"body": }',
        b'{"body": 01}',
        b'{"body": "\xff"}',
        b'{"body": "\xed\xa0\x80"}',
        b'{"body": 1} 2',
        b'{"body": ' + b"[" * 150 + b"}",
        b'{"body": "a\nb"}',
        b'\xef\xbb\xbf{"body": 1}',
        b'{"messages": [{"body": Infinity}]}',
        b'{"colour": 1, "body": }',
    ],
)
def test_what_is_not_json_is_refused(small: TestClient, data: bytes) -> None:
    answer = small.post(MESSAGES, content=data, headers=JSON)
    assert problem(answer)[:2] == (400, "invalid_request")
    assert "the body is not JSON" in answer.json()["detail"]


def test_deep_nesting_is_refused(client: TestClient) -> None:
    data = b'{"body": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    answer = client.post(MESSAGES, content=data, headers=JSON)
    assert problem(answer)[:2] == (400, "invalid_request")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Content-Type": "text/plain"}, (415, "unsupported_media_type", None, None)),
        ({}, (415, "unsupported_media_type", None, None)),
        (JSON | {"Content-Encoding": "gzip"}, (415, "unsupported_media_type", None, None)),
        (
            {"Content-Type": "application/json; charset=utf-16"},
            (415, "unsupported_media_type", None, None),
        ),
        (
            JSON | {"Idempotency-Key": ""},
            (400, "invalid_header", "Idempotency-Key", 255),
        ),
        (
            JSON | {"Idempotency-Key": "x" * 256},
            (400, "invalid_header", "Idempotency-Key", 255),
        ),
    ],
)
def test_wrong_headers_are_refused(
    small: TestClient, headers: dict[str, str], expected: tuple[Any, ...]
) -> None:
    assert problem(small.post(f"{QUEUE}/claims", content=b"{}", headers=headers)) == expected


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Raftq-Header-A": "x" * 20}, (431, "headers_too_large", "headers", 20)),
        ({f"Raftq-Header-{n}": "x" for n in range(3)}, (431, "headers_too_large", "headers", 2)),
        ({"Content-Type": "x" * 300}, (400, "invalid_header", "Content-Type", 255)),
    ],
)
def test_headers_of_raw_messages_have_limits(
    small: TestClient, headers: dict[str, str], reason: tuple[Any, ...]
) -> None:
    assert problem(small.post(MESSAGES, content=b"x", headers=headers)) == reason


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", ';charset="UTF-8"', ";"])
def test_json_may_name_its_charset(small: TestClient, charset: str) -> None:
    headers = {"Content-Type": f"Application/JSON{charset}"}
    answer = small.post(MESSAGES, content=b'{"body": 1}', headers=headers)
    assert answer.status_code == 201


@pytest.mark.anyio
async def test_a_declared_length_is_refused_before_anything_is_read() -> None:
    app = create(LocalService(SMALL))
    exchange = Exchange(app, "POST", MESSAGES, chunks=[b"x"], headers={"Content-Length": "401"})
    reply = await exchange.run()
    assert (reply.status, exchange.chunks_read) == (413, 0)
    assert reply.headers["connection"] == "close"


@pytest.mark.anyio
async def test_a_stream_is_refused_as_soon_as_it_is_too_long() -> None:
    app = create(LocalService(SMALL))
    exchange = Exchange(app, "POST", MESSAGES, chunks=[b"x" * 150] * 50)
    assert (await exchange.run()).status == 413
    assert exchange.chunks_read == 3


@pytest.mark.anyio
async def test_a_body_may_come_in_pieces() -> None:
    app = create(LocalService(SMALL))
    chunks = [b'{"bo', b"", b'dy": ', b"1}"]
    reply = await Exchange(app, "POST", MESSAGES, chunks=chunks, headers=JSON).run()
    assert reply.status == 201


@pytest.mark.anyio
async def test_a_client_that_leaves_before_its_body_is_whole_puts_nothing() -> None:
    service = LocalService(SMALL)
    exchange = Exchange(create(service), "POST", MESSAGES, chunks=[])
    exchange.left.set()
    assert (await exchange.run()).status == 0
    assert service.proposed == []
    assert service.observed == [("/v1/{account}/queues/{queue}/messages", "POST", 499)]


def test_a_wrong_method_is_told_the_right_ones(small: TestClient) -> None:
    assert small.put(MESSAGES).headers["Allow"] == "DELETE, GET, HEAD, POST"
    assert small.post("/cluster").headers["Allow"] == "GET, HEAD"


def test_durations_are_rounded_to_milliseconds_but_never_to_nothing() -> None:
    service = LocalService()
    client = TestClient(create(service))
    for ttl, stored in [(0.0004, 1), (1.1, 1100), (0.0016, 2), (0, 0), (3, 3000), (None, None)]:
        client.post(MESSAGES, json={"body": 1, "ttl": ttl})
        assert service.proposed[-1].messages[0].ttl_ms == stored  # type: ignore[union-attr]  # Enqueue.


def test_an_unavailable_service_says_when_to_come_back(
    client: TestClient, service: LocalService
) -> None:
    service.failures.append(Unavailable("overloaded", "too many requests wait", 7))
    answer = client.post(MESSAGES, json={"body": 1})
    assert problem(answer)[:2] == (503, "overloaded")
    assert answer.headers["Retry-After"] == "7"


def test_an_unknown_outcome_says_so(client: TestClient, service: LocalService) -> None:
    service.failures.append(OutcomeUnknown("The leader went away."))
    answer = client.post(MESSAGES, json={"body": 1})
    assert problem(answer)[:2] == (504, "outcome_unknown")
    assert "Idempotency-Key" in answer.json()["detail"]


REPEATED = ("Authorization", "Content-Type", "Host", "Idempotency-Key", "Raftq-Header-Colour")


@pytest.mark.parametrize("name", REPEATED)
def test_a_header_that_decides_something_may_be_given_once(name: str, small: TestClient) -> None:
    twice = [("Host", "test")] * (name != "Host") + [(name, "a"), (name.lower(), "a")]
    answer = small.request("PUT", QUEUE, headers=twice)
    assert problem(answer) == (400, "invalid_header", name.lower(), None)


@pytest.mark.parametrize(
    ("headers", "target", "field"),
    [
        ({"Raftq-Zone": ""}, "/v1", "Raftq-Zone"),
        ({"Raftq-Zone": "a b"}, "/livez", "Raftq-Zone"),
        ({}, "/v1?limit=null", "limit"),
        ({"Raftq-Min-Index": "x"}, "/v1?consistency=local", "Raftq-Min-Index"),
        ({"Raftq-Min-Index": "9" * 20}, "/v1?consistency=linearizable", "Raftq-Min-Index"),
        ({"Raftq-Consistency": "x"}, "/v1?consistency=local", "Raftq-Consistency"),
        ({"Idempotency-Key": ""}, "/v1", "Idempotency-Key"),
        ({}, f"{MESSAGES}?state=Null", "state"),
    ],
)
def test_what_the_document_excludes_is_refused(
    headers: dict[str, str], target: str, field: str, small: TestClient
) -> None:
    answer = small.get(target, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["field"] == field


def test_the_word_null_may_be_a_text(small: TestClient) -> None:
    assert small.get("/v1?prefix=null").status_code == 200


def test_headers_that_decide_nothing_may_be_given_twice(small: TestClient) -> None:
    answer = small.get("/v1", headers=[("Accept", "*/*"), ("Accept", "text/html")])
    assert answer.status_code == 200


def test_a_request_of_http_1_1_names_its_host() -> None:
    app = create(LocalService())

    async def asked(version: str) -> int:
        exchange = Exchange(app, "GET", "/v1")
        exchange.scope["headers"] = []
        exchange.scope["http_version"] = version
        return (await exchange.run()).status

    assert asyncio.run(asked("1.1")) == 400
    assert asyncio.run(asked("1.0")) == 200


class Crowded:
    """A place in a node that has no room for so many times."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.held = 0

    def hold(self, size: int) -> bool:
        self.refusals -= 1
        if self.refusals < 0:
            self.held = size
        return self.refusals < 0


@pytest.mark.parametrize("refusals", [0, 1, requests.ROOM_ASKED_MAX])
def test_a_stream_waits_while_there_is_no_room_for_a_moment(
    monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    monkeypatch.setattr(requests, "ROOM_AGAIN_S", 0)
    place = Crowded(refusals)
    asyncio.run(call_in(place).find_room(1_000))
    assert place.held == 1_000


def test_and_ends_if_there_is_none_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "ROOM_AGAIN_S", 0)
    place = Crowded(requests.ROOM_ASKED_MAX + 1)
    with pytest.raises(Unavailable) as raised:
        asyncio.run(call_in(place).find_room(1_000))
    assert (raised.value.reason, place.held) == ("overloaded", 0)


def call_in(place: Crowded) -> requests.Call:
    exchange = Exchange(create(LocalService()), "GET", "/v1")
    scope = {**exchange.scope, "path_params": {}, "extensions": {PLACE: place}}
    return requests.Call(scope, nothing_comes, LocalService(), "north")


async def nothing_comes() -> Message:
    raise AssertionError("nobody asks for it")
