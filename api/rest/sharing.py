"""Pre-signed URLs: handing on a part of what a key may do with a queue."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from api.access.rules import Access
from api.access.signed_urls import Grant, sign
from api.problems import Problem
from api.rest import answers, envelopes, parameters
from api.rest.answers import Answer
from api.rest.operations import Operation, Says
from api.rest.parameters import NoQuery
from api.rest.queues import QUEUE
from api.rest.requests import Call, JsonBody

EXPIRES_IN_S = 3_600.0
EXPIRES_IN_MS_MAX = 7 * 86_400_000

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Path = Annotated[str, msgspec.Meta(pattern=r"^[a-z]+(/[A-Za-z0-9_.-]+)*$", max_length=128)]
Methods = Annotated[list[Method], msgspec.Meta(min_length=1, max_length=5)]
Paths = Annotated[list[Path], msgspec.Meta(min_length=1, max_length=8)]


class ToShare(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which requests are to be good without a key: methods, paths below the queue, seconds."""

    methods: Methods
    paths: Paths
    expires_in: float = EXPIRES_IN_S


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """``urls`` are paths of this API with the query that signs them, which each can be used
    with; what comes below such a path is meant as well. ``key`` is the id of the key it came
    from: what that may no longer, the URL may no longer.
    """

    urls: list[str]
    query: str
    methods: list[Method]
    expires_at: datetime
    key: str


SHARE = JsonBody(ToShare)


async def share_queue(call: Call, query: NoQuery) -> Answer:
    """POST share: sign URLs of a queue."""
    if call.principal.kind != "key":
        raise Problem("forbidden", "only a key can be shared")
    given = await SHARE.read(call)
    account, queue = call.account, call.queue
    lasts_ms = parameters.milliseconds(
        given.expires_in, EXPIRES_IN_MS_MAX, "expires_in", least_ms=1
    )
    methods = list(dict.fromkeys(given.methods))
    grant = Grant(
        key=call.principal.id,
        account=account,
        queue=queue,
        methods=tuple(methods),
        paths=tuple(dict.fromkeys(given.paths)),
        expires_ms=call.service.now_ms() + lasts_ms,
    )
    signed = sign(call.service.access.pepper, grant)
    shared = Shared(
        urls=[f"/v1/{account}/queues/{queue}/{path}?{signed}" for path in grant.paths],
        query=signed,
        methods=methods,
        expires_at=envelopes.timestamp(grant.expires_ms),
        key=grant.key,
    )
    return answers.json(200, shared)


OPERATIONS = (
    Operation(
        "POST",
        QUEUE + "/share",
        share_queue,
        "Sign URLs with which somebody without a key may do some of what this key may",
        access=Access(None, "queue"),
        query=NoQuery,
        body=SHARE,
        answers={200: Says("The URLs", Shared)},
    ),
)
