"""Fresh messages: those of a lane, without flags, from its head on: never claimed, in order.

No index tells which are fresh; the head does. The oldest are also kept in memory
(the window), so that a claim of what was just enqueued costs no scan, and a claim
of a backlog one scan for many messages. The window is a prefix of what is fresh:
it may be emptied at any time, and nothing that is written depends on it.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import islice

from statemachine import keys, lanes, records
from statemachine.records import TIMED
from statemachine.state import Fresh, Lane, Queue, State

WINDOW_MESSAGES_MAX = 512
FILL_MESSAGES = 64
FILL_BYTES = 256 << 10

_SEQ_END = b"\xff" * 8


def extend(state: State, lane: Lane, messages: list[Fresh], size: int) -> None:
    """They were enqueued and stored, and the window reaches to the end: keep them at hand.

    ``size``: about how many bytes they are together.
    """
    room = WINDOW_MESSAGES_MAX - len(lane.window)
    if len(messages) >= room:
        messages = messages[:room]
        lane.window_is_all = False
    lane.window.extend(messages)
    state.window_bytes += size


def first(state: State, lane: Lane) -> Fresh | None:
    """The oldest, or None."""
    if not lane.window:
        _fill(state, lane, FILL_MESSAGES)
    return lane.window[0] if lane.window else None


def older(lane: Lane, limit: int, age: bytes) -> int:
    """How many of those at hand, ``limit`` at most, come before a message of that age."""
    window = lane.window
    return bisect_left(window, age, 0, min(limit, len(window)), key=_age)


def take(state: State, queue: Queue, lane: Lane, limit: int) -> list[Fresh]:
    """Up to ``limit`` of the oldest, which are not fresh nor counted as ready afterwards.

    It may be fewer than there are; it is none only if there are none.
    """
    window = lane.window
    if not window:
        _fill(state, lane, limit)
    count = len(window)
    if not count:
        return []
    if count <= limit:
        taken = list(window)
        window.clear()
    else:
        count, taken = limit, []
        for _ in range(limit):
            taken.append(window.popleft())
    record = lane.record
    queue.record.ready -= count
    record.ready -= count
    # With none left, what may have been deleted behind the last one is left behind too.
    none_left = record.ready == record.returned
    record.head = state.next_id if none_left else keys.number(taken[-1][0][2:]) + 1
    if not lane.dirty:
        state.touch_lane(lane)
    return taken


def settle_gaps(state: State, queue: Queue) -> None:
    """Fresh messages were taken out from between: forget windows, and move heads up.

    Otherwise a later scan would walk over what is gone.
    """
    for lane in queue.lanes:
        if lane.has_gaps:
            lane.has_gaps = False
            lane.window.clear()
            lane.window_is_all = lane.record.ready == lane.record.returned
            oldest = first(state, lane)
            lane.record.head = state.next_id if oldest is None else keys.number(oldest[0][2:])
            lanes.settle(lane, state.next_id)


def _age(message: Fresh) -> bytes:
    return message[0][2:]


def _fill(state: State, lane: Lane, want: int) -> None:
    record = lane.record
    if lane.window_is_all or record.ready == record.returned:
        lane.window_is_all = True
        return
    window, size = lane.window, 0
    there = record.ready - record.returned
    # Not a step further than to the last: behind it may be what another queue has had.
    want = min(max(want, FILL_MESSAGES), there)
    low, high = lane.messages + keys.u64(record.head), lane.messages + _SEQ_END
    for key, data in islice(state.kv.scan(low, high), want):
        times = records.times(data)
        timed = bool(times.flags & TIMED)
        window.append((key[-keys.ID_BYTES :], times.expires_ms, times.bytes, timed, data))
        size += len(data)
        if size >= FILL_BYTES:
            break
    lane.window_is_all = len(window) == there
    state.window_bytes += size
