"""What happens because time has passed: always by command, and bounded.

An act is one lease ended, one delay over, one message expired, one idempotency key,
session or runner of subscriptions forgotten, or one look that found nothing to do any more.
"""

from __future__ import annotations

from statemachine import (
    claims,
    deadlines,
    dedup,
    events,
    fresh,
    jobs,
    keys,
    messages,
    once,
    records,
    sessions,
    subscriptions,
)
from statemachine.commands import Sweep
from statemachine.deadlines import DEDUP, DELAY, EXPIRY, LEASE
from statemachine.outcomes import Outcome, Swept
from statemachine.records import FOR_EVER
from statemachine.state import Queue, State
from statemachine.timers import HISTORY, ONCE, QUEUE, RUNNER, Timer


def sweep(state: State, command: Sweep) -> Outcome:
    """See ``commands.Sweep``."""
    timers, now_ms = state.timers, state.now_ms
    count = 0
    while count < command.limit:
        due = timers.due(now_ms, command.limit - count)
        if not due:
            timers.swept(now_ms)
            return Swept(count, more=False)
        for timer in due:
            if count < command.limit:
                count += _go_off(state, timer, command.limit - count)
    first_ms = timers.first_ms()
    return Swept(count, more=first_ms is not None and first_ms <= now_ms)


def _go_off(state: State, timer: Timer, limit: int) -> int:
    if timer.kind == QUEUE:
        account, name = keys.split_names(timer.value)
        queue = state.find_queue(account, name)
        assert queue is not None, timer
        assert queue.record.due_ms == timer.due_ms, timer
        return _sweep_queue(state, queue, limit)
    if timer.kind == ONCE:
        once.forget(state, timer)
    elif timer.kind == HISTORY:
        events.forget_aged_of_account(state, timer)
    elif timer.kind == RUNNER:
        subscriptions.forget_runner(state, timer)
    else:
        sessions.expire(state, timer)
    return 1


def _sweep_queue(state: State, queue: Queue, limit: int) -> int:
    """Do what is due in the queue, and set its timer to what is next.

    Each step answers how much it has done and when it is next wanted: now, if it had
    to stop. Deadlines come after leases and heads, since these may set some. A job comes
    when all that was due is done: so it holds up no lease, and sees the queue as it is.
    """
    count, leases_ms = _end_leases(state, queue, limit)
    dropped, heads_ms = _drop_heads(state, queue, limit - count)
    count += dropped
    fired, deadlines_ms = _meet_deadlines(state, queue, limit - count)
    count += fired
    if worked := jobs.step(state, queue, limit - count):
        count += worked
        # Once more: what it gave back may have set deadlines.
        low = keys.deadline(queue.record.number, queue.record.deadlines_low_ms)
        _, deadlines_ms = _due_deadlines(state, queue, low, 0)
    history_ms = events.forget_aged(state, queue)
    job_ms = max(queue.record.job_ms, state.now_ms)
    due_ms = min(job_ms, leases_ms, heads_ms, deadlines_ms, history_ms)
    deadlines.set_timer(state, queue, due_ms)
    state.touch_queue(queue)
    return max(count, 1)


def _end_leases(state: State, queue: Queue, limit: int) -> tuple[int, int]:
    """Claims that are not timed, in order: the first whose lease lasts covers the others."""
    record, now_ms = queue.record, state.now_ms
    if not record.claims:
        return 0, FOR_EVER
    count, next_ms, ended = 0, FOR_EVER, []
    low, high = keys.claim(record.number, record.leases_low), keys.claim(record.number + 1, 0)
    for key, value in state.kv.scan(low, high):
        claim_id, found = keys.number(key[-8:]), records.decode_claim(value)
        if count == limit or (found.until_ms > now_ms and not found.timed):
            next_ms = max(now_ms, found.until_ms)
            break
        # A timed one has a deadline for good: it need not be looked at twice.
        if not found.timed:
            ended.append(claim_id)
        record.leases_low = claim_id + 1
        count += 1
    for claim_id in ended:
        claims.end_lease(state, queue, claim_id)
    return count, next_ms


def _drop_heads(state: State, queue: Queue, limit: int) -> tuple[int, int]:
    """Fresh messages that have expired, by lane, up to the first that has not."""
    count, next_ms = 0, FOR_EVER
    for lane in queue.lanes:
        while (oldest := fresh.first(state, lane)) is not None:
            expires_ms = oldest[1]
            if count == limit or expires_ms > state.now_ms:
                next_ms = min(next_ms, max(state.now_ms, expires_ms))
                break
            fresh.take(state, queue, lane, 1)
            messages.drop_fresh(state, queue, oldest)
            count += 1
    return count, next_ms


def _meet_deadlines(state: State, queue: Queue, limit: int) -> tuple[int, int]:
    record, now_ms = queue.record, state.now_ms
    low = keys.deadline(record.number, record.deadlines_low_ms)
    due, next_ms = _due_deadlines(state, queue, low, limit)
    if due:
        for key in due:
            _meet(state, queue, key)
        fresh.settle_gaps(state, queue)
        # Once more: what was given back may have set deadlines.
        _, next_ms = _due_deadlines(state, queue, due[-1], 0)
    if next_ms > now_ms:
        record.deadlines_low_ms = now_ms
    return len(due), next_ms


def _due_deadlines(state: State, queue: Queue, low: bytes, limit: int) -> tuple[list[bytes], int]:
    """Up to ``limit`` keys that are due, and when the next one is."""
    due: list[bytes] = []
    if queue.record.deadlines:
        for key, _ in state.kv.scan(low, keys.of_queue(b"d", queue.record.number + 1)):
            due_ms, _, _ = keys.split_deadline(key)
            if due_ms > state.now_ms or len(due) == limit:
                return due, max(due_ms, state.now_ms)
            due.append(key)
    return due, FOR_EVER


def _meet(state: State, queue: Queue, key: bytes) -> None:
    due_ms, kind, subject = keys.split_deadline(key)
    if kind == LEASE:
        claims.end_lease(state, queue, keys.number(subject))
    elif kind == DEDUP:
        dedup.forget(state, queue, due_ms, subject)
    elif kind == DELAY:
        if messages.ripen(state, queue, subject):
            state.wake(queue.lane_of(subject))
    else:
        assert kind == EXPIRY, key
        messages.expire(state, queue, subject)
