"""Those who were answered together are waited for together, and not for long."""

from __future__ import annotations

import pytest

from fake_runtime import FakeRuntime
from raftq.replica.gathering import (
    ENOUGH_BYTES,
    ENOUGH_REQUESTS,
    SKIPS_MAX,
    WAIT_COMMITS,
    WAIT_MAX_S,
    Gathering,
)

COMMIT_S = 0.002
WAIT_S = WAIT_COMMITS * COMMIT_S


class Log:
    """A log whose next entry is being gathered."""

    def __init__(self) -> None:
        self.runtime = FakeRuntime()
        self.woken = 0
        self.gathering = Gathering(self.runtime, self._wake)
        self.last = self.committed = 0

    def _wake(self) -> None:
        self.woken += 1

    def is_enough(self, requests: int, size: int = 0) -> bool:
        return self.gathering.is_enough(requests, size)

    def append(self, requests: int, size: int = 0) -> None:
        self.last += 1
        self.gathering.appended(self.last, requests, size)

    def commit(self, entries: int = 1, after_s: float = COMMIT_S) -> None:
        self.runtime.pass_time(after_s)
        self.committed += entries
        assert self.committed <= self.last
        self.gathering.committed(self.committed)

    def commit_of(self, *sizes: int) -> None:
        """Entries of so many requests, under way at one time."""
        for requests in sizes:
            self.append(requests)
        self.commit(len(sizes))

    def waited_s(self, requests: int) -> float:
        """How long so many requests wait if nobody comes."""
        began_s = self.runtime.now
        while not self.is_enough(requests):
            woken = self.woken
            while self.woken == woken:
                assert self.runtime.now < began_s + 1, "nobody is woken"
                self.runtime.pass_time(0.000_25)
        return self.runtime.now - began_s


def test_nobody_is_waited_for_before_anybody_came_or_where_one_asks_alone() -> None:
    log = Log()
    assert log.is_enough(1)
    for _ in range(3):
        log.commit_of(1)
        assert log.is_enough(1)


def test_who_was_answered_together_is_waited_for() -> None:
    log = Log()
    log.commit_of(4)
    assert [log.is_enough(requests) for requests in (1, 2, 3, 4)] == [False, False, False, True]


def test_all_that_were_under_way_at_one_time_are_expected_not_only_those_of_the_last_entry() -> (
    None
):
    log = Log()
    log.commit_of(5, 5, 6)
    assert not log.is_enough(6)
    assert log.is_enough(16)


def test_cohorts_that_came_apart_are_one_after_a_round() -> None:
    log = Log()
    log.append(5)
    assert log.is_enough(5)  # As many as are under way.
    log.append(5)
    assert not log.is_enough(6)
    log.commit()
    assert log.is_enough(6 + 5)
    log.append(11)
    log.commit()
    assert not log.is_enough(5)
    log.commit()
    assert log.is_enough(5 + 11)


def test_nearly_all_are_enough() -> None:
    log = Log()
    log.commit_of(20)
    assert not log.is_enough(17)
    assert log.is_enough(18)


@pytest.mark.parametrize(
    ("requests", "size"), [(ENOUGH_REQUESTS, 0), (1, ENOUGH_BYTES)], ids=["requests", "bytes"]
)
def test_what_is_large_enough_waits_for_nobody(requests: int, size: int) -> None:
    log = Log()
    log.append(1_000)
    assert log.is_enough(requests, size)
    log.commit()
    assert not log.is_enough(requests - 1, size - 1)
    assert log.is_enough(requests, size)


def test_nobody_waits_for_who_brought_much() -> None:
    log = Log()
    log.append(8, ENOUGH_BYTES)
    assert log.is_enough(1)
    log.append(2, ENOUGH_BYTES - 1)
    assert not log.is_enough(1)
    log.commit(2)
    assert not log.is_enough(1)
    assert log.is_enough(2)


def test_who_does_not_come_is_waited_for_as_long_as_two_commits_take() -> None:
    log = Log()
    log.commit_of(4)
    assert log.waited_s(2) == pytest.approx(WAIT_S, abs=0.001)
    log.append(2)
    log.commit()
    assert log.waited_s(2) == 0  # Two are gone: nobody waits for them again.


def test_the_time_until_somebody_asks_again_does_not_count() -> None:
    log = Log()
    log.commit_of(4)
    log.runtime.pass_time(1)
    assert log.waited_s(2) == pytest.approx(WAIT_S, abs=0.001)


def test_a_commit_that_took_long_makes_no_long_wait() -> None:
    log = Log()
    log.append(4)
    log.commit(after_s=1)
    assert log.waited_s(2) == pytest.approx(WAIT_MAX_S, abs=0.001)


def test_beside_others_that_are_under_way_it_is_waited_until_they_are_committed() -> None:
    log = Log()
    log.append(4)
    assert not log.is_enough(2)
    log.commit(after_s=0.004)
    assert not log.is_enough(2)  # Now those of the first may come again.
    log.runtime.pass_time(0.004)
    assert log.woken == 0
    assert log.is_enough(4)
    log.append(4)
    log.runtime.pass_time(1)
    assert log.woken == 0  # Of timers that were set before.


def test_but_not_longer_than_a_moment() -> None:
    log = Log()
    log.append(4)
    assert log.waited_s(2) == pytest.approx(WAIT_MAX_S, abs=0.001)
    assert log.is_enough(2)  # Until it is appended.
    log.append(2)
    assert not log.is_enough(2)


def in_vain(log: Log) -> bool:
    """Two ask at one time, then one of them alone: is the other one waited for?"""
    log.commit_of(2)
    waited_s = log.waited_s(1)
    log.append(1)
    log.commit()
    return waited_s > 0


def test_what_is_in_vain_is_done_more_and_more_rarely() -> None:
    log = Log()
    waits = [place for place in range(200) if in_vain(log)]
    assert waits == [0, 1, 3, 7, 15, 31, 63, 63 + 64, 63 + 128]
    assert SKIPS_MAX == 63


def test_one_wait_that_was_worth_it_makes_them_frequent_again() -> None:
    log = Log()
    for _ in range(5):
        in_vain(log)
    while not in_vain(log):
        pass
    for _ in range(SKIPS_MAX + 1):
        log.commit_of(2)
        if not log.is_enough(1):
            assert log.is_enough(2)
            break
        log.append(1)
        log.commit()
    else:
        pytest.fail("nobody was waited for")
    log.append(2)
    log.commit()
    assert [in_vain(log) for _ in range(4)] == [True, True, False, True]


def test_a_new_leadership_expects_nobody() -> None:
    log = Log()
    log.append(4)
    assert not log.is_enough(2)
    log.gathering.clear()
    assert log.is_enough(1)
    log.runtime.pass_time(1)
    assert log.woken == 0
