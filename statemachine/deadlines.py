"""A queue's own time index, and the one timer that stands for all that is due in it.

    kind      subject       present while
    -------   -----------   ----------------------------------------------------------
    LEASE     u64(claim)    the claim is open and timed
    DELAY     message id    the message is delayed; due when it is ready, or has expired
    EXPIRY    message id    the message is returned, or fresh and timed, and expires
    DEDUP     dedup id      the id is remembered (``dedup``)

Most messages and claims have no entry: what was enqueued with the same time to live
expires in the order in which it was enqueued, and what was claimed with the same lease
ends in the order in which it was claimed. So the oldest fresh message and the oldest
claim stand for those behind them. *Timed* are those that are due before something
ahead of them, and have an entry.

Invariant: the queue's ``due_ms`` is at or before all of that. It may be too early,
since what was due may have been settled meanwhile; the sweep then sets it anew.
"""

from __future__ import annotations

from statemachine import keys
from statemachine.records import FOR_EVER
from statemachine.state import Queue, State
from statemachine.timers import QUEUE

LEASE = 1
DELAY = 2
EXPIRY = 3
DEDUP = 4


def put(state: State, queue: Queue, due_ms: int, kind: int, subject: bytes) -> None:
    """Note something that will be due."""
    record = queue.record
    state.kv.put(keys.deadline(record.number, due_ms, kind, subject), b"")
    record.deadlines += 1
    if due_ms < record.due_ms:
        set_timer(state, queue, due_ms)


def remove(state: State, queue: Queue, due_ms: int, kind: int, subject: bytes) -> None:
    """Forget what was noted; it must have been."""
    record = queue.record
    state.kv.delete(keys.deadline(record.number, due_ms, kind, subject))
    record.deadlines -= 1
    assert record.deadlines >= 0


def set_timer(state: State, queue: Queue, due_ms: int) -> None:
    """Let the queue be swept at ``due_ms`` and not before."""
    record = queue.record
    if due_ms == record.due_ms:
        return
    subject = keys.u64(record.number)
    if record.due_ms != FOR_EVER:
        state.timers.remove(record.due_ms, QUEUE, subject)
    if due_ms != FOR_EVER:
        state.timers.put(due_ms, QUEUE, subject, queue.key[1:])
    record.due_ms = due_ms


def later(now_ms: int, duration_ms: int) -> int:
    """A time from now on, whatever was asked for; one that can not be written is never."""
    if duration_ms <= 0:
        return now_ms
    later_ms = now_ms + duration_ms
    return later_ms if later_ms < FOR_EVER else FOR_EVER
