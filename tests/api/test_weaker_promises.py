"""Messages that need not be durable before they are answered for, and bodies that are encoded."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.ports import OutcomeUnknown, Unavailable
from local_service import LocalService
from statemachine.commands import Enqueue, Once

QUEUE = "/v1/shop/queues/orders"
MESSAGES = QUEUE + "/messages"
WEAK = {"persistent": False}


def one(**more: Any) -> dict[str, Any]:
    return {"body": 1, **more}


@pytest.mark.parametrize(
    ("asked", "accepted"),
    [
        (one(persistent=False), 1),
        ({"messages": [one(persistent=False), one(persistent=False)]}, 2),
        ({"messages": [one(persistent=False), one(persistent=True)]}, None),
        ({"messages": [one(persistent=False), one()]}, None),
        (one(persistent=True), None),
        (one(persistent=None), None),
        (one(), None),
    ],
)
def test_only_if_no_message_is_to_persist_is_the_answer_early(
    client: TestClient, asked: dict[str, Any], accepted: int | None
) -> None:
    answer = client.post(MESSAGES, json=asked)
    if accepted is None:
        assert answer.status_code == 201
        assert answer.json()["ids"]
    else:
        assert answer.status_code == 202
        assert answer.json() == {"accepted": accepted}
        assert "location" not in answer.headers
    count = len(asked.get("messages", [1]))
    assert client.get(QUEUE + "/stats").json()["messages"]["ready"] == count


def test_a_queue_or_an_account_may_say_so_for_messages_that_do_not(client: TestClient) -> None:
    assert client.put("/v1/shop", json={"defaults": WEAK}).status_code == 201
    assert client.post(MESSAGES, json=one()).status_code == 202
    assert client.patch(QUEUE, json={"persistent": True}).json()["effective"]["persistent"]
    assert client.post(MESSAGES, json=one()).status_code == 201
    assert client.post(MESSAGES, json=one(persistent=False)).status_code == 202
    client.patch(QUEUE, json={"persistent": None})
    assert client.post(MESSAGES, json=one()).status_code == 202
    assert client.post(MESSAGES, json=one(persistent=True)).status_code == 201


def test_a_raw_body_says_so_in_its_query(client: TestClient) -> None:
    answer = client.post(MESSAGES, params={"persistent": "false"}, content=b"x")
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1})


def test_a_key_stands_for_a_message_that_need_not_persist(
    client: TestClient, service: LocalService
) -> None:
    for _ in range(2):
        answer = client.post(MESSAGES, json=one(**WEAK), headers={"Idempotency-Key": "k"})
        assert answer.status_code == 202
    assert [type(command) for command in service.proposed] == [Once, Once]
    assert client.get(QUEUE + "/stats").json()["messages"]["ready"] == 1
    other = client.post(MESSAGES, json=one(ttl=1, **WEAK), headers={"Idempotency-Key": "k"})
    assert other.json()["reason"] == "idempotency_key_reused"


@pytest.mark.parametrize(
    ("failure", "status"),
    [(Unavailable("no_leader", "none"), 503), (OutcomeUnknown("nobody knows"), 504)],
)
def test_a_leader_that_does_not_take_it_is_told(
    client: TestClient, service: LocalService, failure: Exception, status: int
) -> None:
    service.failures.append(failure)
    assert client.post(MESSAGES, json=one(**WEAK)).status_code == status


def test_a_transaction_is_always_durable(client: TestClient, service: LocalService) -> None:
    asked = {"puts": [{"queue": "orders", "messages": [one(**WEAK)]}]}
    answer = client.post("/v1/shop/transactions", json=asked)
    assert (answer.status_code, answer.json()["field"]) == (400, "persistent")
    assert not service.proposed


def test_an_encoded_body_is_kept_and_given_back_with_its_encoding(client: TestClient) -> None:
    data = gzip.compress(b"<a>text</a>")
    headers = {"Content-Type": "text/xml", "Content-Encoding": "gzip"}
    [message_id] = client.post(MESSAGES, content=data, headers=headers).json()["ids"]
    envelope = client.get(f"{MESSAGES}/{message_id}").json()
    assert envelope["content_encoding"] == "gzip"
    assert "body_base64" in envelope
    raw = client.get(f"{MESSAGES}/{message_id}", params={"raw": True})
    assert raw.headers["content-encoding"] == "gzip"
    assert raw.headers["content-type"] == "text/xml"
    assert raw.content == b"<a>text</a>", "decoded by the client, not by the server"


def test_an_encoding_outlives_its_message_s_death(client: TestClient) -> None:
    client.post(MESSAGES, content=b"x", headers={"Content-Encoding": "br"})
    claim = client.post(QUEUE + "/claims").json()["claim"]
    client.post(f"{QUEUE}/claims/{claim}/nack", json={"dead": True})
    [letter] = client.get(QUEUE + ".dead/messages").json()["messages"]
    assert letter["content_encoding"] == "br"


@pytest.mark.parametrize("given", ["gzip; q=1", "x" * 65, "a b", ",", "gzip,"])
def test_what_names_no_encoding_is_refused(
    client: TestClient, service: LocalService, given: str
) -> None:
    answer = client.post(MESSAGES, content=b"x", headers={"Content-Encoding": given})
    assert (answer.status_code, answer.json()["field"]) == (400, "Content-Encoding")
    assert not service.proposed


def test_no_encoding_is_no_encoding(client: TestClient, service: LocalService) -> None:
    client.post(MESSAGES, content=b"x", headers={"Content-Encoding": "identity"})
    [command] = service.proposed
    assert isinstance(command, Enqueue)
    assert command.messages[0].content_encoding == ""
