"""Consumer and producer in virtual time: leases, prefetching, settling, batches, back-pressure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest

from raftq.client.answers import Settled
from raftq.client.consuming import Consume, ConsumerCore, Held
from raftq.client.effects import Answer, Broken, Pause, Request, Spawn
from raftq.client.errors import (
    Closed,
    LeaseLost,
    OutcomeUnknown,
    QuotaExceeded,
    RaftqError,
    Refused,
    Unavailable,
)
from raftq.client.operations import QueueCore
from raftq.client.producing import ProducerCore
from raftq.client.shells import how_to_consume
from virtual_client import Virtual, VirtualEvent, VirtualFuture, answer, refusal

SOON = "2026-01-01T00:00:30Z"


class Server:
    """One replica with one queue; knows of claims, acks and releases what it is sent."""

    def __init__(self, world: Virtual, count: int) -> None:
        self.world = world
        self.ready = list(range(count))
        self.log: list[tuple[str, Any]] = []
        self.lost: set[str] = set()
        self.bodies: list[Any] = []
        self.refused: set[Any] = set()
        self.is_full = False
        world.answers = self.serve

    def serve(self, request: Request) -> Answer | Broken | None:
        body = json.loads(request.body) if request.body else {}
        match request.method, request.path.split("/")[5:]:
            case "POST", ["claims"]:
                return self._claim(body)
            case "POST", ["claims", claim, "ack"]:
                if "next" in body:
                    return self._ack_and_claim(claim, body["ids"], body["next"])
                return self._settle("ack", claim, body.get("ids"), "acked")
            case "DELETE", ["claims", claim]:
                ids = request.query["ids"].split(",") if "ids" in request.query else None
                return self._settle("release", claim, ids, "released")
            case "POST", ["extend"]:
                self.log += [("extend", claim) for claim in body["claims"]]
                self.log.append(("extend many", body["claims"]))
                views = [
                    {"claim": claim, "lease_until": None, "ended": "gone"}
                    if claim in self.lost
                    else {"claim": claim, "lease_until": SOON, "ended": None}
                    for claim in body["claims"]
                ]
                return answer(200, {"claims": views})
            case "POST", ["messages"]:
                return self._put(body.get("messages", [body]))
        raise AssertionError(request)

    def did(self, what: str) -> list[Any]:
        return [about for done, about in self.log if done == what]

    def _claim(self, body: dict[str, Any]) -> Answer:
        if self.is_full:
            return refusal(403, "quota_exceeded")
        taken, self.ready = self.ready[: body["limit"]], self.ready[body["limit"] :]
        self.log.append(("claim", len(taken)))
        if not taken:
            return answer(204)
        messages = [
            {"id": f"m{n}", "state": "claimed", "body": n, "content_type": "application/json"}
            | {"headers": {}, "enqueued_at": SOON, "expires_at": None, "deliveries": 1, "zone": "z"}
            for n in taken
        ]
        return answer(
            201, {"claim": f"c{taken[0]}", "lease_until": SOON, "messages": messages, "newer": 1}
        )

    def _ack_and_claim(self, claim: str, ids: list[str], wanted: dict[str, Any]) -> Answer:
        settled, claimed = self._settle("ack", claim, ids, "acked"), self._claim(wanted)
        is_over, next_ = settled.status != 200, json.loads(claimed.body or "null")
        told = {"acked": 0, "stale": ids} if is_over else json.loads(settled.body)
        told |= {"claim_ended": is_over, "next": next_ if claimed.status == 201 else None}
        if claimed.status == 403:
            told["next_refused"] = next_ | {"status": 403}
        return answer(200, told)

    def _settle(self, what: str, claim: str, ids: list[str] | None, counted: str) -> Answer:
        self.log.append((what, ids or claim))
        if claim in self.lost:
            return refusal(409, "stale_claim")
        return answer(200, {counted: len(ids or [1]), "stale": []})

    def _put(self, messages: list[dict[str, Any]]) -> Answer:
        bodies = [message["body"] for message in messages]
        self.log.append(("put", bodies))
        if self.refused & set(bodies):
            return refusal(413, "body_too_large")
        self.bodies += bodies
        return answer(201, {"ids": [f"id{body}" for body in bodies]})


@pytest.fixture
def world() -> Virtual:
    return Virtual("serves")


@pytest.fixture
def queue(world: Virtual) -> QueueCore:
    return QueueCore(world.session, "default", "jobs", VirtualEvent)


def consumer(queue: QueueCore, limit: int = 2, **how: Any) -> ConsumerCore:
    settings: Consume = how_to_consume(limit, **{"lease": 30.0, "wait": 1.0, "drain": True, **how})
    return ConsumerCore(queue, settings)


def messages(world: Virtual, core: ConsumerCore) -> Iterator[Held]:
    while (held := world.run(core.next())) is not None:
        yield held


def test_each_message_is_acked_when_the_loop_comes_back(world: Virtual, queue: QueueCore) -> None:
    server = Server(world, 5)
    seen = []
    for held in messages(world, consumer(queue)):
        world.pass_time(0.1)
        assert server.did("ack") == [[f"m{number}"] for number in seen]
        seen.append(held.message.body)
    assert seen == list(range(5))
    assert len(server.did("ack")) == 5
    assert server.did("release") == []
    world.pass_time(0.1)
    assert world.idle


def test_what_is_done_during_an_ack_is_acked_together(world: Virtual, queue: QueueCore) -> None:
    server = Server(world, 20)
    world.round_trips_s["a"] = 0.05
    for _ in messages(world, consumer(queue, limit=20)):
        world.pass_time(0.01)
    acks = server.did("ack")
    assert sorted(chain.from_iterable(acks)) == sorted(f"m{number}" for number in range(20))
    assert len(acks) <= 7
    assert server.did("release") == []


def test_the_next_claim_is_fetched_while_the_last_message_is_worked_on(
    world: Virtual, queue: QueueCore
) -> None:
    server = Server(world, 4)
    core = consumer(queue)
    world.run(core.next())
    world.pass_time(1.0)
    assert server.did("claim") == [2]
    world.run(core.next())
    world.pass_time(1.0)
    assert server.did("claim") == [2, 2]
    lazy = consumer(queue, prefetch=False)
    server.ready = [7, 8]
    world.run(lazy.next())
    world.pass_time(1.0)
    assert server.ready == []
    assert server.did("claim") == [2, 2, 2]


@pytest.mark.parametrize("prefetch", [True, False])
def test_an_ack_and_the_next_claim_are_one_request(
    world: Virtual, queue: QueueCore, prefetch: bool
) -> None:
    server = Server(world, 5)
    for _ in messages(world, consumer(queue, limit=1, prefetch=prefetch)):
        world.pass_time(0.1)
    assert sorted(server.did("ack")) == [[f"m{number}"] for number in range(5)]
    posts = [asked.request for asked in world.asked if asked.request.method == "POST"]
    alone = [one for one in posts if b"next" not in (one.body or b"")]
    # The first claim, the last look ahead and the last ack, and the one that finds the end.
    assert len(alone) <= 4
    assert len(posts) <= 5 + 3


def test_what_was_acked_with_a_claim_that_is_refused_is_done(
    world: Virtual, queue: QueueCore, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(world, 2)
    core = consumer(queue, limit=1, prefetch=False)
    held = world.run(core.next())
    server.is_full = True

    def there_is_room() -> Any:
        yield Pause(5.0)
        server.is_full = False

    def both() -> Any:
        yield Spawn(there_is_room())
        return (yield from core.next())

    assert world.run(both()).message.body == 1
    assert held.settled
    assert server.did("ack") == [["m0"]]
    assert "may come again" not in caplog.text


def test_what_is_acked_is_not_extended_while_the_next_is_waited_for(
    world: Virtual, queue: QueueCore
) -> None:
    server = Server(world, 2)
    core = consumer(queue, limit=1, prefetch=False, wait=20.0)
    world.run(core.next())
    world.round_trips_s["a"] = 15.0
    held = world.run(core.next())
    assert held.message.body == 1
    assert server.did("extend") == []
    world.round_trips_s["a"] = 0.001
    world.pass_time(11.0)
    assert server.did("extend") == ["c1"]


def test_leases_are_extended_while_the_work_lasts(world: Virtual, queue: QueueCore) -> None:
    server = Server(world, 2)
    core = consumer(queue, extend_for=100.0)
    held = world.run(core.next())
    world.pass_time(95.0)
    assert server.did("extend") == ["c0"] * 9
    assert not held.lost
    world.pass_time(60.0)
    assert len(server.did("extend")) == 9  # For no longer than it may.
    assert held.lost


def test_a_lost_lease_is_told_and_what_waited_is_not_shown(
    world: Virtual, queue: QueueCore, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(world, 4)
    core = consumer(queue, limit=2)
    held = world.run(core.next())
    server.lost.add("c0")
    assert not held.lost
    world.pass_time(11.0)
    assert held.lost
    with pytest.raises(LeaseLost):
        world.run(held.ack())
    assert [held.message.body for held in messages(world, core)] == [2, 3]
    assert "was not extended" in caplog.text


def test_a_lease_lost_unnoticed_does_not_end_the_loop(
    world: Virtual, queue: QueueCore, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(world, 3)
    core = consumer(queue, limit=1, prefetch=False)
    world.run(core.next())
    server.lost.add("c0")
    assert [held.message.body for held in messages(world, core)] == [1, 2]
    assert "m0 were lost" in caplog.text


@pytest.mark.parametrize("by", ["close", "forget", "client"])
def test_a_loop_that_is_left_gives_back_what_it_holds(
    world: Virtual, queue: QueueCore, by: str
) -> None:
    server = Server(world, 4)
    core = consumer(queue, auto_ack=False)
    first, _ = world.run(core.next()), world.run(core.next())
    world.run(first.ack())
    world.pass_time(1.0)
    if by == "close":
        world.run(core.close())
    elif by == "client":
        world.run(world.session.close())
    else:
        core.forget()
        world.pass_time(10.0)
    assert sorted(server.did("release")) == ["c0", "c2"]
    assert server.did("ack") == [["m0"]]
    assert world.idle
    assert world.run(core.next()) is None


@pytest.mark.parametrize(("done", "what"), [(True, "ack"), (False, "release")])
def test_a_block_settles_its_message(
    world: Virtual, queue: QueueCore, done: bool, what: str
) -> None:
    server = Server(world, 1)
    core = consumer(queue, prefetch=False)
    held = world.run(core.next())
    world.run(held.leave(done))
    assert held.settled
    assert world.run(core.next()) is None
    assert [name for name, _ in server.log if name in ("ack", "release")] == [what]


def test_an_outage_is_waited_out_but_not_at_the_start(world: Virtual, queue: QueueCore) -> None:
    server = Server(world, 1)
    world.behaviours["a"] = "is down"
    with pytest.raises(Unavailable):
        world.run(consumer(queue).next())
    world.behaviours["a"] = "serves"
    core = consumer(queue, prefetch=False, drain=False, auto_ack=False)
    world.run(core.next())
    world.behaviours["a"] = "is down"
    server.ready = [9]

    def comes_back() -> Any:
        yield Pause(60.0)
        world.behaviours["a"] = "serves"

    def both() -> Any:
        yield Spawn(comes_back())
        return (yield from core.next())

    assert world.run(both()).message.body == 9


def test_a_consumer_waits_while_the_account_has_as_much_in_flight_as_it_may(
    world: Virtual, queue: QueueCore
) -> None:
    server = Server(world, 1)
    server.is_full = True

    def there_is_room() -> Any:
        yield Pause(60.0)
        server.is_full = False

    def both() -> Any:
        yield Spawn(there_is_room())
        return (yield from consumer(queue).next())

    assert world.run(both()).message.body == 0


@pytest.mark.parametrize(("passed_s", "known"), [(0.0, True), (40.0, False)])
def test_an_ack_that_was_done_by_a_try_without_an_answer(
    world: Virtual, queue: QueueCore, passed_s: float, known: bool
) -> None:
    Server(world, 1)
    claim = world.run(queue.claim(1, lease=30.0))
    world.now_s += passed_s
    replies = [Broken("reset", reached=True), refusal(404, "no_claim")]
    world.answers = lambda request: replies.pop(0)
    if known:
        assert world.run(claim.ack()).settled == 1
        assert claim.held == set()
    else:
        with pytest.raises(OutcomeUnknown):
            world.run(claim.ack())


@pytest.mark.parametrize(("passed_s", "settled"), [(0.0, 1), (40.0, 0)])
def test_what_was_acked_by_a_try_without_an_answer_and_what_is_next(
    world: Virtual, queue: QueueCore, passed_s: float, settled: int
) -> None:
    server = Server(world, 2)
    claim = world.run(queue.claim(1, lease=30.0))
    world.now_s += passed_s
    server.lost.add("c0")
    replies: list[Any] = [Broken("reset", reached=True)]
    world.answers = lambda request: replies.pop() if replies else server.serve(request)
    done, following = world.run(claim.ack_and_claim(["m0"]))
    assert done.settled == settled
    assert (claim.held, claim.lost) == (set(), set() if settled else {"m0"})
    assert [message.body for message in following.messages] == [1]


@pytest.mark.parametrize(
    ("status", "raised"),
    [(403, QuotaExceeded), (429, Unavailable), (503, Unavailable), (504, OutcomeUnknown)],
)
def test_an_error_of_what_is_next_says_what_was_acked(
    world: Virtual, queue: QueueCore, status: int, raised: type[RaftqError]
) -> None:
    Server(world, 1)
    claim = world.run(queue.claim(1))
    problem = {"status": status, "reason": "quota_exceeded", "title": "No", "limit": 1}
    told = {"acked": 1, "stale": [], "claim_ended": False, "next": None, "next_refused": problem}
    world.answers = lambda request: answer(200, told)
    with pytest.raises(raised) as caught:
        world.run(claim.ack_and_claim())
    assert caught.value.done == Settled(1)
    assert claim.held == set()


def producer(queue: QueueCore, **how: Any) -> ProducerCore[VirtualFuture]:
    settings = {"linger": 0.005, "max_batch": 3, "max_pending": 6, **how}
    return ProducerCore(queue, VirtualFuture, **settings)


def test_puts_become_batches_in_order(world: Virtual, queue: QueueCore) -> None:
    server = Server(world, 0)
    core = producer(queue, max_pending=100)
    futures = [world.run(core.put(number)) for number in range(8)]
    world.run(core.close())
    assert server.bodies == list(range(8))
    assert [len(batch) for batch in server.did("put")] == [3, 3, 2]
    assert [future.result for future in futures] == [f"id{number}" for number in range(8)]
    assert world.idle
    with pytest.raises(Closed):
        world.run(core.put(9))


def test_a_lonely_message_waits_no_longer_than_it_should(world: Virtual, queue: QueueCore) -> None:
    server = Server(world, 0)
    core = producer(queue, linger=0.5)
    future = world.run(core.put(1))
    world.pass_time(0.4)
    assert server.bodies == []
    world.pass_time(0.2)
    assert future.result == "id1"
    world.run(core.put(2))
    began_s = world.now_s
    world.run(core.flush())
    assert world.now_s - began_s < 0.1


def test_put_waits_while_too_much_is_pending(world: Virtual, queue: QueueCore) -> None:
    Server(world, 0)
    world.round_trips_s["a"] = 1.0
    core = producer(queue, max_pending=3)
    began_s = world.now_s
    for number in range(3):
        world.run(core.put(number))
    assert world.now_s == began_s
    world.run(core.put(3))
    assert world.now_s - began_s >= 1.0


def test_one_bad_message_does_not_fail_its_neighbours(world: Virtual, queue: QueueCore) -> None:
    server = Server(world, 0)
    server.refused = {2}
    core = producer(queue, max_batch=8, max_pending=8)
    futures = [world.run(core.put(number)) for number in range(8)]
    world.run(core.close())
    assert isinstance(futures[2].result, Refused)
    assert server.bodies == [0, 1, 3, 4, 5, 6, 7]


def test_when_nobody_serves_each_message_has_the_error(world: Virtual, queue: QueueCore) -> None:
    Server(world, 0)
    world.behaviours["a"] = "is down"
    core = producer(queue)
    futures = [world.run(core.put(number)) for number in range(2)]
    world.run(core.close())
    assert all(isinstance(future.result, Unavailable) for future in futures)


def test_every_put_carries_the_same_key_in_all_its_tries(world: Virtual, queue: QueueCore) -> None:
    Server(world, 0)
    world.behaviours["a"] = "hangs up"
    with pytest.raises(OutcomeUnknown):
        world.run(queue.put("x"))
    keys = {asked.request.headers["idempotency-key"] for asked in world.asked}
    assert len(world.asked) > 2
    assert len(keys) == 1


def test_all_leases_are_extended_by_one_request(
    world: Virtual, queue: QueueCore, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(world, 3)
    core = consumer(queue, limit=1, auto_ack=False, extend_for=1000.0)
    held = []
    for _ in range(3):
        held.append(world.run(core.next()))
        world.pass_time(1.0)
    world.pass_time(60.0)
    asked = server.did("extend many")
    assert [len(claims) for claims in asked] == [3] * len(asked)
    assert 6 <= len(asked) <= 7
    server.lost.add("c1")
    world.pass_time(15.0)
    assert [one.lost for one in held] == [False, True, False]
    assert "claim c1 was not extended: it is over" in caplog.text
