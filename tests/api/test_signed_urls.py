"""Pre-signed URLs: what one is good for, and that nothing in it can be changed."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl, urlencode

import httpx2
import pytest
from starlette.testclient import TestClient

import api.app
from access import bearing, make_key
from api.access.principals import Principal, Role
from api.access.signed_urls import Grant, SignedUrls, sign
from api.ports import AccessPolicy
from api.problems import Problem
from local_service import START_MS, LocalService
from statemachine.commands import RevokeKey

FAR_MS = START_MS + 30 * 86_400_000
HOUR_MS = 3_600_000
PATH = "/v1/shop/queues/orders/messages"


class Node:
    """A node with a key of an account, and one of the operator."""

    def __init__(self, pepper: bytes = b"0123456789abcdef") -> None:
        self.service = LocalService(access=AccessPolicy(required=True, pepper=pepper))
        key = make_key(self.service, "shop", ("produce", "consume"), expires_ms=FAR_MS)
        self.key = key.split("_")[1]
        self.operator = make_key(self.service).split("_")[1]
        self.urls = SignedUrls(self.service)
        self.query_left = b""

    @property
    def grant(self) -> Grant:
        until_ms = START_MS + HOUR_MS
        return Grant(self.key, "shop", "orders", ("GET", "POST"), ("messages", "claims"), until_ms)

    def sign(self, grant: Grant | None = None) -> str:
        return sign(self.service.access.pepper, grant or self.grant)

    def ask(self, query: str, method: str = "GET", path: str = PATH) -> Principal | None:
        scope = {"method": method, "path": path, "query_string": query.encode("latin-1")}
        who = asyncio.run(self.urls(scope, {}))
        self.query_left = bytes(scope["query_string"])  # type: ignore[arg-type]
        return who

    def is_refused(self, query: str, **asked: str) -> bool:
        try:
            return self.ask(query, **asked) is None
        except Problem as problem:
            return problem.reason == "unauthorized"


def test_a_signed_url_gives_what_its_key_may_in_that_queue_alone() -> None:
    node = Node()
    who = node.ask(node.sign())
    assert who == Principal(
        id=node.key,
        account="shop",
        roles=frozenset((Role.PRODUCE, Role.CONSUME)),
        queues=("orders",),
        kind="signed",
        expires_ms=node.grant.expires_ms,
    )


def test_a_request_without_a_signature_is_left_to_other_ways() -> None:
    assert Node().ask("limit=5") is None


def test_the_signature_is_taken_out_of_the_query_and_the_rest_stays() -> None:
    node = Node()
    node.ask(f"limit=5&{node.sign()}&marker=a%2Fb")
    assert node.query_left == b"limit=5&marker=a%2Fb"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "messages"),
        ("HEAD", "messages"),
        ("POST", "claims"),
        ("GET", "messages/0123"),
        ("POST", "claims/00ff/ack"),
    ],
)
def test_what_is_meant_and_below_is_let_in(method: str, path: str) -> None:
    node = Node()
    query = node.sign()
    assert node.ask(query, method, f"/v1/shop/queues/orders/{path}") is not None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/v1/shop/queues/orders/messages"),
        ("GET", "/v1/shop/queues/orders"),
        ("GET", "/v1/shop/queues/orders/stats"),
        ("GET", "/v1/shop/queues/orders/messagesx"),
        ("GET", "/v1/shop/queues/other/messages"),
        ("GET", "/v1/other/queues/orders/messages"),
        ("GET", "/v1/shop/keys"),
        ("GET", "/v1/shop"),
        ("GET", "/metrics"),
        ("TRACE", "/v1/shop/queues/orders/messages"),
    ],
)
def test_what_is_not_meant_is_refused(method: str, path: str) -> None:
    node = Node()
    assert node.is_refused(node.sign(), method=method, path=path)


@pytest.mark.parametrize("field", ["key", "methods", "paths", "expires", "signature"])
def test_no_field_can_be_changed_left_out_or_given_twice(field: str) -> None:
    node = Node()
    query = node.sign()
    fields = dict(parse_qsl(query))
    name = f"raftq-{field}"
    value = fields[name]
    changed = {
        "key": node.operator,
        "methods": "GET,POST,DELETE",
        "paths": "messages,claims,stats",
        "expires": str(int(fields["raftq-expires"]) + 1),
        "signature": value[:-1] + ("0" if value[-1] != "0" else "1"),
    }[field]
    assert node.is_refused(urlencode(fields | {name: changed}, safe=","))
    assert node.is_refused(urlencode(fields | {name: value[:-1]}, safe=","))
    assert node.is_refused(urlencode(fields | {name: ""}, safe=","))
    assert node.is_refused(f"{query}&{name}={value}")
    without = {other: text for other, text in fields.items() if other != name}
    if field != "signature":
        assert node.is_refused(urlencode(without, safe=","))
    else:
        # It is no signed URL then, and there is no other way here.
        assert node.ask(urlencode(without, safe=",")) is None


@pytest.mark.parametrize("expires", ["soon", "-1", "1e99", "9" * 400, "٣", "\xb2"])
def test_an_end_that_is_no_number_is_refused(expires: str) -> None:
    node = Node()
    fields = dict(parse_qsl(node.sign())) | {"raftq-expires": expires}
    query = "&".join(f"{name}={value}" for name, value in fields.items())
    assert node.is_refused(query.encode("latin-1", "replace").decode("latin-1"))


def test_a_signed_url_ends_on_the_millisecond() -> None:
    node = Node()
    query = node.sign()
    node.service.clock_ms = node.grant.expires_ms - 1
    assert node.ask(query) is not None
    node.service.clock_ms = node.grant.expires_ms
    assert node.is_refused(query)


def test_a_signed_url_ends_with_its_key() -> None:
    node = Node()
    query = node.sign(node.grant._replace(expires_ms=FAR_MS + HOUR_MS))
    assert node.ask(query) is not None
    node.service.clock_ms = FAR_MS
    assert node.is_refused(query)
    node.service.clock_ms = START_MS
    asyncio.run(node.service.propose(RevokeKey("shop", node.key)))
    assert node.is_refused(query)


def test_a_request_that_has_waited_is_asked_again_by_what_it_came_with() -> None:
    node = Node()
    scope = {"method": "GET", "path": PATH, "query_string": node.sign().encode()}
    assert asyncio.run(node.urls(scope, {})) == asyncio.run(node.urls(scope, {}))
    node.service.clock_ms = node.grant.expires_ms
    with pytest.raises(Problem, match="valid key"):
        asyncio.run(node.urls(scope, {}))


def test_a_url_may_no_more_than_its_key() -> None:
    node = Node()
    key = make_key(node.service, "shop", ("produce",), ("invoices*",)).split("_")[1]
    who = node.ask(node.sign(node.grant._replace(key=key)))
    assert who is not None
    assert (who.roles, who.queues) == ({Role.PRODUCE}, ())


def test_a_key_of_another_account_signs_nothing() -> None:
    node = Node()
    key = make_key(node.service, "other", ("consume",)).split("_")[1]
    assert node.is_refused(node.sign(node.grant._replace(key=key)))


def test_the_operators_urls_are_not_the_operators_key() -> None:
    node = Node()
    who = node.ask(node.sign(node.grant._replace(key=node.operator)))
    assert who is not None
    assert who.account == "shop"
    assert Role.ADMIN not in who.roles
    assert who.queues == ("orders",)


def test_nodes_with_another_secret_know_nothing_of_it() -> None:
    node = Node()
    assert node.is_refused(sign(b"another secret 00", node.grant))


class Served:
    """The whole application, for a key that may produce and consume."""

    def __init__(self) -> None:
        pepper = b"0123456789abcdef"
        self.service = LocalService(access=AccessPolicy(required=True, pepper=pepper))
        self.key = make_key(self.service, "shop", ("produce", "consume"), ("orders",))
        self.client = TestClient(api.app.create(self.service))

    def share(self, **asked: object) -> httpx2.Response:
        path = "/v1/shop/queues/orders/share"
        return self.client.post(path, json=asked, headers=bearing(self.key))


def test_who_has_a_key_can_hand_on_a_part_of_it_and_no_key_is_needed_then() -> None:
    served = Served()
    shared = served.share(methods=["POST", "GET"], paths=["messages"], expires_in=60)
    assert shared.status_code == 200, shared.text
    (url,) = shared.json()["urls"]
    assert url == f"/v1/shop/queues/orders/messages?{shared.json()['query']}"
    assert served.client.post(url, json={"body": 1}).status_code == 201
    assert served.client.get(f"{url}&limit=1").json()["messages"][0]["body"] == 1
    claims = "/v1/shop/queues/orders/claims"
    assert served.client.post(f"{claims}?{shared.json()['query']}").status_code == 401
    served.service.clock_ms += 60_000
    assert served.client.post(url, json={"body": 1}).status_code == 401


def test_what_comes_along_with_a_request_must_be_meant_too() -> None:
    served = Served()
    queue, own = "/v1/shop/queues/orders", bearing(served.key)
    for _ in range(2):
        served.client.post(f"{queue}/messages", json={"body": 1}, headers=own)
    claim = served.client.post(f"{queue}/claims", headers=own).json()["claim"]
    one = served.share(methods=["POST"], paths=[f"claims/{claim}/ack"]).json()["urls"][0]
    answer = served.client.post(one, json={"next": {}})
    assert (answer.status_code, answer.json()["reason"]) == (403, "forbidden")
    every = served.share(methods=["POST"], paths=["claims"]).json()["query"]
    told = served.client.post(f"{queue}/claims/{claim}/ack?{every}", json={"next": {}}).json()
    assert told["acked"] == len(told["next"]["messages"]) == 1
    assert served.client.post(one).json()["reason"] == "no_claim"


def test_a_signed_url_cannot_be_handed_on_again() -> None:
    served = Served()
    shared = served.share(methods=["POST"], paths=["share"]).json()
    again = served.client.post(shared["urls"][0], json={"methods": ["GET"], "paths": ["stats"]})
    assert (again.status_code, again.json()["reason"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"methods": [], "paths": ["messages"]}, "invalid_request"),
        ({"methods": ["TRACE"], "paths": ["messages"]}, "invalid_request"),
        ({"methods": ["GET"], "paths": []}, "invalid_request"),
        ({"methods": ["GET"], "paths": [""]}, "invalid_request"),
        ({"methods": ["GET"], "paths": ["/messages"]}, "invalid_request"),
        ({"methods": ["GET"], "paths": ["../other/messages"]}, "invalid_request"),
        ({"methods": ["GET"], "paths": ["messages,claims"]}, "invalid_request"),
        ({"methods": ["GET"], "paths": ["messages\nclaims"]}, "invalid_request"),
        ({"methods": ["GET"], "paths": ["stats"], "expires_in": 0}, "out_of_range"),
        ({"methods": ["GET"], "paths": ["stats"], "expires_in": 1e9}, "out_of_range"),
        ({"methods": ["GET"], "paths": ["stats"], "for": "ever"}, "invalid_request"),
    ],
)
def test_what_cannot_be_shared_is_refused(asked: dict[str, object], reason: str) -> None:
    answer = Served().share(**asked)
    assert (answer.status_code, answer.json()["reason"]) == (400, reason)


def test_only_a_key_can_be_shared() -> None:
    answer = TestClient(api.app.create(LocalService())).post(
        "/v1/shop/queues/orders/share", json={"methods": ["GET"], "paths": ["stats"]}
    )
    assert (answer.status_code, answer.json()["reason"]) == (403, "forbidden")
