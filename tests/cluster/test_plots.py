"""Plots: what is drawn is where it belongs."""

from __future__ import annotations

import math
import re

import pytest

import plots
from lone_page import assert_stands_alone
from plots import Series


@pytest.mark.parametrize(
    ("value", "rounded"), [(1, 1), (1.1, 1.2), (17, 20), (53_000, 60_000), (0.07, 0.08)]
)
def test_an_axis_ends_at_a_round_number(value: float, rounded: float) -> None:
    assert plots.round_up(value) == pytest.approx(rounded)


def test_marks_are_written_in_full() -> None:
    assert [mark.text for mark in plots.linear(16_000, " ms").marks] == [
        "0 ms",
        "8,000 ms",
        "16,000 ms",
    ]
    assert [mark.text for mark in plots.decades(3, 250).marks] == ["1", "10", "100", "1,000"]


def test_a_logarithmic_axis_has_as_much_room_for_each_decade() -> None:
    axis = plots.decades(1, 100)
    assert [axis.share(value) for value in (0.1, 1, 10, 100, 1_000)] == [0, 0, 0.5, 1, 1]


def test_a_line_has_gaps_and_intervals() -> None:
    points = [(0.0, 0.0), (5.0, math.nan), (10.0, 10.0)]
    line = Series("blue", "a <b>", points, [(0.0, 5.0), (math.nan, math.nan), (5.0, 10.0)])
    drawn = plots.plot(plots.clock(10), plots.linear(10), [line])
    paths = re.findall(r'<path class="(.*?)" d="(.*?)"', drawn)
    assert paths[-1] == ("blue", "M0.0,100.0h0M1000.0,0.0h0")
    assert next(where for css, where in paths if css == "whisker blue") == "M0.0,100.0V50.0"
    assert "a &lt;b&gt;" in drawn
    assert_stands_alone(plots.page("a <b>", [drawn]))


def test_a_clock_has_hours_if_there_are_any() -> None:
    assert [plots.clock_text(seconds) for seconds in (0, 59.6, 3_599, 7_265)] == [
        "0:00",
        "1:00",
        "59:59",
        "2:01:05",
    ]
