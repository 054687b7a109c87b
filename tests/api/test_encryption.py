"""Encryption at rest over HTTP: what goes into the log is sealed, and what comes out is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

import api
from api.app import create
from local_service import LocalService
from statemachine import commands as c
from statemachine import queries, sealed

K1 = "k1 " + "A" * 43 + "="
K2 = "k2 " + "B" * 42 + "A="
OWN = "own " + "C" * 42 + "A= shop"
SECRET = "a secret nobody must find"
SHOP = "/v1/shop"
ENCRYPTION = f"{SHOP}/encryption"
ORDERS = f"{SHOP}/queues/orders"


@pytest.fixture
def service() -> LocalService:
    return LocalService(master_keys=K1)


@pytest.fixture
def client(service: LocalService) -> Iterator[TestClient]:
    with TestClient(create(service), base_url="http://test") as client:
        client.put(SHOP)
        yield client


@pytest.fixture
def switched_on(client: TestClient) -> TestClient:
    answer = client.put(ENCRYPTION)
    assert answer.status_code == 200, answer.text
    return client


def reason(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["reason"]


def put(client: TestClient, body: Any = SECRET, **more: Any) -> str:
    answer = client.post(f"{ORDERS}/messages", json={"body": body} | more)
    assert answer.status_code == 201, answer.text
    [found] = answer.json()["ids"]
    return str(found)


def put_raw(client: TestClient, **headers: str) -> str:
    answer = client.post(
        f"{ORDERS}/messages",
        content=SECRET,
        headers={"content-type": "text/plain"} | headers,
    )
    assert answer.status_code == 201, answer.text
    [found] = answer.json()["ids"]
    return str(found)


def claim(client: TestClient, queue: str = "orders", **more: Any) -> list[dict[str, Any]]:
    answer = client.post(f"{SHOP}/queues/{queue}/claims", json={"limit": 100} | more)
    found: list[dict[str, Any]] = answer.json()["messages"] if answer.status_code == 201 else []
    return found


def at_rest(service: LocalService) -> bytes:
    """All that the log and the store have."""
    rows = b"".join(value for _, value in service.reader().scan(b"", b"\x7f"))
    return rows + b"".join(msgspec.msgpack.encode(command) for command in service.proposed)


def test_what_is_put_is_found_at_rest_only_without_encryption(
    client: TestClient, service: LocalService
) -> None:
    put(client)
    assert SECRET.encode() in at_rest(service)
    client.delete(f"{ORDERS}/messages")
    service.proposed.clear()
    client.put(ENCRYPTION)
    put(client)
    put_raw(client)
    client.post(
        f"{SHOP}/transactions", json={"puts": [{"queue": "orders", "messages": [{"body": SECRET}]}]}
    )
    client.put(f"{SHOP}/schedules/s", json={"queue": "o", "message": {"body": SECRET}, "every": 60})
    client.post(f"{ORDERS}/messages", json={"body": SECRET}, headers={"idempotency-key": "once"})
    client.post(f"{ORDERS}/messages", json={"body": SECRET, "persistent": False})
    assert SECRET.encode() not in at_rest(service)
    assert [one.get("body", one.get("body_text")) for one in claim(client)] == [SECRET] * 5


def test_what_a_transaction_claims_next_can_be_read(
    switched_on: TestClient, service: LocalService
) -> None:
    puts = [{"queue": "orders", "messages": [{"body": SECRET}]}]
    asked = {"puts": puts, "next": {"queue": "orders"}}
    told = switched_on.post(f"{SHOP}/transactions", json=asked).json()
    assert [one["body"] for one in told["next"]["messages"]] == [SECRET]
    assert SECRET.encode() not in at_rest(service)


def test_every_way_out_shows_the_body(switched_on: TestClient) -> None:
    client, one = switched_on, put_raw(switched_on)
    assert client.get(f"{ORDERS}/messages").json()["messages"][0]["body_text"] == SECRET
    assert client.get(f"{ORDERS}/messages/{one}").json()["body_text"] == SECRET
    assert client.get(f"{ORDERS}/messages/{one}?raw=true").text == SECRET
    answer = client.post(f"{ORDERS}/claims")
    assert answer.json()["messages"][0]["body_text"] == SECRET
    inspected = client.get(f"{ORDERS}/claims/{answer.json()['claim']}").json()
    assert inspected["messages"][0]["body_text"] == SECRET
    assert "content_encoding" not in inspected["messages"][0]


def test_a_content_encoding_is_kept_beside_the_seal(switched_on: TestClient) -> None:
    one = put_raw(switched_on, **{"content-encoding": "br"})
    shown = switched_on.get(f"{ORDERS}/messages/{one}").json()
    assert shown["content_encoding"] == "br"


@pytest.mark.parametrize("coding", [sealed.CODING, f"gzip, {sealed.CODING}"])
def test_a_client_can_not_make_a_body_look_sealed(client: TestClient, coding: str) -> None:
    answer = client.post(
        f"{ORDERS}/messages",
        content=b"x" * 100,
        headers={"content-type": "text/plain", "content-encoding": coding},
    )
    assert reason(answer) == (400, "invalid_header")


def test_messages_of_before_and_after_are_read_side_by_side(client: TestClient) -> None:
    put(client, 1)
    client.put(ENCRYPTION)
    put(client, 2)
    client.put(ENCRYPTION, json={"enabled": False})
    put(client, 3)
    assert [one["body"] for one in claim(client)] == [1, 2, 3]


def test_copies_and_dead_letters_and_what_is_moved_back_can_be_read(
    switched_on: TestClient, service: LocalService
) -> None:
    client = switched_on
    for target in ("orders", "copies"):
        client.put(f"{ORDERS}/bindings/{target}", json={"match": {}})
    put(client)
    assert [one["body"] for one in claim(client, "copies")] == [SECRET]
    made = client.post(f"{ORDERS}/claims").json()["claim"]
    client.post(f"{ORDERS}/claims/{made}/nack", json={"dead": True})
    dead = client.get(f"{SHOP}/queues/orders.dead/messages").json()["messages"]
    assert [one["body"] for one in dead] == [SECRET]
    client.post(f"{SHOP}/queues/orders.dead/redrive")
    service.advance(1)
    assert [one["body"] for one in claim(client)] == [SECRET]


def test_a_schedule_is_sealed_and_the_same_one_again_changes_nothing(
    switched_on: TestClient, service: LocalService
) -> None:
    client, path = switched_on, f"{SHOP}/schedules/s"
    asked = {"queue": "orders", "message": {"body": SECRET}, "every": 60}
    assert client.put(path, json=asked).status_code == 201
    service.advance(61)
    first = put_schedule(service)
    assert client.put(path, json=asked).status_code == 200
    shown = client.get(path).json()
    assert (shown["ticks"], shown["message"]["body"]) == (1, SECRET)
    assert put_schedule(service).message == first.message
    client.post(f"{ENCRYPTION}/rotate")
    client.put(path, json=asked)
    assert put_schedule(service).message != first.message
    assert [one["body"] for one in claim(client)] == [SECRET]


def put_schedule(service: LocalService) -> c.PutSchedule:
    """As it went into the log last."""
    act = service.proposed[-1]
    assert isinstance(act, c.Audited)
    assert isinstance(act.command, c.PutSchedule)
    return act.command


def test_a_retry_with_an_idempotency_key_is_answered_again(switched_on: TestClient) -> None:
    answers = [
        switched_on.post(
            f"{ORDERS}/messages", json={"body": SECRET}, headers={"idempotency-key": "k"}
        ).json()
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert len(claim(switched_on)) == 1


def test_the_same_body_is_never_the_same_ciphertext(
    switched_on: TestClient, service: LocalService
) -> None:
    for _ in range(3):
        put(switched_on)
    bodies = {one.messages[0].body for one in service.proposed if isinstance(one, c.Enqueue)}
    assert len(bodies) == 3


def test_limits_are_of_the_plain_body(switched_on: TestClient, service: LocalService) -> None:
    largest = service.limits.body_bytes_max
    path, headers = f"{ORDERS}/messages", {"content-type": "text/plain"}
    assert switched_on.post(path, content=b"x" * largest, headers=headers).status_code == 201
    more = switched_on.post(path, content=b"x" * (largest + 1), headers=headers)
    assert reason(more) == (413, "body_too_large")


def test_a_rotated_key_seals_what_comes_and_opens_what_came_before(
    switched_on: TestClient, service: LocalService
) -> None:
    put(switched_on, "before")
    shown = switched_on.post(f"{ENCRYPTION}/rotate").json()
    assert (shown["enabled"], len(shown["keys"])) == (True, 2)
    put(switched_on, "after")
    used = [
        sealed.key_of(one.messages[0]) for one in service.proposed if isinstance(one, c.Enqueue)
    ]
    assert [f"{number:016x}" for number in used] == [one["id"] for one in shown["keys"]]
    assert [one["body"] for one in claim(switched_on)] == ["before", "after"]


def test_a_new_master_key_needs_no_message_to_be_touched(
    switched_on: TestClient, service: LocalService
) -> None:
    one = put(switched_on)
    before = queries.message(service.reader(), "shop", "orders", bytes.fromhex(one))
    service.use_master_keys(f"{K2}\n{K1}")
    shown = switched_on.post(f"{ENCRYPTION}/rewrap").json()
    assert [key["master"] for key in shown["keys"]] == ["k2"]
    service.use_master_keys(K2)  # The old one is not needed any more.
    assert switched_on.get(f"{ORDERS}/messages/{one}").json()["body"] == SECRET
    assert queries.message(service.reader(), "shop", "orders", bytes.fromhex(one)) == before


def test_a_master_key_of_the_accounts_own_goes_before_the_others(
    switched_on: TestClient, service: LocalService
) -> None:
    service.use_master_keys(f"{K1}\n{OWN}")
    assert switched_on.post(f"{ENCRYPTION}/rewrap").json()["keys"][0]["master"] == "own"
    switched_on.put("/v1/other")
    assert switched_on.put("/v1/other/encryption").json()["keys"][0]["master"] == "k1"


def test_shredded_bodies_are_gone_and_their_messages_can_be_drained(
    switched_on: TestClient,
) -> None:
    client, one = switched_on, put_raw(switched_on)
    assert client.delete(f"{ENCRYPTION}/keys").json() == {"deleted": 1}
    assert reason(client.get(f"{ORDERS}/messages/{one}?raw=true")) == (410, "body_shredded")
    shown = client.get(f"{ORDERS}/messages/{one}").json()
    assert (shown["unreadable"], shown["id"]) == ("body_shredded", one)
    assert {"body", "body_text", "body_base64", "content_encoding"}.isdisjoint(shown)
    answer = client.post(f"{ORDERS}/claims").json()
    assert [found["unreadable"] for found in answer["messages"]] == ["body_shredded"]
    assert client.post(f"{ORDERS}/claims/{answer['claim']}/ack").json()["acked"] == 1


def test_nothing_is_put_in_the_clear_after_shredding(switched_on: TestClient) -> None:
    switched_on.delete(f"{ENCRYPTION}/keys")
    answer = switched_on.post(f"{ORDERS}/messages", json={"body": SECRET})
    assert reason(answer) == (503, "encryption_key_shredded")
    assert len(switched_on.put(ENCRYPTION).json()["keys"]) == 1
    put(switched_on)
    assert [one["body"] for one in claim(switched_on)] == [SECRET]


def test_a_schedule_whose_body_is_shredded_says_so(switched_on: TestClient) -> None:
    path = f"{SHOP}/schedules/s"
    switched_on.put(path, json={"queue": "o", "message": {"body": SECRET}, "every": 60})
    switched_on.delete(f"{ENCRYPTION}/keys")
    assert reason(switched_on.get(path)) == (410, "body_shredded")


@pytest.mark.parametrize("at", [0, 7, 8, 23, 24, 35, 36, -1])
def test_a_body_that_was_tampered_with_is_not_shown(
    switched_on: TestClient, service: LocalService, at: int
) -> None:
    one = put(switched_on)
    [(key, record)] = [row for row in service.reader().scan(b"m", b"n")]
    size = len(record) - len(next(iter(sealed_bodies(service))))
    place = at % (len(record) - size) + size
    service._kv.put(key, record[:place] + bytes([record[place] ^ 1]) + record[place + 1 :])
    found = switched_on.get(f"{ORDERS}/messages/{one}").json()
    assert found["unreadable"] in ("body_damaged", "body_shredded")
    assert found["unreadable"] == "body_damaged" or at in (0, 7)
    assert "body" not in found


def sealed_bodies(service: LocalService) -> list[bytes]:
    return [one.messages[0].body for one in service.proposed if isinstance(one, c.Enqueue)]


def test_a_body_of_another_account_can_not_be_slipped_in(
    switched_on: TestClient, service: LocalService
) -> None:
    put(switched_on)
    switched_on.put("/v1/other")
    switched_on.put("/v1/other/encryption")
    record = sealed.of(service.reader(), "shop")
    assert record is not None
    # The whole of it: the wrapped key too, under the other account's name.
    stolen = tuple(c.WrappedKey(0, key.master, key.wrapped) for key in record.keys)
    service._apply(c.PutSealingKeys("other", stolen))
    answer = switched_on.get("/v1/other/encryption")
    assert answer.status_code == 200
    assert reason(switched_on.post("/v1/other/queues/q/claims")) == (503, "encryption_key_missing")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("", "does not have the master key 'k1'"),
        (K2, "does not have the master key 'k1'"),
        (K2.replace("k2", "k1"), "is another one"),
        (K1 + " other", "does not have the master key 'k1'"),
    ],
)
def test_a_node_without_the_master_key_serves_no_body_of_the_account(
    switched_on: TestClient, service: LocalService, keys: str, said: str
) -> None:
    client, one = switched_on, put(switched_on)
    client.put(f"{SHOP}/schedules/s", json={"queue": "o", "message": {"body": 1}, "every": 60})
    service.use_master_keys(keys)
    refused = [
        client.post(f"{ORDERS}/messages", json={"body": 1}),
        client.post(f"{ORDERS}/claims"),
        client.post(f"{ORDERS}/claims", json={"wait": 1}),
        client.get(f"{ORDERS}/messages"),
        client.get(f"{ORDERS}/messages/{one}"),
        client.get(f"{ORDERS}/messages/{one}?raw=true"),
        client.get(f"{SHOP}/schedules/s"),
        client.post(f"{ENCRYPTION}/rewrap"),
    ]
    for answer in refused:
        assert reason(answer) == (503, "encryption_key_missing")
        assert said in answer.json()["detail"]
        assert "retry-after" in answer.headers
    # No message was taken from those who could read it; and other accounts are served.
    assert client.get(ORDERS).json()["messages"]["claimed"] == 0
    assert client.post("/v1/other/queues/q/messages", json={"body": 1}).status_code == 201
    assert client.get("/readyz").json() == {"status": "ready", "accounts_without_keys": 1}
    service.use_master_keys(K1)
    assert client.get("/readyz").json() == {"status": "ready"}
    assert [found["body"] for found in claim(client)] == [SECRET]


def test_encryption_is_of_accounts_that_are_there(client: TestClient) -> None:
    for method, path in [
        ("GET", ""),
        ("PUT", ""),
        ("POST", "/rotate"),
        ("POST", "/rewrap"),
        ("DELETE", "/keys"),
    ]:
        answer = client.request(method, f"/v1/nobody/encryption{path}")
        assert reason(answer) == (404, "no_account"), (method, path)


def test_what_was_never_encrypted_has_no_keys_to_change(client: TestClient) -> None:
    assert client.get(ENCRYPTION).json() == {"enabled": False, "keys": []}
    for path in ("rotate", "rewrap"):
        assert reason(client.post(f"{ENCRYPTION}/{path}")) == (409, "not_encrypted")
    assert client.delete(f"{ENCRYPTION}/keys").json() == {"deleted": 0}


def test_there_is_one_way_from_a_record_to_a_body() -> None:
    is_read = re.compile(r"\bdecode_message\(").search
    sources = [path for path in Path(api.__file__).parent.rglob("*.py")]
    assert [path.name for path in sources if is_read(path.read_text())] == ["bodies.py"]


def test_no_answer_and_no_representation_has_a_key(
    switched_on: TestClient, service: LocalService
) -> None:
    record = sealed.of(service.reader(), "shop")
    assert record is not None
    wrapped = record.keys[0].wrapped
    assert wrapped.hex() not in switched_on.get(ENCRYPTION).text
    for shown in (repr(record), repr(service.proposed), str(service.proposed)):
        assert repr(wrapped)[2:-1] not in shown
