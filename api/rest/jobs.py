"""Jobs: the same is done to many of a queue's messages, in the background."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from api.access.principals import Role
from api.access.rules import Access
from api.problems import Problem
from api.rest import answers, filters, parameters
from api.rest.answers import Answer
from api.rest.envelopes import optional_timestamp, timestamp
from api.rest.operations import Operation, Says
from api.rest.parameters import NoQuery
from api.rest.queues import QUEUE
from api.rest.reads import ReadQuery
from api.rest.requests import Call, JsonBody
from statemachine import queries
from statemachine.commands import Act, CancelJob, StartJob
from statemachine.ids import message_id_text
from statemachine.outcomes import Done, Reason
from statemachine.records import Trouble

JOB = QUEUE + "/job"
REDRIVE = QUEUE + "/redrive"
COUNT_MOST = 2**32
STATES: dict[Act, tuple[str | None, ...]] = {
    "redrive": (None, "ready", "delayed"),
    "move": (None, "ready", "delayed"),
    "delete": (None, "ready", "delayed", "blocked", "claimed"),
    "release": (None, "claimed"),
}
"""Which states a job's filter may name."""


class JobToStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to do, ``to`` where, with which; at most so many; at most so many in a second."""

    act: Act
    to: parameters.Name | None = None
    filter: filters.Filter = filters.Filter()
    limit: int | None = None
    rate: int | None = None
    dry_run: bool = False


class RedriveToStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to, else each to where it died; at most so many; at most so many in a second."""

    to: parameters.Name | None = None
    limit: int | None = None
    rate: int | None = None


class JobFailure(msgspec.Struct, frozen=True):
    """A message with which nothing could be done, and why."""

    id: str
    reason: Trouble


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a job is to do, and what it has done.

    ``total`` is how many messages there were to look at when it began; ``failures`` are the
    first of the ``failed`` ones.
    """

    act: Act
    state: Literal["running", "done", "cancelled"]
    to: str | None
    filter: filters.Filter
    limit: int | None
    rate: int | None
    dry_run: bool
    total: int
    looked_at: int
    done: int
    skipped: int
    failed: int
    failures: list[JobFailure]
    started_at: datetime
    ended_at: datetime | None


JOB_BODY = JsonBody(JobToStart)
REDRIVE_BODY = JsonBody(RedriveToStart, optional=True)


async def start_job(call: Call, query: NoQuery) -> Answer:
    """POST job."""
    return await _start(call, await JOB_BODY.read(call))


async def start_redrive(call: Call, query: NoQuery) -> Answer:
    """POST redrive: a job that moves messages."""
    given = await REDRIVE_BODY.read(call)
    act: Act = "redrive" if given.to is None else "move"
    return await _start(call, JobToStart(act, given.to, limit=given.limit, rate=given.rate))


async def show_job(call: Call, query: ReadQuery) -> Answer:
    """GET job."""
    return answers.json(200, _view(call))


async def cancel_job(call: Call, query: NoQuery) -> Answer:
    """DELETE job."""
    await call.propose(CancelJob(call.account, call.queue), Done)
    return answers.json(200, _view(call))


async def _start(call: Call, asked: JobToStart) -> Answer:
    if (asked.act == "move") != (asked.to is not None):
        raise Problem("invalid_request", "move says to where, and nothing else does", field="to")
    to = "" if asked.to is None else parameters.name(asked.to, "to")
    if to:
        call.demand(Role.MANAGE, to)
    if to == call.queue:
        raise Problem("invalid_request", "to must be another queue", field="to")
    if asked.filter.state not in STATES[asked.act]:
        detail = f"what is {asked.filter.state} can not be met by {asked.act}"
        raise Problem("invalid_request", detail, field="filter.state")
    command = StartJob(
        call.account,
        call.queue,
        to,
        _count(asked.limit, "limit"),
        _count(asked.rate, "rate"),
        asked.act,
        filters.checked(call, asked.filter),
        asked.dry_run,
    )
    await call.propose(command, Done)
    return answers.json(202, _view(call))


def _count(value: int | None, field: str) -> int:
    return 0 if value is None else parameters.in_range(value, 1, COUNT_MOST, field)


def _view(call: Call) -> Job:
    job = queries.job(call.service.reader(), call.account, call.queue)
    if job is None:
        raise Problem(Reason.NO_JOB, f"queue {call.queue!r} has no job")
    state: Literal["running", "done", "cancelled"] = "running"
    if job.ended_ms:
        state = "cancelled" if job.cancelled else "done"
    return Job(
        act=job.act,
        state=state,
        to=job.to or None,
        filter=filters.shown(job.filter),
        limit=job.limit or None,
        rate=job.rate or None,
        dry_run=job.dry_run,
        total=job.total,
        looked_at=job.looked,
        done=job.done,
        skipped=job.skipped,
        failed=job.failed,
        failures=[JobFailure(message_id_text(one.id), one.reason) for one in job.failures],
        started_at=timestamp(job.started_ms),
        ended_at=optional_timestamp(job.ended_ms or None),
    )


OPERATIONS = (
    Operation(
        "POST",
        JOB,
        start_job,
        "Begin to move, redrive, delete or release all messages that a filter means",
        access=Access(Role.MANAGE, "queue"),
        query=NoQuery,
        body=JOB_BODY,
        answers={202: Says("The job has begun", Job)},
        refusals=("no_queue", "job_running", "headers_too_large"),
    ),
    Operation(
        "GET",
        JOB,
        show_job,
        "How far the job is; also for a week after it has ended",
        access=Access(Role.MANAGE, "queue"),
        query=ReadQuery,
        answers={200: Says("The job", Job)},
        refusals=("no_job",),
    ),
    Operation(
        "DELETE",
        JOB,
        cancel_job,
        "Do no more of the job",
        access=Access(Role.MANAGE, "queue"),
        query=NoQuery,
        answers={200: Says("The job as it ended", Job)},
        refusals=("no_queue", "no_job"),
    ),
    Operation(
        "POST",
        REDRIVE,
        start_redrive,
        "Begin a job that moves the queue's messages back to where they died, or elsewhere",
        access=Access(Role.MANAGE, "queue"),
        query=NoQuery,
        body=REDRIVE_BODY,
        answers={202: Says("The job has begun", Job)},
        refusals=("no_queue", "job_running"),
    ),
)
