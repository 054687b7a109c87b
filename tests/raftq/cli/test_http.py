"""Fail-over: who is asked next, and what is never asked twice."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx2
import pytest

from raftq.cli.failure import Exit, Failure
from raftq.cli.http import Client

URLS = ["http://a:1", "http://b:2", "http://c:3"]


def problem(status: int, reason: str) -> httpx2.Response:
    body = {"title": "No leader", "detail": "an election is on", "reason": reason}
    return httpx2.Response(status, json=body)


# What a replica does with a request, by a word.
BEHAVIOURS: dict[str, Callable[[], httpx2.Response]] = {
    "serves": lambda: httpx2.Response(200, json={}),
    "has no leader": lambda: problem(503, "no_leader"),
    "does not know": lambda: problem(504, "outcome_unknown"),
    "refuses": lambda: problem(404, "no_queue"),
    "is down": lambda: raise_(httpx2.ConnectError("refused")),
    "hangs up": lambda: raise_(httpx2.ReadError("reset")),
    "is slow": lambda: raise_(httpx2.ReadTimeout("")),
}


def raise_(error: Exception) -> httpx2.Response:
    raise error


class Replicas(httpx2.BaseTransport):
    """Replicas that behave as told, and remember who was asked."""

    def __init__(self, *behaviours: str) -> None:
        self.behaviours = dict(zip("abc", behaviours, strict=True))
        self.asked: list[str] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request.url.host)
        return BEHAVIOURS[self.behaviours[request.url.host]]()


def client(replicas: Replicas, timeout_s: float = 0.1) -> Client:
    return Client(URLS, timeout_s, transport=replicas)


@pytest.mark.parametrize(
    ("behaviours", "repeatable", "asked"),
    [
        (("serves", "serves", "serves"), False, "a"),
        (("is down", "serves", "serves"), False, "ab"),
        (("is down", "is down", "serves"), False, "abc"),
        (("has no leader", "serves", "serves"), False, "ab"),
        (("hangs up", "serves", "serves"), True, "ab"),
        (("is slow", "serves", "serves"), True, "ab"),
        (("does not know", "has no leader", "serves"), True, "abc"),
    ],
)
def test_the_next_replica_is_asked(
    behaviours: tuple[str, ...], repeatable: bool, asked: str
) -> None:
    replicas = Replicas(*behaviours)
    with client(replicas) as http:
        assert http.request("POST", "/x", repeatable=repeatable).status == 200
    assert "".join(replicas.asked) == asked


@pytest.mark.parametrize("behaviour", ["hangs up", "is slow", "does not know"])
def test_what_may_have_happened_is_not_repeated_without_a_key(behaviour: str) -> None:
    replicas = Replicas(behaviour, "serves", "serves")
    with client(replicas) as http, pytest.raises(Failure) as caught:
        http.request("POST", "/x")
    assert caught.value.code == Exit.UNKNOWN
    assert replicas.asked == ["a"]


def test_a_refusal_is_final_and_says_why() -> None:
    replicas = Replicas("refuses", "serves", "serves")
    with client(replicas) as http, pytest.raises(Failure, match="an election is on") as caught:
        http.request("GET", "/x", repeatable=True)
    assert "(no_queue)" in str(caught.value)
    assert caught.value.code == Exit.FAILED
    assert replicas.asked == ["a"]


def test_when_nobody_can_be_reached_all_are_named_at_once() -> None:
    replicas = Replicas("is down", "is down", "is down")
    with client(replicas, timeout_s=60) as http, pytest.raises(Failure) as caught:
        http.request("GET", "/x", repeatable=True)
    assert caught.value.code == Exit.UNREACHABLE
    assert all(url in str(caught.value) for url in URLS)
    assert replicas.asked == ["a", "b", "c"]


def test_an_election_is_waited_for() -> None:
    replicas = Replicas("has no leader", "has no leader", "is down")
    sends = replicas.handle_request

    def elected_after_six(request: httpx2.Request) -> httpx2.Response:
        if len(replicas.asked) == 6:
            replicas.behaviours["b"] = "serves"
        return sends(request)

    replicas.handle_request = elected_after_six  # type: ignore[method-assign]  # A script.
    with client(replicas, timeout_s=60) as http:
        assert http.request("POST", "/x").status == 200
    assert "".join(replicas.asked) == "abcabcab"


def test_waiting_for_an_election_ends() -> None:
    replicas = Replicas("has no leader", "has no leader", "has no leader")
    with client(replicas) as http, pytest.raises(Failure) as caught:
        http.request("POST", "/x")
    assert caught.value.code == Exit.UNREACHABLE


def test_the_replica_that_answered_is_asked_again() -> None:
    replicas = Replicas("is down", "serves", "serves")
    with client(replicas) as http:
        http.request("GET", "/x")
        http.request("GET", "/y")
    assert replicas.asked == ["a", "b", "b"]


def test_an_answer_that_is_not_from_the_api_is_a_readable_failure() -> None:
    page = httpx2.MockTransport(lambda request: httpx2.Response(200, text="<html>"))
    with Client(URLS[:1], transport=page) as http, pytest.raises(Failure, match="not JSON"):
        http.request("GET", "/x").json()
    broken = httpx2.MockTransport(lambda request: httpx2.Response(418, text="<html>"))
    with Client(URLS[:1], transport=broken) as http, pytest.raises(Failure, match="HTTP 418"):
        http.request("GET", "/x")


@pytest.mark.parametrize("url", ["host:8001", "ftp://host", "http://"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Failure) as caught:
        Client([url])
    assert caught.value.code == Exit.USAGE


def test_urls_may_be_separated_by_commas_and_end_in_a_slash() -> None:
    seen: list[str] = []

    def serve(request: httpx2.Request) -> httpx2.Response:
        seen.append(str(request.url))
        return BEHAVIOURS["is down" if len(seen) == 1 else "serves"]()

    with Client(["http://a:1/,http://b:2"], transport=httpx2.MockTransport(serve)) as http:
        http.request("GET", "/x", query={"q": "1"})
    assert seen == ["http://a:1/x?q=1", "http://b:2/x?q=1"]


def test_body_and_headers_are_sent_as_given() -> None:
    def serve(request: httpx2.Request) -> httpx2.Response:
        echo = {"body": request.content.decode(), "key": request.headers["idempotency-key"]}
        return httpx2.Response(201, json=echo)

    with Client(URLS, transport=httpx2.MockTransport(serve)) as http:
        answer = http.request("POST", "/x", body=b"abc", headers={"idempotency-key": "k"})
    assert json.loads(answer.body) == {"body": "abc", "key": "k"}
