"""Each account has its limits on a node, and the node keeps no more than it must."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from api.fairness import allowances
from api.fairness.allowances import Allowance, Allowances
from api.fairness.shares import SWEEP_MIN
from api.ports import Fairness
from api.problems import Problem


class Node:
    """Allowances with a clock of the test's."""

    def __init__(self, fairness: Fairness) -> None:
        self.now_s = 1_000.0
        self.limited: Counter[str] = Counter()
        self.all = Allowances(
            fairness, lambda: self.now_s, lambda limit: self.limited.update([limit.value])
        )

    def enter(self, account: str = "a", size: int = 0) -> Allowance:
        found = self.all.enter(account, size)
        assert found is not None
        return found

    def refused(self, ask: Callable[[], object]) -> dict[str, str]:
        """The headers of the refusal."""
        with pytest.raises(Problem) as caught:
            ask()
        assert (caught.value.status, caught.value.reason) == (429, "rate_limited")
        return dict(caught.value.headers)


def test_without_limits_nothing_is_kept() -> None:
    node = Node(Fairness())
    assert not node.all.are_any
    assert node.all.enter("a", 5) is None
    assert len(node.all) == 0


def test_requests_beyond_the_rate_are_refused_until_it_is_time() -> None:
    node = Node(Fairness(requests_per_s=2, requests_burst=4))
    for _ in range(4):
        node.enter().leave()
    assert node.refused(node.enter) == {
        "Retry-After": "1",
        "RateLimit-Policy": '"requests";q=4;qu="requests";w=2',
        "RateLimit": '"requests";r=0;t=2',
    }
    node.enter("b").leave()
    node.now_s += 0.5
    assert node.enter().headers()[1] == ("RateLimit", '"requests";r=0;t=2')
    assert node.limited == {"requests": 1}


def test_a_request_that_is_refused_costs_nothing() -> None:
    node = Node(Fairness(requests_per_s=1, bytes_per_s=10))
    node.enter(size=25).leave()
    node.now_s += 1
    for _ in range(5):
        assert node.refused(node.enter)["Retry-After"] == "1"
    node.now_s += 0.6
    assert dict(node.enter().headers())["RateLimit"] == '"requests";r=0;t=1, "bytes";r=1;t=1'
    assert node.limited == {"bytes": 5}


def test_bytes_count_both_ways_and_what_is_found_out_later_is_paid_later() -> None:
    node = Node(Fairness(bytes_per_s=100))
    allowance = node.enter(size=50)
    allowance.charge(250)
    allowance.leave()
    headers = node.refused(node.enter)
    assert headers["Retry-After"] == "3"
    assert headers["RateLimit-Policy"] == '"bytes";q=100;qu="content-bytes";w=1'


def test_as_many_requests_at_once_as_the_account_may_have() -> None:
    node = Node(Fairness(concurrent_max=2))
    first, _ = node.enter(), node.enter()
    assert node.refused(node.enter) == {
        "Retry-After": "1",
        "RateLimit-Policy": '"concurrent";q=2;qu="concurrent-requests"',
    }
    node.enter("b")
    first.leave()
    node.enter()
    assert node.limited == {"concurrent": 1}


def test_who_waits_is_counted_among_those_who_wait_and_not_as_served() -> None:
    node = Node(Fairness(concurrent_max=1, parked_max=2))
    node.enter().park()
    node.enter().park()
    third = node.enter()
    assert "Retry-After" in node.refused(third.park)
    assert (third.concurrent, third.parked) == (1, 2)
    third.leave()
    third.unpark()
    third.leave()
    assert (third.concurrent, third.parked) == (0, 1)
    node.enter().park()
    assert node.limited == {"parked": 1}


def test_an_account_may_have_limits_of_its_own_besides_those_of_all() -> None:
    own = {"shop": {"requests_per_s": 5}, "free": {"concurrent_max": 0}}
    node = Node(Fairness(concurrent_max=3, accounts=own))
    policies = {name: dict(node.enter(name).headers()) for name in ("shop", "other")}
    assert policies["shop"]["RateLimit-Policy"] == (
        '"requests";q=5;qu="requests";w=1, "concurrent";q=3;qu="concurrent-requests"'
    )
    assert policies["other"] == {"RateLimit-Policy": '"concurrent";q=3;qu="concurrent-requests"'}
    assert node.all.enter("free", 0) is None


def test_accounts_that_have_paid_off_what_they_used_are_forgotten() -> None:
    node = Node(Fairness(requests_per_s=10))
    busy = node.enter("busy")
    for number in range(100_000):
        node.now_s += 0.01
        node.enter(f"a{number}").leave()
    # In debt for a tenth of a second each: ten at a time, and as many again until the next sweep.
    assert len(node.all) <= SWEEP_MIN + 1
    busy.leave()
    assert node.enter("busy") is busy


def test_what_an_account_has_used_is_not_forgotten_however_many_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(allowances, "ALLOWANCES_MAX", 200)
    node = Node(Fairness(requests_per_s=1))
    node.enter("a").leave()
    for number in range(200):
        node.now_s += 0.001
        node.enter(f"b{number}").leave() if number < 200 - 1 else node.enter("first beyond").leave()
    assert len(node.all) == 201
    node.refused(lambda: node.enter("second beyond"))
    node.refused(lambda: node.enter("a"))
    assert len(node.all) == 201
    node.now_s += 2
    node.enter("second beyond")
