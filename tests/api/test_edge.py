"""What is true of every answer, whoever gave it; and the node's own pages."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib.metadata import EntryPoint

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route
from starlette.testclient import TestClient

from api import frontends
from api.app import Application, create
from api.ports import Service, Unavailable
from local_service import LocalService

QUEUE = "/v1/shop/queues/orders"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/livez", 200),
        ("POST", f"{QUEUE}/claims", 204),
        ("GET", QUEUE, 404),
        ("GET", "/nowhere", 404),
        ("PUT", "/cluster", 405),
        ("GET", f"{QUEUE}?x=1", 400),
    ],
)
def test_every_answer_says_who_gave_it(
    client: TestClient, service: LocalService, method: str, path: str, status: int
) -> None:
    service.staleness_ms = 12
    answer = client.request(method, path)
    assert answer.status_code == status
    tags = {name: answer.headers[f"Raftq-{name}"] for name in ("Node", "Zone", "Role")}
    assert tags == {"Node": "n1", "Zone": "north", "Role": "leader"}
    assert answer.headers["Raftq-Applied-Index"] == str(service.status().applied_index)
    assert answer.headers["Raftq-Staleness-Ms"] == "12"


def test_a_write_is_tagged_with_an_index_that_covers_it(
    client: TestClient, service: LocalService
) -> None:
    first = client.put(QUEUE).headers["Raftq-Applied-Index"]
    second = client.put(QUEUE).headers["Raftq-Applied-Index"]
    assert int(second) == int(first) + 1 == service.status().applied_index


@pytest.mark.parametrize(
    ("zone", "nearest"),
    [
        (None, None),
        ("south", "http://south"),
        ("north", None),
        ("west", None),
        ("s\u00fcd", None),
        ("", None),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/livez"), ("POST", f"{QUEUE}/claims"), ("GET", "/nowhere")]
)
def test_a_client_of_another_zone_hears_of_a_replica_there(
    client: TestClient,
    service: LocalService,
    method: str,
    path: str,
    zone: str | None,
    nearest: str | None,
) -> None:
    service.others = {"south": "http://south", "": "http://nowhere"} if zone else {}
    headers = {} if zone is None else {"Raftq-Zone": zone.encode()}
    answer = client.request(method, path, headers=headers)
    assert answer.headers.get("Raftq-Nearest") == nearest
    assert answer.headers["Raftq-Zone"] == "north"


def test_what_clients_put_and_are_given_is_counted_by_zones(
    client: TestClient, service: LocalService
) -> None:
    batch = [{"body": 1}, {"body": 2, "zone": "south"}, {"body": 3, "zone": "south"}]
    client.post(f"{QUEUE}/messages", json={"messages": batch})
    client.post(f"{QUEUE}/messages", content=b"x", headers={"Content-Type": "text/plain"})
    client.post(f"{QUEUE}/claims", json={"limit": 2, "zone": "west"})
    client.post(f"{QUEUE}/claims", json={"limit": 10})
    client.post(f"{QUEUE}/claims", json={"limit": 10})  # There is nothing left.
    counted = {
        (one["message_zone"], one["client_zone"]): (one["put"], one["claimed"])
        for one in client.get("/cluster/zones").json()["messages"]
    }
    assert counted == {
        ("north", "north"): (2, 1),
        ("north", "west"): (0, 1),
        ("south", "north"): (2, 1),
        ("south", "west"): (0, 1),
    }


def test_the_cluster_as_a_zone_sees_it(client: TestClient, service: LocalService) -> None:
    service.others = {"south": "http://south"}
    assert client.get("/cluster").json()["nearest"] is None
    assert client.get("/cluster?zone=south").json()["nearest"] == "http://south"
    assert client.get("/cluster?zone=west").json()["nearest"] is None


def test_requests_are_counted_by_template(client: TestClient, service: LocalService) -> None:
    client.get(QUEUE)
    client.request("BREW", QUEUE)
    client.get("/nowhere")
    assert service.observed == [
        ("/v1/{account}/queues/{queue}", "GET", 404),
        ("/v1/{account}/queues/{queue}", "OTHER", 405),
        ("unmatched", "GET", 404),
    ]


def test_a_bug_is_an_answer_and_reaches_the_servers_log(
    app: Application, service: LocalService
) -> None:
    service.failures.append(ZeroDivisionError("inner workings"))
    client = TestClient(app, raise_server_exceptions=False)
    answer = client.post(f"{QUEUE}/claims")
    assert (answer.status_code, answer.json()["reason"]) == (500, "internal_error")
    assert "inner workings" not in answer.text
    assert answer.headers["Raftq-Node"] == "n1"
    assert service.observed[-1][2] == 500
    service.failures.append(ZeroDivisionError("inner workings"))
    with pytest.raises(ZeroDivisionError):
        TestClient(app).post(f"{QUEUE}/claims")


def test_head_is_get_without_a_body(client: TestClient) -> None:
    client.put(QUEUE)
    head, get = client.head(QUEUE), client.get(QUEUE)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(get.content))


def test_a_mounted_application_finds_its_routes(app: Application) -> None:
    client = TestClient(app, root_path="/queue")
    assert client.get("/queue/livez").status_code == 200


def test_the_cluster_is_shown(client: TestClient) -> None:
    cluster = client.get("/cluster").json()
    assert cluster["leader"] == "n1"
    [member] = cluster["members"]
    assert (member["zone"], member["role"], member["lag"]) == ("north", "leader", 0)
    assert client.get("/cluster/members").json() == {"members": [member]}


def test_a_node_that_is_not_ready_says_why(client: TestClient, service: LocalService) -> None:
    assert client.get("/readyz").json() == {"status": "ready"}
    service.not_ready = "it is catching up"
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["detail"]) == (503, "it is catching up")
    assert client.get("/livez").status_code == 200


def test_metrics_are_text(client: TestClient) -> None:
    answer = client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert "raftq_up 1" in answer.text


def test_the_console_is_self_contained_and_allowed_by_its_own_policy(client: TestClient) -> None:
    answer = client.get("/console")
    page, policy = answer.text, answer.headers["Content-Security-Policy"]
    assert not re.search(r"""(src|href)\s*=|@import|url\(|https?:|//[a-z]""", page)
    assert "innerHTML" not in page
    assert not re.search(r"\son\w+=|\sstyle=", page), "the policy allows no inline handlers"
    for tag in ("style", "script"):
        [inside] = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy


class Greeting:
    """Another protocol."""

    name = "greeting"

    def routes(self, service: Service) -> Sequence[BaseRoute]:
        async def greet(request: Request) -> PlainTextResponse:
            if "fail" in request.query_params:
                raise Unavailable("no_leader", "none")
            return PlainTextResponse(service.status().node)

        return [Route("/greet/{whom}", greet)]


FRONTEND = Greeting()


def test_front_ends_are_chosen_by_name(
    service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("greeting", f"{__name__}:FRONTEND", frontends.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: FRONTEND)
    monkeypatch.setattr(frontends, "entry_points", lambda group: [point])
    client = TestClient(create(service, names=["greeting"]))
    answer = client.get("/greet/you")
    assert answer.text == "n1"
    assert answer.headers["Raftq-Node"] == "n1"
    assert client.get("/livez").status_code == 404
    assert service.observed[0] == ("/greet/{whom}", "GET", 200)


def test_an_unknown_front_end_is_refused_with_what_there_is(service: LocalService) -> None:
    with pytest.raises(frontends.UnknownFrontend, match=r"'telnet' is not installed.*rest"):
        create(service, names=["telnet"])
