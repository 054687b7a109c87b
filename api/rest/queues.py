"""Queues: list, describe, change, delete. None needs to be created before it is used."""

from __future__ import annotations

from datetime import datetime

import msgspec

from api.access.principals import Role
from api.access.rules import Access
from api.problems import Problem
from api.rest import answers, envelopes, pages, settings
from api.rest.answers import Answer
from api.rest.operations import Operation, Says
from api.rest.pages import ListQuery
from api.rest.parameters import NoQuery
from api.rest.reads import ReadQuery
from api.rest.requests import Call, JsonBody
from api.rest.settings import Settings, SettingsView
from statemachine import queries
from statemachine.commands import DeleteQueue, PatchQueue, PutQueue
from statemachine.outcomes import Done, Reason, Stored

QUEUES = "/v1/{account}/queues"
QUEUE = QUEUES + "/{queue}"
SETTINGS = JsonBody(Settings, optional=True)


class Counts(msgspec.Struct, frozen=True):
    """Messages by state; blocked ones are behind others of their groups."""

    ready: int
    delayed: int
    claimed: int
    blocked: int


class QueueItem(msgspec.Struct, frozen=True):
    """A queue in a list."""

    name: str
    messages: Counts
    bytes: int


class Queues(msgspec.Struct, frozen=True):
    """A page of queues in the order of their names; ``marker`` is null on the last."""

    queues: list[QueueItem]
    marker: str | None


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """A queue: what was set on it, and what is in force with the account's defaults."""

    name: str
    settings: Settings
    effective: SettingsView
    created_at: datetime
    messages: Counts
    bytes: int


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Messages per second, over the last fifty to sixty seconds."""

    enqueued: float
    claimed: float
    acked: float
    released: float
    expired: float
    dead: float


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a queue."""

    messages: Counts
    bytes: int
    oldest_ready_at: datetime | None
    oldest_ready_age: float | None
    dead: int
    """Messages of this queue that became dead letters so far."""
    leases_ended: int
    """Claims of which the lease ran out so far."""
    rates: Rates


async def list_queues(call: Call, query: ListQuery) -> Answer:
    """GET queues."""
    part = pages.part(query, call.service.limits)
    page = queries.queues(call.service.reader(), call.account, **part, sees=call.principal.sees)
    if page is None:
        raise no_account(call)
    items = [QueueItem(found.name, _counts(found), found.bytes) for found in page.items]
    return answers.json(200, Queues(items, page.marker), *pages.link(call, page.marker))


async def put_queue(call: Call, query: NoQuery) -> Answer:
    """PUT a queue: create it, or replace its settings."""
    given = settings.to_store(call, await SETTINGS.read(call))
    account, queue = call.account, call.queue
    stored = await call.propose(PutQueue(account, queue, given), Stored)
    if not stored.created:
        return answers.json(200, _describe(call))
    location = f"/v1/{account}/queues/{queue}".encode()
    return answers.json(201, _describe(call), (b"location", location))


async def get_queue(call: Call, query: ReadQuery) -> Answer:
    """GET a queue."""
    return answers.json(200, _describe(call))


async def patch_queue(call: Call, query: NoQuery) -> Answer:
    """PATCH a queue: change what is named."""
    given = await SETTINGS.read(call)
    changed = settings.to_store(call, given)
    command = PatchQueue(call.account, call.queue, changed, settings.named(given))
    await call.propose(command, Stored)
    return answers.json(200, _describe(call))


async def delete_queue(call: Call, query: NoQuery) -> Answer:
    """DELETE a queue with everything in it."""
    await call.propose(DeleteQueue(call.account, call.queue), Done)
    return answers.empty()


async def queue_stats(call: Call, query: ReadQuery) -> Answer:
    """GET stats."""
    now_ms = call.service.now_ms()
    found = queries.stats(call.service.reader(), call.account, call.queue, now_ms=now_ms)
    if found is None:
        raise no_queue(call)
    oldest_ms = found.oldest_ready_ms
    seconds = found.recent_ms / 1000
    return answers.json(
        200,
        Stats(
            messages=_counts(found),
            bytes=found.bytes,
            oldest_ready_at=envelopes.optional_timestamp(oldest_ms),
            oldest_ready_age=None if oldest_ms is None else (now_ms - oldest_ms) / 1000,
            dead=found.dead,
            leases_ended=found.leases_ended,
            rates=Rates(**{kind: round(n / seconds, 3) for kind, n in found.recent.items()}),
        ),
    )


def no_account(call: Call) -> Problem:
    """There is no such account."""
    return Problem(Reason.NO_ACCOUNT, f"there is no account {call.account!r}")


def no_queue(call: Call) -> Problem:
    """There is no such queue."""
    return Problem(Reason.NO_QUEUE, f"account {call.account!r} has no queue {call.queue!r}")


def _describe(call: Call) -> Queue:
    found = queries.queue(call.service.reader(), call.account, call.queue)
    if found is None:
        raise no_queue(call)
    return Queue(
        name=found.name,
        settings=settings.from_store(found.settings),
        effective=settings.in_force(found.name, found.effective),
        created_at=envelopes.timestamp(found.created_ms),
        messages=_counts(found),
        bytes=found.bytes,
    )


def _counts(found: queries.QueueView | queries.Stats) -> Counts:
    return Counts(found.ready, found.delayed, found.claimed, found.blocked)


OPERATIONS = (
    Operation(
        "GET",
        QUEUES,
        list_queues,
        "The account's queues in the order of their names",
        access=Access(None, "account"),
        query=ListQuery,
        answers={200: Says("A page", Queues)},
        refusals=("no_account",),
    ),
    Operation(
        "PUT",
        QUEUE,
        put_queue,
        "Create a queue, or replace all its settings",
        access=Access(Role.MANAGE, "queue"),
        query=NoQuery,
        body=SETTINGS,
        answers={201: Says("It is new", Queue), 200: Says("It was there", Queue)},
        refusals=("quota_exceeded",),
    ),
    Operation(
        "GET",
        QUEUE,
        get_queue,
        "A queue and its settings",
        access=Access(None, "queue"),
        query=ReadQuery,
        answers={200: Says("The queue", Queue)},
        refusals=("no_queue",),
    ),
    Operation(
        "PATCH",
        QUEUE,
        patch_queue,
        "Change the settings named; null puts one back to the default",
        access=Access(Role.MANAGE, "queue"),
        query=NoQuery,
        body=SETTINGS,
        answers={200: Says("The queue as it is now", Queue)},
        refusals=("no_queue",),
    ),
    Operation(
        "DELETE",
        QUEUE,
        delete_queue,
        "Delete a queue with everything in it",
        access=Access(Role.MANAGE, "queue"),
        query=NoQuery,
        answers={204: Says("It is gone")},
        refusals=("no_queue",),
    ),
    Operation(
        "GET",
        QUEUE + "/stats",
        queue_stats,
        "What is in a queue",
        access=Access(Role.CONSUME, "queue"),
        query=ReadQuery,
        answers={200: Says("Counts by state, and the age of the oldest", Stats)},
        refusals=("no_queue",),
    ),
)
