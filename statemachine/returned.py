"""Returned messages: ready and not fresh, each with a key in space r; by lane, then by age.

They were claimed before, or delayed, or are the first of their groups. The oldest of
each lane are also kept in memory, as with ``fresh``: a prefix, which may be forgotten
at any time.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import islice

from statemachine import keys, records
from statemachine.commands import MessageId
from statemachine.state import Lane, Queue, Returned, State

AT_HAND_MAX = 512
FILL_MESSAGES = 64


def add(
    state: State, queue: Queue, lane: Lane, message_id: MessageId, deliveries: int, error: str
) -> None:
    """The message is ready now."""
    record = lane.record
    state.kv.put(
        keys.returned(queue.record.number, message_id), records.encode_returned(deliveries, error)
    )
    queue.record.ready += 1
    record.ready += 1
    record.returned += 1
    record.returned_low = min(record.returned_low, keys.number(message_id[2:]))
    state.touch_lane(lane)
    one = (message_id[2:] + message_id[:2], deliveries, error)
    at_hand = lane.returned
    if lane.returned_is_all or (at_hand and one < at_hand[-1]):
        insort(at_hand, one)
        if len(at_hand) > AT_HAND_MAX:
            at_hand.pop()
            lane.returned_is_all = False


def first(state: State, queue: Queue, lane: Lane) -> Returned | None:
    """The oldest, or None."""
    if not lane.returned and lane.record.returned:
        _fill(state, queue, lane)
    return lane.returned[0] if lane.returned else None


def remove(state: State, queue: Queue, lane: Lane, message_id: MessageId) -> None:
    """The message is not returned any more, nor counted as ready."""
    record, at_hand = lane.record, lane.returned
    state.kv.delete(keys.returned(queue.record.number, message_id))
    queue.record.ready -= 1
    record.ready -= 1
    record.returned -= 1
    if not record.returned:
        record.returned_low = state.next_id
    state.touch_lane(lane)
    age = message_id[2:] + message_id[:2]
    at = bisect_left(at_hand, (age, 0, ""))
    if at < len(at_hand) and at_hand[at][0] == age:
        del at_hand[at]


def took_first(lane: Lane, message_id: MessageId) -> None:
    """The oldest was removed: nothing older is left."""
    if lane.record.returned:
        lane.record.returned_low = keys.number(message_id[2:]) + 1


def _fill(state: State, queue: Queue, lane: Lane) -> None:
    number, there = queue.record.number, lane.record.returned
    low = keys.returned_from(number, lane.number, lane.record.returned_low)
    high = keys.returned_from(number, lane.number + 1)
    # As with ``fresh``, not a step further than to the last.
    for key, value in islice(state.kv.scan(low, high), min(there, FILL_MESSAGES)):
        lane.returned.append((key[-keys.ID_BYTES :], *records.decode_returned(value)))
    lane.returned_is_all = len(lane.returned) == there
