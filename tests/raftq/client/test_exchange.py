"""Decisions of one call: whom it asks, when again, when it gives up. No clock, no network."""

from __future__ import annotations

from itertools import pairwise

import pytest

from raftq.client.budget import PER_CALL, RESERVE, Budget
from raftq.client.effects import Answer, Broken, Request
from raftq.client.errors import Closed, LeaseLost, OutcomeUnknown, Refused, Unavailable
from raftq.client.exchange import PAUSE_MAX_S, REFRESH_S, decoded
from raftq.client.replicas import DOWN_MAX_S, Replicas
from virtual_client import URLS, Virtual, answer, refusal


@pytest.mark.parametrize(
    ("behaviours", "repeatable", "asked"),
    [
        (("serves", "serves", "serves"), False, "a"),
        (("is down", "serves", "serves"), False, "ab"),
        (("is down", "is down", "serves"), False, "abc"),
        (("has no leader", "serves", "serves"), False, "ab"),
        (("asks for patience", "is stopping", "serves"), False, "abc"),
        (("limits", "serves", "serves"), False, "ab"),
        (("limits", "asks for patience", "serves"), False, "abc"),
        (("hangs up", "serves", "serves"), True, "ab"),
        (("does not know", "has no leader", "serves"), True, "abc"),
        (("fails", "serves", "serves"), True, "ab"),
    ],
)
def test_the_next_replica_is_asked_at_once(
    behaviours: tuple[str, ...], repeatable: bool, asked: str
) -> None:
    world = Virtual(*behaviours)
    assert world.call(repeatable=repeatable).status == 200
    assert world.hosts == asked
    assert world.now_s - 100.0 == pytest.approx(0.001 * len(asked))


@pytest.mark.parametrize("behaviour", ["hangs up", "does not know", "fails"])
def test_what_may_have_happened_is_not_repeated_unless_that_is_harmless(behaviour: str) -> None:
    world = Virtual(behaviour, "serves", "serves")
    with pytest.raises(OutcomeUnknown):
        world.call()
    assert world.hosts == "a"


@pytest.mark.parametrize(
    ("method", "behaviour", "error"),
    [
        ("POST", "is down", Unavailable),
        ("POST", "has no leader", Unavailable),
        ("POST", "limits", Unavailable),
        ("POST", "hangs up", OutcomeUnknown),
        ("POST", "does not know", OutcomeUnknown),
        ("GET", "hangs up", Unavailable),
    ],
)
def test_a_call_ends_at_its_deadline_and_says_what_it_means(
    method: str, behaviour: str, error: type[Exception]
) -> None:
    world = Virtual(behaviour, behaviour, behaviour, timeout_s=5.0)
    with pytest.raises(error) as caught:
        world.call(method, repeatable=True)
    assert 3.0 < world.now_s - 100.0 <= 5.1
    assert all(url in str(caught.value) for url in URLS)
    if isinstance(caught.value, Unavailable):
        assert caught.value.unreached == (behaviour == "is down")


def test_once_unknown_it_stays_unknown() -> None:
    world = Virtual("hangs up", "has no leader", "is down", timeout_s=2.0)
    with pytest.raises(OutcomeUnknown):
        world.call(repeatable=True)


def test_a_refusal_is_final_and_carries_the_problem() -> None:
    world = Virtual("refuses", "serves")
    with pytest.raises(Refused, match="No: because") as caught:
        world.call(repeatable=True)
    refused = caught.value
    assert (refused.status, refused.reason, refused.type) == (404, "no_queue", "urn:no_queue")
    assert not refused.after_unknown
    assert world.hosts == "a"


def test_a_lost_lease_after_an_unknown_outcome_is_marked() -> None:
    world = Virtual("hangs up", "lost the claim")
    with pytest.raises(LeaseLost) as caught:
        world.call(repeatable=True)
    assert caught.value.after_unknown


