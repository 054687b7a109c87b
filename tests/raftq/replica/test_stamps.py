"""Log time follows the wall clock, but never jumps with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_runtime import FakeRuntime
from raftq.replica.stamps import SLEW, Stamps

HOUR_MS = 3_600_000


def live(runtime: FakeRuntime) -> Stamps:
    """After an entry that a live leader stamped with the present wall time."""
    stamps = Stamps(runtime)
    stamps.observe(runtime.wall, live=True)
    return stamps


STEPS = [
    # (wall clock's step, seconds after it, log time that passed in them)
    ("no step", 0, 10.0, 10_000),
    ("an hour forward", HOUR_MS, 10.0, 11_000),
    ("an hour back", -HOUR_MS, 10.0, 9_000),
    ("a little forward is caught up with", 500, 10.0, 10_500),
    ("a little back is waited for", -500, 10.0, 9_500),
    ("forward, just caught up with", 1_000, 10.0, 11_000),
    ("at the moment of a step forward", HOUR_MS, 0.0, 0),
    ("at the moment of a step back", -HOUR_MS, 0.0, 0),
]


@pytest.mark.parametrize(("step_ms", "seconds", "passed_ms"), [s[1:] for s in STEPS])
def test_a_step_of_the_wall_clock_is_slewed_by_a_tenth(
    step_ms: int, seconds: float, passed_ms: int
) -> None:
    runtime = FakeRuntime()
    stamps = live(runtime)
    before = stamps.now_ms()
    runtime.wall += step_ms
    runtime.pass_time(seconds)
    assert stamps.now_ms() - before == pytest.approx(passed_ms, abs=1)


def test_a_cold_cluster_trusts_the_wall_but_never_goes_behind_its_log() -> None:
    runtime = FakeRuntime()
    stamps = Stamps(runtime)
    stamps.observe(runtime.wall - HOUR_MS, live=False)
    assert stamps.now_ms() == runtime.wall
    runtime.wall += 24 * HOUR_MS
    assert stamps.now_ms() == runtime.wall
    stamps.observe(runtime.wall, live=False)
    seen = stamps.now_ms()
    runtime.wall -= HOUR_MS
    runtime.pass_time(10)
    assert stamps.now_ms() == seen


def test_who_follows_a_live_leader_takes_its_time_and_no_longer_the_walls() -> None:
    runtime = FakeRuntime()
    stamps = Stamps(runtime)
    stamps.observe(runtime.wall - HOUR_MS, live=False)
    stamp_ms = runtime.wall - HOUR_MS // 2
    stamps.observe(stamp_ms, live=True)
    assert stamps.now_ms() == stamp_ms
    runtime.pass_time(100)
    assert stamps.now_ms() == pytest.approx(stamp_ms + 110_000, abs=1)
    # Old entries, applied late, change nothing about that.
    stamps.observe(stamp_ms - HOUR_MS, live=False)
    assert stamps.now_ms() == pytest.approx(stamp_ms + 110_000, abs=1)


def test_a_new_leader_goes_on_where_the_old_one_was_whatever_its_clock_says() -> None:
    runtime = FakeRuntime()
    stamps = live(runtime)
    ahead = runtime.wall + 60_000
    stamps.observe(ahead, live=True)
    assert stamps.now_ms() == ahead
    runtime.pass_time(10)
    assert stamps.now_ms() == pytest.approx(ahead + 9_000, abs=1)


happenings = st.lists(
    st.one_of(
        st.tuples(st.just("wall"), st.integers(-HOUR_MS, HOUR_MS)),
        st.tuples(st.just("pass"), st.integers(0, 60_000)),
        st.tuples(st.just("stamp"), st.integers(-5_000, 5_000)),
    ),
    max_size=30,
)


@given(happenings)
def test_since_the_last_stamp_log_time_is_at_most_a_tenth_off(story: list[tuple[str, int]]) -> None:
    runtime = FakeRuntime()
    stamps = live(runtime)
    anchor_ms, passed_ms = stamps.now_ms(), 0
    for what, amount in story:
        if what == "stamp":
            anchor_ms, passed_ms = max(stamps.now_ms(), anchor_ms + amount), 0
            stamps.observe(anchor_ms, live=True)
            assert stamps.now_ms() == anchor_ms
            stamps.observe(anchor_ms - abs(amount), live=True)
            assert stamps.now_ms() == anchor_ms
        elif what == "wall":
            runtime.wall += amount
        else:
            runtime.pass_time(amount / 1000)
            passed_ms += amount
        since_ms = stamps.now_ms() - anchor_ms
        assert passed_ms * (1 - SLEW) - 1 <= since_ms <= passed_ms * (1 + SLEW) + 1


@pytest.mark.parametrize("step_ms", [-HOUR_MS, HOUR_MS])
def test_however_long_nothing_was_written_a_step_of_the_wall_moves_nothing_at_once(
    step_ms: int,
) -> None:
    runtime = FakeRuntime()
    stamps = live(runtime)
    for _ in range(1_000):
        runtime.pass_time(1)
        before_ms = stamps.now_ms()  # As the node does about once a second.
    runtime.wall += step_ms
    assert abs(stamps.now_ms() - before_ms) <= 1
