"""Claims: take messages under a lease, look, extend, acknowledge, give back."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from api import problems
from api.access import signed_urls
from api.access.principals import Role
from api.access.rules import Access
from api.problems import Document, Problem
from api.rest import answers, claiming, parameters
from api.rest.answers import Answer
from api.rest.claiming import ClaimToMake, ClaimView
from api.rest.envelopes import checked_text, timestamp
from api.rest.operations import Operation, Says
from api.rest.parameters import NoQuery
from api.rest.reads import ReadQuery
from api.rest.requests import Call, JsonBody
from statemachine import queries
from statemachine.commands import Ack, Extend, ExtendMany, Release
from statemachine.ids import claim_from_text, claim_text
from statemachine.outcomes import Extended, ManyExtended, Reason, Refused, Settled

CLAIMS = "/v1/{account}/queues/{queue}/claims"
CLAIM = CLAIMS + "/{claim}"
ACK = CLAIM + "/ack"
EXTEND = "/v1/{account}/queues/{queue}/extend"
NACK = CLAIM + "/nack"
REASON_LENGTH_MAX = 1_000


class Lease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new lease, from now, without it the queue's; for some of the messages, or all."""

    lease: float | None = None
    ids: list[str] | None = None


class LeaseView(msgspec.Struct, frozen=True):
    """When the lease ends now.

    ``claim`` is the one that the messages named went over to, if they were not all that
    there are; ``stale`` names those that the claim did not hold.
    """

    lease_until: datetime
    claim: str | msgspec.UnsetType = msgspec.UNSET
    stale: list[str] | msgspec.UnsetType = msgspec.UNSET
    why: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


