"""Both clients against the real API in this process."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.ports import OutcomeUnknown as ServerDoesNotKnow
from api.ports import Unavailable as ServerCannot
from local_service import LocalService
from raftq.client import (
    AsyncRaftq,
    GiveBack,
    LeaseLost,
    NewMessage,
    OutcomeUnknown,
    QuotaExceeded,
    Raftq,
    Refused,
    Settled,
    Wanted,
)
from served_api import served
from statemachine.commands import Quotas, SetQuotas


@pytest.fixture
def service() -> LocalService:
    return LocalService()


@pytest.fixture
def url(service: LocalService) -> Iterator[str]:
    with served(service) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Raftq]:
    with Raftq(url) as client:
        yield client


@dataclass
class Order:
    number: int


@pytest.mark.parametrize(
    ("body", "content_type", "stored", "back"),
    [
        ("text", None, "application/json", "text"),
        ({"a": [1, None]}, None, "application/json", {"a": [1, None]}),
        (Order(7), None, "application/json", {"number": 7}),
        (None, None, "application/json", None),
        (b"\x00\xff", None, "application/octet-stream", b"\x00\xff"),
        (bytearray(b"png"), "image/png", "image/png", b"png"),
        ("h\u00e9", "text/plain", "text/plain", "h\u00e9"),
        ("<a/>", "application/xml", "application/xml", b"<a/>"),
        ('{"a":1}', "application/json", "application/json", {"a": 1}),
        (b"[1]", "application/json", "application/json", [1]),
    ],
)
def test_what_a_body_becomes(
    client: Raftq, body: object, content_type: str | None, stored: str, back: object
) -> None:
    queue = client.queue("jobs")
    headers = {"Trace": "t\u00e9-1"}
    put = queue.put(body, content_type=content_type, headers=headers, ttl=60.5, zone="z")
    (message,) = queue.peek()
    assert (message.id, message.content_type, message.body) == (put, stored, back)
    assert [*message.headers.values()] == ["t\u00e9-1"]
    assert message.zone == "z"
    assert message.expires_at is not None


def test_what_cannot_be_put_is_a_type_error(client: Raftq) -> None:
    queue = client.queue("jobs")
    with pytest.raises(TypeError, match="a dict can only be put as"):
        queue.put({}, content_type="text/plain")
    with pytest.raises(TypeError, match="one batch"):
        queue.put_many(["x", b"raw"])
    with pytest.raises(TypeError):
        queue.put(object())


def test_a_batch_keeps_its_order(client: Raftq) -> None:
    queue = client.queue("jobs")
    ids = queue.put_many(["a", NewMessage(body="b", headers={"k": "v"}), "c"])
    assert [message.id for message in queue.peek()] == [*ids]
    assert queue.put_many([]) == ()
    assert queue.peek(3)[1].json(str) == "b"
    assert len(queue.peek(2)) == 2


def test_a_claim_is_extended_acked_in_part_and_released(client: Raftq) -> None:
    queue = client.queue("jobs")
    first, second, third = queue.put_many([1, 2, 3])
    claim = queue.claim(3, lease=30)
    assert claim
    before = claim.lease_until
    assert before is not None
    assert claim.extend(90) > before
    assert claim.ack([first]) == Settled(1)
    assert claim.ack([first, second]) == Settled(1, (first,), {first: "gone"})
    with pytest.raises(LeaseLost) as caught:
        claim.ack([first])
    assert (caught.value.reason, caught.value.status) == ("stale_claim", 409)
    assert caught.value.why == {first: "gone"}
    assert claim.release(delay=5) == Settled(1)
    assert queue.stats().messages.delayed == 1
    assert not queue.claim()
    assert queue.claim(wait=0.01).ack() == Settled(0)
    assert third


def test_an_ack_claims_what_is_next(client: Raftq, service: LocalService) -> None:
    queue = client.queue("jobs")
    first, second, third = queue.put_many([1, 2, 3])
    done, claim = queue.claim().ack_and_claim(next=Wanted(lease=5))
    assert (done, [message.id for message in claim]) == (Settled(1), [second])
    service.advance(6)
    done, claim = claim.ack_and_claim([second], next=Wanted(limit=2))
    assert done == Settled(0, (second,), {second: "waiting"})
    assert [message.id for message in claim] == [second, third]
    done, empty = claim.ack_and_claim()
    assert (done, bool(empty)) == (Settled(2), False)
    done, empty = empty.ack_and_claim(next=Wanted(wait=0.01))
    assert (done, bool(empty)) == (Settled(0), False)
    assert first


def test_what_is_acked_with_its_claim_is_settled(client: Raftq, service: LocalService) -> None:
    queue = client.queue("jobs")
    first, second, third = queue.put_many([1, 2, 3])
    claim = queue.claim(auto_ack=True)
    (message,) = claim
    assert (message.id, message.state, message.settled) == (first, "acked", True)
    assert (claim.id, claim.lease_until, bool(claim)) == ("", None, True)
    with message:
        service.advance(1_000)
        assert not message.lost
    assert claim.ack() == Settled(0)
    assert not claim.release().settled
    _, claim = queue.claim().ack_and_claim(next=Wanted(wait=1, auto_ack=True))
    assert [(message.id, message.settled) for message in claim] == [(third, True)]
    assert queue.stats().messages.ready == 0
    assert second
    assert not queue.claim(auto_ack=True)


def test_what_was_acked_is_told_though_the_claim_is_refused(
    client: Raftq, service: LocalService
) -> None:
    queue = client.queue("jobs")
    queue.put_many([1, 2, 3, 4])
    claim, _ = queue.claim(), queue.claim(2)
    asyncio.run(service.propose(SetQuotas("default", Quotas(in_flight=1))))
    with pytest.raises(QuotaExceeded) as caught:
        claim.ack_and_claim()
    assert (caught.value.done, caught.value.usage) == (Settled(1), 2)
    assert queue.stats().messages.claimed == 2


def test_a_lease_that_ran_out_is_told(client: Raftq, service: LocalService) -> None:
    queue = client.queue("jobs")
    queue.put("x")
    (message,) = queue.claim(lease=30)
    service.advance(31)
    with pytest.raises(LeaseLost, match="no_claim"):
        message.ack()
    assert message.lost
    assert message.settled


def test_settings_are_changed_and_a_queue_is_emptied_and_deleted(client: Raftq) -> None:
    queue = client.queue("jobs")
    assert queue.settings(lease=45, metadata={"team": "a"}).effective.lease == 45
    info = queue.settings(ttl=60)
    assert (info.settings.lease, info.settings.ttl, info.settings.metadata) == (
        45,
        60,
        {"team": "a"},
    )
    assert queue.settings(lease=None).settings.lease is None
    queue.put_many([1, 2])
    assert queue.purge() == 2
    queue.delete()
    with pytest.raises(Refused) as caught:
        queue.stats()
    assert caught.value.reason == "no_queue"


def test_a_refusal_names_the_field(client: Raftq) -> None:
    with pytest.raises(Refused) as caught:
        client.queue("jobs").put("x", ttl=-1)
    assert (caught.value.reason, caught.value.field) == ("out_of_range", "ttl")


def test_usage_is_told_and_what_goes_beyond_a_quota_is_an_error_of_its_own(
    url: str, client: Raftq, service: LocalService
) -> None:
    client.queue("jobs").put(b"x")
    quotas = SetQuotas("default", Quotas(messages=1))
    asyncio.run(service.propose(quotas))
    with pytest.raises(QuotaExceeded) as caught:
        client.queue("jobs").put(b"y")
    full = caught.value
    assert (full.status, full.quota, full.limit, full.usage) == (403, "messages", 1, 1)
    usage = client.usage()
    assert (usage.messages.usage, usage.messages.limit) == (1, 1)
    assert (usage.queues.usage, usage.queues.limit) == (1, None)

    async def told() -> int:
        async with AsyncRaftq(url) as other:
            return (await other.usage(consistency="linearizable")).bytes.usage

    assert asyncio.run(told()) == 1


def test_accounts_and_zones_are_sent(url: str, client: Raftq) -> None:
    with Raftq(url, account="other", zone="south") as other:
        other.queue("jobs").put("x")
        assert other.queue("jobs").peek()[0].zone == "south"
    with pytest.raises(Refused):
        client.queue("jobs").stats()


@pytest.mark.parametrize("failure", [ServerDoesNotKnow("cut"), ServerCannot("no_leader", "-", 0)])
def test_a_put_that_failed_once_is_there_once(
    client: Raftq, service: LocalService, failure: Exception
) -> None:
    service.failures += [failure]
    queue = client.queue("jobs")
    queue.put("x")
    assert queue.stats().messages.ready == 1


def test_a_loop_over_messages(client: Raftq) -> None:
    queue = client.queue("jobs")
    with queue.producer() as producer:
        futures = [producer.put(number) for number in range(50)]
    assert len({future.result() for future in futures}) == 50
    seen = [m.body for m in queue.consume(7, wait=0.05, drain=True)]
    assert seen == list(range(50))
    assert queue.stats().messages.claimed == 0


def test_many_threads_share_a_client(client: Raftq) -> None:
    queue = client.queue("jobs")
    producer = queue.producer(max_pending=20)
    seen: list[int] = []

    def produce(start: int) -> None:
        for number in range(start, start + 50):
            producer.put(number)

    def consume() -> None:
        seen.extend(message.body for message in queue.consume(5, wait=0.3, drain=True))

    threads = [threading.Thread(target=produce, args=(start,)) for start in (0, 50, 100)]
    threads += [threading.Thread(target=consume) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads[:3]:
        thread.join()
    producer.close()
    for thread in threads[3:]:
        thread.join()
    assert sorted(seen) == list(range(150))


def test_what_the_block_raises_comes_out_and_the_message_goes_back(client: Raftq) -> None:
    queue = client.queue("jobs")
    queue.put("x")

    def work() -> None:
        with queue.consume(prefetch=False) as messages:
            for message in messages:
                with message:
                    raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert queue.stats().messages.ready == 1


def test_a_client_that_is_closed_leaves_nothing_running(url: str) -> None:
    before = threading.active_count()
    with Raftq(url) as client:
        client.queue("jobs").put_many([1, 2, 3])
        consumer = client.queue("jobs").consume(2)
        next(consumer)
        producer = client.queue("other").producer()
        producer.put("x")
    assert threading.active_count() == before
    with Raftq(url) as client:
        assert client.queue("jobs").stats().messages.ready == 3
        assert client.queue("other").stats().messages.ready == 1


def test_a_forgotten_consumer_gives_back(url: str) -> None:
    with Raftq(url) as client:
        queue = client.queue("jobs")
        queue.put_many([1, 2])
        for _ in queue.consume(2, lease=0.3):
            break
        gc.collect()
        assert queue.claim(2, wait=10.0)


def test_the_same_with_asyncio(url: str) -> None:
    async def work() -> None:
        async with AsyncRaftq([url]) as client:
            queue = client.queue("jobs")
            async with queue.producer() as producer:
                futures = [await producer.put(number) for number in range(50)]
            assert len(set(await asyncio.gather(*futures))) == 50
            seen = []
            async for message in queue.consume(7, wait=0.05, drain=True):
                async with message:
                    seen.append(message.body)
            assert seen == list(range(50))
            assert (await client.cluster()).leader == "n1"
            await queue.put("x")
            claim = await queue.claim(lease=30)
            await claim.extend(60)
            await claim.messages[0].release()
            assert (await queue.stats()).messages.ready == 1
            done, claim = await (await queue.claim()).ack_and_claim()
            assert (done, bool(claim)) == (Settled(1), False)
            waiting = asyncio.create_task(client.queue("empty").claim(wait=30))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(work())


def test_an_async_client_that_is_closed_leaves_nothing_running(url: str) -> None:
    async def work() -> None:
        async with AsyncRaftq(url) as client:
            await client.queue("jobs").put_many([1, 2, 3])
            consumer = client.queue("jobs").consume(2)
            await anext(consumer)
            future = await client.queue("other").producer().put("x")
        assert len(asyncio.all_tasks()) == 1
        assert await future

    asyncio.run(work())


def test_what_a_message_can_say_of_itself_arrives(client: Raftq, service: LocalService) -> None:
    queue = client.queue("jobs")
    at = datetime.fromtimestamp(service.clock_ms / 1000, UTC)
    first = queue.put("pay", dedup_id="invoice-7", priority=3, group="g")
    assert not first.duplicate
    again = queue.put(b"pay", dedup_id="invoice-7", not_before=at + timedelta(seconds=5))
    assert (again, again.duplicate) == (first, True)
    late = NewMessage(body=first, not_before=at + timedelta(seconds=5))
    ids = queue.put_many([late, NewMessage(body=2, dedup_id="invoice-7")])
    assert [one.duplicate for one in ids] == [False, True]
    with queue.producer() as producer:
        assert producer.put(3, dedup_id="invoice-7").result().duplicate
    (message,) = queue.claim(consumer="me")
    assert (message.priority, message.group) == (3, "g")
    stats = queue.stats()
    assert (stats.messages.delayed, stats.messages.claimed, stats.messages.blocked) == (1, 1, 0)
    assert stats.rates.enqueued > 0
    history = queue.history(first)
    assert history.whole
    assert [(one.kind, one.consumer) for one in history.events] == [
        ("enqueued", None),
        ("claimed", "me"),
    ]


def test_a_claim_takes_the_messages_of_its_zone(client: Raftq) -> None:
    queue = client.queue("jobs")
    queue.put_many([NewMessage(body=zone, zone=zone) for zone in ("north", "south")])
    assert [m.body for m in queue.claim(2, zone="south", zone_mode="only")] == ["south"]
    how: dict[str, Any] = {"zone": "south", "zone_mode": "prefer", "locality_wait": 30}
    assert not [*queue.consume(**how, wait=0.01, drain=True)]
    how["locality_wait"] = 0
    assert [m.body for m in queue.consume(**how, wait=0.01, drain=True)] == ["north"]


def test_work_that_fails_becomes_a_dead_letter_and_is_redriven(
    client: Raftq, service: LocalService
) -> None:
    queue, dead = client.queue("jobs"), client.queue("jobs.dead")
    queue.settings(max_deliveries=5, retry_delay=2)
    first, second, third = queue.put_many([1, 2, 3])
    claim = queue.claim(3)
    assert claim.nack([first], reason="no disk") == Settled(1)
    claim.messages[1].nack("cannot parse it", dead=True)
    assert claim.messages[1].settled
    assert claim.nack([second, third], delay=0) == Settled(1, (second,), {second: "gone"})
    assert queue.stats().dead == 1
    (letter,) = dead.peek()
    assert letter.dead is not None
    assert (letter.dead.reason, letter.dead.error) == ("rejected", "cannot parse it")
    service.advance(3)
    assert {m.last_error for m in queue.peek()} == {"no disk", None}
    assert dead.redrive(rate=100).state == "running"
    service.advance(1)
    assert dead.job().done == 1
    with pytest.raises(Refused, match="no_job"):
        dead.cancel_job()


def test_messages_are_searched_and_done_with_by_a_filter(
    client: Raftq, service: LocalService
) -> None:
    queue = client.queue("jobs")
    queue.put(1, headers={"k": "v"})
    queue.put(2, headers={"k": "w"}, group="g", priority=4)
    queue.put(3)
    assert [one.body for one in queue.peek(headers={"K": ""})] == [1, 2]
    assert [one.body for one in queue.peek(headers={"k": "w"}, group="g", priority=4)] == [2]
    assert [one.body for one in queue.peek(group="", min_age=0, max_age=60, zone="north")] == [1, 3]
    assert queue.peek(state="claimed", min_deliveries=1) == ()
    job = queue.start_job("delete", filter={"match": {"k": "v"}}, dry_run=True)
    assert (job.state, job.total) == ("running", 3)
    service.advance(1)
    assert (queue.job().done, queue.job().skipped) == (1, 2)
    queue.claim(1)
    queue.start_job("move", to="others", limit=9)
    service.advance(1)
    (failure,) = queue.job().failures
    assert failure.reason == "claimed"
    assert [one.body for one in client.queue("others").peek()] == [1, 3]
    queue.put(4)
    queue.claim(1)
    queue.start_job("release", rate=1)
    assert queue.cancel_job().state == "cancelled"


def test_some_messages_of_a_claim_are_extended(client: Raftq, service: LocalService) -> None:
    queue = client.queue("jobs")
    first, second = queue.put_many([1, 2])
    claim = queue.claim(2, lease=30)
    part = claim.extend_some([first], 60)
    assert [message.id for message in part] == [first]
    assert part.id != claim.id
    assert claim.extend_some([second], 40).id == claim.id
    service.advance(45)
    # The message knows which claim it is in now.
    claim.messages[0].ack()
    with pytest.raises(LeaseLost):
        claim.messages[1].ack()
    assert not part.ack().settled


def test_a_transaction_is_done_whole_or_not_at_all(client: Raftq) -> None:
    queue = client.queue("jobs")
    queue.put_many([1, 2, 3, 4])
    claim, other = queue.claim(2), queue.claim(2)
    first, second = claim
    done = client.transaction(
        acks=[first],
        releases=[GiveBack(second, reason="busy", delay=9)],
        puts={"made": ["a", NewMessage(body="b", priority=2)], "none": []},
    )
    assert (done.acked, done.released, len(done.puts["made"])) == (1, 1, 2)
    assert first.settled
    assert second.settled
    other.messages[0].ack()
    with pytest.raises(LeaseLost) as caught:
        client.transaction(acks=[first, other.messages[1]], puts={"made": ["c"]})
    assert caught.value.why == {first.id: "gone"}
    assert not other.messages[1].lost
    assert len(client.queue("made").peek()) == 2
    assert client.transaction(acks=[other]).acked == 1


def test_a_transaction_claims_what_is_next(client: Raftq, service: LocalService) -> None:
    queue = client.queue("jobs")
    first, second, third = queue.put_many([1, 2, 3])
    done, claim = client.transaction_and_claim(
        "jobs", acks=[queue.claim()], puts={"made": ["a"]}, next=Wanted(lease=5)
    )
    assert (done.acked, len(done.puts["made"])) == (1, 1)
    assert [message.id for message in claim] == [second]
    done, empty = client.transaction_and_claim("none", puts={"made": ["b"]}, next=Wanted(wait=0.01))
    assert (len(done.puts["made"]), bool(empty)) == (1, False)
    other = queue.claim()
    asyncio.run(service.propose(SetQuotas("default", Quotas(in_flight=1))))
    with pytest.raises(QuotaExceeded) as caught:
        client.transaction_and_claim("made", acks=[claim], next=Wanted(limit=2))
    assert caught.value.done.acked == 1
    assert claim.messages[0].settled
    service.failures.append(ServerDoesNotKnow("the leader is gone"))
    with pytest.raises(OutcomeUnknown):
        client.transaction_and_claim("jobs", acks=[other])
    with pytest.raises(LeaseLost):
        client.transaction_and_claim("made", acks=[claim, other])
    assert client.queue("made").stats().messages.ready == 2
    assert [message.id for message in other] == [third]
    assert first


def test_events_are_read_as_they_happen(client: Raftq, service: LocalService) -> None:
    queue = client.queue("jobs")
    queue.put("x")
    with queue.events(from_="oldest") as events:
        assert [next(events).kind for _ in range(2)] == ["queue_created", "enqueued"]
        queue.claim(consumer="me")
        assert next(events).consumer == "me"
        after = events.last_id
    assert [*events] == []
    queue.purge()
    with client.events(kinds=["purged"], after=after) as events:
        event = next(events)
        assert (event.queue, event.purged) == ("jobs", 1)
    with pytest.raises(Refused, match="from must be"):
        next(queue.events(from_="never"))
    reader = queue.events(from_="oldest", kinds=["queue_deleted", "purged"])
    assert next(reader).kind == "purged"
    queue.delete()
    with pytest.raises(Refused, match="was deleted") as caught:
        next(reader)
    assert caught.value.reason == "queue_deleted"
    for _ in range(100):
        if not service.watching:
            break
        time.sleep(0.02)
    assert not service.watching


def test_events_go_on_where_a_stream_was_cut(client: Raftq, service: LocalService) -> None:
    queue = client.queue("jobs")
    queue.put(0)
    events = queue.events(from_="oldest", kinds=["enqueued"])
    seen = [next(events).id]
    service.stop()
    again = threading.Timer(0.1, lambda: setattr(service, "stopping", False))
    again.start()
    again.join()
    queue.put(1)
    seen.append(next(events).id)
    assert len(set(seen)) == 2


def test_asyncio_has_events_transactions_and_nacks(url: str) -> None:
    async def work() -> None:
        async with AsyncRaftq(url) as client:
            queue = client.queue("jobs")
            await queue.put_many([1, 2, 3])
            kinds = []
            async with queue.events(from_="oldest", kinds=["enqueued", "released"]) as events:
                waiting = asyncio.create_task(anext(client.events(kinds=["released"])))
                await asyncio.sleep(0.2)
                claim = await queue.claim(2)
                part = await claim.extend_some([claim.messages[0].id], 60)
                done = await client.transaction(acks=[part], puts={"made": [1]})
                assert done.acked == 1
                done, following = await client.transaction_and_claim("made", puts={"made": [2]})
                assert [message.body for message in following] == [1]
                await claim.messages[1].nack("no")
                async for event in events:
                    kinds.append(event.kind)
                    if event.kind == "released":
                        break
            assert kinds[-1] == "released"
            assert (await waiting).reason == "no"
            assert (await queue.history(claim.messages[1].id)).events[-1].reason == "no"
            idle = asyncio.create_task(anext(client.events()))
            await asyncio.sleep(0.1)
            idle.cancel()
            with pytest.raises(asyncio.CancelledError):
                await idle

    asyncio.run(work())


def test_what_need_not_persist_has_no_id(client: Raftq) -> None:
    queue = client.queue("metrics")
    assert queue.put(b"raw", persistent=False) == ""
    assert queue.put("kept", persistent=True)
    queue.settings(persistent=False)
    assert queue.put_many([1, 2]) == ("", "")
    assert queue.stats().messages.ready == 4
