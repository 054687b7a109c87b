"""Long polls: clients that wait, clients that leave, leaders that go away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from api.app import Application
from api.ports import OutcomeUnknown, Unavailable
from asgi_client import Exchange, Reply, request
from local_service import LocalService
from statemachine.commands import Ack, Claim, Release, TransactAndClaim
from statemachine.outcomes import Claimed

pytestmark = pytest.mark.anyio

QUEUE = "/v1/shop/queues/orders"
PATIENT = {"wait": 30}
DEADLINE_S = 5


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 - what is awaited has no event of its own.
            await asyncio.sleep(0.001)


def poll(app: Application, **body: object) -> tuple[Exchange, asyncio.Task[Reply]]:
    exchange = Exchange(app, "POST", f"{QUEUE}/claims", body=PATIENT | body)
    return exchange, asyncio.create_task(exchange.run())


async def put(app: Application) -> None:
    reply = await request(app, "POST", f"{QUEUE}/messages", body={"body": 1})
    assert reply.status == 201


async def done(task: asyncio.Task[Reply]) -> Reply:
    async with asyncio.timeout(DEADLINE_S):
        return await task


async def test_a_parked_claim_is_answered_when_a_message_comes(
    app: Application, service: LocalService
) -> None:
    _, task = poll(app)
    await until(lambda: service.parked("shop", "orders") == 1)
    await put(app)
    reply = await done(task)
    assert reply.status == 201
    assert len(reply.json()["messages"]) == 1


async def test_a_parked_claim_proposes_nothing(app: Application, service: LocalService) -> None:
    exchange, task = poll(app)
    await until(lambda: service.parked("shop", "orders") == 1)
    proposed = len(service.proposed)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(service.proposed) == proposed
    exchange.left.set()
    await done(task)


async def test_an_empty_queue_answers_no_content_at_the_end_of_the_wait(app: Application) -> None:
    _, task = poll(app, wait=0.02)
    assert (await done(task)).status == 204


async def test_who_waited_first_is_served_first(app: Application, service: LocalService) -> None:
    tasks = []
    for count in range(3):
        tasks.append(poll(app)[1])
        await until(lambda want=count + 1: service.parked("shop", "orders") == want)  # type: ignore[misc]  # Bound now.
    for task in tasks:
        await put(app)
        assert (await done(task)).status == 201


async def expired(app: Application, service: LocalService) -> None:
    """A message that seems to be ready, and that no claim gets."""
    assert (
        await request(app, "POST", f"{QUEUE}/messages", body={"body": 1, "ttl": 1})
    ).status == 201
    service.clock_ms += 2_000


async def test_nothing_is_claimed_where_nothing_is_known_until_the_end_of_the_wait(
    app: Application, service: LocalService
) -> None:
    _, task = poll(app, wait=0.02)
    await until(lambda: service.parked("shop", "orders") == 1)
    assert not service.proposed
    assert (await done(task)).status == 204
    assert [type(one) for one in service.proposed] == [Claim]


async def test_what_is_known_of_is_claimed_at_once(app: Application, service: LocalService) -> None:
    await put(app)
    _, task = poll(app)
    assert (await done(task)).status == 201
    assert [type(one) for one in service.proposed[1:]] == [Claim]


async def test_a_message_that_comes_between_claim_and_park_is_not_missed(
    app: Application, service: LocalService
) -> None:
    await expired(app, service)
    original = service.propose

    async def propose_then_put(command):  # type: ignore[no-untyped-def]  # As original.
        outcome = await original(command)
        if isinstance(outcome, Claimed) and not outcome.messages:
            service.propose = original  # type: ignore[method-assign]  # Once only.
            await put(app)
        return outcome

    service.propose = propose_then_put  # type: ignore[method-assign]  # That is the test.
    _, task = poll(app)
    assert (await done(task)).status == 201


async def test_a_client_that_left_while_parked_claims_nothing(
    app: Application, service: LocalService
) -> None:
    exchange, task = poll(app)
    await until(lambda: service.parked("shop", "orders") == 1)
    exchange.left.set()
    assert (await done(task)).status == 0
    assert service.parked("shop", "orders") == 0
    await put(app)
    stats = await request(app, "GET", f"{QUEUE}/stats")
    assert stats.json()["messages"] == {"ready": 1, "delayed": 0, "claimed": 0, "blocked": 0}
    assert service.observed[0][2] == 499


async def test_a_client_that_left_before_the_second_claim_makes_none(
    app: Application, service: LocalService
) -> None:
    await expired(app, service)
    exchange, task = poll(app)
    original = service.propose

    async def propose_then_put_and_leave(command):  # type: ignore[no-untyped-def]  # As original.
        outcome = await original(command)
        service.propose = original  # type: ignore[method-assign]  # Once only.
        await put(app)
        exchange.left.set()
        for _ in range(3):
            await asyncio.sleep(0)
        return outcome

    service.propose = propose_then_put_and_leave  # type: ignore[method-assign]  # The test.
    assert (await done(task)).status == 0
    assert sum(isinstance(command, Claim) for command in service.proposed) == 1


async def test_a_client_that_left_during_the_claim_holds_nothing(
    app: Application, service: LocalService
) -> None:
    await put(app)
    exchange, task = poll(app)
    original = service.propose

    async def leave_then_propose(command):  # type: ignore[no-untyped-def]  # As original.
        exchange.left.set()
        for _ in range(3):
            await asyncio.sleep(0)
        return await original(command)

    service.propose = leave_then_propose  # type: ignore[method-assign]  # That is the test.
    assert (await done(task)).status == 0
    assert isinstance(service.proposed[-1], Release)
    stats = await request(app, "GET", f"{QUEUE}/stats")
    assert stats.json()["messages"]["ready"] == 1


async def test_a_lost_leader_is_waited_out(app: Application, service: LocalService) -> None:
    await put(app)
    service.failures.extend([Unavailable("no_leader", "an election is under way")] * 2)
    _, task = poll(app)
    assert (await done(task)).status == 201


async def test_a_leader_that_stays_lost_ends_the_wait(
    app: Application, service: LocalService
) -> None:
    service.failures.extend([Unavailable("no_leader", "no majority")] * 100)
    _, task = poll(app, wait=0.1)
    reply = await done(task)
    assert (reply.status, reply.json()["reason"]) == (503, "no_leader")
    assert reply.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("failure", "status"),
    [(Unavailable("overloaded", "too many"), 503), (OutcomeUnknown("the leader is gone."), 504)],
)
async def test_other_failures_are_not_waited_out(
    app: Application, service: LocalService, failure: Exception, status: int
) -> None:
    await put(app)
    service.failures.append(failure)
    _, task = poll(app)
    assert (await done(task)).status == status


async def test_without_patience_nothing_is_waited_out(
    app: Application, service: LocalService
) -> None:
    service.failures.append(Unavailable("no_leader", "an election is under way"))
    reply = await request(app, "POST", f"{QUEUE}/claims", body={})
    assert reply.status == 503


async def test_a_wait_and_an_idempotency_key_exclude_each_other(app: Application) -> None:
    reply = await request(
        app, "POST", f"{QUEUE}/claims", body=PATIENT, headers={"Idempotency-Key": "k"}
    )
    assert (reply.status, reply.json()["field"]) == (400, "wait")


async def put_in(app: Application, zone: str) -> None:
    body = {"body": 1, "zone": zone}
    assert (await request(app, "POST", f"{QUEUE}/messages", body=body)).status == 201


async def test_who_can_not_take_a_message_does_not_swallow_its_wake(
    app: Application, service: LocalService
) -> None:
    _, picky = poll(app, zone="south", zone_mode="only", wait=0.3)
    await until(lambda: service.parked("shop", "orders") == 1)
    _, open_to_all = poll(app, zone="south")
    await until(lambda: service.parked("shop", "orders") == 2)
    proposed = len(service.proposed)
    await put_in(app, "dead")
    assert (await done(open_to_all)).status == 201
    assert len(service.proposed) == proposed + 2, "the message, and one more claim"
    assert (await done(picky)).status == 204


async def test_a_zone_in_which_nobody_works_does_not_starve(
    app: Application, service: LocalService
) -> None:
    prefers = {"zone": "south", "zone_mode": "prefer", "locality_wait": 0.1}
    tasks = []
    for count in range(2):
        tasks.append(poll(app, **prefers)[1])
        await until(lambda want=count + 1: service.parked("shop", "orders") == want)  # type: ignore[misc]  # Bound now.
    for _ in range(2):
        await put_in(app, "dead")
    # They have learned when, and are parked again until then.
    await until(lambda: sum(isinstance(one, Claim) for one in service.proposed) == 4)
    await until(lambda: service.parked("shop", "orders") == 2)
    service.advance(0.1)
    for task in tasks:
        assert (await done(task)).status == 201


async def test_who_prefers_its_zone_takes_what_comes_there_meanwhile(
    app: Application, service: LocalService
) -> None:
    await put_in(app, "dead")
    _, task = poll(app, zone="south", zone_mode="prefer", locality_wait=60)
    await until(lambda: service.parked("shop", "orders") == 1)
    proposed = len(service.proposed)
    await put_in(app, "dead")
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(service.proposed) == proposed + 1, "it knows its time, and need not be told"
    await put_in(app, "south")
    assert (await done(task)).json()["messages"][0]["zone"] == "south"


async def held(app: Application) -> str:
    """A claim of the one message of the queue."""
    await put(app)
    reply = await request(app, "POST", f"{QUEUE}/claims")
    claim: str = reply.json()["claim"]
    return claim


def ack_and_poll(
    app: Application, claim: str, **more: object
) -> tuple[Exchange, asyncio.Task[Reply]]:
    body = {"next": PATIENT | more}
    exchange = Exchange(app, "POST", f"{QUEUE}/claims/{claim}/ack", body=body)
    return exchange, asyncio.create_task(exchange.run())


async def test_an_ack_is_done_at_once_though_what_is_next_has_to_be_waited_for(
    app: Application, service: LocalService
) -> None:
    _, task = ack_and_poll(app, await held(app))
    await until(lambda: service.parked("shop", "orders") == 1)
    stats = await request(app, "GET", f"{QUEUE}/stats")
    assert stats.json()["messages"] == {"ready": 0, "delayed": 0, "claimed": 0, "blocked": 0}
    assert [type(one) for one in service.proposed[-2:]] == [Ack, Claim]
    await put(app)
    told = (await done(task)).json()
    assert told["acked"] == 1
    assert len(told["next"]["messages"]) == 1


async def test_an_ack_is_told_when_nothing_came_in_time(app: Application) -> None:
    _, task = ack_and_poll(app, await held(app), wait=0.02)
    reply = await done(task)
    told = {"acked": 1, "stale": [], "claim_ended": False, "next": None}
    assert (reply.status, reply.json()) == (200, told)


async def test_who_left_after_the_ack_claims_nothing(
    app: Application, service: LocalService
) -> None:
    exchange, task = ack_and_poll(app, await held(app))
    await until(lambda: service.parked("shop", "orders") == 1)
    exchange.left.set()
    assert (await done(task)).status == 0
    await put(app)
    stats = await request(app, "GET", f"{QUEUE}/stats")
    assert stats.json()["messages"]["ready"] == 1


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (Unavailable("overloaded", "too many"), "overloaded"),
        (OutcomeUnknown("the leader is gone."), "outcome_unknown"),
    ],
)
async def test_an_ack_is_told_though_the_claim_fails_that_was_waited_for(
    app: Application, service: LocalService, failure: Exception, reason: str
) -> None:
    _, task = ack_and_poll(app, await held(app))
    await until(lambda: service.parked("shop", "orders") == 1)
    service.failures.extend([None, failure])
    await put(app)
    reply = await done(task)
    assert (reply.status, reply.json()["acked"], reply.json()["next"]) == (200, 1, None)
    assert reply.json()["next_refused"]["reason"] == reason


async def test_an_ack_that_is_not_taken_claims_nothing(
    app: Application, service: LocalService
) -> None:
    claim = await held(app)
    await put(app)
    for failure, status in ((Unavailable("no_leader", ""), 503), (OutcomeUnknown(""), 504)):
        service.failures.append(failure)
        _, task = ack_and_poll(app, claim)
        assert (await done(task)).status == status
    stats = await request(app, "GET", f"{QUEUE}/stats")
    assert stats.json()["messages"]["claimed"] == stats.json()["messages"]["ready"] == 1


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (None, None),
        (Unavailable("overloaded", "too many"), "overloaded"),
        (OutcomeUnknown("the leader is gone."), "outcome_unknown"),
    ],
)
async def test_a_transaction_is_done_before_what_is_next_is_waited_for(
    app: Application, service: LocalService, failure: Exception | None, reason: str | None
) -> None:
    body = {
        "puts": [{"queue": "done", "messages": [{"body": "x"}]}],
        "next": PATIENT | {"queue": "orders"},
    }
    exchange = Exchange(app, "POST", "/v1/shop/transactions", body=body)
    task = asyncio.create_task(exchange.run())
    await until(lambda: service.parked("shop", "orders") == 1)
    assert [type(one) for one in service.proposed] == [TransactAndClaim]
    service.failures.extend([None, failure])
    await put(app)
    reply = await done(task)
    told = reply.json()
    assert (reply.status, len(told["puts"][0]["ids"])) == (200, 1)
    assert (told["next"] is None) is (reason is not None)
    assert told.get("next_refused", {}).get("reason") == reason
