"""Redrive: a job in the state that moves a queue's ready messages elsewhere, step by step.

Steps are part of sweeps, so that they come from the leader through the log, and a new
leader goes on where the last one was. A job goes through the queue's messages in the
order of their keys and remembers how far it came; so it never walks over what it has
moved, and what comes into the queue after it began is left alone. Moved messages begin
anew: not delivered, not dead, and alive for as long as their new queue says.
"""

from __future__ import annotations

from statemachine import deadlines, events, fresh, keys, messages, records
from statemachine.commands import CancelRedrive, MessageId, NewMessage, Redrive
from statemachine.deadlines import later
from statemachine.outcomes import Done, Outcome, Reason, Refused
from statemachine.queues import no_queue, open_queue
from statemachine.records import FOR_EVER, RedriveRecord
from statemachine.state import Queue, State

KEPT_MS = 7 * 86_400_000
"""How long it can be seen what a job has done."""

STEP_BYTES_MAX = 4 << 20
STEPS_IN_A_SECOND = 10
LANES_END = 2**16


def start(state: State, command: Redrive) -> Outcome:
    """See ``commands.Redrive``."""
    queue = state.find_queue(command.account, command.queue)
    if queue is None:
        return no_queue(command.account, command.queue)
    job = _load(state, queue)
    if job is not None and not job.ended_ms:
        detail = f"queue {command.queue!r} is being redriven already"
        return Refused(Reason.REDRIVE_RUNNING, detail)
    limit, total = max(command.limit, 0), queue.record.ready
    job = RedriveRecord(
        to=command.to,
        limit=limit,
        rate=max(command.rate, 0),
        total=min(limit, total) if limit else total,
        mark=state.next_id,
        started_ms=state.now_ms,
    )
    queue.record.redrive_ms = state.now_ms
    if state.now_ms < queue.record.due_ms:
        deadlines.set_timer(state, queue, state.now_ms)
    _store(state, queue, job)
    return Done()


def cancel(state: State, command: CancelRedrive) -> Outcome:
    """See ``commands.CancelRedrive``."""
    queue = state.find_queue(command.account, command.queue)
    if queue is None:
        return no_queue(command.account, command.queue)
    job = _load(state, queue)
    if job is None or job.ended_ms:
        detail = f"queue {command.queue!r} is not being redriven"
        return Refused(Reason.NO_REDRIVE, detail)
    job.cancelled = True
    _end(state, queue, job)
    return Done()


def step(state: State, queue: Queue, limit: int) -> int:
    """Go on with the job, if it is time; how much was looked at."""
    record = queue.record
    if record.redrive_ms > state.now_ms or not limit:
        return 0
    job = _load(state, queue)
    assert job is not None, "there is something to do for a job"
    if job.ended_ms:
        state.kv.delete(keys.redrive(record.number))
        record.redrive_ms = FOR_EVER
        state.touch_queue(queue)
        return 1
    return _go_on(state, queue, job, limit)


def _go_on(state: State, queue: Queue, job: RedriveRecord, limit: int) -> int:
    quota = limit
    if job.rate:
        quota = min(quota, max(job.rate // STEPS_IN_A_SECOND, 1))
    if job.limit:
        quota = min(quota, job.limit - job.moved)
    rows, more, heavy = _rows(state, queue, job, quota)
    for message_id, data in rows:
        job.cursor = message_id + b"\x00"
        if keys.number(message_id[2:]) >= job.mark:
            lane = keys.number(message_id[:2]) + 1
            job.cursor = lane.to_bytes(2, "big") if lane < LANES_END else b"\xff" * 11
            more = True  # There may be more behind this lane.
            break
        _look_at(state, queue, job, message_id, data)
    fresh.settle_gaps(state, queue)
    if job.limit and job.moved >= job.limit:
        _end(state, queue, job)
    elif not more:
        _pass_ends(state, queue, job)
    else:
        # Rather a little too slow than too fast.
        wait_ms = -(-len(rows) * 1000 // job.rate) if job.rate else 0
        queue.record.redrive_ms = later(state.now_ms, wait_ms)
        _store(state, queue, job)
    # Where bodies are large it is enough for this sweep.
    return limit if heavy else max(len(rows), 1)


def _rows(
    state: State, queue: Queue, job: RedriveRecord, quota: int
) -> tuple[list[tuple[MessageId, bytes]], bool, bool]:
    """The next messages, whether there may be more, and whether they are large together."""
    found: list[tuple[MessageId, bytes]] = []
    size = 0
    low, high = queue.messages + job.cursor, keys.of_queue(b"m", queue.record.number + 1)
    for key, data in state.kv.scan(low, high):
        found.append((key[-keys.ID_BYTES :], data))
        size += len(data)
        if len(found) >= quota or size >= STEP_BYTES_MAX:
            return found, True, size >= STEP_BYTES_MAX
    return found, False, False


def _look_at(
    state: State, queue: Queue, job: RedriveRecord, message_id: MessageId, data: bytes
) -> None:
    stored, times = records.decode_message(data), records.times(data)
    target = job.to or (stored.dead.queue if stored.dead else "")
    if target in ("", queue.names[1]) or times.expires_ms <= state.now_ms:
        return
    if not messages.is_ready(state, queue, message_id):
        job.again = job.again or bool(stored.group)
        return
    messages.remove(state, queue, message_id, times)
    events.gather(state, queue, events.REDRIVEN, [(message_id, 0)], target=target)
    moved = NewMessage(
        stored.body,
        stored.content_type,
        stored.headers,
        delay_ms=0,
        zone=stored.zone,
        priority=stored.priority,
        group=stored.group,
        content_encoding=stored.content_encoding,
    )
    messages.enqueue_into(state, open_queue(state, queue.names[0], target), (moved,))
    job.moved += 1


def _pass_ends(state: State, queue: Queue, job: RedriveRecord) -> None:
    """All was looked at. What was behind others of its group may have its turn now."""
    if job.again and job.moved > job.began:
        job.cursor, job.again, job.began = b"", False, job.moved
        queue.record.redrive_ms = state.now_ms
        _store(state, queue, job)
    else:
        _end(state, queue, job)


def _end(state: State, queue: Queue, job: RedriveRecord) -> None:
    job.ended_ms = max(state.now_ms, 1)
    queue.record.redrive_ms = later(state.now_ms, KEPT_MS)
    _store(state, queue, job)


def _load(state: State, queue: Queue) -> RedriveRecord | None:
    if queue.record.redrive_ms == FOR_EVER:
        return None
    data = state.kv.get(keys.redrive(queue.record.number))
    assert data is not None, "there is a job"
    return records.decode_redrive(data)


def _store(state: State, queue: Queue, job: RedriveRecord) -> None:
    state.kv.put(keys.redrive(queue.record.number), records.encode(job))
    state.touch_queue(queue)