class ManyLeases(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Claims, and a new lease for all of them, from now; without it the queue's."""

    claims: list[str]
    lease: float | None = None


class ClaimLease(msgspec.Struct, frozen=True):
    """When a claim's lease ends now, or why it does not."""

    claim: str
    lease_until: datetime | None
    ended: Literal["lease_ended", "gone"] | None


class ManyLeasesView(msgspec.Struct, frozen=True):
    """In the order in which the claims were named."""

    claims: list[ClaimLease]


class Done(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Some of the claim's messages; without ``ids`` all that it still holds.

    ``next``: what to claim then.
    """

    ids: list[str] | None = None
    next: ClaimToMake | None = None


class ReleaseQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Some of the claim's messages, comma-separated, and when they are ready again."""

    ids: str | None = None
    delay: float | None = None
    reason: str | None = None


class Nack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Some of the claim's messages, or all; what is wrong, and when to try them again.

    With ``dead`` they are not tried again: they become dead letters.
    """

    ids: list[str] | None = None
    reason: str | None = None
    delay: float | None = None
    dead: bool = False


class Acked(msgspec.Struct, frozen=True):
    """How many messages are gone for good; ``stale`` names those the claim did not hold.

    The rest is there if something was to be claimed next.
    """

    acked: int
    stale: list[str]
    why: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    """By message, what became of those that are stale; absent if there are none."""
    claim_ended: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether the claim to acknowledge had run out, was settled, or never was."""
    next: ClaimView | msgspec.UnsetType | None = msgspec.UNSET
    """What was claimed; null if nothing was ready, in time."""
    next_refused: Document | msgspec.UnsetType = msgspec.UNSET
    """Why nothing was claimed, if that was refused or failed: what a claim would be answered."""


class Released(msgspec.Struct, frozen=True):
    """How many messages went back; ``stale`` names those the claim did not hold."""

    released: int
    stale: list[str]
    why: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    """By message, what became of those that are stale; absent if there are none."""


CLAIM_BODY = JsonBody(ClaimToMake, optional=True)
MANY_BODY = JsonBody(ManyLeases)
LEASE_BODY = JsonBody(Lease, optional=True)
ACK_BODY = JsonBody(Done, optional=True)
NACK_BODY = JsonBody(Nack, optional=True)


async def claim_messages(call: Call, query: NoQuery) -> Answer:
    """POST claims."""
    wanted = claiming.wanted(call, call.queue, await CLAIM_BODY.read(call))
    claimed = await claiming.claimed(call, wanted)
    if not claimed.messages:
        return answers.empty()
    view = claiming.shown(call, wanted.command, claimed)
    if view.claim is None:
        return answers.json(200, view)
    location = f"/v1/{call.account}/queues/{call.queue}/claims/{view.claim}"
    return answers.json(201, view, (b"location", location.encode()))


async def inspect_claim(call: Call, query: ReadQuery) -> Answer:
    """GET a claim."""
    found = queries.claim(call.service.reader(), call.account, call.queue, _claim(call))
    if found is None:
        raise _no_claim(call.path["claim"])
    return answers.json(200, claiming.view(call, found))


async def extend_claim(call: Call, query: NoQuery) -> Answer:
    """PATCH a claim."""
    asked = await LEASE_BODY.read(call)
    lease_ms, ids = claiming.lease_ms(call, asked.lease), named_ids(call, asked.ids)
    command = Extend(call.account, call.queue, _claim(call), lease_ms, ids)
    extended = await call.propose(command, Extended)
    why = problems.why(extended.stale, extended.why)
    if not extended.until_ms:
        raise _stale_claim(why)
    view = LeaseView(
        timestamp(extended.until_ms),
        claim_text(extended.claim) if extended.claim else msgspec.UNSET,
        list(why) if ids is not None else msgspec.UNSET,
        why or msgspec.UNSET,
    )
    return answers.json(200, view)


async def extend_claims(call: Call, query: NoQuery) -> Answer:
    """POST extend: many claims at once."""
    asked = await MANY_BODY.read(call)
    parameters.in_range(len(asked.claims), 1, call.service.limits.claim_messages_max, "claims")
    claims = tuple([claim_id(text) for text in asked.claims])
    command = ExtendMany(call.account, call.queue, claims, claiming.lease_ms(call, asked.lease))
    extended = await call.propose(command, ManyExtended)
    ended, until = dict(extended.ended), timestamp(extended.until_ms)
    views = [
        ClaimLease(text, None, "lease_ended" if ended[one] else "gone")
        if one in ended
        else ClaimLease(text, until, None)
        for text, one in zip(asked.claims, claims, strict=True)
    ]
    return answers.json(200, ManyLeasesView(views))


def claim_id(text: str) -> int:
    """A claim of a list, which must be well-formed."""
    found = claim_from_text(text)
    if found is None:
        raise Problem("invalid_id", f"{text[:64]!r} is not a claim", field="claims")
    return found


async def release_claim(call: Call, query: ReleaseQuery) -> Answer:
    """DELETE a claim."""
    named = None if query.ids is None else query.ids.split(",")
    return await _give_back(call, Nack(named, query.reason, query.delay))


async def nack_messages(call: Call, query: NoQuery) -> Answer:
    """POST nack: the work has failed."""
    asked = await NACK_BODY.read(call)
    check_nack(asked)
    return await _give_back(call, asked)


async def ack_messages(call: Call, query: NoQuery) -> Answer:
    """POST ack: the work is done."""
    asked = await ACK_BODY.read(call)
    command = Ack(call.account, call.queue, _claim(call), named_ids(call, asked.ids))
    if asked.next is not None:
        return await _ack_and_claim(call, command, asked.next)
    settled = _some_held(await call.propose(command, Settled))
    return answers.json(200, Acked(settled.settled, *_stale(settled)))


async def _ack_and_claim(call: Call, ack: Ack, asked: ClaimToMake) -> Answer:
    """Both in one entry of the log; what could not be done of either is told, with no error."""
    signed_urls.demand(call.scope, "POST", "claims")
    wanted = claiming.wanted(call, call.queue, asked)
    claiming.without_key(call, "next", "what is held by then could not be told again")
    acked, first = await call.service.propose_all((ack, wanted.command))
    settled = Settled(0, acked.stale, acked.why) if isinstance(acked, Refused) else acked
    assert isinstance(settled, Settled), acked
    after = await claiming.next_claimed(call, wanted, first)
    is_over = isinstance(acked, Refused)
    return answers.json(200, Acked(settled.settled, *_stale(settled), is_over, *after))


async def _give_back(call: Call, asked: Nack) -> Answer:
    command = Release(call.account, call.queue, _claim(call), *nacked(call, asked))
    settled = _some_held(await call.propose(command, Settled))
    return answers.json(200, Released(settled.settled, *_stale(settled)))


def check_nack(asked: Nack) -> None:
    """A dead letter is not tried again, however much later."""
    if asked.dead and asked.delay is not None:
        raise Problem("invalid_request", "dead and delay exclude each other", field="delay")


def nacked(call: Call, asked: Nack) -> tuple[tuple[bytes, ...] | None, int | None, str, bool]:
    """The last fields of a ``Release``: ids, delay in ms, reason, and whether they are dead."""
    reason, most_ms = asked.reason, call.service.limits.duration_ms_max
    return (
        named_ids(call, asked.ids),
        parameters.optional_milliseconds(asked.delay, most_ms, "delay"),
        "" if reason is None else checked_text(reason, REASON_LENGTH_MAX, "reason"),
        asked.dead,
    )


def _claim(call: Call) -> int:
    """The claim of the path; a text that is none names no claim."""
    text = call.path["claim"]
    claim = claim_from_text(text)
    if claim is None:
        raise _no_claim(text)
    return claim


def named_ids(call: Call, ids: list[str] | None) -> tuple[bytes, ...] | None:
    """Messages of a claim; None for all that it holds."""
    limit = call.service.limits.claim_messages_max
    return None if ids is None else parameters.message_ids(ids, limit)


def _no_claim(text: str) -> Problem:
    return Problem(Reason.NO_CLAIM, f"there is no claim {text[:64]!r} on the queue")


def _some_held(settled: Settled) -> Settled:
    """Part of a list is an answer; nothing of it is a mistake that must not look like success."""
    if settled.stale and not settled.settled:
        raise _stale_claim(problems.why(settled.stale, settled.why))
    return settled


def _stale_claim(why: dict[str, str]) -> Problem:
    return Problem("stale_claim", "the claim holds none of the messages named", why=why)


def _stale(settled: Settled) -> tuple[list[str], dict[str, str] | msgspec.UnsetType]:
    why = problems.why(settled.stale, settled.why)
    return list(why), why or msgspec.UNSET


OPERATIONS = (
    Operation(
        "POST",
        CLAIMS,
        claim_messages,
        "Claim ready messages under one lease: the highest priority first, then the oldest",
        access=Access(Role.CONSUME, "queue"),
        query=NoQuery,
        body=CLAIM_BODY,
        answers={
            200: Says("The messages are acknowledged: no claim holds them", ClaimView),
            201: Says("The messages are the caller's until the lease ends", ClaimView),
            204: Says("Nothing became ready in time"),
        },
        refusals=("quota_exceeded",),
    ),
    Operation(
        "POST",
        ACK,
        ack_messages,
        "Acknowledge: delete messages that the claim holds; and claim what is next",
        access=Access(Role.CONSUME, "queue"),
        query=NoQuery,
        body=ACK_BODY,
        answers={200: Says("What is gone, and what the claim did not hold", Acked)},
        refusals=("no_claim", "stale_claim"),
    ),
    Operation(
        "POST",
        NACK,
        nack_messages,
        "Give messages back because their work failed, or make them dead letters",
        access=Access(Role.CONSUME, "queue"),
        query=NoQuery,
        body=NACK_BODY,
        answers={200: Says("What went back, and what the claim did not hold", Released)},
        refusals=("no_claim", "stale_claim"),
    ),
    Operation(
        "GET",
        CLAIM,
        inspect_claim,
        "What a claim holds",
        access=Access(Role.CONSUME, "queue"),
        query=ReadQuery,
        answers={200: Says("The claim", ClaimView)},
        refusals=("no_claim",),
    ),
    Operation(
        "PATCH",
        CLAIM,
        extend_claim,
        "Let the lease end later, or earlier",
        access=Access(Role.CONSUME, "queue"),
        query=NoQuery,
        body=LEASE_BODY,
        answers={200: Says("When it ends now", LeaseView)},
        refusals=("no_claim", "stale_claim"),
    ),
    Operation(
        "POST",
        EXTEND,
        extend_claims,
        "Let the leases of many claims end later, or earlier",
        access=Access(Role.CONSUME, "queue"),
        query=NoQuery,
        body=MANY_BODY,
        answers={200: Says("When each ends now, or why it does not", ManyLeasesView)},
    ),
    Operation(
        "DELETE",
        CLAIM,
        release_claim,
        "Give messages of the claim back",
        access=Access(Role.CONSUME, "queue"),
        query=ReleaseQuery,
        answers={200: Says("What went back, and what the claim did not hold", Released)},
        refusals=("no_claim", "stale_claim"),
    ),
)
