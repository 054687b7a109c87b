"""Subscriptions: a queue's messages, posted to a URL by the node that runs them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

import msgspec

from api.access.principals import Role
from api.access.rules import Access
from api.problems import Problem
from api.rest import answers, envelopes, pages, parameters
from api.rest.answers import Answer
from api.rest.operations import Operation, Says
from api.rest.pages import ListQuery
from api.rest.parameters import NoQuery, in_range, milliseconds
from api.rest.queues import QUEUE, no_queue
from api.rest.reads import ReadQuery
from api.rest.requests import Call, JsonBody
from api.webhooks import signing, targets
from statemachine import hooks
from statemachine.commands import DeleteSubscription, PutSubscription, SubscriptionSettings
from statemachine.hooks import SubscriptionView
from statemachine.outcomes import Done, Reason, SubscriptionStored

SUBSCRIPTIONS = QUEUE + "/subscriptions"
SUBSCRIPTION = SUBSCRIPTIONS + "/{subscription}"

CONCURRENCY_MAX = 64
LEASE_MS_MIN, LEASE_MS_MAX = 1_000, 3_600_000
TIMEOUT_MS_MIN, TIMEOUT_MS_MAX = 100, 300_000
ATTEMPTS_MAX = 1_000
HEADERS_MAX = 16
HEADER_BYTES_MAX = 4_096

_is_header_name = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+").fullmatch
_is_header_value = re.compile(r"[\x20-\x7e\t]*").fullmatch
# What a request has of itself: these would make two requests of one, or lie about it.
_RESERVED = frozenset(
    (
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    )
)
_RESERVED_PREFIXES = ("proxy-", "raftq-", "webhook-")


class Retry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A failure costs ``base`` seconds, the next one twice that, and never more than ``max``."""

    base: float = 1.0
    max: float = 3600.0
    attempts: int = 20


