"""Transactions: acks, releases and puts of one account, all or none, in one entry.

All claims are looked at before anything is done. What they hold is counted down as the
parts name it, so that a message can not be settled twice by one transaction.
"""

from __future__ import annotations

from statemachine import bindings, claims, messages, room, sealing, stale
from statemachine.commands import (
    Ack,
    Enqueue,
    MessageId,
    PartAck,
    PartRelease,
    Release,
    Take,
    Transact,
    TransactAndClaim,
)
from statemachine.outcomes import (
    Enqueued,
    Outcome,
    Refused,
    Settled,
    StalePart,
    Transacted,
    TransactedAndClaimed,
    Why,
)
from statemachine.queues import open_queue
from statemachine.records import Held
from statemachine.state import State

Ids = tuple[MessageId, ...]
Named = Ids | None
"""The messages that a part settles; None: all that the claim holds."""


class _Claim:
    """What a claim holds, and what of it no part has named yet."""

    __slots__ = ("_by_id", "_held", "_left")

    def __init__(self, held: list[Held]) -> None:
        self._held = held
        self._by_id: dict[MessageId, Held] | None = None
        self._left: dict[MessageId, Held] | None = None

    def take(self, ids: Ids | None) -> tuple[Named, list[Held], Ids]:
        """What a part names, that as it is held, and what of it can not be had."""
        if self._left is None:
            if ids is None and self._held:  # The most frequent case.
                self._left = {}
                return None, self._held, ()
            self._left = dict(self.by_id())
        if ids is None:
            ids = tuple(self._left)
        taken, lost = [], []
        for one in ids:
            held = self._left.pop(one, None)
            if held is None:
                lost.append(one)
            else:
                taken.append(held)
        return ids, taken, tuple(lost)

    def by_id(self) -> dict[MessageId, Held]:
        """What it holds; looked up once, however many parts name it."""
        if self._by_id is None:
            self._by_id = {one.id: one for one in self._held}
        return self._by_id


def run(state: State, command: Transact | TransactAndClaim) -> Outcome:
    """See ``commands``."""
    if isinstance(command, Transact):
        return _transact(state, command)
    done = _transact(state, command.transaction)
    if isinstance(done, Refused):
        return done
    if done.stale:
        return TransactedAndClaimed(done, None)
    claim = command.claim
    if isinstance(claim, Take):
        return TransactedAndClaimed(done, claims.take(state, claim))
    return TransactedAndClaimed(done, claims.claim(state, claim))


def _transact(state: State, command: Transact) -> Transacted | Refused:
    account, acks, releases = command.account, command.acks, command.releases
    named, lost, freed = _plan(state, command)
    if lost:
        return Transacted(stale=tuple(lost))
    refusal = _refused(state, command, freed)
    if refusal is not None:
        return refusal
    # Loops, since this is done for each part of each of many transactions.
    acked, released, put = [], [], []
    for ack, ids in zip(acks, named, strict=False):
        acked.append(_ack(state, account, ack, ids))
    for release, ids in zip(releases, named[len(acks) :], strict=True):
        released.append(_release(state, account, release, ids))
    for part in command.puts:
        enqueued = messages.put(state, Enqueue(account, part.queue, part.messages))
        assert isinstance(enqueued, Enqueued)
        put.append(enqueued)
    return Transacted(tuple(acked), tuple(released), tuple(put))


def _refused(state: State, command: Transact, freed: list[Held]) -> Refused | None:
    """The answer if what is put may not come in; if it may, the queues for it are there."""
    account, puts = command.account, command.puts
    if room.is_plain(state, account, puts):  # The most frequent case.
        return None
    refusal = bindings.refused(state, account, puts) or _unsealed(state, command)
    wanted = room.Wanted(state, account, puts)
    refusal = refusal or wanted.refused(len(freed), sum(one.bytes for one in freed))
    if refusal is None:
        for name in wanted.queues:  # Before a dead letter takes the room that there is for them.
            open_queue(state, account, name)
    return refusal


def _unsealed(state: State, command: Transact) -> Refused | None:
    for one in command.puts:
        refusal = sealing.refused(state, command.account, one.messages)
        if refusal is not None:
            return refusal
    return None


def _plan(state: State, command: Transact) -> tuple[list[Named], list[StalePart], list[Held]]:
    """The messages that each part settles, what is wrong with those that can not; what goes."""
    parts: tuple[PartAck | PartRelease, ...] = (*command.acks, *command.releases)
    if len(parts) == 1 and parts[0].ids is None:  # The most frequent case.
        held = claims.held(state, command.account, parts[0].queue, parts[0].claim)
        if held:
            return [None], [], held if command.acks else []
    known: dict[tuple[str, int], _Claim | None] = {}
    named: list[Named] = []
    wrong: list[StalePart] = []
    gone: list[Held] = []
    for number, part in enumerate(parts):
        key = (part.queue, part.claim)
        if key not in known:
            held = claims.held(state, command.account, part.queue, part.claim)
            known[key] = None if held is None else _Claim(held)
        claim = known[key]
        if claim is None:
            queue = state.find_queue(command.account, part.queue)
            refused = stale.no_claim(state, queue, part.claim, part.ids)
            wrong.append(StalePart(number, True, refused.stale, refused.why))
            continue
        ids, taken, lost = claim.take(part.ids)
        named.append(ids)
        if isinstance(part, PartAck):
            gone.extend(taken)
        if lost:
            wrong.append(_stale_part(state, command.account, number, part, lost, claim))
    return named, wrong, gone


def _stale_part(
    state: State, account: str, number: int, part: PartAck | PartRelease, lost: Ids, claim: _Claim
) -> StalePart:
    queue = state.find_queue(account, part.queue)
    assert queue is not None, "its claim was found"
    found, held = stale.why(state, queue, lost), claim.by_id()
    why = [Why.TWICE if one in held else what for one, what in zip(lost, found, strict=True)]
    return StalePart(number, False, lost, tuple(why))


def _ack(state: State, account: str, part: PartAck, ids: Named) -> int:
    if ids == ():
        return 0
    return _count(claims.ack(state, Ack(account, part.queue, part.claim, ids)))


def _release(state: State, account: str, part: PartRelease, ids: Named) -> int:
    if ids == ():
        return 0
    return _count(
        claims.release(
            state,
            Release(account, part.queue, part.claim, ids, part.delay_ms, part.reason, part.dead),
        )
    )


def _count(outcome: Outcome) -> int:
    assert isinstance(outcome, Settled)
    assert not outcome.stale
    return outcome.settled
