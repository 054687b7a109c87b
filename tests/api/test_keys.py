"""The life of a key: made, shown once, used, rotated, ended; and all that is not let in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from access import bearing, make_key
from api.access import bearer, minting, tokens
from api.app import create
from api.ports import AccessPolicy
from asgi_client import Exchange, request
from local_service import LocalService
from statemachine import keyring
from statemachine.commands import KeySettings, PutKey, RevokeKey

KEYS = "/v1/shop/keys"
QUEUE = "/v1/shop/queues/orders"
ALL = ["produce", "consume", "manage"]


@pytest.fixture
def service() -> LocalService:
    return LocalService(access=AccessPolicy(required=True, pepper=b"pepper"))


@pytest.fixture
def client(service: LocalService) -> Iterator[TestClient]:
    with TestClient(create(service), base_url="http://test") as client:
        yield client


@pytest.fixture
def operator(service: LocalService) -> dict[str, str]:
    return bearing(make_key(service))


def lets_in(client: TestClient, token: str) -> bool:
    answer = client.get("/v1/shop", headers=bearing(token))
    assert answer.status_code in (200, 401), answer.text
    return answer.status_code == 200


def test_a_key_is_made_used_rotated_and_revoked(
    client: TestClient, service: LocalService, operator: dict[str, str]
) -> None:
    body = {"roles": ALL, "name": "worker 7", "queues": ["o*"], "expires_in": 86_400}
    made = client.post(KEYS, json=body, headers=operator)
    assert made.status_code == 201
    key = made.json()
    path = made.headers["Location"]
    assert path == f"{KEYS}/{key['id']}"
    assert tokens.id_of(key["key"]) == key["id"]
    assert lets_in(client, key["key"])
    shown = client.get(path, headers=operator).json()
    assert shown == {name: value for name, value in key.items() if name != "key"}
    assert client.get(KEYS, headers=operator).json() == {"keys": [shown]}

    rotated = client.post(f"{path}/rotate", json={"grace": 60}, headers=operator).json()
    assert rotated["key"] != key["key"]
    assert rotated["previous_until"] == "2026-01-01T00:01:00Z"
    assert lets_in(client, key["key"])
    assert lets_in(client, rotated["key"])
    service.advance(60)
    assert not lets_in(client, key["key"])
    assert lets_in(client, rotated["key"])
    assert client.get(path, headers=operator).json()["previous_until"] is None

    assert client.delete(path, headers=operator).status_code == 204
    assert not lets_in(client, rotated["key"])
    assert client.get(path, headers=operator).json()["reason"] == "no_key"
    assert client.delete(path, headers=operator).json()["reason"] == "no_key"


def test_the_operators_keys_go_the_same_way(
    client: TestClient, service: LocalService, operator: dict[str, str]
) -> None:
    made = client.post("/cluster/keys", json={"roles": ["admin"]}, headers=operator)
    assert made.headers["Location"] == f"/cluster/keys/{made.json()['id']}"
    mine = bearing(made.json()["key"])
    assert client.put("/v1/shop", headers=mine).status_code == 201
    assert len(client.get("/cluster/keys", headers=mine).json()["keys"]) == 2
    path = made.headers["Location"]
    rotated = client.post(f"{path}/rotate", json={"grace": 0}, headers=operator).json()["key"]
    assert client.get("/v1/shop", headers=mine).status_code == 401
    assert client.delete(path, headers=bearing(rotated)).status_code == 204
    assert client.get("/v1/shop", headers=bearing(rotated)).status_code == 401


def test_a_key_ends_when_it_expires_though_it_was_used_before(
    client: TestClient, service: LocalService
) -> None:
    token = make_key(service, "shop", ALL, expires_ms=service.now_ms() + 5_000)
    assert lets_in(client, token)
    service.advance(4.999)
    assert lets_in(client, token)
    service.advance(0.001)
    assert not lets_in(client, token)


def test_a_deleted_accounts_keys_are_no_keys_of_the_next_one(
    client: TestClient, service: LocalService, operator: dict[str, str]
) -> None:
    token = make_key(service, "shop", ALL)
    assert lets_in(client, token)
    assert client.delete("/v1/shop", headers=operator).status_code == 204
    assert client.put("/v1/shop", headers=operator).status_code == 201
    assert not lets_in(client, token)
    assert client.get(KEYS, headers=operator).json() == {"keys": []}


def strangers(service: LocalService) -> dict[str, str | None]:
    """Of every kind that is not let in."""
    good = make_key(service, "shop", ALL)
    revoked = minting.new_token(minting.new_id())
    key_id = tokens.id_of(good)
    assert key_id is not None
    return {
        "none": None,
        "empty": "Bearer ",
        "another scheme": f"Basic {good}",
        "rubbish": "Bearer rubbish",
        "bytes": "Bearer \xff\xfe",
        "cut off": f"Bearer {good[:-1]}",
        "mistyped": f"Bearer {good[:30]}{'a' if good[30] != 'a' else 'b'}{good[31:]}",
        "unknown": f"Bearer {revoked}",
        "of a known id": f"Bearer {minting.new_token(key_id)}",
        "expired": f"Bearer {make_key(service, 'shop', ALL, expires_ms=1)}",
        "foreign": f"Bearer {make_key(service, 'other', ALL)}",
        "long": f"Bearer rq_{'a' * 10_000}",
    }


def test_all_that_are_not_let_in_get_the_same_answer(
    client: TestClient, service: LocalService
) -> None:
    seen = []
    for given in strangers(service).values():
        headers = [] if given is None else [(b"authorization", given.encode("latin-1"))]
        answer = client.get(QUEUE, headers=headers)
        tags = {name: value for name, value in answer.headers.items() if "raftq-" not in name}
        seen.append((answer.status_code, answer.content, tags))
    assert seen == [seen[0]] * len(seen)
    assert seen[0][0] == 401


def test_whoever_shows_a_well_formed_key_costs_the_same_work(
    client: TestClient, service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    work: list[str] = []
    for name, function in (("digest", tokens.digest), ("key", bearer.keyring.key)):

        def counted(*given: Any, name: str = name, function: Any = function) -> Any:
            work.append(name)
            return function(*given)

        module = tokens if name == "digest" else bearer.keyring
        monkeypatch.setattr(module, name, counted)

    def compared(left: bytes, right: bytes) -> bool:
        work.append(f"compare {len(left)} {len(right)}")
        return left == right

    monkeypatch.setattr(bearer, "compare_digest", compared)
    given = strangers(service)
    good = make_key(service, "shop", ALL)
    each = []
    for name in ("unknown", "of a known id", "expired", "foreign"):
        work.clear()
        assert client.get(QUEUE, headers={"Authorization": str(given[name])}).status_code == 401
        each.append([*work])
    work.clear()
    assert lets_in(client, good)
    assert each == [work] * 4
    assert work == ["digest", "key", "compare 32 32", "compare 32 32"]


@pytest.mark.parametrize("text", ["bearer {}", "BEARER {}", "Bearer   {} "])
def test_the_scheme_may_be_written_as_one_likes(
    client: TestClient, service: LocalService, text: str
) -> None:
    headers = {"Authorization": text.format(make_key(service, "shop", ALL))}
    assert client.get("/v1/shop", headers=headers).status_code == 200


def test_a_manager_hands_out_no_more_than_he_has(client: TestClient, service: LocalService) -> None:
    end_ms = service.now_ms() + 60_000
    mine = bearing(make_key(service, "shop", ["manage", "consume"], ["o*", "x"], end_ms))

    def made(**body: Any) -> int:
        status: int = client.post(KEYS, json=body, headers=mine).status_code
        return status

    rest = {"queues": ["o*"], "expires_in": 60}
    assert made(roles=["manage"], **rest) == 201
    assert made(roles=["consume", "manage"], queues=["orders.*", "x"], expires_in=59) == 201
    assert made(roles=["produce"], **rest) == 403
    assert made(roles=["consume"], queues=["*"], expires_in=60) == 403
    assert made(roles=["consume"], expires_in=60) == 403
    assert made(roles=["consume"], queues=["o*", "y"], expires_in=60) == 403
    assert made(roles=["consume"], queues=["o*"], expires_in=61) == 403
    assert made(roles=["consume"], queues=["o*"]) == 403


def test_a_manager_has_no_say_over_keys_that_may_more(
    client: TestClient, service: LocalService
) -> None:
    mine = make_key(service, "shop", ["manage"], ["o*"])
    mighty = tokens.id_of(make_key(service, "shop", ["manage"], ["*"]))
    foreign = tokens.id_of(make_key(service, "other", ["manage"], ["o*"]))
    listed = client.get(KEYS, headers=bearing(mine)).json()["keys"]
    assert [one["id"] for one in listed] == [tokens.id_of(mine)]
    before = len(service.proposed)
    for method, suffix in (("GET", ""), ("DELETE", ""), ("POST", "/rotate")):
        answer = client.request(method, f"{KEYS}/{mighty}{suffix}", headers=bearing(mine))
        assert answer.json()["reason"] == "forbidden"
        answer = client.request(method, f"{KEYS}/{foreign}{suffix}", headers=bearing(mine))
        assert answer.json()["reason"] == "no_key"
    assert len(service.proposed) == before


def test_nobody_makes_a_key_that_outlives_his_own_by_rotating_it(
    client: TestClient, service: LocalService
) -> None:
    for_ever = tokens.id_of(make_key(service, "shop", ["manage"]))
    mine = bearing(make_key(service, "shop", ["manage"], expires_ms=service.now_ms() + 1_000))
    assert client.get(f"{KEYS}/{for_ever}", headers=mine).status_code == 200
    assert client.post(f"{KEYS}/{for_ever}/rotate", headers=mine).status_code == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"roles": []}, "roles"),
        ({"roles": ["admin"]}, "roles"),
        ({"roles": ["owner"]}, "roles"),
        ({}, "roles"),
        ({"roles": ["consume"], "queues": []}, "queues"),
        ({"roles": ["consume"], "queues": ["a b"]}, "queues"),
        ({"roles": ["consume"], "queues": ["ä*"]}, "queues"),
        ({"roles": ["consume"], "queues": ["x" * 129]}, "queues"),
        ({"roles": ["consume"], "queues": ["a"] * 33}, "queues"),
        ({"roles": ["consume"], "expires_in": 0}, "expires_in"),
        ({"roles": ["consume"], "expires_in": 1e12}, "expires_in"),
        ({"roles": ["consume"], "name": "x\n"}, "name"),
        ({"roles": ["consume"], "secret": "x"}, "secret"),
    ],
)
def test_what_is_wrong_with_a_new_key_is_said(
    client: TestClient, operator: dict[str, str], body: Any, field: str
) -> None:
    answer = client.post(KEYS, json=body, headers=operator)
    assert answer.status_code == 400
    assert answer.json().get("field", field).partition("[")[0] == field


@pytest.mark.parametrize("path", [KEYS, "/cluster/keys"])
def test_a_repetition_does_not_show_the_secret_again(
    client: TestClient, operator: dict[str, str], path: str
) -> None:
    headers = operator | {"Idempotency-Key": "k-1"}
    first = client.post(path, json={"roles": ["consume"]}, headers=headers).json()
    again = client.post(path, json={"roles": ["consume"]}, headers=headers)
    assert again.status_code == 200
    assert "key" not in again.json()
    assert again.json() == {name: value for name, value in first.items() if name != "key"}
    rotate = f"{path}/{first['id']}/rotate"
    assert "key" in client.post(rotate, headers=operator | {"Idempotency-Key": "k-2"}).json()
    assert "key" not in client.post(rotate, headers=operator | {"Idempotency-Key": "k-2"}).json()


def test_no_secret_is_in_the_log_or_in_the_state(
    client: TestClient, service: LocalService, operator: dict[str, str]
) -> None:
    key = client.post(KEYS, json={"roles": ALL}, headers=operator).json()["key"]
    secret = key.rpartition("_")[2][: tokens.SECRET_DIGITS]
    for text in (repr(service.proposed), repr(list(service.reader().scan(b"", b"\xff")))):
        assert secret not in text


def test_a_replica_that_may_be_behind_judges_no_keys(
    client: TestClient, service: LocalService, operator: dict[str, str]
) -> None:
    service.staleness_ms = 1_000
    assert client.get("/v1", headers=operator).status_code == 200
    service.staleness_ms = 1_001
    answer = client.get("/v1", headers=operator)
    assert (answer.status_code, answer.json()["reason"]) == (503, "not_current")
    assert answer.headers["Retry-After"] == "1"
    assert client.get("/livez").status_code == 200


def test_nothing_is_remembered_over_a_change_of_keys(
    client: TestClient, service: LocalService, operator: dict[str, str]
) -> None:
    tokens_made = [make_key(service, "shop", ALL) for _ in range(3)]
    for token in tokens_made * 2:
        assert lets_in(client, token)
    client.delete(f"{KEYS}/{tokens.id_of(tokens_made[1])}", headers=operator)
    assert [lets_in(client, token) for token in tokens_made] == [True, False, True]


def test_what_is_remembered_is_bounded(
    client: TestClient, service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bearer, "KNOWN_MAX", 5)
    way = bearer.BearerKeys(service)
    made = [make_key(service, "shop", ALL) for _ in range(12)]

    async def look() -> None:
        for token in made * 2:
            who = await way({}, {b"authorization": b"Bearer " + token.encode()})
            assert who is not None
            assert who.account == "shop"
            assert len(way._known) <= 5

    asyncio.run(look())


@pytest.mark.anyio
async def test_a_parked_claim_ends_with_its_key_and_the_next_one_gets_the_message(
    service: LocalService,
) -> None:
    app, posts = create(service), f"{QUEUE}/claims"
    ended, stays = [await put_key(service, "consume") for _ in range(2)]
    polls = []
    for number, token in enumerate((ended, stays), start=1):
        exchange = Exchange(app, "POST", posts, body={"wait": 30}, headers=bearing(token))
        polls.append(asyncio.create_task(exchange.run()))
        await until(lambda: service.parked("shop", "orders") == number)  # noqa: B023 - now.
    key_id = tokens.id_of(ended)
    assert key_id is not None
    await service.propose(RevokeKey("shop", key_id))
    writer = bearing(await put_key(service, "produce"))
    await request(app, "POST", f"{QUEUE}/messages", body={"body": 1}, headers=writer)
    async with asyncio.timeout(5):
        first, second = await asyncio.gather(*polls)
    assert first.status == 401
    assert second.status == 201


@pytest.mark.anyio
async def test_a_parked_claim_waits_out_a_moment_without_a_leader(service: LocalService) -> None:
    app, headers = create(service), bearing(await put_key(service, "consume"))
    exchange = Exchange(app, "POST", f"{QUEUE}/claims", body={"wait": 30}, headers=headers)
    poll = asyncio.create_task(exchange.run())
    writer = bearing(await put_key(service, "produce"))
    async with asyncio.timeout(5):
        await until(lambda: service.parked("shop", "orders"))
        await request(app, "POST", f"{QUEUE}/messages", body={"body": 1}, headers=writer)
        service.staleness_ms = 5_000
        await asyncio.sleep(0.02)
        assert not poll.done()
        service.staleness_ms = 0
        assert (await poll).status == 201


@pytest.mark.anyio
async def test_a_stream_of_events_ends_with_its_key(service: LocalService) -> None:
    app, token = create(service), await put_key(service, "consume", "produce")
    await request(app, "POST", f"{QUEUE}/messages", body={"body": 1}, headers=bearing(token))
    target = f"{QUEUE}/events?from=oldest"
    stream = asyncio.create_task(Exchange(app, "GET", target, headers=bearing(token)).run())
    async with asyncio.timeout(5):
        await until(lambda: service.watching)
        writer = bearing(await put_key(service, "produce"))
        key_id = tokens.id_of(token)
        assert key_id is not None
        await service.propose(RevokeKey("shop", key_id))
        body = {"body": 2, "headers": {"k": "later"}}
        await request(app, "POST", f"{QUEUE}/messages", body=body, headers=writer)
        said = (await stream).body.decode()
    assert said.count("event: enqueued") == 1
    assert 'event: cut\ndata: {"reason":"unauthorized"' in said


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what is awaited has no event of its own.
            await asyncio.sleep(0.001)


async def put_key(service: LocalService, *roles: str) -> str:
    """A new key, without leaving the loop."""
    key_id = minting.new_id()
    token = minting.new_token(key_id)
    digest = tokens.digest(service.access.pepper, token)
    await service.propose(PutKey("shop", key_id, KeySettings("", roles, ("*",)), digest))
    return token


@pytest.mark.anyio
async def test_who_was_let_in_just_before_a_revocation_manages_nothing_after_it(
    service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even at a replica that has not heard of it: no new key outlives the one revoked."""
    app, token = create(service), await put_key(service, "manage")
    key_id = tokens.id_of(token)
    assert key_id is not None
    propose = service.propose

    async def overtaken(command: Any, **more: Any) -> Any:
        await propose(RevokeKey("shop", key_id))
        return await propose(command, **more)

    monkeypatch.setattr(service, "propose", overtaken)
    asked = {"roles": ["manage"]}
    reply = await request(app, "POST", KEYS, body=asked, headers=bearing(token))
    assert (reply.status, reply.json()["reason"]) == (401, "unauthorized")
    assert keyring.of_account(service.reader(), "shop") == []


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        (0, "rq_AAAAAAAAAAAAAAAA_0000000000000000000000000000000000000000000"),
        (2**256 - 1, "rq_AAAAAAAAAAAAAAAA_"),
    ],
)
def test_a_key_has_always_the_same_length(secret: int, text: str) -> None:
    token = tokens.token_of("A" * 16, secret)
    assert token.startswith(text)
    assert len(token) == 69
    assert tokens.id_of(token) == "A" * 16


