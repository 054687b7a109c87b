"""A claim: what is sent about messages under a lease, and what the answer means.

Acks, releases, nacks and extensions carry no key: they are repeated as they are. If the
repetition finds nothing to settle while the lease still holds by this process's clock, the
first try has done it; if the lease may have run out, that is ``OutcomeUnknown``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from raftq.client import bodies
from raftq.client.answers import Acked, Claimed, ExtendedMany, Lease, Released, Settled
from raftq.client.effects import Answer, Request, Steps
from raftq.client.errors import LeaseLost, OutcomeUnknown
from raftq.client.exchange import Session, decoded, failed

CLAIMS_PER_REQUEST = 500
NO_CONTENT = 204


ZoneMode = Literal["any", "prefer", "only"]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a claim is to take; see ``QueueCore.claim``."""

    limit: int = 1
    lease: float | None = None
    wait: float = 0.0
    zone: str | None = None
    zone_mode: ZoneMode | None = None
    locality_wait: float | None = None
    consumer: str | None = None
    auto_ack: bool = False

    def fields(self, home: str | None) -> dict[str, Any]:
        """As the API takes it; ``home`` is where the client is."""
        given = msgspec.structs.asdict(self)
        given |= {"wait": self.wait or None, "zone": self.zone or home}
        given["auto_ack"] = self.auto_ack or None
        return {name: value for name, value in given.items() if value is not None}


ONE = Wanted()


class Place:
    """Where claims are: a queue, and the session that asks about it."""

    def __init__(self, session: Session, name: str, path: str) -> None:
        self.session = session
        self.name = name
        self.path = path


