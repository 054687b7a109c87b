"""Transactions: acks, releases and puts of one account, all or nothing, in one request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias
from urllib.parse import quote

import msgspec

from raftq.client import bodies
from raftq.client.answers import Claimed, MessageId, Put
from raftq.client.claims import ClaimCore, Place, Wanted
from raftq.client.effects import Answer, Request, Steps
from raftq.client.errors import LeaseLost, Problem
from raftq.client.exchange import Session, decoded, failed

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
    next: Claimed | None = None
    next_refused: Problem | None = None


def transact(
    session: Session,
    account: str,
    acks: Sequence[Holding],
    releases: Sequence[Holding | GiveBack],
    puts: Mapping[str, Sequence[bodies.NewMessage | Any]],
) -> Steps[Transacted]:
    """Do all of it, or nothing: then ``LeaseLost``; ``why`` says what is not held."""
    transaction = _Transaction(session, account, acks, releases, puts)
    return transaction.done((yield from transaction.asked(session.change)))


def transact_and_claim(
    place: Place,
    account: str,
    acks: Sequence[Holding],
    releases: Sequence[Holding | GiveBack],
    puts: Mapping[str, Sequence[bodies.NewMessage | Any]],
    wanted: Wanted,
) -> Steps[tuple[Transacted, ClaimCore]]:
    """The same, and then claim from a queue; it is not repeated, since it carries no key."""
    session = place.session
    transaction = _Transaction(session, account, acks, releases, puts)
    transaction.document["next"] = wanted.fields(session.replicas.zone) | {"queue": place.name}

    def send(request: Request) -> Steps[Answer]:
        return session.call(request, repeatable=False, wait_s=wanted.wait)

    sent_s = session.clock()
    answer = yield from transaction.asked(send)
    transacted = transaction.done(answer)
    if answer.next_refused is not None:
        raise failed(answer.next_refused, transacted)
    return transacted, ClaimCore(place, answer.next, sent_s, wanted.lease)


class _Transaction:
    """One request, and the claims that it is about."""

    def __init__(
        self,
        session: Session,
        account: str,
        acks: Sequence[Holding],
        releases: Sequence[Holding | GiveBack],
        puts: Mapping[str, Sequence[bodies.NewMessage | Any]],
    ) -> None:
        backs = [one if isinstance(one, GiveBack) else GiveBack(one) for one in releases]
        self._path = f"/v1/{quote(account, safe='')}/transactions"
        self._acked = [one._named() for one in acks]
        self._released = [one.held._named() for one in backs]
        self._queues = [queue for queue, messages in puts.items() if messages]
        self.document: dict[str, Any] = {
            "acks": [_part(named) for named in self._acked],
            "releases": [
                _part(named, delay=back.delay, reason=back.reason, dead=back.dead or None)
                for named, back in zip(self._released, backs, strict=True)
            ],
            "puts": [
                {"queue": queue, "messages": [bodies.raw(item.content) for item in items]}
                for queue, messages in puts.items()
                if (items := bodies.json_items(messages, session.replicas.zone))
            ],
        }

    def asked(self, send: Callable[[Request], Steps[Answer]]) -> Steps[_Answer]:
        """The answer; what is not held any more knows it."""
        body = bodies.encode(self.document)
        request = Request("POST", self._path, {}, bodies.JSON_HEADERS, body)
        try:
            return decoded((yield from send(request)), _Answer)
        except LeaseLost as lost:
            _lose(lost, {"acks": self._acked, "releases": self._released})
            raise

    def done(self, answer: _Answer) -> Transacted:
        """What it has done, which the claims know then."""
        for claim, ids in (*self._acked, *self._released):
            claim.done(ids)
        ids_of = {queue: put.named() for queue, put in zip(self._queues, answer.puts, strict=True)}
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