def test_a_key_that_is_not_whole_is_recognised_by_itself() -> None:
    token = minting.new_token(minting.new_id())
    for at in range(len(token)):
        assert tokens.id_of(token[:at]) is None
        assert tokens.id_of(token[:at] + token[at + 1 :]) is None
        other = "A" if token[at] != "A" else "B"
        assert tokens.id_of(token[:at] + other + token[at + 1 :]) is None
    for other in (token + "A", f" {token}", token.lower(), token + "\n", ""):
        assert tokens.id_of(other) is None


def test_hashes_depend_on_the_pepper_and_the_pepper_on_its_purpose() -> None:
    token = minting.new_token(minting.new_id())
    secrets = [b"", b"one secret of a cluster", b"another one"]
    peppers = {tokens.pepper(secret) for secret in secrets}
    assert len(peppers) == 3
    assert not peppers & set(secrets)
    assert len({tokens.digest(pepper, token) for pepper in peppers}) == 3


def test_the_frozen_hash_of_a_key() -> None:
    """Of keys that clients have: another one would lock them all out."""
    token = tokens.token_of("A" * 16, 1)
    digest = tokens.digest(tokens.pepper(b"sixteen bytes or more"), token)
    assert token == f"rq_{'A' * 16}_{'0' * 42}11414d3"
    assert digest.hex() == "1d9daeea7381a6d28d81c320c7210b2639c382ca57c9602562568bdd9a528cbf"
