"""Making claims: what is asked for, how long it is waited for, and what is told of it.

A claim may also be what comes *next*, in the same request as something else. That is
done whatever becomes of the claim, so no status tells of a claim that was refused:
the answer does, in ``next_refused``.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec

from api import bodies, problems
from api.problems import Document, Problem, refused
from api.rest import parameters, polling
from api.rest.envelopes import Message, State, envelope, timestamp
from api.rest.parameters import ZoneMode
from api.rest.requests import IDEMPOTENCY_KEY, Call
from statemachine.commands import Claim, Take
from statemachine.ids import claim_text
from statemachine.outcomes import Claimed, Outcome, Refused


class ClaimToMake(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many messages, for how long, how long to wait for one, for which zone and how strictly.

    ``locality_wait``: how old messages of other zones must be, where the own zone is preferred.
    ``consumer``: who claims, for the history. ``auto_ack``: they are acknowledged at once, so that
    there is no lease, and no second delivery.
    """

    limit: parameters.Count = 1
    lease: float | None = None
    wait: float = 0
    zone: parameters.Name | None = None
    zone_mode: ZoneMode | None = None
    locality_wait: float | None = None
    consumer: str | None = None
    auto_ack: bool = False


class ClaimView(msgspec.Struct, frozen=True):
    """A claim and what it holds; with ``auto_ack`` it holds nothing, and there is none."""

    claim: str | None
    lease_until: datetime | None
    messages: list[Message]


class Wanted(NamedTuple):
    """A claim to make, and for how long to wait until it finds something."""

    command: Claim | Take
    wait_s: float


class Next(NamedTuple):
    """A claim that came next: null if nothing was ready; or why there is none."""

    view: ClaimView | None
    refused: Document | msgspec.UnsetType


def wanted(call: Call, queue: str, asked: ClaimToMake) -> Wanted:
    """What is asked for, checked; raises the problem with it."""
    limits = call.service.limits
    limit = parameters.in_range(asked.limit, 1, limits.claim_messages_max, "limit")
    until_ms = lease_ms(call, asked.lease)
    locality_wait_ms = parameters.optional_milliseconds(
        asked.locality_wait, limits.duration_ms_max, "locality_wait"
    )
    whose = (
        parameters.zone(asked.zone, call.home),
        asked.zone_mode,
        locality_wait_ms,
        parameters.line(asked.consumer, "consumer"),
    )
    wait_ms = parameters.milliseconds(asked.wait, limits.wait_ms_max, "wait") if asked.wait else 0
    if not asked.auto_ack:
        return Wanted(Claim(call.account, queue, limit, until_ms, *whose), wait_ms / 1000)
    if asked.lease is not None:
        detail = "lease and auto_ack exclude each other: nothing is held"
        raise Problem("invalid_request", detail, field="lease")
    without_key(call, "auto_ack", "what was given out is not kept, to be given again")
    return Wanted(Take(call.account, queue, limit, *whose), wait_ms / 1000)


def lease_ms(call: Call, lease: float | None) -> int | None:
    """A lease of nothing would be no lease."""
    most_ms = call.service.limits.duration_ms_max
    return parameters.optional_milliseconds(lease, most_ms, "lease", least_ms=1)


def without_key(call: Call, field: str, why: str) -> None:
    """Refuse an ``Idempotency-Key``, which what is in ``field`` can not be asked for with."""
    if IDEMPOTENCY_KEY in call.headers:
        detail = f"{field} and Idempotency-Key exclude each other: {why}"
        raise Problem("invalid_request", detail, field=field)


async def claimed(call: Call, wanted: Wanted) -> Claimed:
    """The first claim that is not empty, or the empty one at the end of the wait."""
    if not wanted.wait_s:
        return await call.propose(wanted.command, Claimed)
    without_key(call, "wait", "the key would remember that the queue was empty at first")
    return await polling.claim_within(call, wanted.command, wanted.wait_s)


async def next_claimed(call: Call, wanted: Wanted, first: Outcome) -> Next:
    """What is told of a claim that comes next; ``first`` is its first answer.

    Whatever goes wrong with it is told too, for something was done already.
    """
    try:
        found = await _found(call, wanted, first)
        return Next(shown(call, wanted.command, found) if found.messages else None, msgspec.UNSET)
    except problems.ENDINGS as error:
        return Next(None, problems.of(error).document)


async def _found(call: Call, wanted: Wanted, first: Outcome) -> Claimed:
    if isinstance(first, Refused):
        raise refused(first)
    assert isinstance(first, Claimed), first
    if first.messages or not wanted.wait_s:
        return first
    return await polling.claim_within(call, wanted.command, wanted.wait_s, first)


def shown(call: Call, command: Claim | Take, claimed: Claimed) -> ClaimView:
    """What a claim has given to the caller, which is counted."""
    if isinstance(command, Take):
        seen = ClaimView(None, None, _messages(call, claimed, "acked"))
    else:
        seen = view(call, claimed)
    call.service.observe_claimed([message.zone for message in seen.messages], command.zone)
    return seen


def view(call: Call, claimed: Claimed) -> ClaimView:
    """A claim, with its messages as they were put."""
    messages = _messages(call, claimed, "claimed")
    return ClaimView(claim_text(claimed.claim), timestamp(claimed.until_ms), messages)


def _messages(call: Call, claimed: Claimed, state: State) -> list[Message]:
    service, account = call.service, call.account
    return [
        envelope(
            given.id,
            bodies.opened(service, account, given.record),
            state,
            given.deliveries,
            given.error,
        )
        for given in claimed.messages
    ]
