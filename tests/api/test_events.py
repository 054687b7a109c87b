"""Events as they come, looked up later, and resumed; over the real application."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.app import Application
from api.rest import feeds, streams
from asgi_client import request
from event_reader import EventReader
from local_service import LocalService

pytestmark = pytest.mark.anyio
QUEUE = "/v1/shop/queues/orders"
OTHER = "/v1/shop/queues/bills"


async def put(app: Application, queue: str = QUEUE, count: int = 1) -> list[str]:
    body = {"messages": [{"body": number} for number in range(count)]}
    return list((await request(app, "POST", f"{queue}/messages", body=body)).json()["ids"])


async def claim(app: Application, **asked: Any) -> str:
    found = await request(app, "POST", f"{QUEUE}/claims", body=asked)
    return str(found.json()["claim"])


async def history(app: Application, message: str, query: str = "") -> Any:
    return (await request(app, "GET", f"{QUEUE}/messages/{message}/history{query}")).json()


async def test_events_come_as_they_happen(app: Application) -> None:
    (first,) = await put(app)
    async with EventReader(app, f"{QUEUE}/events") as reader:
        assert reader.started.result()["headers"][0] == (b"content-type", b"text/event-stream")
        mine = await claim(app, consumer="worker-7", lease=60)
        event = await reader.next()
        assert event.event == event.data["kind"] == "claimed"
        assert event.id == event.data["id"]
        assert event.data == event.data | {
            "queue": "orders",
            "claim": mine,
            "consumer": "worker-7",
            "lease_until": "2026-01-01T00:01:00Z",
            "node": None,
            "term": 1,
            "messages": [{"id": first, "deliveries": 1}],
        }
        await request(app, "DELETE", f"{QUEUE}/claims/{mine}?delay=5&reason=broken+pipe")
        event = await reader.next()
        assert (event.event, event.data["reason"]) == ("released", "broken pipe")
        assert event.data["ready_at"] == "2026-01-01T00:00:05Z"
        await request(app, "DELETE", f"{QUEUE}/messages")
        event = await reader.next()
        assert (event.event, event.data["purged"]) == ("purged", 1)
        await request(app, "PATCH", QUEUE, body={"lease": 5})
        await put(app, count=3)
        assert await reader.kinds(2) == ["queue_changed", "enqueued"]


async def test_a_reader_resumes_exactly_behind_any_event(app: Application) -> None:
    await put(app)
    for _ in range(5):
        mine = await claim(app)
        await request(app, "DELETE", f"{QUEUE}/claims/{mine}")
    async with EventReader(app, f"{QUEUE}/events?from=oldest") as reader:
        seen = [await reader.next() for _ in range(12)]
    assert [one.event for one in seen[:4]] == ["queue_created", "enqueued", "claimed", "released"]
    assert len({one.id for one in seen}) == 12
    for number, one in enumerate(seen[:-1]):
        async with EventReader(app, f"{QUEUE}/events", last=one.id) as reader:
            assert (await reader.any_block()).is_comment
            assert [(await reader.next()).id for _ in seen[number + 1 :]] == [
                later.id for later in seen[number + 1 :]
            ]
    index = seen[4].data["index"]
    async with EventReader(app, f"{QUEUE}/events?from={index}") as reader:
        assert (await reader.next()).id == seen[4].id


async def test_kinds_are_filtered(app: Application, service: LocalService) -> None:
    async with EventReader(app, f"{QUEUE}/events?kind=acked,lease_ended") as reader:
        assert reader.status == 404, "there is no queue yet"
    await put(app, count=2)
    async with EventReader(app, f"{QUEUE}/events?kind=acked,lease_ended") as reader:
        mine = await claim(app)
        await request(app, "POST", f"{QUEUE}/claims/{mine}/ack")
        await claim(app, consumer="slow")
        service.advance(31)
        assert await reader.kinds(1) == ["acked"]
        ended = await reader.next()
        assert (ended.event, ended.data["consumer"]) == ("lease_ended", "slow")


async def test_a_heartbeat_carries_where_to_go_on(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.02)
    await put(app)
    async with EventReader(app, f"{QUEUE}/events") as reader:
        first = await reader.any_block()
        await put(app, OTHER)
        while (beat := await reader.any_block()).id == first.id:
            assert beat.is_comment
        assert int(beat.id) > int(first.id)
    async with EventReader(app, f"{QUEUE}/events", last=beat.id) as reader:
        (found,) = await put(app)
        assert (await reader.next()).data["messages"][0]["id"] == found


async def test_an_account_has_the_events_of_all_its_queues(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "QUEUES_AT_ONCE", 2)
    monkeypatch.setattr(streams, "ROWS_AT_ONCE", 3)
    queues = [f"/v1/shop/queues/q{number}" for number in range(7)]
    for turn in range(3):
        for queue in queues[turn:]:
            await put(app, queue)
    await request(app, "DELETE", queues[0])
    await put(app, "/v1/other/queues/q")
    async with EventReader(app, "/v1/shop/events?from=1&kind=enqueued,queue_deleted") as reader:
        seen = [await reader.next() for _ in range(17 + 1)]
        # What came in the queue that is gone has gone with it; that it went is known.
        names = [f"q{number}" for turn in range(3) for number in range(max(turn, 1), 7)]
        assert [one.data["queue"] for one in seen] == [*names, "q0"]
        assert seen[-1].event == "queue_deleted"
        await put(app, queues[3])
        await put(app, "/v1/shop/queues/new")
        assert [(await reader.next()).data["queue"] for _ in range(2)] == ["q3", "new"]
    for number, one in enumerate(seen[:-1]):
        async with EventReader(
            app, "/v1/shop/events?kind=enqueued,queue_deleted", last=one.id
        ) as reader:
            assert (await reader.next()).id == seen[number + 1].id


async def test_events_that_are_not_held_are_refused_before_the_stream(app: Application) -> None:
    await request(app, "PUT", QUEUE, body={"history_bytes": 500})
    for _ in range(30):
        await put(app)
    reply = await request(app, "GET", f"{QUEUE}/events?from=1")
    assert (reply.status, reply.json()["reason"]) == (410, "events_gone")
    oldest = reply.json()["oldest_index"]
    assert 1 < oldest < 30
    async with EventReader(app, f"{QUEUE}/events?from={oldest}") as reader:
        assert (await reader.next()).data["index"] == oldest
    async with EventReader(app, f"{QUEUE}/events?from=oldest") as reader:
        assert (await reader.next()).data["index"] == oldest
    assert (await request(app, "GET", "/v1/shop/events?from=1")).status == 410


async def test_a_queue_without_a_history_says_so(app: Application) -> None:
    await request(app, "PUT", QUEUE, body={"history": 0})
    (message,) = await put(app)
    reply = await request(app, "GET", f"{QUEUE}/events")
    assert (reply.status, reply.json()["reason"]) == (409, "history_off")
    reply = await request(app, "GET", f"{QUEUE}/messages/{message}/history")
    assert (reply.status, reply.json()["reason"]) == (404, "no_history")
    async with EventReader(app, "/v1/shop/events") as reader:
        await put(app)
        await put(app, OTHER)
        assert await reader.kinds(2) == ["queue_created", "enqueued"]
        await request(app, "PATCH", QUEUE, body={"history": None})
        assert (await reader.next()).data["queue"] == "orders"


@pytest.mark.parametrize(
    ("query", "header", "field"),
    [
        ("?from=soon", "", "from"),
        ("?from=-1", "", "from"),
        ("?from=soon", "1.1", "from"),
        ("?kind=acked,nacked", "", "kind"),
        ("", "x.1", "Last-Event-ID"),
        ("?since=1", "", "since"),
    ],
)
async def test_wrong_questions_are_refused(
    app: Application, query: str, header: str, field: str
) -> None:
    await put(app)
    headers = {"Last-Event-ID": header} if header else {}
    reply = await request(app, "GET", f"{QUEUE}/events{query}", headers=headers)
    assert (reply.status, reply.json()["field"]) == (400, field)


async def test_a_replica_that_is_behind_does_not_pretend(app: Application) -> None:
    await put(app)
    reply = await request(app, "GET", f"{QUEUE}/events?from=999")
    assert (reply.status, reply.json()["reason"]) == (503, "behind")


async def test_a_stream_ends_with_the_queue_and_with_the_node(
    app: Application, service: LocalService
) -> None:
    await put(app)
    async with (
        EventReader(app, f"{QUEUE}/events") as of_queue,
        EventReader(app, "/v1/shop/events") as of_account,
    ):
        await request(app, "DELETE", QUEUE)
        await put(app)
        cut = await of_queue.next()
        assert (cut.event, cut.data["reason"], cut.id) == ("cut", "queue_deleted", "")
        await of_queue.ended()
        assert await of_account.kinds(3) == ["queue_deleted", "queue_created", "enqueued"]
        service.stop()
        assert (await of_account.next()).data["reason"] == "stopping"
        await of_account.ended()
    assert service.watching == 0


async def test_a_client_that_leaves_is_noticed(app: Application, service: LocalService) -> None:
    await put(app)
    async with EventReader(app, f"{QUEUE}/events") as reader:
        assert service.watching == 1
        reader.left.set()
        await reader.ended()
    assert service.watching == 0
    assert (await request(app, "HEAD", f"{QUEUE}/events")).status == 200
    assert service.watching == 0


async def test_a_reader_that_falls_behind_what_is_held_is_cut_off(app: Application) -> None:
    await request(app, "PUT", QUEUE, body={"history_bytes": 500})
    await put(app)
    async with EventReader(app, f"{QUEUE}/events", takes=False) as reader:
        for _ in range(30):
            await put(app)
        reader.takes.set()
        cut = await reader.next()
        assert (cut.event, cut.data["reason"]) == ("cut", "events_gone")
        await reader.ended()


async def test_a_reader_that_takes_nothing_loses_its_connection(
    app: Application, service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "SEND_TIMEOUT_S", 0.02)
    await put(app)
    async with EventReader(app, f"{QUEUE}/events") as reader:
        await reader.any_block()
        reader.takes.clear()
        for _ in range(5):
            await put(app)
        await reader.ended()
        assert reader.aborted
    assert service.watching == 0


async def test_a_message_has_a_history(app: Application, service: LocalService) -> None:
    first, second = await put(app, count=2)
    mine = await claim(app, consumer="a", limit=2)
    await request(app, "PATCH", f"{QUEUE}/claims/{mine}", body={"lease": 10})
    await request(app, "POST", f"{QUEUE}/claims/{mine}/ack", body={"ids": [second]})
    service.advance(11)
    mine = await claim(app, consumer="b")
    await request(app, "DELETE", f"{QUEUE}/claims/{mine}?reason=bad")
    await request(app, "DELETE", f"{QUEUE}/messages/{first}")
    found = await history(app, first)
    assert (found["message"], found["whole"], found["marker"]) == (first, True, None)
    shown = [(one["kind"], one.get("consumer"), one["deliveries"]) for one in found["events"]]
    assert shown == [
        ("enqueued", None, 0),
        ("claimed", "a", 1),
        ("extended", "a", 1),
        ("lease_ended", "a", 1),
        ("claimed", "b", 2),
        ("released", "b", 2),
        ("deleted", None, 0),
    ]
    assert found["events"][5]["reason"] == "bad"
    kinds = [one["kind"] for one in (await history(app, second))["events"]]
    assert kinds == ["enqueued", "claimed", "extended", "acked"]
    paged: list[str] = []
    query = "?limit=2"
    while query:
        page = await history(app, first, query)
        paged += [one["kind"] for one in page["events"]]
        query = page["marker"] and f"?limit=2&marker={page['marker']}"
    assert paged == [one[0] for one in shown]


async def test_a_purge_is_the_end_of_those_it_hit(app: Application) -> None:
    first, second = await put(app, count=2)
    mine = await claim(app)
    await request(app, "POST", f"{QUEUE}/claims/{mine}/ack")
    await request(app, "DELETE", f"{QUEUE}/messages")
    assert [one["kind"] for one in (await history(app, second))["events"]] == ["enqueued", "purged"]
    assert (await history(app, first))["events"][-1]["kind"] == "acked"


async def test_a_history_says_what_it_does_not_know(app: Application) -> None:
    (message,) = await put(app)
    reply = await request(app, "GET", f"{QUEUE}/messages/{'0' * 20}/history")
    assert (reply.status, reply.json()["reason"]) == (404, "no_message")
    reply = await request(app, "GET", f"{QUEUE}/messages/nonsense/history")
    assert reply.json()["reason"] == "no_message"
    reply = await request(app, "GET", f"{QUEUE}/messages/{message}/history?marker=x")
    assert (reply.status, reply.json()["field"]) == (400, "marker")
    reply = await request(app, "GET", f"{OTHER}/messages/{message}/history")
    assert reply.json()["reason"] == "no_queue"
    await request(app, "PATCH", QUEUE, body={"history_bytes": 500})
    for _ in range(30):
        await put(app)
    reply = await request(app, "GET", f"{QUEUE}/messages/{message}/history")
    assert (reply.status, reply.json()["reason"]) == (404, "no_history")
    await claim(app)
    found = await history(app, message)
    assert ([one["kind"] for one in found["events"]], found["whole"]) == (["claimed"], False)


@pytest.mark.parametrize("consumer", ["x" * 256, "two\nlines"])
async def test_a_consumers_name_is_one_short_line(app: Application, consumer: str) -> None:
    reply = await request(app, "POST", f"{QUEUE}/claims", body={"consumer": consumer})
    assert (reply.status, reply.json()["field"]) == (400, "consumer")


async def test_many_readers_cost_nothing_while_nothing_happens(
    app: Application, service: LocalService
) -> None:
    await put(app)
    readers = [EventReader(app, f"{QUEUE}/events") for _ in range(50)]
    for reader in readers:
        await reader.__aenter__()
    await put(app)
    assert {(await reader.next()).event for reader in readers} == {"enqueued"}
    for reader in readers:
        await reader.__aexit__(None, None, None)
    await asyncio.sleep(0)
    assert service.watching == 0
