from __future__ import annotations

import pytest

from api.fairness.gcra import Rate
from api.fairness.shares import SWEEP_MIN
from raftq.serving import callers
from raftq.serving.callers import Callers


class Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class Counted(list[None]):
    def __call__(self) -> None:
        self.append(None)


def test_an_address_begins_a_burst_of_handshakes_and_then_so_many_in_a_second() -> None:
    clock, count = Clock(), Counted()
    ours = Callers(Rate(10, 5), clock=clock, count=count)
    assert [ours.may_begin("1.2.3.4") for _ in range(7)] == [True] * 5 + [False] * 2
    assert len(count) == 2
    assert ours.may_begin("1.2.3.5")
    clock.now_s += 0.2
    assert [ours.may_begin("1.2.3.4") for _ in range(3)] == [True, True, False]


def test_a_network_of_version_6_counts_as_one_address() -> None:
    ours = Callers(Rate(10, 2), clock=Clock(), count=Counted())
    assert [ours.may_begin(f"2001:db8::{n}") for n in range(3)] == [True, True, False]


def test_nothing_is_kept_of_who_has_paid_off_what_he_began() -> None:
    clock = Clock()
    ours = Callers(Rate(10, 5), clock=clock, count=Counted())
    for number in range(10_000):
        clock.now_s += 0.01
        assert ours.may_begin(f"10.0.{number >> 8}.{number & 255}")
    assert len(ours) <= SWEEP_MIN


def test_however_many_addresses_there_are_the_memory_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(callers, "ADDRESSES_MAX", 100)
    ours = Callers(Rate(1, 5), clock=Clock(), count=Counted())
    admitted = sum(ours.may_begin(f"10.0.{n >> 8}.{n & 255}") for n in range(1_000))
    assert admitted == 100 + 5
    assert len(ours) == 101
    assert ours.may_begin("10.0.0.1"), "who was there before has what is his"