class ClaimCore:
    """Messages under one lease. ``held`` are those that were neither settled nor lost.

    Those that were acknowledged as they were claimed are under none, and settled.
    """

    def __init__(
        self, queue: Place, claimed: Claimed | None, sent_s: float, lease: float | None
    ) -> None:
        self.queue = queue
        self.id = "" if claimed is None else claimed.claim or ""
        self.messages = () if claimed is None else claimed.messages
        self.lease_until: datetime | None = None if claimed is None else claimed.lease_until
        self.held = {message.id for message in self.messages} if self.id else set[str]()
        self.lost: set[str] = set()
        self._parts: dict[str, ClaimCore] = {}
        self._path = f"{queue.path}/claims/{quote(self.id, safe='')}"
        self._leased(sent_s, lease)

    def holder(self, message: str) -> ClaimCore:
        """The claim that has the message: this one, or one that it was split off into."""
        part = self._parts.get(message)
        return self if part is None else part.holder(message)

    def is_lost(self, message: str) -> bool:
        """Whether it is known that the message is no longer ours."""
        return message in self.lost or (message in self.held and self._over())

    def ack(self, ids: Sequence[str] | None = None) -> Steps[Settled]:
        """The work is done: delete the messages named, or all that are held.

        ``LeaseLost`` if none of them is held any more; those that are not are named in
        ``stale`` if others are.
        """
        body = None if ids is None else bodies.encode({"ids": list(ids)})
        headers = {} if body is None else bodies.JSON_HEADERS
        request = Request("POST", f"{self._path}/ack", {}, headers, body)
        answer = yield from self._settle(request, ids)
        if answer is None:
            return self._settled(ids, len(self.held if ids is None else ids))
        return self._acked(ids, answer, decoded(answer, Acked))

    def ack_and_claim(
        self, ids: Sequence[str] | None = None, *, next: Wanted = ONE
    ) -> Steps[tuple[Settled, ClaimCore]]:
        """Like ``ack``, and claim what is next by the same request: what was acked, and the claim.

        ``next`` says what to claim. What was not held any more is in ``stale``, and raises
        nothing: the messages of the new claim are held. Without a new claim since that was
        refused, or has failed, this raises, and ``done`` of the error says what was acked.
        """
        session = self.queue.session
        if not self.id or (ids is not None and not ids):
            return Settled(0), (yield from make(self.queue, next))
        named = None if ids is None else list(ids)
        body = bodies.encode_given(ids=named, next=next.fields(session.replicas.zone))
        request = Request("POST", f"{self._path}/ack", {}, bodies.JSON_HEADERS, body)
        sent_s = session.clock()
        answer = yield from session.call(request, repeatable=True, wait_s=next.wait)
        acked = decoded(answer, Acked)
        settled = self._acked(ids, answer, acked)
        if acked.next_refused is not None:
            raise failed(acked.next_refused, settled)
        return settled, ClaimCore(self.queue, acked.next, sent_s, next.lease)

    def release(
        self, ids: Sequence[str] | None = None, *, delay: float | None = None
    ) -> Steps[Settled]:
        """Give the messages named, or all that are held, back; ready after ``delay`` seconds.

        Without ``delay`` as the queue's ``retry_delay`` says.
        """
        query = {} if ids is None else {"ids": ",".join(ids)}
        query |= {} if delay is None else {"delay": str(delay)}
        return (yield from self._give_back(Request("DELETE", self._path, query), ids))

    def nack(
        self,
        ids: Sequence[str] | None = None,
        *,
        reason: str | None = None,
        delay: float | None = None,
        dead: bool = False,
    ) -> Steps[Settled]:
        """The work has failed: give the messages named, or all, back, and say why.

        The ``reason`` stays with them. ``dead``: do not try again, make them dead letters.
        """
        body = bodies.encode_given(ids=ids, reason=reason, delay=delay, dead=dead or None)
        request = Request("POST", f"{self._path}/nack", {}, bodies.JSON_HEADERS, body)
        return (yield from self._give_back(request, ids))

    def extend(
        self, lease: float | None = None, *, timeout: float | None = None
    ) -> Steps[datetime]:
        """Let the lease end so many seconds from now (None: as the queue says); when that is.

        ``timeout``: seconds to keep trying.
        """
        sent_s = self.queue.session.clock()
        answer = yield from self._extend(bodies.encode_given(lease=lease), self.held, timeout)
        self.extended(decoded(answer, Lease).lease_until, sent_s, lease)
        assert self.lease_until is not None
        return self.lease_until

    def extend_some(self, ids: Sequence[str], lease: float | None = None) -> Steps[ClaimCore]:
        """Extend only these messages: the claim that has them now, which lasts as long.

        They go over to a claim of their own, unless they are all that this one holds; what is
        done with the messages themselves finds it. ``LeaseLost`` if none of them is held.
        """
        sent_s = self.queue.session.clock()
        body = bodies.encode_given(lease=lease, ids=list(ids))
        answer = yield from self._extend(body, ids, None)
        extended = decoded(answer, Lease)
        self.lose(extended.stale)
        moved = [one for one in self.messages if one.id in self.held.intersection(ids)]
        if extended.claim in (None, self.id):
            self.extended(extended.lease_until, sent_s, lease)
            return self
        claimed = Claimed(extended.claim or "", extended.lease_until, tuple(moved))
        part = ClaimCore(self.queue, claimed, sent_s, lease)
        self.held -= part.held
        self._parts |= dict.fromkeys(part.held, part)
        return part

    def extended(self, until: datetime, sent_s: float, lease: float | None) -> None:
        """The lease is a new one."""
        self.lease_until = until
        self._leased(sent_s, lease)

    def ended(self) -> None:
        """The claim is over."""
        self.lose(self.held)

    def done(self, ids: Sequence[str] | None) -> None:
        """They are settled."""
        self.held -= set(self.held if ids is None else ids)

    def _extend(self, body: bytes, ids: Iterable[str], timeout: float | None) -> Steps[Answer]:
        request = Request("PATCH", self._path, {}, bodies.JSON_HEADERS, body)
        try:
            return (yield from self.queue.session.call(request, repeatable=True, timeout_s=timeout))
        except LeaseLost:
            self.lose(ids)
            raise

    def _give_back(self, request: Request, ids: Sequence[str] | None) -> Steps[Settled]:
        answer = yield from self._settle(request, ids)
        if answer is None:
            return self._settled(ids, len(self.held if ids is None else ids))
        back = decoded(answer, Released)
        return self._settled(ids, back.released, back.stale, back.why)

    def _settle(self, request: Request, ids: Sequence[str] | None) -> Steps[Answer | None]:
        """The answer; None if there was nothing to do, or an earlier try has done it."""
        done = not self.held and not self.lost
        if not self.id or (done if ids is None else not ids):
            return None
        try:
            return (yield from self.queue.session.call(request, repeatable=True))
        except LeaseLost as lost:
            if lost.after_unknown:
                if self.queue.session.clock() < self._held_until_s:
                    return None
                raise OutcomeUnknown(
                    f"an earlier try may have settled it, or the lease has run out: {lost}"
                ) from lost
            self.lose(self.held if ids is None else ids)
            raise

    def _acked(self, ids: Sequence[str] | None, answer: Answer, acked: Acked) -> Settled:
        is_stale = acked.claim_ended or bool(acked.stale)
        if is_stale and answer.after_unknown and self.queue.session.clock() < self._held_until_s:
            return self._settled(ids, len(self.held if ids is None else ids))
        if acked.claim_ended:
            self.ended()
        return self._settled(ids, acked.acked, acked.stale, acked.why)

    def _settled(
        self,
        ids: Sequence[str] | None,
        settled: int,
        stale: tuple[str, ...] = (),
        why: dict[str, str] | None = None,
    ) -> Settled:
        self.lose(stale)
        self.done(ids)
        return Settled(settled, stale, why or {})

    def lose(self, ids: Iterable[str]) -> None:
        """They are no longer ours."""
        gone = set(ids)
        self.lost |= gone
        self.held -= gone

    def _over(self) -> bool:
        return self.queue.session.clock() >= self._over_at_s

    def _leased(self, sent_s: float, lease: float | None) -> None:
        """The lease began between the request and the answer; how long it is may be unknown."""
        self._held_until_s = float("-inf") if lease is None else sent_s + lease
        self._over_at_s = float("inf") if lease is None else self.queue.session.clock() + lease


