"""Calendars: what follows what, where months end and where clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raftq.replica.ticks import CRON_LENGTH_MAX, BadTiming, next_tick
from statemachine.commands import Timing

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def milliseconds(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)


def shown(tick_ms: int | None) -> str:
    if tick_ms is None:
        return "never"
    return (EPOCH + timedelta(milliseconds=tick_ms)).strftime("%Y-%m-%dT%H:%M:%S")


def ticks(timing: Timing, after: str, count: int) -> list[str]:
    found: list[str] = []
    after_ms: int | None = milliseconds(after)
    while after_ms is not None and len(found) < count:
        after_ms = next_tick(timing, after_ms)
        found.append(shown(after_ms))
    return found


# Expression, zone, after, and the ticks that follow: all times in UTC.
CALENDAR = [
    ("* * * * *", "UTC", "2026-01-01T00:00:00", ["2026-01-01T00:01:00", "2026-01-01T00:02:00"]),
    ("* * * * *", "UTC", "2026-01-01T00:00:59.999", ["2026-01-01T00:01:00"]),
    ("*/20 * * * * *", "UTC", "2026-01-01T00:00:01", ["2026-01-01T00:00:20"]),
    ("0 9 * * MON-FRI", NEW_YORK, "2026-01-23T15:00:00", ["2026-01-26T14:00:00"]),
    # Month ends and leap days.
    ("0 0 31 * *", "UTC", "2026-01-31T12:00:00", ["2026-03-31T00:00:00", "2026-05-31T00:00:00"]),
    ("0 0 L * *", "UTC", "2026-01-31T12:00:00", ["2026-02-28T00:00:00", "2026-03-31T00:00:00"]),
    ("0 0 29 2 *", "UTC", "2026-01-01T00:00:00", ["2028-02-29T00:00:00", "2032-02-29T00:00:00"]),
    ("0 0 * * 5L", "UTC", "2026-01-01T00:00:00", ["2026-01-30T00:00:00"]),
    ("0 0 13 * FRI", "UTC", "2026-01-08T12:00:00", ["2026-01-09T00:00:00", "2026-01-13T00:00:00"]),
    # 02:00 to 03:00 does not come: a fixed time comes right after, once ...
    ("30 2 * * *", BERLIN, "2026-03-28T12:00:00", ["2026-03-29T01:00:00", "2026-03-30T00:30:00"]),
    ("0,30 2 * * *", BERLIN, "2026-03-28T12:00:00", ["2026-03-29T01:00:00", "2026-03-30T00:00:00"]),
    ("30 2 * * *", NEW_YORK, "2026-03-08T00:00:00", ["2026-03-08T07:00:00", "2026-03-09T06:30:00"]),
    # ... and what follows real time goes on.
    ("*/30 * * * *", BERLIN, "2026-03-29T00:30:00", ["2026-03-29T01:00:00", "2026-03-29T01:30:00"]),
    ("*/30 2 * * *", BERLIN, "2026-03-28T12:00:00", ["2026-03-30T00:00:00"]),
    # 02:00 to 03:00 comes twice: a fixed time comes the first time only ...
    ("30 2 * * *", BERLIN, "2026-10-24T12:00:00", ["2026-10-25T00:30:00", "2026-10-26T01:30:00"]),
    ("30 2 * * *", BERLIN, "2026-10-25T01:10:00", ["2026-10-26T01:30:00"]),
    # ... and what follows real time comes both times.
    ("0 * * * *", BERLIN, "2026-10-24T23:30:00", ["2026-10-25T00:00:00", "2026-10-25T01:00:00"]),
    # Zones that are not whole hours apart, and a day that was left out.
    ("0 0 * * *", "Asia/Kathmandu", "2026-01-01T00:00:00", ["2026-01-01T18:15:00"]),
    ("0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00", ["2011-12-30T10:00:00"]),
]


@pytest.mark.parametrize(("cron", "zone", "after", "expected"), CALENDAR)
def test_the_calendar(cron: str, zone: str, after: str, expected: list[str]) -> None:
    assert ticks(Timing(cron=cron, timezone=zone), after, len(expected)) == expected


# Every, start, end, after: and the ticks that follow, all in milliseconds.
INTERVALS = [
    (100, None, None, 0, [100, 200, 300]),
    (100, None, None, 199, [200]),
    (100, None, None, 200, [300]),
    (100, 1_030, None, 0, [1_030, 1_130]),
    (100, 1_030, None, 1_030, [1_130]),
    (100, 1_030, 1_230, 1_130, [1_230, None]),
    (100, 1_030, 1_229, 1_130, [None]),
]


@pytest.mark.parametrize(("every_ms", "start_ms", "end_ms", "after_ms", "expected"), INTERVALS)
def test_intervals(
    every_ms: int,
    start_ms: int | None,
    end_ms: int | None,
    after_ms: int,
    expected: list[int | None],
) -> None:
    timing = Timing(every_ms=every_ms, start_ms=start_ms, end_ms=end_ms)
    for tick_ms in expected:
        assert next_tick(timing, after_ms) == tick_ms
        after_ms = tick_ms or 0


def test_a_calendar_too_begins_and_ends_when_told_to() -> None:
    noon = milliseconds("2026-01-03T12:00:00")
    timing = Timing(cron="0 12 * * *", start_ms=noon, end_ms=noon + 86_400_000)
    assert ticks(timing, "2026-01-01T00:00:00", 3) == [
        "2026-01-03T12:00:00",
        "2026-01-04T12:00:00",
        "never",
    ]


@pytest.mark.parametrize(
    ("cron", "zone", "field", "detail"),
    [
        ("61 * * * *", "UTC", "cron", "Bad minute"),
        ("* * * *", "UTC", "cron", "Wrong number of fields"),
        ("", "UTC", "cron", "Wrong number of fields"),
        ("0 0 31 4 *", "UTC", "cron", "Bad day-of-month"),
        ("* * * * " + "1," * CRON_LENGTH_MAX, "UTC", "cron", f"at most {CRON_LENGTH_MAX}"),
        ("* * * * \N{BULLET}", "UTC", "cron", "ASCII"),
        ("* * * * *", "Europe/Atlantis", "timezone", "'Europe/Atlantis' is no time zone"),
        ("* * * * *", "Europe", "timezone", "no time zone"),
        ("* * * * *", "", "timezone", "no time zone"),
        ("* * * * *", "../zoneinfo/UTC", "timezone", "no time zone"),
        ("* * * * *", "/etc/localtime", "timezone", "no time zone"),
        ("* * * * *", "localtime", "timezone", "no time zone"),
        ("* * * * *", "posix/UTC", "timezone", "no time zone"),
        ("* * * * *", "tzdata.zi", "timezone", "no time zone"),
        ("* * * * *", "a\0b", "timezone", "no time zone"),
        ("* * * * *", "x" * 5_000, "timezone", "no time zone"),
    ],
)
def test_what_can_not_be_followed_is_told_by_field(
    cron: str, zone: str, field: str, detail: str
) -> None:
    with pytest.raises(BadTiming, match=detail) as caught:
        next_tick(Timing(cron=cron, timezone=zone), 0)
    assert caught.value.field == field


PART = st.text("0123456789*,-/#LWMONJAN", max_size=6) | st.sampled_from(["*", "*/5", "1-3", "L"])


@given(st.lists(PART, min_size=4, max_size=7).map(" ".join), st.integers(0, 2 * 10**12))
@example("0 0 30 2 MON#5", 0)
@example("* * * * 8", 0)
def test_any_expression_ticks_later_or_never_or_is_refused(cron: str, after_ms: int) -> None:
    try:
        tick_ms = next_tick(Timing(cron=cron, timezone=BERLIN), after_ms)
    except BadTiming:
        return
    assert tick_ms is None or tick_ms > after_ms


@given(st.integers(milliseconds("2026-10-24T20:00:00"), milliseconds("2026-10-25T04:00:00")))
def test_whoever_asks_in_between_hears_the_same_tick(after_ms: int) -> None:
    """Leaders may ask at different times: the tick after a tick must not depend on it."""
    timing = Timing(cron="*/7 1-4 * * *", timezone=BERLIN)
    tick_ms = next_tick(timing, after_ms)
    assert tick_ms is not None
    assert next_tick(timing, (after_ms + tick_ms) // 2) == tick_ms