@pytest.mark.parametrize("behaviour", ["asks for patience", "limits"])
@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_retry_after_is_honoured_and_not_by_all_at_once(behaviour: str, chance: float) -> None:
    world = Virtual(behaviour, "is down", chance=chance)
    with pytest.raises(Unavailable):
        world.call(timeout_s=10.0)
    times = [asked.at_s for asked in world.asked if asked.host == "a"]
    assert len(times) >= 3
    for earlier, later in pairwise(times):
        assert later - earlier == pytest.approx(3.0 + chance * 1.5, abs=0.01)


@pytest.mark.parametrize("behaviour", ["asks for patience", "limits"])
def test_those_who_are_told_to_come_back_pay_for_it_from_the_budget(behaviour: str) -> None:
    world = Virtual(behaviour)
    calls = 60
    for _ in range(calls):
        with pytest.raises(Unavailable):
            world.call(timeout_s=4.0, repeatable=True)
    retries = len(world.asked) - calls
    passed_s = world.now_s - 100.0
    assert retries <= calls * PER_CALL + RESERVE + passed_s * 5.0 + 1
    assert passed_s >= 3.0 * retries


def test_pauses_between_rounds_grow_with_full_jitter() -> None:
    full, half = [], []
    for chance, pauses in ((1.0, full), (0.5, half)):
        world = Virtual("has no leader", chance=chance, timeout_s=20.0)
        with pytest.raises(Unavailable):
            world.call()
        times = [asked.at_s for asked in world.asked][:7]
        pauses += [later - earlier for earlier, later in pairwise(times)]
    assert full == pytest.approx([0.201, 0.401, 0.801, 1.601, 2.001, 2.001])
    assert half == pytest.approx([(pause - 0.001) / 2 + 0.001 for pause in full])
    assert max(full) <= PAUSE_MAX_S + 0.01


def test_the_replica_that_failed_is_not_preferred_for_a_while() -> None:
    world = Virtual("is down", "serves", "serves")
    world.call()
    world.call()
    assert world.hosts == "abb"
    world.behaviours["a"] = "serves"
    world.now_s += DOWN_MAX_S
    world.call()
    assert world.hosts == "abba"


def test_an_impatient_client_gives_up_when_nobody_is_there() -> None:
    world = Virtual("is down", "is down", "is down", persistent=False)
    with pytest.raises(Unavailable):
        world.call()
    assert world.hosts == "abc"


def test_retries_are_a_tenth_of_the_calls_and_a_reserve() -> None:
    world = Virtual("has no leader", "serves", "serves")
    # Each call asks the one without a leader first, as it asks for no patience.
    calls = 1_000
    for _ in range(calls):
        world.call(timeout_s=60.0)
    retries = len(world.asked) - calls
    passed_s = world.now_s - 100.0
    assert retries <= calls * PER_CALL + RESERVE + passed_s * 5.0 + 1


def test_the_budget_fills_up_again() -> None:
    budget = Budget(0.0)
    assert [budget.take(0.0) for _ in range(int(RESERVE))] == [0.0] * int(RESERVE)
    assert budget.take(0.0) == pytest.approx(0.2)
    assert budget.take(0.2) == 0.0
    for _ in range(10):
        budget.pay_in(0.2)
    assert budget.take(0.2) == 0.0
    assert budget.take(0.2) > 0.0
    assert budget.take(1_000.0) == 0.0


def test_failing_to_connect_costs_nothing() -> None:
    world = Virtual("is down", "is down", "serves")
    for _ in range(200):
        world.call()
        for replica in world.session.replicas.order(world.now_s):
            replica.down_until_s = 0.0
    assert world.now_s - 100.0 == pytest.approx(0.001 * len(world.asked))


def test_reads_ask_for_what_this_client_has_seen() -> None:
    world = Virtual("serves")
    read = Request("GET", "/x")
    world.run(world.session.read(read))
    world.call()
    world.run(world.session.read(read))
    world.run(world.session.read(read, consistency="linearizable"))
    sent = [dict(asked.request.headers) for asked in world.asked]
    assert sent == [
        {},
        {},
        {"raftq-min-index": "7"},
        {"raftq-consistency": "linearizable"},
    ]


