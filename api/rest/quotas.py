"""Quotas: how much an account has of what may be limited, and its limits.

Who runs the cluster sets them; everybody who may use the account can see them.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import asdict

from api.access.principals import Role
from api.access.rules import Access
from api.rest import answers
from api.rest.accounts import ACCOUNT
from api.rest.answers import Answer
from api.rest.operations import Operation, Says
from api.rest.parameters import NoQuery, in_range
from api.rest.queues import no_account
from api.rest.reads import ReadQuery
from api.rest.requests import Call, JsonBody
from statemachine import queries
from statemachine.commands import Quotas, SetQuotas
from statemachine.outcomes import Stored

USAGE = ACCOUNT + "/usage"
QUOTAS = ACCOUNT + "/quotas"
LIMIT_MAX = 1 << 53
"""Numbers beyond this one are not exact in every client's JSON."""

UNSET = msgspec.UNSET
Limit = int | msgspec.UnsetType | None


class QuotaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The most of each kind, all queues of the account together; 0 or null is no limit."""

    queues: Limit = UNSET
    messages: Limit = UNSET
    bytes: Limit = UNSET
    """Of the bodies of messages."""
    in_flight: Limit = UNSET
    """Messages under claims."""
    subscriptions: Limit = UNSET
    schedules: Limit = UNSET
    bindings: Limit = UNSET
    history_bytes: Limit = UNSET


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """How much there is, and how much there may be; null: any amount."""

    usage: int
    limit: int | None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What an account has, exactly."""

    queues: Quota
    messages: Quota
    bytes: Quota
    in_flight: Quota
    subscriptions: Quota
    schedules: Quota
    bindings: Quota
    history_bytes: Quota


LIMITS = JsonBody(QuotaSettings)


async def get_usage(call: Call, query: ReadQuery) -> Answer:
    """GET what an account has."""
    return answers.json(200, _describe(call))


async def put_quotas(call: Call, query: NoQuery) -> Answer:
    """PUT the limits: all of them."""
    given = _checked(await LIMITS.read(call))
    stored = await call.propose(SetQuotas(call.account, Quotas(**given)), Stored)
    return answers.json(201 if stored.created else 200, _describe(call))


async def patch_quotas(call: Call, query: NoQuery) -> Answer:
    """PATCH the limits: those named."""
    given = _checked(await LIMITS.read(call))
    await call.propose(SetQuotas(call.account, Quotas(**given), tuple(given)), Stored)
    return answers.json(200, _describe(call))


def _checked(limits: QuotaSettings) -> dict[str, int]:
    """Those that were named."""
    given = {name: value for name, value in asdict(limits).items() if value is not UNSET}
    return {name: in_range(value or 0, 0, LIMIT_MAX, name) for name, value in given.items()}


def _describe(call: Call) -> Usage:
    found = queries.usage(call.service.reader(), call.account)
    if found is None:
        raise no_account(call)
    limits = asdict(found.limits)
    return Usage(
        **{
            name: Quota(usage=usage, limit=limits[name] or None)
            for name, usage in asdict(found.usage).items()
        }
    )


OPERATIONS = (
    Operation(
        "GET",
        USAGE,
        get_usage,
        "How much an account has of what may be limited",
        access=Access(None, "account"),
        query=ReadQuery,
        answers={200: Says("Usage and limits", Usage)},
        refusals=("no_account",),
    ),
    Operation(
        "PUT",
        QUOTAS,
        put_quotas,
        "Set all limits of an account, which is made if there is none; null is no limit",
        access=Access(Role.ADMIN, "account"),
        query=NoQuery,
        body=LIMITS,
        answers={
            200: Says("Usage and limits", Usage),
            201: Says("The account is new", Usage),
        },
    ),
    Operation(
        "PATCH",
        QUOTAS,
        patch_quotas,
        "Change the limits named; null is no limit",
        access=Access(Role.ADMIN, "account"),
        query=NoQuery,
        body=LIMITS,
        answers={200: Says("Usage and limits", Usage)},
        refusals=("no_account",),
    ),
)
