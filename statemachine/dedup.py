"""Duplicates: a ``dedup_id`` that was used in a queue stands for the message that had it first.

It does so for the window that was in force when it was used, whatever becomes of the
message meanwhile. After that, swept or not, it is free. One get for each message that has
one, and for each new one an entry with a deadline.
"""

from __future__ import annotations

from statemachine import deadlines, keys, records
from statemachine.commands import MessageId
from statemachine.deadlines import DEDUP, later
from statemachine.state import Queue, State


def find(state: State, queue: Queue, dedup_id: str) -> MessageId | None:
    """The message that used the id first, if its window is open."""
    if not queue.record.dedup_ids:
        return None
    data = state.kv.get(keys.dedup(queue.record.number, dedup_id.encode()))
    if data is None:
        return None
    message_id, until_ms = records.decode_dedup(data)
    if until_ms > state.now_ms:
        return message_id
    forget(state, queue, until_ms, dedup_id.encode())
    return None


def is_known(state: State, queue: Queue, dedup_id: str) -> bool:
    """Whether ``find`` would find a message; nothing is changed."""
    if not queue.record.dedup_ids:
        return False
    data = state.kv.get(keys.dedup(queue.record.number, dedup_id.encode()))
    return data is not None and records.decode_dedup(data)[1] > state.now_ms


def remember(state: State, queue: Queue, dedup_id: str, message_id: MessageId) -> None:
    """The id is used from now on; it must be free."""
    window_ms = queue.in_force().dedup_window_ms
    if window_ms <= 0:
        return
    until_ms, subject = later(state.now_ms, window_ms), dedup_id.encode()
    value = records.encode_dedup(message_id, until_ms)
    state.kv.put(keys.dedup(queue.record.number, subject), value)
    queue.record.dedup_ids += 1
    deadlines.put(state, queue, until_ms, DEDUP, subject)


def forget(state: State, queue: Queue, until_ms: int, subject: bytes) -> None:
    """The window is over."""
    state.kv.delete(keys.dedup(queue.record.number, subject))
    queue.record.dedup_ids -= 1
    deadlines.remove(state, queue, until_ms, DEDUP, subject)
