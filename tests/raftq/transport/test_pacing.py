from __future__ import annotations

import pytest

from raftq.transport.complaints import KEYS_MAX, Complaints
from raftq.transport.dialling import Backoff
from raftq.transport.settings import Settings


def test_delays_double_up_to_the_limit_and_begin_again_after_a_long_life() -> None:
    backoff = Backoff(0.02, 1.0)
    delays = [backoff.next(0.0) for _ in range(8)]
    assert delays == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0]
    assert backoff.next(0.0, lived_s=0.99) == 1.0
    assert backoff.next(0.0, lived_s=1.0) == 0.02
    assert backoff.next(0.0) == 0.04


@pytest.mark.parametrize("chance", [0.0, 0.25, 0.999])
def test_chance_cuts_a_delay_by_up_to_half(chance: float) -> None:
    delay_s = Backoff(0.02, 1.0).next(chance)
    assert delay_s == pytest.approx(0.02 * (1 - chance / 2))
    assert 0.01 <= delay_s <= 0.02


def test_a_complaint_is_repeated_after_its_time_with_the_count_of_those_left_out() -> None:
    complaints = Complaints(30.0)
    said = [complaints.admit(("refused", "n1"), now_s) for now_s in (0.0, 1.0, 29.9, 30.0, 31.0)]
    assert said == [0, None, None, 2, None]
    assert complaints.admit(("refused", "n2"), 1.0) == 0


def test_complaints_of_too_many_kinds_take_no_more_memory() -> None:
    complaints = Complaints(30.0)
    for number in range(KEYS_MAX):
        assert complaints.admit((str(number),), 0.0) == 0
    assert complaints.admit(("0",), 0.0) is None
    assert complaints.admit(("one more",), 0.0) == 0
    assert complaints.admit(("0",), 0.0) == 0  # All are forgotten.


def test_silence_is_counted_in_ticks_and_never_in_a_single_one() -> None:
    assert Settings().silent_ticks_max == 4
    assert Settings(ping_interval_s=0.3, silence_s=1.0).silent_ticks_max == 4
    assert Settings(ping_interval_s=5.0, silence_s=1.0).silent_ticks_max == 2
