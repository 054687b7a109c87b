"""Bindings: which messages put to a queue go to other queues instead."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from api.access.principals import Role
from api.access.rules import Access
from api.problems import Problem
from api.rest import answers, envelopes, filters, parameters
from api.rest.answers import Answer
from api.rest.operations import Operation, Says
from api.rest.parameters import NoQuery
from api.rest.queues import QUEUE, no_queue
from api.rest.reads import ReadQuery
from api.rest.requests import Call, JsonBody
from statemachine import records, standing
from statemachine.commands import DeleteBinding, PutBinding
from statemachine.outcomes import Done, Reason, Stored

BINDINGS = QUEUE + "/bindings"
BINDING = BINDINGS + "/{target}"


class BindingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Headers, and what they must be: a value, a prefix, or a list of which one is enough.

    An empty ``match`` matches every message.
    """

    match: dict[str, filters.Terms] = {}
    match_mode: Literal["all", "any"] = "all"


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """A binding of one queue to another."""

    target: str
    match: dict[str, filters.Terms]
    match_mode: Literal["all", "any"]
    created_at: datetime


class Bindings(msgspec.Struct, frozen=True):
    """All bindings of a queue, in the order of their targets."""

    bindings: list[Binding]


SETTINGS = JsonBody(BindingSettings, optional=True)


async def list_bindings(call: Call, query: ReadQuery) -> Answer:
    """GET bindings."""
    found = [one for one in _bindings(call) if call.principal.sees(one.target)]
    return answers.json(200, Bindings([_shown(one) for one in found]))


async def put_binding(call: Call, query: NoQuery) -> Answer:
    """PUT a binding: create it, or replace what it matches."""
    account, queue, target = call.account, call.queue, _target(call)
    given = await SETTINGS.read(call)
    match = filters.matches(call, given.match, given.match_mode)
    command = PutBinding(account, queue, target, match, given.match_mode == "any")
    stored = await call.propose(command, Stored)
    if not stored.created:
        return answers.json(200, _describe(call, target))
    location = f"/v1/{account}/queues/{queue}/bindings/{target}".encode()
    return answers.json(201, _describe(call, target), (b"location", location))


async def get_binding(call: Call, query: ReadQuery) -> Answer:
    """GET a binding."""
    return answers.json(200, _describe(call, _target(call)))


async def delete_binding(call: Call, query: NoQuery) -> Answer:
    """DELETE a binding; what was delivered stays."""
    await call.propose(DeleteBinding(call.account, call.queue, _target(call)), Done)
    return answers.empty()


def _target(call: Call) -> str:
    """The queue at the other end, which must be one of the caller's too."""
    target = parameters.name(call.path["target"], "target")
    call.demand(Role.MANAGE, target)
    return target


def _bindings(call: Call) -> tuple[records.Binding, ...]:
    found = standing.bindings(call.service.reader(), call.account, call.queue)
    if found is None:
        raise no_queue(call)
    return found


def _describe(call: Call, target: str) -> Binding:
    for found in _bindings(call):
        if found.target == target:
            return _shown(found)
    detail = f"queue {call.queue!r} is not bound to {target!r}"
    raise Problem(Reason.NO_BINDING, detail)


def _shown(found: records.Binding) -> Binding:
    return Binding(
        target=found.target,
        match=filters.shown_matches(found.match),
        match_mode="any" if found.any_of else "all",
        created_at=envelopes.timestamp(found.created_ms),
    )


OPERATIONS = (
    Operation(
        "GET",
        BINDINGS,
        list_bindings,
        "The queues to which a queue is bound",
        access=Access(Role.MANAGE, "queue"),
        query=ReadQuery,
        answers={200: Says("All of them", Bindings)},
        refusals=("no_queue",),
    ),
    Operation(
        "PUT",
        BINDING,
        put_binding,
        "Send messages that match to another queue of the account instead",
        access=Access(Role.MANAGE, "queue"),
        query=NoQuery,
        body=SETTINGS,
        answers={201: Says("It is new", Binding), 200: Says("It was there", Binding)},
        refusals=("too_many_bindings", "quota_exceeded"),
    ),
    Operation(
        "GET",
        BINDING,
        get_binding,
        "A binding",
        access=Access(Role.MANAGE, "queue"),
        query=ReadQuery,
        answers={200: Says("The binding", Binding)},
        refusals=("no_queue", "no_binding"),
    ),
    Operation(
        "DELETE",
        BINDING,
        delete_binding,
        "Unbind; what was delivered stays where it is",
        access=Access(Role.MANAGE, "queue"),
        query=NoQuery,
        answers={204: Says("It is gone")},
        refusals=("no_queue", "no_binding"),
    ),
)
