"""The life of one message: enqueued, given back, ripened, expired, deleted.

    where        known by                                        counted as
    ----------   ---------------------------------------------   ------------------
    fresh        no flag, at or above its lane's head            ready
    returned     an entry in space r                             ready and returned
    delayed      an entry in space z                             delayed
    blocked      none of these; not the first of its group       blocked
    claimed      none of these; an item of an open claim         claimed

The stored record stays in space m under the message's id, unchanged, from enqueue to
end; ``leave`` is the one way out. What expires while it is claimed is dropped when it
is given back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from statemachine import (
    bindings,
    deadlines,
    dedup,
    events,
    fresh,
    groups,
    keys,
    lanes,
    rates,
    records,
    returned,
    room,
    sealing,
)
from statemachine.commands import DeleteMessages, Enqueue, MessageId, NewMessage
from statemachine.deadlines import DELAY, EXPIRY, later
from statemachine.keys import LANE_MASK
from statemachine.outcomes import Deleted, Enqueued, Outcome
from statemachine.queues import no_queue, open_queue
from statemachine.records import FOR_EVER, TIMED, Held
from statemachine.state import Fresh, Lane, Queue, State

_GROUPED = keys.GROUPED >> 8
_FLAGS = (keys.GROUPED | keys.PARKED) >> 8
"""Flags in the first byte of an id."""

Arrived = tuple[NewMessage, int]
"""A message without a delay or group, and when it expires."""


def enqueue(state: State, command: Enqueue) -> Outcome:
    """See ``commands.Enqueue``."""
    refusal = sealing.refused(state, command.account, command.messages)
    refusal = refusal or room.refused(state, command)
    return put(state, command) if refusal is None else refusal


def put(state: State, command: Enqueue) -> Outcome:
    """See ``commands.Enqueue``; for messages that may come in and for which there is room."""
    queue = open_queue(state, command.account, command.queue)
    if queue.record.bindings:
        return bindings.fan_out(state, queue, command.messages, enqueue_into)
    return enqueue_into(state, queue, command.messages)


def enqueue_into(state: State, queue: Queue, messages: Sequence[NewMessage]) -> Enqueued:
    """Put messages into this very queue, whatever it is bound to."""
    state.touch_queue(queue)
    in_force, lanes_by_kind, now_ms = queue.in_force(), queue.lanes_by_kind, state.now_ms
    usual_delay_ms, usual_expires_ms = in_force.delay_ms, _expires_ms(now_ms, in_force.ttl_ms)
    ids: list[MessageId] = []
    new: list[events.Run] = []
    duplicates: list[int] = []
    arrived: list[Arrived] = []  # At the end of the lane ``end``, and not stored yet.
    end: Lane | None = None
    for message in messages:
        if arrived and (message.dedup_id or message.group):
            _append(state, queue, end, arrived, ids, new)
        if message.dedup_id and (earlier := dedup.find(state, queue, message.dedup_id)):
            duplicates.append(len(ids))
            ids.append(earlier)
            continue
        delay_ms, at_ms, ttl_ms = message.delay_ms, message.not_before_ms, message.ttl_ms
        if delay_ms is None:
            delay_ms = usual_delay_ms if at_ms is None else at_ms - now_ms
        expires_ms = usual_expires_ms if ttl_ms is None else _expires_ms(now_ms, ttl_ms)
        lane = lanes_by_kind.get((message.priority, message.zone))
        if arrived and (lane is not end or delay_ms > 0):
            _append(state, queue, end, arrived, ids, new)
        end = lane = lane or lanes.open_lane(state, queue, message.priority, message.zone)
        if message.group or delay_ms > 0:
            enter = _join if message.group else _park
            ids.append(enter(state, queue, lane, message, expires_ms, delay_ms))
            new.append((ids[-1], 1, 0))
        else:
            arrived.append((message, expires_ms))
        if message.dedup_id:
            _append(state, queue, end, arrived, ids, new)
            dedup.remember(state, queue, message.dedup_id, ids[-1])
    _append(state, queue, end, arrived, ids, new)
    rates.count(state, queue, rates.ENQUEUED, len(ids) - len(duplicates))
    events.gather(state, queue, events.ENQUEUED, new)
    return Enqueued(tuple(ids), tuple(duplicates))


def _expires_ms(now_ms: int, ttl_ms: int | None) -> int:
    return later(now_ms, ttl_ms) if ttl_ms else FOR_EVER


def leave(state: State, queue: Queue, gone: Iterable[Held]) -> bool:
    """These are gone from the queue; every message goes through here, whatever its end.

    They must not be counted as ready, delayed, blocked or claimed any more. Whether the
    next one of a group is ready now.
    """
    delete, prefix, all_lanes = state.kv.delete, queue.messages, queue.lanes
    freed = False
    for held in gone:
        message_id = held.id
        grouped = message_id[0] & _GROUPED
        group = _group(state, queue, message_id) if grouped else ""
        delete(prefix + message_id)
        queue.record.bytes -= held.bytes
        # As ``lane_of`` does: this is done for every message.
        lane = all_lanes[(message_id[0] << 8 | message_id[1]) & LANE_MASK]
        record = lane.record
        record.stored = stored = record.stored - 1
        if stored == record.ready - record.returned:
            lanes.settle(lane, state.next_id)
        if not lane.dirty:
            state.touch_lane(lane)
        if grouped:
            freed |= _succeed(state, queue, group, message_id)
    return freed


def expired(state: State, queue: Queue, held: Held) -> bool:
    """The message is gone because its life is over; see ``leave``."""
    rates.count(state, queue, rates.EXPIRED, 1)
    events.expired(state, queue, held.id, held.deliveries)
    return leave(state, queue, (held,))


def delete_messages(state: State, command: DeleteMessages) -> Outcome:
    """See ``commands.DeleteMessages``."""
    queue = state.find_queue(command.account, command.queue)
    if queue is None:
        return no_queue(command.account, command.queue)
    deleted: list[events.Run] = []
    for message_id in command.ids:
        data = state.kv.get(queue.messages + message_id)
        if data is not None:
            remove(state, queue, message_id, records.times(data))
            deleted.append((message_id, 1, 0))
    if deleted:
        fresh.settle_gaps(state, queue)
        state.touch_queue(queue)
        events.note(state, queue, events.DELETED, events.runs(deleted))
    return Deleted(len(deleted))


def give_back(state: State, queue: Queue, held: Held, delay_ms: int, error: str) -> bool:
    """A claim holds the message no more; whether it is ready now."""
    record = queue.record
    data = state.kv.get(queue.messages + held.id)
    assert data is not None, "a held message is stored"
    expires_ms = records.times(data).expires_ms
    record.claimed -= 1
    if expires_ms <= state.now_ms:
        expired(state, queue, held)
        return False
    if delay_ms > 0:
        _delay(state, queue, held.id, delay_ms, expires_ms, held.deliveries, error)
        return False
    _return(state, queue, held.id, expires_ms, held.deliveries, error)
    return True


def ripen(state: State, queue: Queue, message_id: MessageId) -> bool:
    """The delay is over, or the message has expired; whether it is ready now."""
    record, kv = queue.record, state.kv
    key = keys.delayed(record.number, message_id)
    waiting, data = kv.get(key), kv.get(queue.messages + message_id)
    assert waiting is not None, message_id
    assert data is not None, message_id
    due_ms, deliveries, error = records.decode_delayed(waiting)
    times = records.times(data)
    deadlines.remove(state, queue, min(due_ms, times.expires_ms), DELAY, message_id)
    kv.delete(key)
    record.delayed -= 1
    if times.expires_ms <= state.now_ms:
        expired(state, queue, Held(message_id, deliveries, times.bytes))
        return False
    if _is_behind(state, queue, message_id):
        _block(state, queue, message_id, times.expires_ms)
        return False
    _return(state, queue, message_id, times.expires_ms, deliveries, error)
    return True


def expire(state: State, queue: Queue, message_id: MessageId) -> None:
    """What has an expiry deadline has reached it; ``fresh.settle_gaps`` is left to do."""
    data = state.kv.get(queue.messages + message_id)
    assert data is not None, "what has a deadline is stored"
    rates.count(state, queue, rates.EXPIRED, 1)
    remove(state, queue, message_id, records.times(data))
    events.expired(state, queue, message_id)


def drop_fresh(state: State, queue: Queue, message: Fresh) -> None:
    """A message that was just taken from the fresh ones has expired."""
    message_id, expires_ms, size, timed, _ = message
    if timed:
        deadlines.remove(state, queue, expires_ms, EXPIRY, message_id)
    expired(state, queue, Held(message_id, 0, size))


def take_returned(state: State, queue: Queue, message_id: MessageId, expires_ms: int) -> None:
    """The message is not returned any more."""
    returned.remove(state, queue, queue.lane_of(message_id), message_id)
    if expires_ms != FOR_EVER:
        deadlines.remove(state, queue, expires_ms, EXPIRY, message_id)


def _append(
    state: State,
    queue: Queue,
    lane: Lane | None,
    arrived: list[Arrived],
    ids: list[MessageId],
    new: list[events.Run],
) -> None:
    """Store what has arrived at the end of a lane, if anything has; nothing is left to do."""
    if not arrived:
        return
    assert lane is not None, "what has arrived has a lane"
    record, of_queue, put_new = lane.record, queue.record, state.kv.put_new
    prefix, lane_number, number, now_ms = queue.messages, lane.number, state.next_id, state.now_ms
    high_ms, is_first, size = record.expiry_high_ms, record.ready == record.returned, 0
    former: NewMessage | None = None
    former_ms, timed, head = -1, False, b""
    stored: list[Fresh] = []
    for message, expires_ms in arrived:
        message_id = keys.message_id(number, lane_number)
        number += 1
        if expires_ms != former_ms:  # Of most puts all have one end.
            # With nothing ahead of it, it may end before what was ahead.
            timed = expires_ms < high_ms and not is_first
            former, former_ms, is_first = None, expires_ms, False
            if not timed:
                high_ms = expires_ms
                if expires_ms < of_queue.due_ms:
                    deadlines.set_timer(state, queue, expires_ms)
        if timed:
            deadlines.put(state, queue, expires_ms, EXPIRY, message_id)
        if former is None or not _has_same_head(message, former):
            head = records.message_head(message, TIMED if timed else 0, expires_ms, now_ms)
            former = message
        data = head + message.body
        put_new(prefix + message_id, data)
        body_bytes = len(message.body)
        size += body_bytes
        stored.append((message_id, expires_ms, body_bytes, timed, data))
        ids.append(message_id)
    if lane.window_is_all:
        fresh.extend(state, lane, stored, size + len(head) * len(stored))
    count = len(arrived)
    arrived.clear()
    new.append((ids[-count], count, 0))
    state.next_id = number
    record.expiry_high_ms = high_ms
    _count_ready(state, queue, lane, count, size)


def _count_ready(state: State, queue: Queue, lane: Lane, count: int, size: int) -> None:
    record = queue.record
    record.bytes += size
    record.ready += count
    lane.record.ready += count
    lane.record.stored += count
    if not lane.dirty:
        state.touch_lane(lane)
    state.wake(lane, count)


def _has_same_head(one: NewMessage, other: NewMessage) -> bool:
    """Whether what comes before their bodies is the same, in one lane and with the same end."""
    return (
        one.content_type == other.content_type
        and one.headers == other.headers
        and one.dead is other.dead
        and one.content_encoding == other.content_encoding
    )


def _park(
    state: State,
    queue: Queue,
    lane: Lane,
    message: NewMessage,
    expires_ms: int,
    delay_ms: int,
) -> MessageId:
    message_id = keys.message_id(state.take_id(), lane.number | keys.PARKED)
    _store(state, queue, lane, message_id, message, expires_ms)
    _delay(state, queue, message_id, delay_ms, expires_ms, deliveries=0)
    return message_id


def _join(
    state: State,
    queue: Queue,
    lane: Lane,
    message: NewMessage,
    expires_ms: int,
    delay_ms: int,
) -> MessageId:
    message_id = keys.message_id(state.take_id(), lane.number | keys.GROUPED)
    _store(state, queue, lane, message_id, message, expires_ms)
    is_first = groups.join(state, queue, message.group, message_id)
    if delay_ms > 0:
        _delay(state, queue, message_id, delay_ms, expires_ms, deliveries=0)
    elif is_first:
        _return(state, queue, message_id, expires_ms, deliveries=0, error="")
        state.wake(lane)
    else:
        _block(state, queue, message_id, expires_ms)
    return message_id


def _store(
    state: State,
    queue: Queue,
    lane: Lane,
    message_id: MessageId,
    message: NewMessage,
    expires_ms: int,
) -> None:
    lane.record.stored += 1
    if not lane.dirty:
        state.touch_lane(lane)
    data = records.encode_message(message, 0, expires_ms, state.now_ms)
    state.kv.put_new(queue.messages + message_id, data)
    queue.record.bytes += len(message.body)


def _delay(
    state: State,
    queue: Queue,
    message_id: MessageId,
    delay_ms: int,
    expires_ms: int,
    deliveries: int,
    error: str = "",
) -> None:
    due_ms = later(state.now_ms, delay_ms)
    key = keys.delayed(queue.record.number, message_id)
    state.kv.put(key, records.encode_delayed(due_ms, deliveries, error))
    queue.record.delayed += 1
    deadlines.put(state, queue, min(due_ms, expires_ms), DELAY, message_id)


def _return(
    state: State,
    queue: Queue,
    message_id: MessageId,
    expires_ms: int,
    deliveries: int,
    error: str,
) -> None:
    returned.add(state, queue, queue.lane_of(message_id), message_id, deliveries, error)
    if expires_ms != FOR_EVER:
        deadlines.put(state, queue, expires_ms, EXPIRY, message_id)


def _block(state: State, queue: Queue, message_id: MessageId, expires_ms: int) -> None:
    queue.record.blocked += 1
    if expires_ms != FOR_EVER:
        deadlines.put(state, queue, expires_ms, EXPIRY, message_id)


def _succeed(state: State, queue: Queue, group: str, message_id: MessageId) -> bool:
    """A member of a group is gone: if it was the first, the next one may be ready."""
    first = groups.leave(state, queue, group, message_id)
    if first is None or state.kv.get(keys.delayed(queue.record.number, first)) is not None:
        return False
    queue.record.blocked -= 1
    # The deadline that it has stays as it is. Behind its first member none was ever delivered.
    lane = queue.lane_of(first)
    returned.add(state, queue, lane, first, deliveries=0, error="")
    data = state.kv.get(queue.messages + first)
    assert data is not None, "a member is stored"
    if records.times(data).expires_ms > state.now_ms:
        state.wake(lane)
    return True


def _is_behind(state: State, queue: Queue, message_id: MessageId) -> bool:
    """Whether the message is of a group and not its first."""
    if not message_id[0] & _GROUPED:
        return False
    return not groups.is_first(state, queue, _group(state, queue, message_id), message_id)


def _group(state: State, queue: Queue, message_id: MessageId) -> str:
    data = state.kv.get(queue.messages + message_id)
    assert data is not None, "a message is stored to its end"
    return records.group_of(data)


def is_claimed(state: State, queue: Queue, message_id: MessageId) -> bool:
    """Whether a stored message is under a claim: it is in no other place."""
    return not is_ready(state, queue, message_id) and not _waits(state, queue, message_id)


def is_ready(state: State, queue: Queue, message_id: MessageId) -> bool:
    """Whether a stored message is fresh or returned."""
    lane = queue.lane_of(message_id)
    if _is_fresh(lane, message_id):
        return True
    key = keys.returned(queue.record.number, message_id)
    return bool(lane.record.returned) and state.kv.get(key) is not None


def _is_fresh(lane: Lane, message_id: MessageId) -> bool:
    head = keys.message_id(lane.record.head, lane.number)
    return message_id >= head and not message_id[0] & _FLAGS


def _waits(state: State, queue: Queue, message_id: MessageId) -> bool:
    record = queue.record
    if record.delayed and state.kv.get(keys.delayed(record.number, message_id)) is not None:
        return True
    return bool(record.blocked) and _is_behind(state, queue, message_id)


def remove(state: State, queue: Queue, message_id: MessageId, times: records.Times) -> None:
    """Take a stored message out, wherever it is; ``fresh.settle_gaps`` is left to do."""
    record, kv, lane = queue.record, state.kv, queue.lane_of(message_id)
    number = record.number
    if _is_fresh(lane, message_id):
        record.ready -= 1
        lane.record.ready -= 1
        lane.has_gaps = True
        if times.flags & TIMED:
            deadlines.remove(state, queue, times.expires_ms, EXPIRY, message_id)
    elif lane.record.returned and kv.get(keys.returned(number, message_id)) is not None:
        take_returned(state, queue, message_id, times.expires_ms)
    elif record.delayed and (waiting := kv.get(keys.delayed(number, message_id))) is not None:
        due_ms, _, _ = records.decode_delayed(waiting)
        deadlines.remove(state, queue, min(due_ms, times.expires_ms), DELAY, message_id)
        kv.delete(keys.delayed(number, message_id))
        record.delayed -= 1
    elif record.blocked and _is_behind(state, queue, message_id):
        record.blocked -= 1
        if times.expires_ms != FOR_EVER:
            deadlines.remove(state, queue, times.expires_ms, EXPIRY, message_id)
    else:
        # The claim that holds it is not known here: it finds the marker when it is settled.
        kv.put(keys.deleted(number, message_id), b"")
        record.deleted_in_flight += 1
        record.claimed -= 1
    leave(state, queue, (Held(message_id, 0, times.bytes),))
