"""Schedules: messages that are put by the clock, by a calendar or every so often."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from api import problems
from api.access.principals import Role
from api.access.rules import Access
from api.ports import InvalidTiming, Unreadable
from api.problems import Problem
from api.rest import answers, envelopes, pages, parameters
from api.rest.answers import Answer
from api.rest.messages import MessageToPut, as_put, checked
from api.rest.operations import Operation, Says
from api.rest.pages import ListQuery
from api.rest.parameters import NoQuery
from api.rest.queues import no_account
from api.rest.reads import ReadQuery
from api.rest.requests import Call, JsonBody
from statemachine import standing
from statemachine.commands import DeleteSchedule, Missed, PutSchedule, Timing
from statemachine.outcomes import Done, Reason, Stored
from statemachine.records import ScheduleRecord

SCHEDULES = "/v1/{account}/schedules"
SCHEDULE = SCHEDULES + "/{schedule}"
EVERY_MS_LEAST = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ScheduleSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to put where, and when: ``cron`` in a ``timezone``, or ``every`` so many seconds.

    ``missed``: what becomes of ticks for which nobody was there.
    """

    queue: parameters.Name
    message: MessageToPut
    cron: str | None = None
    every: float | None = None
    timezone: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    missed: Missed = "once"


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule; ``next_at`` is null when it ticks no more."""

    name: str
    queue: str
    message: MessageToPut
    cron: str | None
    every: float | None
    timezone: str | None
    start: datetime | None
    end: datetime | None
    missed: Missed
    created_at: datetime
    next_at: datetime | None
    last_at: datetime | None
    ticks: int
    refused: int
    """Ticks that put nothing, since there was no room for it in a quota of the account."""


class ScheduleItem(msgspec.Struct, frozen=True):
    """A schedule in a list."""

    name: str
    queue: str
    cron: str | None
    every: float | None
    timezone: str | None
    next_at: datetime | None


class Schedules(msgspec.Struct, frozen=True):
    """A page of schedules in the order of their names; ``marker`` is null on the last."""

    schedules: list[ScheduleItem]
    marker: str | None


SETTINGS = JsonBody(ScheduleSettings)


async def list_schedules(call: Call, query: ListQuery) -> Answer:
    """GET schedules."""
    part = pages.part(query, call.service.limits)
    page = standing.schedules(call.service.reader(), call.account, **part, sees=call.principal.sees)
    if page is None:
        raise no_account(call)
    items = [_item(name, record) for name, record in page.items]
    return answers.json(200, Schedules(items, page.marker), *pages.link(call, page.marker))


async def put_schedule(call: Call, query: NoQuery) -> Answer:
    """PUT a schedule: create it, or replace it."""
    account, name = call.account, _name(call)
    given = await SETTINGS.read(call)
    queue = parameters.name(given.queue, "queue")
    call.demand(Role.MANAGE, queue)
    timing = _timing(call, given)
    for field in ("not_before", "persistent"):
        if getattr(given.message, field) is not None:
            detail = f"{field} means nothing for a message that a schedule puts"
            raise Problem("invalid_request", detail, field=f"message.{field}")
    command = PutSchedule(
        account,
        name,
        queue,
        # Whichever node is asked, the same request must be the same schedule: no zone of its own.
        checked(call, given.message, home=""),
        timing,
        _first_tick(call, timing),
    )
    stored = await call.propose(command, Stored)
    if not stored.created:
        return answers.json(200, _describe(call, name))
    location = f"/v1/{account}/schedules/{name}".encode()
    return answers.json(201, _describe(call, name), (b"location", location))


async def get_schedule(call: Call, query: ReadQuery) -> Answer:
    """GET a schedule."""
    return answers.json(200, _describe(call, _name(call)))


async def delete_schedule(call: Call, query: NoQuery) -> Answer:
    """DELETE a schedule; the messages it has put stay."""
    await call.propose(DeleteSchedule(call.account, _name(call)), Done)
    return answers.empty()


def _name(call: Call) -> str:
    """The schedule of the path; the caller must manage its queue, if there is one."""
    name = parameters.name(call.path["schedule"], "schedule")
    found = standing.schedule(call.service.reader(), call.account, name)
    if found is not None:
        call.demand(Role.MANAGE, found.queue)
    return name


def _timing(call: Call, given: ScheduleSettings) -> Timing:
    if (given.cron is None) == (given.every is None):
        raise Problem("invalid_schedule", "a schedule has either cron or every", field="cron")
    if given.every is not None and given.timezone is not None:
        detail = "an interval is the same in every time zone; timezone goes with cron"
        raise Problem("invalid_schedule", detail, field="timezone")
    every_ms = parameters.optional_milliseconds(
        given.every, call.service.limits.duration_ms_max, "every"
    )
    if every_ms is not None and every_ms < EVERY_MS_LEAST:
        raise Problem("out_of_range", "every must be a second at least", field="every")
    return Timing(
        given.cron or "",
        every_ms or 0,
        "UTC" if given.timezone is None else given.timezone,
        _start_ms(call, given.start),
        _milliseconds(given.end, "end"),
        given.missed,
    )


def _start_ms(call: Call, given: datetime | None) -> int | None:
    start_ms, most_ms = _milliseconds(given, "start"), call.service.limits.duration_ms_max
    if start_ms is not None and start_ms > call.service.now_ms() + most_ms:
        most = parameters.seconds(most_ms)
        detail = f"start must be at most {most:.15g} seconds from now"
        raise Problem("out_of_range", detail, field="start", limit=most)
    return start_ms


def _milliseconds(given: datetime | None, field: str) -> int | None:
    if given is None:
        return None
    if given.tzinfo is None:
        detail = f"{field} must say how far it is from UTC: 2026-01-01T00:00:00Z"
        raise Problem("invalid_schedule", detail, field=field)
    if given < _EPOCH:
        raise Problem("out_of_range", f"{field} must not be before 1970", field=field)
    return (given - _EPOCH) // timedelta(milliseconds=1)


def _first_tick(call: Call, timing: Timing) -> int:
    try:
        first_ms = call.service.next_tick(timing, call.service.now_ms())
    except InvalidTiming as error:
        raise Problem("invalid_schedule", str(error), field=error.field) from None
    if first_ms is None:
        field = "cron" if timing.end_ms is None else "end"
        raise Problem("invalid_schedule", "such a schedule would never tick", field=field)
    return first_ms


def _describe(call: Call, name: str) -> Schedule:
    record = standing.schedule(call.service.reader(), call.account, name)
    if record is None:
        detail = f"account {call.account!r} has no schedule {name!r}"
        raise Problem(Reason.NO_SCHEDULE, detail)
    item, timing = _item(name, record), record.timing
    return Schedule(
        name=name,
        queue=record.queue,
        message=_message(call, record),
        cron=item.cron,
        every=item.every,
        timezone=item.timezone,
        start=envelopes.optional_timestamp(timing.start_ms),
        end=envelopes.optional_timestamp(timing.end_ms),
        missed=timing.missed,
        created_at=envelopes.timestamp(record.created_ms),
        next_at=item.next_at,
        last_at=envelopes.optional_timestamp(record.last_ms),
        ticks=record.ticks,
        refused=record.refused,
    )


def _message(call: Call, record: ScheduleRecord) -> MessageToPut:
    try:
        return as_put(call.service.opened(call.account, record.message))
    except Unreadable as error:
        raise problems.unreadable(error) from None


def _item(name: str, record: ScheduleRecord) -> ScheduleItem:
    timing = record.timing
    return ScheduleItem(
        name,
        record.queue,
        timing.cron or None,
        parameters.seconds(timing.every_ms) if timing.every_ms else None,
        None if timing.every_ms else timing.timezone,
        envelopes.optional_timestamp(record.next_ms),
    )


OPERATIONS = (
    Operation(
        "GET",
        SCHEDULES,
        list_schedules,
        "The account's schedules in the order of their names",
        access=Access(Role.MANAGE, "account"),
        query=ListQuery,
        answers={200: Says("A page", Schedules)},
        refusals=("no_account",),
    ),
    Operation(
        "PUT",
        SCHEDULE,
        put_schedule,
        "Create a schedule, or replace it; the same again changes nothing",
        access=Access(Role.MANAGE, "account"),
        query=NoQuery,
        body=SETTINGS,
        answers={201: Says("It is new", Schedule), 200: Says("It was there", Schedule)},
        refusals=("invalid_schedule", "too_many_schedules", "quota_exceeded"),
    ),
    Operation(
        "GET",
        SCHEDULE,
        get_schedule,
        "A schedule, with its last tick and its next",
        access=Access(Role.MANAGE, "account"),
        query=ReadQuery,
        answers={200: Says("The schedule", Schedule)},
        refusals=("no_schedule", "body_shredded"),
    ),
    Operation(
        "DELETE",
        SCHEDULE,
        delete_schedule,
        "Delete a schedule; the messages it has put stay",
        access=Access(Role.MANAGE, "account"),
        query=NoQuery,
        answers={204: Says("It is gone")},
        refusals=("no_schedule",),
    ),
)
