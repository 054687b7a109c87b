"""The life of one message: enqueued, given back, ripened, expired, deleted.

    where        known by                                   counted as
    ----------   ----------------------------------------   ------------------
    fresh        lane 0, at or above the queue's head       ready
    returned     an entry in space r                        ready and returned
    delayed      an entry in space z                        delayed
    claimed      none of these; an item of an open claim    claimed

The stored record stays in space m under the message's id, unchanged, from enqueue to
end. What expires while it is claimed is dropped when it is given back.
"""

from __future__ import annotations

from collections.abc import Iterable

from statemachine import bindings, deadlines, fresh, keys, records
from statemachine.commands import DeleteMessages, Enqueue, MessageId, NewMessage
from statemachine.deadlines import DELAY, EXPIRY, later
from statemachine.outcomes import Deleted, Enqueued, Outcome
from statemachine.queues import no_queue, open_queue, set_marks
from statemachine.records import FOR_EVER, TIMED, Held
from statemachine.state import Fresh, Queue, State


def enqueue(state: State, command: Enqueue) -> Outcome:
    """See ``commands.Enqueue``."""
    queue = open_queue(state, command.account, command.queue)
    if queue.record.bindings:
        return bindings.fan_out(state, queue, command.messages, _put_all)
    return Enqueued(tuple(_put_all(state, queue, command.messages)))


def _put_all(state: State, queue: Queue, messages: Iterable[NewMessage]) -> list[MessageId]:
    """Put messages into this very queue; their ids."""
    state.touch_queue(queue)
    if queue.record.ready == queue.record.returned:
        queue.record.expiry_high_ms = 0  # Nothing is ahead of what comes now.
    in_force = queue.in_force()
    ids = []
    ready = 0
    for message in messages:
        delay_ms = message.delay_ms
        if delay_ms is None:
            delay_ms = in_force.delay_ms
        ttl_ms = message.ttl_ms
        if ttl_ms is None:
            ttl_ms = in_force.ttl_ms
        expires_ms = later(state.now_ms, ttl_ms) if ttl_ms else FOR_EVER
        if delay_ms > 0:
            ids.append(_park(state, queue, message, expires_ms, delay_ms))
        else:
            ids.append(_append(state, queue, message, expires_ms))
            ready += 1
    if ready:
        state.wake(queue, ready)
    return ids


def delete_messages(state: State, command: DeleteMessages) -> Outcome:
    """See ``commands.DeleteMessages``."""
    queue = state.find_queue(command.account, command.queue)
    if queue is None:
        return no_queue(command.account, command.queue)
    count = 0
    for message_id in command.ids:
        data = state.kv.get(queue.messages + message_id)
        if data is not None:
            _remove(state, queue, message_id, records.times(data))
            count += 1
    if count:
        after_removal(state, queue)
    return Deleted(count)


def after_removal(state: State, queue: Queue) -> None:
    """Fresh messages may have gone from anywhere: put window, head and marks right."""
    fresh.forget_window(queue)
    fresh.settle_head(state, queue)
    set_marks(queue.record, state.next_id)
    state.touch_queue(queue)


def give_back(state: State, queue: Queue, held: Held, delay_ms: int) -> bool:
    """A claim holds the message no more; whether it is ready now."""
    record = queue.record
    data = state.kv.get(queue.messages + held.id)
    assert data is not None, "a held message is stored"
    expires_ms = records.times(data).expires_ms
    record.claimed -= 1
    if expires_ms <= state.now_ms:
        _erase(state, queue, held.id, held.bytes)
        return False
    if delay_ms > 0:
        _delay(state, queue, held.id, delay_ms, expires_ms, held.deliveries)
        return False
    _return(state, queue, held.id, expires_ms, held.deliveries)
    return True


def ripen(state: State, queue: Queue, message_id: MessageId) -> bool:
    """The delay is over, or the message has expired; whether it is ready now."""
    record, kv = queue.record, state.kv
    key = keys.delayed(record.number, message_id)
    waiting, data = kv.get(key), kv.get(queue.messages + message_id)
    assert waiting is not None, message_id
    assert data is not None, message_id
    due_ms, deliveries = records.decode_delayed(waiting)
    times = records.times(data)
    deadlines.remove(state, queue, min(due_ms, times.expires_ms), DELAY, message_id)
    kv.delete(key)
    record.delayed -= 1
    if times.expires_ms <= state.now_ms:
        _erase(state, queue, message_id, times.bytes)
        return False
    _return(state, queue, message_id, times.expires_ms, deliveries)
    return True


