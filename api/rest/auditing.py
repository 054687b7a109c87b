"""The audit log, for whoever operates the cluster."""

from __future__ import annotations

from datetime import datetime

import msgspec

from api.access.principals import Role
from api.access.rules import Access
from api.problems import Problem
from api.rest import answers, pages
from api.rest.answers import Answer
from api.rest.envelopes import timestamp
from api.rest.operations import Operation, Says
from api.rest.reads import ReadQuery
from api.rest.requests import Call
from statemachine import audit
from statemachine.audit import AuditRecord
from statemachine.ids import claim_from_text, claim_text

AUDIT = "/audit"


class AuditQuery(ReadQuery, frozen=True, kw_only=True):
    """Which part of the audit log to show: what came after ``marker``."""

    limit: int | None = None
    marker: str | None = None


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what, from where, and how it ended: ``done``, or the reason of a refusal.

    ``account`` is null for what is the operator's own.
    """

    id: str
    time: datetime
    actor: str
    source: str
    request_id: str
    account: str | None
    act: str
    subject: str
    detail: str
    outcome: str


class Acts(msgspec.Struct, frozen=True):
    """A page, the oldest first; ``marker`` is null on the last."""

    acts: list[Act]
    marker: str | None


async def list_acts(call: Call, query: AuditQuery) -> Answer:
    """GET the audit log."""
    limit, after = pages.limit(query.limit, call.service.limits), 0
    if query.marker is not None:
        found = claim_from_text(query.marker)
        if found is None:
            raise Problem("invalid_id", "marker must be an act's id", field="marker")
        after = found
    page = audit.page(call.service.reader(), limit=limit, after=after)
    marker = None if page.marker is None else claim_text(page.marker)
    acts = [_act(number, record) for number, record in page.items]
    return answers.json(200, Acts(acts, marker), *pages.link(call, marker))


def _act(number: int, record: AuditRecord) -> Act:
    return Act(
        id=claim_text(number),
        time=timestamp(record.time_ms),
        actor=record.actor,
        source=record.source,
        request_id=record.request,
        account=record.account or None,
        act=record.act,
        subject=record.subject,
        detail=record.detail,
        outcome=record.outcome,
    )


OPERATIONS = (
    Operation(
        "GET",
        AUDIT,
        list_acts,
        "Who did which administrative act, from where, and how it ended",
        access=Access(Role.ADMIN, "cluster"),
        query=AuditQuery,
        answers={200: Says("A page, the oldest first", Acts)},
    ),
)
