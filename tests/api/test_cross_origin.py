from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from api.app import create
from local_service import LocalService

PAGE = "https://console.example.com"
ASKED = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, raftq-header-colour",
}


def client(*origins: str) -> TestClient:
    return TestClient(create(LocalService(), origins=origins), base_url="http://test")


def told(headers: object) -> dict[str, str]:
    return {name: value for name, value in dict(headers).items() if name.startswith("access-")}


@pytest.mark.parametrize("method", ["OPTIONS", "GET", "POST"])
def test_no_page_of_another_origin_is_told_anything_unless_it_is_listed(method: str) -> None:
    for service in (client(), client("https://other.example.com")):
        answer = service.request(method, "/v1", headers={"Origin": PAGE, **ASKED})
        assert "access-control-allow-origin" not in told(answer.headers)
    assert not told(client().request(method, "/v1", headers={"Origin": PAGE, **ASKED}).headers)


def test_without_origins_a_preflight_is_a_method_like_any_other() -> None:
    answer = client().options("/v1", headers={"Origin": PAGE, **ASKED})
    assert answer.status_code == 405
    assert answer.json()["reason"] == "method_not_allowed"


def test_a_listed_page_may_ask_and_read() -> None:
    service = client(PAGE)
    before = service.options("/v1/a/queues/q/messages", headers={"Origin": PAGE, **ASKED})
    assert before.status_code == 200
    assert before.headers["access-control-allow-origin"] == PAGE
    assert "raftq-header-colour" in before.headers["access-control-allow-headers"]
    answer = service.post(
        "/v1/a/queues/q/messages", headers={"Origin": PAGE}, json={"messages": [{"body": 1}]}
    )
    assert answer.status_code == 201
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "Raftq-Applied-Index" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers


def test_a_listed_page_may_read_why_it_was_refused() -> None:
    answer = client(PAGE).get("/v1/a/queues/..%20", headers={"Origin": PAGE})
    assert answer.status_code == 400
    assert answer.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize(
    "origin", ["null", "https://console.example.com.evil.example", "http://console.example.com"]
)
def test_what_only_looks_like_a_listed_page_is_none(origin: str) -> None:
    answer = client(PAGE).get("/v1", headers={"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers
