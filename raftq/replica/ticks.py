"""Which tick comes next: the one place that knows of cron expressions and time zones.

A pure function of a schedule's timing and a time. Its answer goes into the log, so that
replicas with other calendars (the rules of time zones change) still agree.

Cron expressions have five fields, or six with seconds first, and mean what Debian's cron
means by them, where clocks are changed too: a tick at a fixed time that is skipped comes
right after the gap, and one at a time that comes twice comes the first time only; where
minute or hour begin with ``*``, ticks follow real time instead.

An interval counts from ``start``, or from 1970-01-01T00:00Z, and knows no time zone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from statemachine.commands import Timing

CRON_LENGTH_MAX = 256
MACHINES_OWN = ("localtime", "posixrules", "Factory", "posix/", "right/")
"""Files beside the time zones which are none, or mean something else on every machine."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class BadTiming(ValueError):
    """A timing that can not be followed; ``field`` is at fault."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field


def next_tick(timing: Timing, after_ms: int) -> int | None:
    """The first tick later than ``after_ms``; None if there is none. Raises ``BadTiming``."""
    if timing.start_ms is not None:
        after_ms = max(after_ms, timing.start_ms - 1)
    tick_ms: int | None
    if timing.every_ms:
        tick_ms = _interval(timing.every_ms, timing.start_ms or 0, after_ms)
    else:
        tick_ms = _calendar(timing.cron, timing.timezone, after_ms)
    if tick_ms is None or (timing.end_ms is not None and tick_ms > timing.end_ms):
        return None
    return tick_ms


def _interval(every_ms: int, origin_ms: int, after_ms: int) -> int:
    return origin_ms + ((after_ms - origin_ms) // every_ms + 1) * every_ms


def _calendar(cron: str, timezone: str, after_ms: int) -> int | None:
    if len(cron) > CRON_LENGTH_MAX or not cron.isascii():
        raise BadTiming("cron", f"a cron expression is ASCII, at most {CRON_LENGTH_MAX} long")
    after = _EPOCH + timedelta(milliseconds=after_ms)
    try:
        ticks = CronSim(cron, after.astimezone(_zone(timezone)))
    except CronSimError as error:
        raise BadTiming("cron", f"{cron!r} is no cron expression: {error}") from None
    # One at a time that comes twice is told as the first, also to who asks in between.
    for tick in ticks:
        tick_ms = (tick - _EPOCH) // _MILLISECOND
        if tick_ms > after_ms:
            return tick_ms
    return None


def _zone(name: str) -> ZoneInfo:
    if not name.startswith(MACHINES_OWN):
        try:
            return ZoneInfo(name)
        except (ValueError, OSError, KeyError):
            pass
    raise BadTiming("timezone", f"{name!r} is no time zone of the IANA's database")
