"""Both clients against the real API in this process."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from api.ports import OutcomeUnknown as ServerDoesNotKnow
from api.ports import Unavailable as ServerCannot
from local_service import LocalService
from raftq.client import (
    AsyncRaftq,
    LeaseLost,
    NewMessage,
    Raftq,
    Refused,
    Settled,
)
from served_api import served


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
    assert claim.ack([first, second]) == Settled(1, (first,))
    with pytest.raises(LeaseLost) as caught:
        claim.ack([first])
    assert (caught.value.reason, caught.value.status) == ("stale_claim", 409)
    assert claim.release(delay=5) == Settled(1)
    assert queue.stats().messages.delayed == 1
    assert not queue.claim()
    assert queue.claim(wait=0.01).ack() == Settled(0)
    assert third


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
