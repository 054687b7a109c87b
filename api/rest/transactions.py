"""Transactions: acks, releases and puts of one account, all or none."""

from __future__ import annotations

import msgspec

from api import problems
from api.access.principals import Role
from api.access.rules import Access
from api.problems import Document, Problem, StalePart
from api.rest import answers, claiming, messages, parameters
from api.rest.answers import Answer
from api.rest.claiming import ClaimToMake, ClaimView, Wanted
from api.rest.claims import Nack, check_nack, claim_id, nacked, named_ids
from api.rest.messages import MessageToPut, Put
from api.rest.operations import Operation, Says
from api.rest.parameters import NoQuery
from api.rest.requests import Call, JsonBody
from statemachine.commands import PartAck, PartPut, PartRelease, Transact, TransactAndClaim
from statemachine.outcomes import Transacted, TransactedAndClaimed

TRANSACTIONS = "/v1/{account}/transactions"


class AckPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Messages of a claim whose work is done; without ``ids`` all that it holds."""

    queue: parameters.Name
    claim: str
    ids: list[str] | None = None


class PutPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """New messages for a queue."""

    queue: parameters.Name
    messages: list[MessageToPut]


class ReleasePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Messages of a claim to give back, as with nack."""

    queue: parameters.Name
    claim: str
    ids: list[str] | None = None
    reason: str | None = None
    delay: float | None = None
    dead: bool = False


class NextClaim(ClaimToMake, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to claim then, and from which queue."""

    queue: parameters.Name


class Transaction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be done as one, and what to claim when it is done."""

    acks: list[AckPart] = []
    puts: list[PutPart] = []
    releases: list[ReleasePart] = []
    next: NextClaim | None = None


class TransactionView(msgspec.Struct, frozen=True):
    """How many messages each part settled, and the ids of those put.

    The rest is there if something was to be claimed next.
    """

    acked: tuple[int, ...]
    released: tuple[int, ...]
    puts: list[Put]
    next: ClaimView | msgspec.UnsetType | None = msgspec.UNSET
    """What was claimed; null if nothing was ready, in time."""
    next_refused: Document | msgspec.UnsetType = msgspec.UNSET
    """Why nothing was claimed, if that was refused or failed: what a claim would be answered."""


BODY = JsonBody(Transaction)


async def transact(call: Call, query: NoQuery) -> Answer:
    """POST transactions."""
    asked = await BODY.read(call)
    _check_sizes(call, asked)
    command = Transact(
        call.account,
        tuple(
            [
                PartAck(
                    _queue(call, Role.CONSUME, one.queue),
                    claim_id(one.claim),
                    named_ids(call, one.ids),
                )
                for one in asked.acks
            ]
        ),
        tuple(
            [
                PartPut(
                    _queue(call, Role.PRODUCE, one.queue), messages.new_messages(call, one.messages)
                )
                for one in asked.puts
            ]
        ),
        tuple([_release(call, one) for one in asked.releases]),
    )
    if asked.next is None:
        return _answer(asked, await call.propose(command, Transacted))
    wanted = _wanted(call, asked.next)
    both = await call.propose(TransactAndClaim(command, wanted.command), TransactedAndClaimed)
    if both.claimed is None:
        raise _stale(asked, both.transacted)
    after = await claiming.next_claimed(call, wanted, both.claimed)
    return _answer(asked, both.transacted, after.view, after.refused)


def _answer(
    asked: Transaction,
    done: Transacted,
    claimed: ClaimView | msgspec.UnsetType | None = msgspec.UNSET,
    refused: Document | msgspec.UnsetType = msgspec.UNSET,
) -> Answer:
    if done.stale:
        raise _stale(asked, done)
    puts = [messages.put_view(one) for one in done.put]
    return answers.json(200, TransactionView(done.acked, done.released, puts, claimed, refused))


def _wanted(call: Call, asked: NextClaim) -> Wanted:
    claiming.without_key(call, "next", "what is held by then could not be told again")
    return claiming.wanted(call, _queue(call, Role.CONSUME, asked.queue), asked)


def _check_sizes(call: Call, asked: Transaction) -> None:
    """The limits of single requests, for all parts together."""
    limits = call.service.limits
    parts = len(asked.acks) + len(asked.releases)
    if not parts and not asked.puts:
        raise Problem("invalid_request", "a transaction must have a part")
    ids = count = 0
    for named in (asked.acks, asked.releases):
        for one in named:
            ids += len(one.ids or ())
    for part in asked.puts:
        count += len(part.messages)
    parameters.in_range(parts, 0, limits.claim_messages_max, "acks and releases")
    parameters.in_range(ids, 0, limits.claim_messages_max, "ids")
    if max(count, len(asked.puts)) > limits.batch_messages_max:
        raise messages.too_many(limits)
    for part in asked.puts:
        for message in part.messages:
            if message.persistent is False:
                detail = "a transaction is always durable"
                raise Problem("invalid_request", detail, field="persistent")


def _queue(call: Call, role: Role, name: str) -> str:
    """The name of a part's queue, in which the caller must have the role."""
    queue = parameters.name(name, "queue")
    call.demand(role, queue)
    return queue


def _release(call: Call, one: ReleasePart) -> PartRelease:
    asked = Nack(one.ids, one.reason, one.delay, one.dead)
    check_nack(asked)
    return PartRelease(
        _queue(call, Role.CONSUME, one.queue), claim_id(one.claim), *nacked(call, asked)
    )


def _stale(asked: Transaction, outcome: Transacted) -> Problem:
    acks = len(asked.acks)
    parts = tuple(
        [
            StalePart(
                part="acks" if one.part < acks else "releases",
                index=one.part if one.part < acks else one.part - acks,
                claim_ended=one.ended,
                why=problems.why(one.stale, one.why),
            )
            for one in outcome.stale
        ]
    )
    detail = "nothing was done, since some of the claims do not hold what was named"
    return Problem("stale_transaction", detail, stale=parts)


OPERATIONS = (
    Operation(
        "POST",
        TRANSACTIONS,
        transact,
        "Acknowledge, give back and put messages: all or nothing; and claim what is next",
        access=Access(None, "account"),
        query=NoQuery,
        body=BODY,
        answers={200: Says("All of it is done", TransactionView)},
        refusals=(
            "forbidden",
            "stale_transaction",
            "too_many_messages",
            "body_too_large",
            "fan_out_too_large",
            "quota_exceeded",
        ),
    ),
)
