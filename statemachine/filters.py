"""Which messages are meant: one filter for who looks for some, and for what is done to many.

A message is held against a filter in two steps, since the first costs nothing but what
is at hand: what its record says (``suits``), and where in its life it is (``is_there``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from statemachine import records
from statemachine.commands import Filter, HeaderMatch, MessageState
from statemachine.records import LaneRecord, Meta

ANY = Filter()


def suits(wanted: Filter, record: bytes, now_ms: int) -> bool:
    """Whether a stored message is meant, as far as its record tells."""
    if wanted.min_age_ms is not None or wanted.max_age_ms is not None:
        age_ms = now_ms - records.times(record).enqueued_ms
        if wanted.min_age_ms is not None and age_ms < wanted.min_age_ms:
            return False
        if wanted.max_age_ms is not None and age_ms > wanted.max_age_ms:
            return False
    if wanted.headers or (wanted.group, wanted.priority, wanted.zone) != (None, None, None):
        return _carries(wanted, records.meta_of(record))
    return True


def is_there(wanted: Filter, state: MessageState, deliveries: int | None) -> bool:
    """Whether a message in this state is meant; deliveries None: it is not known."""
    if wanted.state not in (None, state):
        return False
    return deliveries is None or deliveries >= wanted.min_deliveries


def may_hold(wanted: Filter, lane: LaneRecord) -> bool:
    """Whether messages of a lane may be meant; in one of no zone may be some of any."""
    if wanted.priority not in (None, lane.priority):
        return False
    return wanted.zone is None or lane.zone in ("", wanted.zone)


def by_name(headers: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The values of a message's headers."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(_lower(name), []).append(value)
    return found


def has(headers: dict[str, list[str]], wanted: Sequence[HeaderMatch], *, any_of: bool) -> bool:
    """Whether there are these headers: all of them, or one."""
    tests = (_has(headers, match) for match in wanted)
    return any(tests) if any_of else all(tests)


def _carries(wanted: Filter, meta: Meta) -> bool:
    return (
        wanted.group in (None, meta.group)
        and wanted.priority in (None, meta.priority)
        and wanted.zone in (None, meta.zone)
        and (not wanted.headers or has(by_name(meta.headers), wanted.headers, any_of=wanted.any_of))
    )


def _has(headers: dict[str, list[str]], match: HeaderMatch) -> bool:
    return any(
        value in match.values or value.startswith(match.prefixes)
        for value in headers.get(_lower(match.header), ())
    )


def _lower(name: str) -> str:
    """Of ASCII alone: what is a letter elsewhere depends on the version of Python."""
    return name.lower() if name.isascii() else name
