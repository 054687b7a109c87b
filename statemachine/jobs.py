"""Jobs: the same is done to all messages of a queue that a filter means, step by step.

Steps are part of sweeps, so that they come from the leader through the log, and a new
leader goes on where the last one was. A job goes through the queue's messages in the
order of their keys, or through its claims, and remembers how far it came: so a step costs
the same however much is stored, and never walks over what the job has done. What came
after it began is left alone.
"""

from __future__ import annotations

from statemachine import deadlines, filters, keys, records, walks
from statemachine.acts import Step
from statemachine.commands import CancelJob, StartJob
from statemachine.deadlines import later
from statemachine.outcomes import Done, Outcome, Reason, Refused
from statemachine.queues import no_queue
from statemachine.records import FOR_EVER, JobRecord
from statemachine.state import Queue, State

KEPT_MS = 7 * 86_400_000
"""How long it can be seen what a job has done."""

STEPS_IN_A_SECOND = 10


def start(state: State, command: StartJob) -> Outcome:
    """See ``commands.StartJob``."""
    queue = state.find_queue(command.account, command.queue)
    if queue is None:
        return no_queue(command.account, command.queue)
    job = _load(state, queue)
    if job is not None and not job.ended_ms:
        detail = f"queue {command.queue!r} has a job that is running"
        return Refused(Reason.JOB_RUNNING, detail)
    job = JobRecord(
        act=command.act,
        to=command.to,
        filter=command.filter,
        dry_run=command.dry_run,
        limit=max(command.limit, 0),
        rate=max(command.rate, 0),
        total=0,
        mark=state.next_id,
        started_ms=state.now_ms,
    )
    job.total = queue.record.claimed if walks.is_over_claims(job) else _to_look_at(queue, job)
    queue.record.job_ms = state.now_ms
    if state.now_ms < queue.record.due_ms:
        deadlines.set_timer(state, queue, state.now_ms)
    _store(state, queue, job)
    return Done()


def cancel(state: State, command: CancelJob) -> Outcome:
    """See ``commands.CancelJob``."""
    queue = state.find_queue(command.account, command.queue)
    if queue is None:
        return no_queue(command.account, command.queue)
    job = _load(state, queue)
    if job is None or job.ended_ms:
        return Refused(Reason.NO_JOB, f"queue {command.queue!r} has no job that is running")
    job.cancelled = True
    _end(state, queue, job)
    return Done()


def step(state: State, queue: Queue, limit: int) -> int:
    """Go on with the job, if it is time; how much was looked at."""
    record = queue.record
    if record.job_ms > state.now_ms or not limit:
        return 0
    job = _load(state, queue)
    assert job is not None, "there is something to do for a job"
    if job.ended_ms:
        state.kv.delete(keys.job(record.number))
        record.job_ms = FOR_EVER
        state.touch_queue(queue)
        return 1
    return _go_on(state, queue, job, limit)


def _go_on(state: State, queue: Queue, job: JobRecord, limit: int) -> int:
    done = job.done
    this_step = Step(state, queue, job, limit, _most(job, limit))
    more = walks.go_on(this_step)
    this_step.settle()
    if not more or (job.limit and job.done >= job.limit):
        _end(state, queue, job)
    else:
        # Rather a little too slow than too fast.
        wait_ms = -(-(job.done - done) * 1000 // job.rate) if job.rate else 0
        queue.record.job_ms = later(state.now_ms, wait_ms)
        _store(state, queue, job)
    return this_step.cost()


def _most(job: JobRecord, limit: int) -> int:
    """With how many messages something may be done in a step."""
    most = limit
    if job.rate:
        most = min(most, max(job.rate // STEPS_IN_A_SECOND, 1))
    return min(most, job.limit - job.done) if job.limit else most


def _to_look_at(queue: Queue, job: JobRecord) -> int:
    lanes = [lane.record for lane in queue.lanes]
    return sum(lane.stored for lane in lanes if filters.may_hold(job.filter, lane))


def _end(state: State, queue: Queue, job: JobRecord) -> None:
    job.ended_ms = max(state.now_ms, 1)
    queue.record.job_ms = later(state.now_ms, KEPT_MS)
    _store(state, queue, job)


def _load(state: State, queue: Queue) -> JobRecord | None:
    if queue.record.job_ms == FOR_EVER:
        return None
    data = state.kv.get(keys.job(queue.record.number))
    assert data is not None, "there is a job"
    return records.decode_job(data)


def _store(state: State, queue: Queue, job: JobRecord) -> None:
    state.kv.put(keys.job(queue.record.number), records.encode(job))
    state.touch_queue(queue)
