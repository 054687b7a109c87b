"""Redrive: a job that moves the messages of a queue of dead letters elsewhere."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from api.problems import Problem
from api.rest import answers, parameters
from api.rest.answers import Answer
from api.rest.envelopes import optional_timestamp, timestamp
from api.rest.operations import Operation, Says
from api.rest.parameters import NoQuery
from api.rest.queues import QUEUE
from api.rest.reads import ReadQuery
from api.rest.requests import Call, JsonBody
from statemachine import queries
from statemachine.commands import CancelRedrive, Redrive
from statemachine.outcomes import Done, Reason

REDRIVE = QUEUE + "/redrive"
COUNT_MOST = 2**32


class RedriveToMake(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to; at most so many; at most so many in a second."""

    to: str | None = None
    limit: int | None = None
    rate: int | None = None


class RedriveView(msgspec.Struct, frozen=True, kw_only=True):
    """What a job has done; ``left`` is how many are to be moved of those there were at first."""

    state: Literal["running", "done", "cancelled"]
    to: str | None
    limit: int | None
    rate: int | None
    moved: int
    left: int
    done: bool
    started_at: datetime
    ended_at: datetime | None


BODY = JsonBody(RedriveToMake, optional=True)


async def start_redrive(call: Call, query: NoQuery) -> Answer:
    """POST redrive."""
    asked = await BODY.read(call)
    to = "" if asked.to is None else parameters.name(asked.to, "to")
    if to == call.queue:
        raise Problem("invalid_request", "to must be another queue", field="to")
    limit = _count(asked.limit, "limit")
    command = Redrive(call.account, call.queue, to, limit, _count(asked.rate, "rate"))
    await call.propose(command, Done)
    return answers.json(202, _view(call))


async def show_redrive(call: Call, query: ReadQuery) -> Answer:
    """GET redrive."""
    return answers.json(200, _view(call))


async def cancel_redrive(call: Call, query: NoQuery) -> Answer:
    """DELETE redrive."""
    await call.propose(CancelRedrive(call.account, call.queue), Done)
    return answers.json(200, _view(call))


def _count(value: int | None, field: str) -> int:
    return 0 if value is None else parameters.in_range(value, 1, COUNT_MOST, field)


def _view(call: Call) -> RedriveView:
    job = queries.redrive(call.service.reader(), call.account, call.queue)
    if job is None:
        raise Problem(Reason.NO_REDRIVE, f"queue {call.queue!r} is not being redriven")
    state: Literal["running", "done", "cancelled"] = "running"
    if job.ended_ms:
        state = "cancelled" if job.cancelled else "done"
    return RedriveView(
        state=state,
        to=job.to or None,
        limit=job.limit or None,
        rate=job.rate or None,
        moved=job.moved,
        left=0 if state == "done" else max(job.total - job.moved, 0),
        done=state == "done",
        started_at=timestamp(job.started_ms),
        ended_at=optional_timestamp(job.ended_ms or None),
    )


OPERATIONS = (
    Operation(
        "POST",
        REDRIVE,
        start_redrive,
        "Begin to move the queue's messages back to where they died, or elsewhere",
        query=NoQuery,
        body=BODY,
        answers={202: Says("The job has begun", RedriveView)},
        refusals=("no_queue", "redrive_running"),
    ),
    Operation(
        "GET",
        REDRIVE,
        show_redrive,
        "How far the job is; also for a week after it has ended",
        query=ReadQuery,
        answers={200: Says("The job", RedriveView)},
        refusals=("no_redrive",),
    ),
    Operation(
        "DELETE",
        REDRIVE,
        cancel_redrive,
        "Move no more messages",
        query=NoQuery,
        answers={200: Says("The job as it ended", RedriveView)},
        refusals=("no_queue", "no_redrive"),
    ),
)