def view(cluster: str = "one", **zones: str) -> Answer:
    members = [
        {"node": node, "zone": zone, "api_url": f"http://{node}:1/", "role": "follower", "new": 1}
        for node, zone in zones.items()
    ]
    body = {"cluster_id": cluster, "leader": None, "term": 1, "commit_index": 1}
    return answer(200, {**body, "members": members}, raftq_node="a", raftq_zone="x")


def discovering(zone: str | None = None, alien: str = "") -> Virtual:
    """Only a is given; it names b and c. Each answers in its own name, ``alien`` does not."""
    world = Virtual("serves", zone=zone, discover=True)
    world.behaviours |= dict.fromkeys("bc", "serves")

    def serve(request: Request) -> Answer | Broken | None:
        host = world.asked[-1].host
        node = "?" if host == alien else host
        if request.path == "/cluster":
            return view(a="x", b="y", c="z")._replace(headers={"raftq-node": node})
        return answer(200, {}, raftq_node=node)

    world.answers = serve
    return world


@pytest.mark.parametrize(
    ("zone", "slow", "expected"),
    [(None, "ab", "c"), (None, "bc", "a"), ("y", "b", "b"), ("nowhere", "ac", "b")],
)
def test_the_nearest_is_in_the_same_zone_or_else_answers_fastest(
    zone: str | None, slow: str, expected: str
) -> None:
    world = discovering(zone)
    world.round_trips_s |= dict.fromkeys(slow, 0.05)
    world.call()
    assert world.hosts[-1] == expected


def test_a_learned_address_where_somebody_else_answers_is_not_used() -> None:
    world = discovering("y", alien="b")
    world.call()
    assert world.hosts[-1] != "b"


def test_a_replica_learned_of_takes_over() -> None:
    world = discovering()
    world.call()
    world.behaviours["a"] = "is down"
    world.behaviours["b"] = "has no leader"
    world.call()
    assert world.hosts[-1] == "c"


def test_the_view_is_refreshed_now_and_then_and_after_a_failure() -> None:
    world = discovering()

    def refreshed() -> int:
        return sum(asked.request.path == "/cluster" for asked in world.asked)

    world.call()
    world.call()
    first = refreshed()
    world.now_s += REFRESH_S
    world.call()
    assert refreshed() == first + 1
    world.behaviours["a"] = "is down"
    world.call()
    world.now_s += 2.0
    world.call()
    assert refreshed() > first + 1


def test_another_cluster_has_indexes_of_its_own() -> None:
    world = discovering()
    world.call()
    world.session.seen_index = 900
    inner = world.answers
    world.answers = lambda request: (
        view("two", a="x") if request.path == "/cluster" else inner(request)
    )
    world.now_s += REFRESH_S
    world.call()
    assert world.session.seen_index == 0


def test_nothing_is_sent_after_the_end() -> None:
    world = Virtual("serves")
    world.run(world.session.close())
    with pytest.raises(Closed):
        world.call()
    assert world.asked == []


def test_what_no_raftq_would_say_is_a_refusal() -> None:
    with pytest.raises(Refused, match="not what the API answers"):
        decoded(answer(200, "<html>"), dict)
    world = Virtual("serves")
    world.answers = lambda request: Answer(418, {}, b"<html>")
    with pytest.raises(Refused, match="HTTP 418"):
        world.call()


@pytest.mark.parametrize("url", ["host:8001", "ftp://host", "http://"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not a URL"):
        Replicas([url], None)


def test_no_url_is_refused() -> None:
    with pytest.raises(ValueError, match="no URL"):
        Replicas([], None)


def test_waiting_of_the_server_is_beside_the_deadline() -> None:
    world = Virtual("serves", timeout_s=1.0)
    world.round_trips_s["a"] = 20.0
    assert world.call(wait_s=20.0).status == 200


def test_a_problem_without_words_still_says_something() -> None:
    world = Virtual("serves")
    world.answers = lambda request: refusal(409, "stale_claim")
    with pytest.raises(LeaseLost):
        world.call()
