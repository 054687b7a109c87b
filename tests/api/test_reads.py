"""How fresh a read is, and how safe a repeated write."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from api.ports import Unavailable
from local_service import LocalService
from statemachine.commands import Barrier, Once

QUEUE = "/v1/shop/queues/orders"
MESSAGES = f"{QUEUE}/messages"
KEY = {"Idempotency-Key": "k-1"}


def barriers(service: LocalService) -> int:
    return sum(isinstance(command, Barrier) for command in service.proposed)


@pytest.mark.parametrize(
    ("query", "headers", "count"),
    [
        ("", {}, 0),
        ("?consistency=local", {}, 0),
        ("?consistency=linearizable", {}, 1),
        ("", {"Raftq-Consistency": "linearizable"}, 1),
        ("?consistency=local", {"Raftq-Consistency": "linearizable"}, 0),
    ],
)
def test_only_linearizable_reads_go_through_the_log(
    client: TestClient, service: LocalService, query: str, headers: dict[str, str], count: int
) -> None:
    client.put(QUEUE)
    assert client.get(QUEUE + query, headers=headers).status_code == 200
    assert barriers(service) == count


@pytest.mark.parametrize(
    ("query", "level"), [("", None), ("?consistency=session", None), ("", "session")]
)
def test_a_session_waits_for_the_index_it_has_seen(
    client: TestClient, query: str, level: str | None
) -> None:
    seen = int(client.put(QUEUE).headers["Raftq-Applied-Index"])
    headers = {} if level is None else {"Raftq-Consistency": level}
    now = client.get(QUEUE + query, headers=headers | {"Raftq-Min-Index": str(seen)})
    assert now.status_code == 200
    later = client.get(QUEUE + query, headers=headers | {"Raftq-Min-Index": str(seen + 1)})
    assert (later.status_code, later.json()["reason"]) == (503, "behind")


def test_a_local_read_does_not_wait(client: TestClient) -> None:
    client.put(QUEUE)
    headers = {"Raftq-Min-Index": "999"}
    assert client.get(f"{QUEUE}?consistency=local", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"Raftq-Consistency": "eventual"}, "Raftq-Consistency"),
        ({"Raftq-Min-Index": "x"}, "Raftq-Min-Index"),
        ({"Raftq-Min-Index": "-1"}, "Raftq-Min-Index"),
        ({"Raftq-Min-Index": "9" * 20}, "Raftq-Min-Index"),
    ],
)
def test_wrong_words_about_freshness_are_refused(
    client: TestClient, headers: dict[str, str], field: str
) -> None:
    answer = client.get(QUEUE, headers=headers)
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert client.get(f"{QUEUE}?consistency=eventual").json()["field"] == "consistency"


def test_a_linearizable_read_without_a_leader_is_unavailable(
    client: TestClient, service: LocalService
) -> None:
    client.put(QUEUE)
    service.failures.append(Unavailable("no_leader", "no majority"))
    answer = client.get(f"{QUEUE}?consistency=linearizable")
    assert (answer.status_code, answer.json()["reason"]) == (503, "no_leader")


def test_a_repeated_put_queues_nothing_new(client: TestClient) -> None:
    first = client.post(MESSAGES, json={"body": 1}, headers=KEY)
    again = client.post(MESSAGES, json={"body": 1}, headers=KEY)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert len(client.get(MESSAGES).json()["messages"]) == 1


def test_a_repeated_claim_is_the_same_claim(client: TestClient) -> None:
    client.post(MESSAGES, json={"messages": [{"body": 1}, {"body": 2}]})
    first = client.post(f"{QUEUE}/claims", headers=KEY)
    again = client.post(f"{QUEUE}/claims", headers=KEY)
    assert again.json() == first.json()
    assert client.get(f"{QUEUE}/stats").json()["messages"]["claimed"] == 1


def test_a_repeated_ack_says_what_the_first_one_said(client: TestClient) -> None:
    client.post(MESSAGES, json={"body": 1})
    claim = client.post(f"{QUEUE}/claims").json()["claim"]
    for _ in range(2):
        answer = client.post(f"{QUEUE}/claims/{claim}/ack", headers=KEY)
        assert answer.json() == {"acked": 1, "stale": []}


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", MESSAGES, {"body": 2}),
        ("POST", f"{QUEUE}x/messages", {"body": 1}),
        ("POST", f"{QUEUE}/claims", None),
        ("DELETE", MESSAGES, None),
        ("DELETE", f"{MESSAGES}?ids={'0' * 20}", None),
        ("PUT", QUEUE, {}),
        ("PATCH", QUEUE, {}),
        ("DELETE", QUEUE, None),
        ("PUT", "/v1/shop", {}),
    ],
)
def test_a_key_stands_for_one_request(
    client: TestClient, method: str, target: str, body: object
) -> None:
    client.post(MESSAGES, json={"body": 1}, headers=KEY)
    if body is None:
        answer = client.request(method, target, headers=KEY)
    else:
        answer = client.request(method, target, json=body, headers=KEY)
    assert (answer.status_code, answer.json()["reason"]) == (422, "idempotency_key_reused")


def test_another_account_has_its_own_keys(client: TestClient) -> None:
    client.post(MESSAGES, json={"body": 1}, headers=KEY)
    other = client.post("/v1/other/queues/orders/messages", json={"body": 1}, headers=KEY)
    assert other.status_code == 201


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("PUT", QUEUE, b"{}"), ("PATCH", QUEUE, b"{}")),
        (("POST", MESSAGES, b"x"), ("POST", f"{MESSAGES}?delay=5", b"x")),
        (("POST", MESSAGES, b"x"), ("POST", MESSAGES, b"y")),
        (("PUT", QUEUE, b"{}"), ("PUT", f"{QUEUE}-2", b"{}")),
    ],
)
def test_fingerprints_cover_all_of_a_request(
    client: TestClient,
    service: LocalService,
    one: tuple[str, str, bytes],
    other: tuple[str, str, bytes],
) -> None:
    for key, (method, target, body) in zip("ab", (one, other), strict=True):
        kind = "text/plain" if target.startswith(MESSAGES) else "application/json"
        headers = {"Idempotency-Key": key, "Content-Type": kind}
        client.request(method, target, content=body, headers=headers)
    first, second = service.proposed
    assert isinstance(first, Once)
    assert isinstance(second, Once)
    assert first.fingerprint != second.fingerprint
    assert first.window_ms == service.limits.idempotency_window_ms
