"""Lanes: a queue's messages of one priority and one zone, in order.

They come when the first message of a kind does, are numbered as they come, and stay
until the queue is purged or deleted. A claim looks at lanes and never at what is
behind their oldest messages; so there must not be too many of them. What comes from
more zones than ``ZONES_MAX`` goes with what is of no zone, and can be had everywhere.
"""

from __future__ import annotations

from statemachine.records import LaneRecord
from statemachine.state import Lane, Queue, State

PRIORITY_MAX = 9
ZONES_MAX = 32


def open_lane(state: State, queue: Queue, priority: int, zone: str) -> Lane:
    """The lane for such messages, made if there is none."""
    lane = queue.lanes_by_kind.get((priority, zone))
    return _open(state, queue, priority, zone) if lane is None else lane


def settle(lane: Lane, next_id: int) -> None:
    """Raise the marks below which nothing is, where the counts say that nothing is left.

    This is what keeps scans short: a mark that only ever followed single messages would
    stay behind at the oldest one that was settled out of turn.
    """
    record = lane.record
    if record.stored == record.ready - record.returned:
        record.floor = record.head
        record.flagged_floor = next_id


def _open(state: State, queue: Queue, priority: int, zone: str) -> Lane:
    priority = min(max(priority, 0), PRIORITY_MAX)
    if zone not in (zones := _zones(queue)) and len(zones) >= ZONES_MAX:
        zone = ""
    lane = queue.lanes_by_kind.get((priority, zone))
    if lane is not None:
        return lane
    now = state.next_id
    record = LaneRecord(priority, zone, head=now, floor=now, flagged_floor=now, returned_low=now)
    lane = queue.add_lane(record)
    queue.record.lanes += 1
    if lane.number == 0:
        queue.record.first = record
    state.touch_lane(lane)
    return lane


def _zones(queue: Queue) -> list[str]:
    return sorted({zone: 0 for _, zone in queue.lanes_by_kind if zone})