def make(place: Place, wanted: Wanted) -> Steps[ClaimCore]:
    """A new claim, empty if there was nothing."""
    session = place.session
    body = bodies.encode(wanted.fields(session.replicas.zone))
    request = Request("POST", f"{place.path}/claims", headers=bodies.JSON_HEADERS, body=body)
    sent_s = session.clock()
    if wanted.wait or wanted.auto_ack:
        answer = yield from session.call(request, repeatable=True, wait_s=wanted.wait)
    else:
        answer = yield from session.change(request)
    claimed = decoded(answer, Claimed) if answer.status != NO_CONTENT else None
    return ClaimCore(place, claimed, sent_s, wanted.lease)


def extend_many(
    place: Place, claims: Sequence[ClaimCore], lease: float, *, timeout: float
) -> Steps[list[ClaimCore]]:
    """Let the leases of all these claims of a queue end so many seconds from now.

    Those that are over are given back, and know it.
    """
    over: list[ClaimCore] = []
    for first in range(0, len(claims), CLAIMS_PER_REQUEST):
        some = claims[first : first + CLAIMS_PER_REQUEST]
        body = bodies.encode({"claims": [claim.id for claim in some], "lease": lease})
        request = Request("POST", f"{place.path}/extend", {}, bodies.JSON_HEADERS, body)
        sent_s = place.session.clock()
        answer = yield from place.session.call(request, repeatable=True, timeout_s=timeout)
        for claim, now in zip(some, decoded(answer, ExtendedMany).claims, strict=True):
            if now.lease_until is None:
                claim.ended()
                over.append(claim)
            else:
                claim.extended(now.lease_until, sent_s, lease)
    return over