class SubscriptionToPut(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A subscription; without ``secret`` one is made, or an existing one stays."""

    url: str
    secret: str | None = None
    lease: float = 30.0
    concurrency: int = 8
    timeout: float = 15.0
    headers: dict[str, str] = {}
    retry: Retry = Retry()


class ActivityView(msgspec.Struct, frozen=True, kw_only=True):
    """What the node asked has seen, which runs the subscription, since it took it over."""

    in_flight: int
    last_success_at: datetime | None
    last_error_at: datetime | None
    last_error: str | None


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription. Of ``headers`` the names; the secret only in the answer that made it."""

    name: str
    url: str
    secret: str | msgspec.UnsetType = msgspec.UNSET
    lease: float
    concurrency: int
    timeout: float
    headers: list[str]
    retry: Retry
    created_at: datetime
    node: str | None
    """The node that runs it."""
    disabled_at: datetime | None
    disabled_reason: str | None
    activity: ActivityView | None


class Subscriptions(msgspec.Struct, frozen=True):
    """A page of subscriptions in the order of their names; ``marker`` is null on the last."""

    subscriptions: list[Subscription]
    marker: str | None


BODY = JsonBody(SubscriptionToPut)


async def list_subscriptions(call: Call, query: ListQuery) -> Answer:
    """GET subscriptions."""
    part = pages.part(query, call.service.limits)
    page = hooks.subscriptions(call.service.reader(), call.account, call.queue, **part)
    if page is None:
        raise no_queue(call)
    items = [_show(call, view) for view in page.items]
    return answers.json(200, Subscriptions(items, page.marker), *pages.link(call, page.marker))


async def put_subscription(call: Call, query: NoQuery) -> Answer:
    """PUT a subscription: create it, or replace it and let it run again."""
    asked = await BODY.read(call)
    settings = _settings(call, asked)
    made = asked.secret is None
    secret = signing.make() if asked.secret is None else _secret(asked.secret)
    account, queue, name = call.account, call.queue, _name(call)
    command = PutSubscription(account, queue, name, settings, secret, made)
    stored = await call.propose(command, SubscriptionStored)
    view = _describe(call)
    if not stored.created:
        return answers.json(200, view)
    if stored.secret:
        view = msgspec.structs.replace(view, secret=signing.text(stored.secret))
    location = f"/v1/{account}/queues/{queue}/subscriptions/{name}".encode()
    return answers.json(201, view, (b"location", location))


async def get_subscription(call: Call, query: ReadQuery) -> Answer:
    """GET a subscription."""
    return answers.json(200, _describe(call))


async def delete_subscription(call: Call, query: NoQuery) -> Answer:
    """DELETE a subscription; what is being posted at the moment is finished."""
    await call.propose(DeleteSubscription(call.account, call.queue, _name(call)), Done)
    return answers.empty()


def _name(call: Call) -> str:
    return parameters.name(call.path["subscription"], "subscription")


def _settings(call: Call, asked: SubscriptionToPut) -> SubscriptionSettings:
    policy, most_ms = call.service.webhooks, call.service.limits.duration_ms_max
    if not policy.enabled:
        raise Problem("webhooks_disabled", "this node does not post messages (webhooks.enabled)")
    try:
        targets.Rules(policy).target(asked.url)
    except targets.Forbidden as error:
        raise Problem("url_forbidden", str(error), field="url") from None
    base_ms = milliseconds(asked.retry.base, most_ms, "retry.base", least_ms=1)
    return SubscriptionSettings(
        url=asked.url,
        headers=_headers(asked.headers),
        lease_ms=milliseconds(asked.lease, LEASE_MS_MAX, "lease", least_ms=LEASE_MS_MIN),
        concurrency=in_range(asked.concurrency, 1, CONCURRENCY_MAX, "concurrency"),
        timeout_ms=milliseconds(asked.timeout, TIMEOUT_MS_MAX, "timeout", least_ms=TIMEOUT_MS_MIN),
        retry_base_ms=base_ms,
        retry_max_ms=milliseconds(asked.retry.max, most_ms, "retry.max", least_ms=base_ms),
        attempts=in_range(asked.retry.attempts, 1, ATTEMPTS_MAX, "retry.attempts"),
    )


def _secret(text: str) -> bytes:
    secret = signing.from_text(text)
    if secret is None:
        raise Problem(
            "invalid_request",
            f"secret must be {signing.PREFIX} and base64 of "
            f"{signing.BYTES_MIN} to {signing.BYTES_MAX} bytes",
            field="secret",
        )
    return secret


def _headers(given: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    headers = {name.lower(): value for name, value in given.items()}
    for name, value in headers.items():
        if not (_is_header_name(name) and _is_header_value(value)):
            raise Problem(
                "invalid_header",
                f"header {name[:64]!r} must be an HTTP token with a value of one ASCII line",
                field="headers",
            )
        if name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
            raise Problem("invalid_header", f"header {name!r} is the node's own", field="headers")
    if len(headers) > HEADERS_MAX or len(given) != len(headers):
        raise Problem(
            "headers_too_large",
            f"there may be at most {HEADERS_MAX} headers, each once",
            field="headers",
            limit=HEADERS_MAX,
        )
    if sum(len(name) + len(value) for name, value in headers.items()) > HEADER_BYTES_MAX:
        raise Problem(
            "headers_too_large",
            f"headers may have at most {HEADER_BYTES_MAX} bytes together",
            field="headers",
            limit=HEADER_BYTES_MAX,
        )
    return tuple(headers.items())


def _describe(call: Call) -> Subscription:
    name = _name(call)
    view = hooks.subscription(call.service.reader(), call.account, call.queue, name)
    if view is None:
        detail = f"queue {call.queue!r} of account {call.account!r} has no subscription {name!r}"
        raise Problem(Reason.NO_SUBSCRIPTION, detail)
    return _show(call, view)


def _show(call: Call, view: SubscriptionView) -> Subscription:
    settings, is_disabled = view.settings, bool(view.disabled_reason)
    return Subscription(
        name=view.names[2],
        url=settings.url,
        lease=parameters.seconds(settings.lease_ms),
        concurrency=settings.concurrency,
        timeout=parameters.seconds(settings.timeout_ms),
        headers=[name for name, _ in settings.headers],
        retry=Retry(
            base=parameters.seconds(settings.retry_base_ms),
            max=parameters.seconds(settings.retry_max_ms),
            attempts=settings.attempts,
        ),
        created_at=envelopes.timestamp(view.created_ms),
        node=view.node or None,
        disabled_at=envelopes.timestamp(view.disabled_ms) if is_disabled else None,
        disabled_reason=view.disabled_reason or None,
        activity=_activity(call, view),
    )


def _activity(call: Call, view: SubscriptionView) -> ActivityView | None:
    seen = call.service.activity.get(view.names)
    if seen is None:
        return None
    return ActivityView(
        in_flight=seen.in_flight,
        last_success_at=envelopes.optional_timestamp(seen.last_success_ms),
        last_error_at=envelopes.optional_timestamp(seen.last_error_ms),
        last_error=seen.last_error or None,
    )


OPERATIONS = (
    Operation(
        "GET",
        SUBSCRIPTIONS,
        list_subscriptions,
        "The queue's subscriptions in the order of their names",
        access=Access(Role.MANAGE, "queue"),
        query=ListQuery,
        answers={200: Says("A page", Subscriptions)},
        refusals=("no_queue",),
    ),
    Operation(
        "PUT",
        SUBSCRIPTION,
        put_subscription,
        "Create a subscription, or replace it and let it run again",
        access=Access(Role.MANAGE, "queue"),
        query=NoQuery,
        body=BODY,
        answers={
            201: Says("It is new; a secret that was made is shown this once", Subscription),
            200: Says("It was there", Subscription),
        },
        refusals=(
            "url_forbidden",
            "webhooks_disabled",
            "too_many_subscriptions",
            "quota_exceeded",
        ),
    ),
    Operation(
        "GET",
        SUBSCRIPTION,
        get_subscription,
        "A subscription, who runs it, and how that goes",
        access=Access(Role.MANAGE, "queue"),
        query=ReadQuery,
        answers={200: Says("The subscription", Subscription)},
        refusals=("no_subscription",),
    ),
    Operation(
        "DELETE",
        SUBSCRIPTION,
        delete_subscription,
        "Delete a subscription",
        access=Access(Role.MANAGE, "queue"),
        query=NoQuery,
        answers={204: Says("It is gone")},
        refusals=("no_subscription",),
    ),
)