def expire(state: State, queue: Queue, message_id: MessageId) -> None:
    """A returned or timed message has reached its end; ``after_removal`` is left to do."""
    data = state.kv.get(queue.messages + message_id)
    assert data is not None, "what has a deadline is stored"
    _remove(state, queue, message_id, records.times(data))


def drop_fresh(state: State, queue: Queue, message: Fresh) -> None:
    """A message that was just taken from the fresh ones has expired."""
    message_id, expires_ms, size, timed, _ = message
    if timed:
        deadlines.remove(state, queue, expires_ms, EXPIRY, message_id)
    _erase(state, queue, message_id, size)


def take_returned(state: State, queue: Queue, message_id: MessageId, expires_ms: int) -> None:
    """The message is not returned any more."""
    record = queue.record
    state.kv.delete(keys.returned(record.number, message_id))
    record.returned -= 1
    record.ready -= 1
    if expires_ms != FOR_EVER:
        deadlines.remove(state, queue, expires_ms, EXPIRY, message_id)


def drop_returned(state: State, queue: Queue, message_id: MessageId, times: records.Times) -> None:
    """A returned message has expired."""
    take_returned(state, queue, message_id, times.expires_ms)
    _erase(state, queue, message_id, times.bytes)


def _append(state: State, queue: Queue, message: NewMessage, expires_ms: int) -> MessageId:
    record = queue.record
    timed = expires_ms < record.expiry_high_ms
    message_id = keys.message_id(state.take_id())
    if timed:
        deadlines.put(state, queue, expires_ms, EXPIRY, message_id)
    else:
        record.expiry_high_ms = expires_ms
        if expires_ms < record.due_ms:
            deadlines.set_timer(state, queue, expires_ms)
    data = records.encode_message(message, TIMED if timed else 0, expires_ms, state.now_ms)
    state.kv.put(queue.messages + message_id, data)
    size = len(message.body)
    record.ready += 1
    record.bytes += size
    fresh.append(state, queue, (message_id, expires_ms, size, timed, data))
    return message_id


def _park(
    state: State, queue: Queue, message: NewMessage, expires_ms: int, delay_ms: int
) -> MessageId:
    message_id = keys.message_id(state.take_id(), keys.PARKED)
    data = records.encode_message(message, 0, expires_ms, state.now_ms)
    state.kv.put(queue.messages + message_id, data)
    queue.record.bytes += len(message.body)
    _delay(state, queue, message_id, delay_ms, expires_ms, deliveries=0)
    return message_id


def _delay(
    state: State,
    queue: Queue,
    message_id: MessageId,
    delay_ms: int,
    expires_ms: int,
    deliveries: int,
) -> None:
    due_ms = later(state.now_ms, delay_ms)
    key = keys.delayed(queue.record.number, message_id)
    state.kv.put(key, records.encode_delayed(due_ms, deliveries))
    queue.record.delayed += 1
    deadlines.put(state, queue, min(due_ms, expires_ms), DELAY, message_id)


def _return(
    state: State, queue: Queue, message_id: MessageId, expires_ms: int, deliveries: int
) -> None:
    record = queue.record
    key = keys.returned(record.number, message_id)
    state.kv.put(key, records.encode_deliveries(deliveries))
    record.returned += 1
    record.ready += 1
    record.returned_low = min(record.returned_low, keys.number(message_id[2:]))
    if expires_ms != FOR_EVER:
        deadlines.put(state, queue, expires_ms, EXPIRY, message_id)


def _remove(state: State, queue: Queue, message_id: MessageId, times: records.Times) -> None:
    """Take a stored message out, wherever it is."""
    record, kv = queue.record, state.kv
    if message_id >= keys.message_id(record.head) and message_id < keys.LANE_END:
        record.ready -= 1
        if times.flags & TIMED:
            deadlines.remove(state, queue, times.expires_ms, EXPIRY, message_id)
    elif record.returned and kv.get(keys.returned(record.number, message_id)) is not None:
        take_returned(state, queue, message_id, times.expires_ms)
    elif (
        record.delayed and (waiting := kv.get(keys.delayed(record.number, message_id))) is not None
    ):
        due_ms, _ = records.decode_delayed(waiting)
        deadlines.remove(state, queue, min(due_ms, times.expires_ms), DELAY, message_id)
        kv.delete(keys.delayed(record.number, message_id))
        record.delayed -= 1
    else:
        # The claim that holds it is not known here: it finds the marker when it is settled.
        kv.put(keys.deleted(record.number, message_id), b"")
        record.deleted_in_flight += 1
        record.claimed -= 1
    _erase(state, queue, message_id, times.bytes)


def _erase(state: State, queue: Queue, message_id: MessageId, size: int) -> None:
    state.kv.delete(queue.messages + message_id)
    queue.record.bytes -= size
