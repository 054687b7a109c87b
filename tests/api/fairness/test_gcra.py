"""A rate limit lets through what conforms to it, and says when the next one will."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.fairness.gcra import Meter, Rate

RATE = Rate(per_s=10, burst=3)
TABLE = [
    # (what, [(when, amount, seconds to wait before it conforms)])
    ("at the rate", RATE, [(n / 10, 1, 0.0) for n in range(50)]),
    ("a burst at once", RATE, [(5, 1, 0.0), (5, 1, 0.0), (5, 1, 0.0), (5, 1, 0.1), (5, 1, 0.1)]),
    (
        "a burst is there again after a pause",
        RATE,
        [*[(5, 1, 0.0)] * 3, (5.05, 1, 0.05), *[(5.3, 1, 0.0)] * 3, (5.3, 1, 0.1)],
    ),
    ("only as much of it as has passed", RATE, [*[(5, 1, 0.0)] * 3, (5.1, 1, 0.0), (5.1, 1, 0.1)]),
    ("nothing is saved up beyond it", RATE, [*[(1_000, 1, 0.0)] * 3, (1_000, 1, 0.1)]),
    ("a burst of one is a spacing", Rate(10, 1), [(0, 1, 0.0), (0.05, 1, 0.05), (0.1, 1, 0.0)]),
    (
        "what is large passes, and is paid off afterwards",
        Rate(1_000, 1_000),
        [(0, 5_000, 0.0), (0, 1, 4.001), (4, 1, 0.001), (4.001, 1, 0.0)],
    ),
    ("nothing costs nothing", Rate(1_000, 10), [(0, 0, 0.0)] * 20),
]


@pytest.mark.parametrize(("rate", "steps"), [c[1:] for c in TABLE], ids=[c[0] for c in TABLE])
def test_what_conforms_passes(rate: Rate, steps: list[tuple[float, int, float]]) -> None:
    meter = Meter()
    for now_s, amount, wait_s in steps:
        assert meter.wait_s(rate, now_s) == pytest.approx(wait_s)
        if not wait_s:
            meter.charge(rate, now_s, amount)


@given(
    per_s=st.integers(1, 10_000),
    burst=st.integers(1, 1_000),
    gaps=st.lists(st.floats(0, 0.5), max_size=100),
)
def test_never_more_pass_than_the_rate_and_a_burst_and_who_waits_as_told_passes(
    per_s: int, burst: int, gaps: list[float]
) -> None:
    rate, meter, now_s = Rate(per_s, burst), Meter(), 100.0
    passed: list[float] = []
    for gap_s in gaps:
        now_s += gap_s
        now_s += meter.wait_s(rate, now_s)
        assert meter.wait_s(rate, now_s) == 0
        assert meter.left(rate, now_s) >= 1
        meter.charge(rate, now_s, 1)
        passed.append(now_s)
        for first, began_s in enumerate(passed):
            assert len(passed) - first <= burst + (now_s - began_s) * per_s + 1e-3


def test_what_is_left_and_until_when() -> None:
    meter = Meter()
    assert (meter.left(RATE, 7), meter.full_in_s(7)) == (3, 0)
    meter.charge(RATE, 7, 2)
    assert (meter.left(RATE, 7), meter.full_in_s(7)) == (1, pytest.approx(0.2))
    assert (meter.left(RATE, 7.15), meter.full_in_s(7.15)) == (2, pytest.approx(0.05))
    meter.charge(RATE, 7.15, 40)
    assert meter.left(RATE, 7.15) == 0


@pytest.mark.parametrize(("rate", "window_s"), [(RATE, 1), (Rate(10, 10), 1), (Rate(10, 25), 3)])
def test_a_window_is_the_time_in_which_a_burst_comes_back(rate: Rate, window_s: int) -> None:
    assert rate.window_s == window_s
