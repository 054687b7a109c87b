"""Transactions: acks, releases and puts of one account, all or nothing, in one request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias
from urllib.parse import quote

import msgspec

from raftq.client import bodies
from raftq.client.answers import MessageId, Put
from raftq.client.claims import ClaimCore
from raftq.client.effects import Request, Steps
from raftq.client.errors import LeaseLost
from raftq.client.exchange import Session, decoded

Named: TypeAlias = tuple[ClaimCore, list[str] | None]


class Holding(Protocol):
    """A claim, or a message of one."""

    def _named(self) -> Named: ...


class GiveBack(msgspec.Struct, frozen=True):
    """A part of a transaction that releases, with what ``nack`` takes."""

    held: Holding
    delay: float | None = None
    reason: str | None = None
    dead: bool = False


class Transacted(msgspec.Struct, frozen=True):
    """How many messages were settled, and the ids of those put, by queue."""

    acked: int
    released: int
    puts: dict[str, tuple[MessageId, ...]]


class _Answer(msgspec.Struct, frozen=True):
    acked: tuple[int, ...]
    released: tuple[int, ...]
    puts: tuple[Put, ...]


def transact(
    session: Session,
    account: str,
    acks: Sequence[Holding],
    releases: Sequence[Holding | GiveBack],
    puts: Mapping[str, Sequence[bodies.NewMessage | Any]],
) -> Steps[Transacted]:
    """Do all of it, or nothing: then ``LeaseLost``; ``why`` says what is not held."""
    backs = [one if isinstance(one, GiveBack) else GiveBack(one) for one in releases]
    acked = [one._named() for one in acks]
    released = [one.held._named() for one in backs]
    document = {
        "acks": [_part(named) for named in acked],
        "releases": [
            _part(named, delay=back.delay, reason=back.reason, dead=back.dead or None)
            for named, back in zip(released, backs, strict=True)
        ],
        "puts": [
            {"queue": queue, "messages": [bodies.raw(item.content) for item in items]}
            for queue, messages in puts.items()
            if (items := bodies.json_items(messages, session.replicas.zone))
        ],
    }
    path = f"/v1/{quote(account, safe='')}/transactions"
    request = Request("POST", path, {}, bodies.JSON_HEADERS, bodies.encode(document))
    try:
        answer = decoded((yield from session.change(request)), _Answer)
    except LeaseLost as lost:
        _lose(lost, {"acks": acked, "releases": released})
        raise
    for claim, ids in (*acked, *released):
        claim.done(ids)
    queues = [queue for queue, messages in puts.items() if messages]
    ids_of = {queue: put.named() for queue, put in zip(queues, answer.puts, strict=True)}
    return Transacted(sum(answer.acked), sum(answer.released), ids_of)


def _part(named: Named, **more: object) -> dict[str, object]:
    claim, ids = named
    fields = {"queue": claim.queue.name, "claim": claim.id, "ids": ids, **more}
    return {name: value for name, value in fields.items() if value is not None}


def _lose(lost: LeaseLost, parts: Mapping[str, list[Named]]) -> None:
    """What is known to be lost; the rest of the transaction is held as before."""
    for stale in lost.stale_parts:
        claim, _ = parts[stale.part][stale.index]
        claim.lose(claim.held if stale.claim_ended else stale.why)
