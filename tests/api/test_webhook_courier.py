"""One subscription at work: what becomes of messages, receivers and leases."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from api.ports import Delivery, OutcomeUnknown, Unavailable, WebhookPolicy
from api.webhooks import attempts, courier
from api.webhooks.courier import Courier
from api.webhooks.runner import Runner
from local_service import START_MS, LocalService
from receiver import Receiver, eventually, receiving, status
from statemachine import commands as c
from statemachine import hooks, queries
from statemachine.outcomes import Claimed
from statemachine.records import decode_message

pytestmark = pytest.mark.anyio

QUEUE = ("a", "q")
NAMES = (*QUEUE, "s")
SECRET = b"k" * 24
MASTER = "k1 " + "A" * 43 + "="
POLICY = WebhookPolicy(http=True, allow=("127.0.0.1/32",), requests_max=16)


class Bench:
    """A service, a receiver, and the node that posts from the one to the other."""

    def __init__(self, receiver: Receiver, policy: WebhookPolicy) -> None:
        self.receiver = receiver
        self.service = LocalService(webhooks=policy)
        self.runner = Runner(self.service, lease_s=3_000)

    async def subscribe(self, **changes: Any) -> None:
        given = {
            "url": self.receiver.url,
            "headers": (),
            "lease_ms": 3_600_000,
            "concurrency": 4,
            "timeout_ms": 10_000,
            "retry_base_ms": 100,
            "retry_max_ms": 60_000,
            "attempts": 5,
        }
        settings = c.SubscriptionSettings(**(given | changes))
        await self.service.propose(c.PutSubscription(*NAMES, settings, SECRET, made=True))

    async def put(self, *bodies: bytes, **more: Any) -> None:
        messages = tuple(c.NewMessage(body, "text/plain", **more) for body in bodies)
        await self.service.propose(c.Enqueue(*QUEUE, messages))

    @property
    def counts(self) -> tuple[int, int, int]:
        stats = queries.stats(self.service.reader(), *QUEUE)
        assert stats is not None
        return stats.ready, stats.delayed, stats.claimed

    def claims(self) -> int:
        """Since the first one."""
        return sum(isinstance(one, c.Claim) for one in self.service.proposed) - 1

    async def posted(self, count: int) -> None:
        await eventually(lambda: len(self.receiver.requests) >= count, f"{count} requests")

    async def settled(self, *counts: int) -> None:
        await eventually(lambda: self.counts == counts, f"{counts}, not {self.counts}")

    async def delayed_ms(self) -> int:
        """After how much time something is due; the delay that was just given."""
        await eventually(lambda: self.counts[1] > 0, "a message is delayed")
        due_ms = self.service._machine.next_due_ms()
        assert due_ms is not None
        return due_ms - self.service.clock_ms


@asynccontextmanager
async def bench(policy: WebhookPolicy = POLICY) -> AsyncIterator[Bench]:
    async with receiving() as receiver:
        bench = Bench(receiver, policy)
        running = asyncio.create_task(bench.runner.run())
        try:
            yield bench
        finally:
            await bench.runner.stop(0.0)
            await running


@pytest.fixture(autouse=True)
def short_rests(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(courier, "REST_MAX_S", 0.01)
    monkeypatch.setattr(attempts._chance, "uniform", lambda _low, high: high)
    return


async def test_a_message_is_posted_signed_and_acknowledged() -> None:
    async with bench() as b:
        await b.subscribe(headers=(("authorization", "Bearer x"),))
        await b.put(b"\xffbody", headers=(("Trace", "t-1"), ("Name", "é")))
        await b.posted(1)
        await b.settled(0, 0, 0)
        (got,) = b.receiver.requests
        webhook_id = got.headers["webhook-id"]
        signed = f"{webhook_id}.{START_MS // 1000}.".encode() + b"\xffbody"
        expected = hmac.new(SECRET, signed, hashlib.sha256).digest()
        assert b64decode(got.headers["webhook-signature"].removeprefix("v1,")) == expected
        assert got.body == b"\xffbody"
        message = got.headers["raftq-message"]
        assert webhook_id.endswith(message)
        shown = {name: value for name, value in got.headers.items() if name.startswith("raftq-")}
        assert shown == {
            "raftq-account": "a",
            "raftq-queue": "q",
            "raftq-subscription": "s",
            "raftq-message": message,
            "raftq-deliveries": "1",
            "raftq-header-trace": "t-1",
            "raftq-header-name": "é",
        }
        assert got.headers["content-type"] == "text/plain"
        assert got.headers["authorization"] == "Bearer x"
        assert b.service.activity[NAMES].last_success_ms == START_MS


async def test_a_sealed_body_is_posted_as_it_was_put_and_one_that_is_lost_is_a_dead_letter() -> (
    None
):
    async with bench() as b:
        b.service.use_master_keys(MASTER)
        await b.service.propose(c.PutAccount("a", c.QueueSettings()))
        keys = (b.service.wrapped_key("a"),)
        await b.service.propose(c.PutSealingKeys("a", keys, enabled=True))
        await b.put(b"first", b"second", delay_ms=60_000)
        await b.put(b"third")
        await b.subscribe()
        await b.posted(1)
        await b.settled(0, 2, 0)
        await b.service.propose(c.DropSealingKeys("a"))
        b.service.advance(61)
        await b.settled(0, 0, 0)
        assert [got.body for got in b.receiver.requests] == [b"third"]
        dead = queries.stats(b.service.reader(), "a", "q.dead")
        assert dead is not None
        assert dead.ready == 2
        assert b.service.deliveries.count(Delivery.UNREADABLE) == 2


async def test_a_node_without_the_key_posts_nothing_and_goes_on_when_it_has_it() -> None:
    async with bench() as b:
        b.service.use_master_keys(MASTER)
        await b.service.propose(c.PutAccount("a", c.QueueSettings()))
        keys = (b.service.wrapped_key("a"),)
        await b.service.propose(c.PutSealingKeys("a", keys, enabled=True))
        await b.put(b"body")
        b.service.use_master_keys("")
        await b.subscribe()
        await eventually(lambda: len(b.service.refused) > 0, "a claim was refused")
        assert b.receiver.requests == []
        assert b.counts == (1, 0, 0)
        b.service.use_master_keys(MASTER)
        await b.posted(1)
        assert b.receiver.requests[0].body == b"body"


async def test_nothing_is_proposed_while_nothing_happens() -> None:
    async with bench() as b:
        await b.subscribe()
        await b.put(b"x")
        await b.settled(0, 0, 0)
        await eventually(lambda: b.service.parked(*QUEUE) == 1, "it is parked")
        proposed = len(b.service.proposed)
        await asyncio.sleep(0.1)
        assert len(b.service.proposed) == proposed


async def test_after_a_failure_it_comes_again_later_each_time_under_the_same_id() -> None:
    async with bench() as b:
        await b.subscribe()
        b.receiver.answers.extend([status(500), status(404), status(301)])
        await b.put(b"x")
        for tried, delay_ms in enumerate((100, 200, 400), start=1):
            assert await b.delayed_ms() == delay_ms
            b.service.advance((delay_ms - 1) / 1000)
            assert b.counts == (0, 1, 0)
            b.service.advance(0.001)
            await b.posted(tried + 1)
        await b.posted(4)
        await b.settled(0, 0, 0)
        assert len({got.headers["webhook-id"] for got in b.receiver.requests}) == 1
        deliveries = [got.headers["raftq-deliveries"] for got in b.receiver.requests]
        assert deliveries == ["1", "2", "3", "4"]
        stamps = [int(got.headers["webhook-timestamp"]) for got in b.receiver.requests]
        assert stamps == sorted(stamps)
        assert b.service.deliveries == [
            Delivery.FAILED,
            Delivery.REJECTED,
            Delivery.REJECTED,
            Delivery.DELIVERED,
        ]


async def test_when_its_attempts_are_used_up_it_is_a_dead_letter() -> None:
    async with bench() as b:
        await b.subscribe(attempts=2)
        b.receiver.answers.extend([status(500), status(503)])
        await b.put(b"x")
        b.service.advance(await b.delayed_ms() / 1000)
        await b.settled(0, 0, 0)
        page = queries.browse(b.service.reader(), "a", "q.dead", limit=9)
        assert page is not None
        (letter,) = page.items
        stored = decode_message(letter.record)
        assert stored.body == b"x"
        assert stored.dead is not None
        assert (stored.dead.reason, stored.dead.deliveries) == ("rejected", 2)
        assert stored.dead.error == "the receiver answered 503"


async def test_a_dead_letter_that_fails_too_stays_and_comes_seldom() -> None:
    dead = c.DeadLetter("rejected", "why", "p", bytes(10), 1, START_MS)
    async with bench() as b:
        await b.subscribe(attempts=1)
        b.receiver.answers.append(status(500))
        await b.put(b"x", dead=dead)
        assert await b.delayed_ms() == 60_000


async def test_messages_of_all_zones_are_posted_whatever_the_queue_says() -> None:
    async with bench() as b:
        await b.service.propose(c.PutQueue(*QUEUE, c.QueueSettings(zone_mode="only")))
        await b.subscribe()
        await b.put(b"x", zone="south")
        await b.settled(0, 0, 0)
        assert b.receiver.bodies == [b"x"]


@pytest.mark.parametrize(
    ("code", "header", "delay_ms"),
    [
        (503, "7", 7_000),
        (429, "7", 7_000),
        (500, "7", 7_000),
        (503, "Thu, 01 Jan 2026 00:00:09 GMT", 9_000),
        (503, "Thu, 01 Jan 2025 00:00:00 GMT", 100),
        (503, "999999999", 60_000),
        (503, "soon", 100),
        (503, "-5", 100),
        (503, "9" * 5_000, 100),
    ],
)
async def test_retry_after_is_heeded_within_bounds(code: int, header: str, delay_ms: int) -> None:
    async with bench() as b:
        await b.subscribe()
        b.receiver.answers.append(status(code, f"retry-after: {header}"))
        await b.put(b"x")
        assert await b.delayed_ms() == delay_ms


async def test_a_receiver_that_is_gone_disables_the_subscription() -> None:
    async with bench() as b:
        await b.subscribe()
        b.receiver.answers.append(status(410))
        await b.put(b"x")

        def reason() -> str:
            view = hooks.subscription(b.service.reader(), *NAMES)
            assert view is not None
            return view.disabled_reason

        await eventually(lambda: bool(reason()), "it is disabled")
        assert reason() == "the receiver answered 410 Gone"
        await eventually(lambda: NAMES not in b.service.activity, "it is not run any more")
        await b.settled(1, 0, 0)
        await b.subscribe()
        assert reason() == ""
        await b.settled(0, 0, 0)
        assert b.receiver.bodies == [b"x", b"x"]


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"])
async def test_a_receiver_that_is_too_slow_has_failed(answer: bytes | None) -> None:
    async with bench() as b:
        await b.subscribe(timeout_ms=100)
        b.receiver.answers.append(answer)
        await b.put(b"x")
        assert await b.delayed_ms() == 100
        assert b.service.deliveries == [Delivery.TIMEOUT]
        assert b.service.activity[NAMES].last_error == "no answer within 0.1 s"


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({"url": "http://127.0.0.2:5000/"}, Delivery.FORBIDDEN),
        ({"url": "http://127.0.0.1:1/"}, Delivery.FORBIDDEN),
        ({"url": "ftp://x/"}, Delivery.FORBIDDEN),
        ({"url": "http://name.invalid:5000/"}, Delivery.UNREACHABLE),
    ],
)
async def test_what_cannot_be_reached_is_tried_again(changes: Any, how: Delivery) -> None:
    async with bench() as b:
        await b.subscribe(**changes)
        await b.put(b"x")
        assert await b.delayed_ms() == 100
        assert b.service.deliveries == [how]
        assert b.service.activity[NAMES].last_error
        assert b.service.activity[NAMES].last_error_ms == START_MS


async def test_no_more_is_under_way_than_is_asked_for() -> None:
    async with bench() as b:
        await b.subscribe(concurrency=3)
        b.receiver.hold = asyncio.Event()
        await b.put(*[b"%d" % number for number in range(10)])
        await b.posted(3)
        assert b.counts == (7, 0, 3)
        assert b.service.activity[NAMES].in_flight == 3
        b.receiver.hold.set()
        await b.settled(0, 0, 0)
        assert b.receiver.most_at_once <= 3
        assert sorted(b.receiver.bodies) == [b"%d" % number for number in range(10)]


async def test_nor_more_than_the_node_may_post_at_once() -> None:
    async with bench(WebhookPolicy(http=True, allow=POLICY.allow, requests_max=2)) as b:
        await b.subscribe()
        b.receiver.hold = asyncio.Event()
        await b.put(*[b"x"] * 5)
        await b.posted(2)
        await asyncio.sleep(0.02)
        assert b.counts == (3, 0, 2)
        b.receiver.hold.set()
        await b.settled(0, 0, 0)


async def test_the_lease_is_extended_while_the_receiver_works() -> None:
    async with bench() as b:
        await b.subscribe(lease_ms=150)
        b.receiver.hold = asyncio.Event()
        await b.put(b"x")
        await b.posted(1)
        for _ in range(10):  # Log time goes on with ours, for more than the lease.
            await asyncio.sleep(0.03)
            b.service.advance(0.03)
        assert b.counts == (0, 0, 1)
        assert any(isinstance(one, c.Extend) for one in b.service.proposed)
        b.receiver.hold.set()
        await b.settled(0, 0, 0)
        assert b.receiver.bodies == [b"x"]


async def test_what_is_lost_is_not_posted_on() -> None:
    async with bench() as b:
        await b.subscribe(lease_ms=60)
        b.receiver.hold = asyncio.Event()
        await b.put(b"x")
        await b.posted(1)
        b.service.advance(1)  # The lease has ended before it could be extended.
        await eventually(lambda: Delivery.LOST in b.service.deliveries, "it has noticed")
        b.receiver.hold.set()
        await b.posted(2)
        await b.settled(0, 0, 0)


async def test_a_receiver_that_is_down_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(courier, "REST_MAX_S", 30.0)
    async with bench() as b:
        await b.subscribe(concurrency=1, retry_base_ms=20_000)
        b.receiver.answers.append(status(503))
        await b.put(b"x", b"y")
        await b.settled(1, 1, 0)
        await asyncio.sleep(0.05)
        assert b.receiver.bodies == [b"x"]


async def test_a_message_that_fails_holds_up_no_other() -> None:
    async with bench() as b:
        await b.subscribe(concurrency=1)
        b.receiver.answers.append(status(400))
        await b.put(b"x", b"y", b"z")
        await b.settled(0, 1, 0)
        assert b.receiver.bodies == [b"x", b"y", b"z"]


async def test_without_a_leader_it_is_patient() -> None:
    async with bench() as b:
        await b.subscribe()
        await eventually(lambda: b.service.parked(*QUEUE) == 1, "it is parked")
        b.service.failures.extend([None, Unavailable("no_leader", "x"), OutcomeUnknown("x"), None])
        b.service.failures.extend([OutcomeUnknown("x"), Unavailable("no_leader", "x")])
        await b.put(b"x")
        await b.settled(0, 0, 0)
        assert b.receiver.bodies == [b"x"]


async def test_it_waits_for_room_in_the_quota_of_what_is_in_flight() -> None:
    async with bench() as b:
        await b.put(b"mine")
        held = await b.service.propose(c.Claim(*QUEUE, 1))
        assert isinstance(held, Claimed)
        await b.service.propose(c.SetQuotas(QUEUE[0], c.Quotas(in_flight=1)))
        await b.put(b"x")
        await b.subscribe()
        await eventually(lambda: b.claims() >= 3, "it has asked again and again")
        assert b.receiver.bodies == []
        await b.service.propose(c.Ack(*QUEUE, held.claim))
        await b.settled(0, 0, 0)
        assert b.receiver.bodies == [b"x"]


async def test_what_is_under_way_is_given_back_when_the_node_stops() -> None:
    async with bench() as b:
        await b.subscribe()
        b.receiver.default = None
        await b.put(b"x")
        await b.posted(1)
        await b.runner.stop(0.01)
        assert b.counts == (1, 0, 0)
        assert hooks.runners(b.service.reader()) == {}
        assert b.service.activity == {}


async def test_what_is_under_way_is_finished_when_there_is_time() -> None:
    async with bench() as b:
        await b.subscribe()
        b.receiver.hold = asyncio.Event()
        await b.put(b"x")
        await b.posted(1)
        stopping = asyncio.create_task(b.runner.stop(10))
        await asyncio.sleep(0)
        b.receiver.hold.set()
        await stopping
        assert b.counts == (0, 0, 0)


async def test_a_change_takes_effect_when_what_is_under_way_is_done() -> None:
    async with bench() as b:
        await b.subscribe(concurrency=1)
        b.receiver.hold = asyncio.Event()
        await b.put(b"x", b"y")
        await b.posted(1)
        await b.subscribe(headers=(("x-new", "1"),))
        b.receiver.hold.set()
        await b.settled(0, 0, 0)
        assert ["x-new" in got.headers for got in b.receiver.requests] == [False, True]


async def test_a_deleted_subscription_posts_nothing_more() -> None:
    async with bench() as b:
        await b.subscribe()
        await eventually(lambda: NAMES in b.service.activity, "it runs")
        await b.service.propose(c.DeleteSubscription(*NAMES))
        await eventually(lambda: NAMES not in b.service.activity, "it does not")
        await b.put(b"x")
        await asyncio.sleep(0.02)
        assert b.counts == (1, 0, 0)
        assert b.receiver.requests == []


async def test_what_nobody_can_claim_costs_little() -> None:
    async with bench() as b:
        await b.subscribe()
        await b.put(b"x", ttl_ms=1)
        claims = [one for one in b.service.proposed if isinstance(one, c.Claim)]
        assert len(claims) < 3


async def test_a_crash_of_one_is_told_and_harms_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    async def broken(_self: Courier) -> None:
        raise AssertionError("a bug")

    async with bench() as b:
        with monkeypatch.context() as patch:
            patch.setattr(Courier, "run", broken)
            await b.subscribe()
            await eventually(lambda: bool(told), "it is told")
        await b.service.propose(c.DeleteSubscription(*NAMES))
        await b.subscribe()
        await b.put(b"x")
        await b.settled(0, 0, 0)
    assert len(told) == 1


def test_delays_grow_without_end_and_stay_below_the_longest() -> None:
    settings = c.SubscriptionSettings("u", (), 1, 1, 1, 3, 1_000, 1)
    ended = attempts.Ended(Delivery.FAILED)
    found = [attempts.delay_ms(settings, deliveries, ended, 0) for deliveries in range(1, 100)]
    assert found[:4] == [3, 6, 12, 24]
    assert max(found) == found[-1] == 1_000
