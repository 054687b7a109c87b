"""Transactions: acks, releases and puts of one account, all or none, in one entry.

All claims are looked at before anything is done. What they hold is counted down as the
parts name it, so that a message can not be settled twice by one transaction.
"""

from __future__ import annotations

from statemachine import bindings, claims, messages, room, sealing, stale
from statemachine.commands import (
    Ack,
    Claim,
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
    Claimed,
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


class _Claim:
    """What a claim holds, and what of it no part has named yet."""

    __slots__ = ("all", "left")

    def __init__(self, held: list[Held]) -> None:
        self.all = {one.id: one for one in held}
        self.left = dict(self.all)

    def take(self, ids: Ids | None) -> tuple[Ids, Ids]:
        """What a part names, and what of it can not be had."""
        if ids is None:
            taken, self.left = tuple(self.left), {}
            return taken, ()
        lost = []
        for one in ids:
            if one in self.left:
                del self.left[one]
            else:
                lost.append(one)
        return ids, tuple(lost)


def run(state: State, command: Transact | TransactAndClaim) -> Outcome:
    """See ``commands``."""
    if isinstance(command, Transact):
        return _transact(state, command)
    done = _transact(state, command.transaction)
    if isinstance(done, Refused):
        return done
    return TransactedAndClaimed(done, None if done.stale else _claim(state, command.claim))


def _claim(state: State, command: Claim | Take) -> Claimed | Refused:
    if isinstance(command, Take):
        return claims.take(state, command)
    return claims.claim(state, command)


def _transact(state: State, command: Transact) -> Transacted | Refused:
    account = command.account
    named, lost, freed = _plan(state, command)
    if lost:
        return Transacted(stale=tuple(lost))
    refusal = bindings.refused(state, account, command.puts) or _unsealed(state, command)
    wanted = room.Wanted(state, account, command.puts)
    refusal = refusal or wanted.refused(len(freed), sum(one.bytes for one in freed))
    if refusal is not None:
        return refusal
    for name in wanted.queues:  # Before a dead letter takes the room that there is for them.
        open_queue(state, account, name)
    acked = [
        _ack(state, account, part, ids) for part, ids in zip(command.acks, named, strict=False)
    ]
    released = [
        _release(state, account, part, ids)
        for part, ids in zip(command.releases, named[len(command.acks) :], strict=True)
    ]
    put = []
    for one in command.puts:
        enqueued = messages.put(state, Enqueue(account, one.queue, one.messages))
        assert isinstance(enqueued, Enqueued)
        put.append(enqueued)
    return Transacted(tuple(acked), tuple(released), tuple(put))


def _unsealed(state: State, command: Transact) -> Refused | None:
    found = (sealing.refused(state, command.account, one.messages) for one in command.puts)
    return next((one for one in found if one is not None), None)


def _plan(state: State, command: Transact) -> tuple[list[Ids], list[StalePart], list[Held]]:
    """The messages that each part settles, what is wrong with those that can not; what goes."""
    known: dict[tuple[str, int], _Claim | None] = {}
    named: list[Ids] = []
    wrong: list[StalePart] = []
    gone: list[Held] = []
    parts: tuple[PartAck | PartRelease, ...] = (*command.acks, *command.releases)
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
        ids, lost = claim.take(part.ids)
        named.append(ids)
        if isinstance(part, PartAck):
            gone.extend([claim.all[one] for one in ids if one in claim.all])
        if lost:
            wrong.append(_stale_part(state, command.account, number, part, lost, claim))
    return named, wrong, gone


def _stale_part(
    state: State, account: str, number: int, part: PartAck | PartRelease, lost: Ids, claim: _Claim
) -> StalePart:
    queue = state.find_queue(account, part.queue)
    assert queue is not None, "its claim was found"
    found = stale.why(state, queue, lost)
    why = [Why.TWICE if one in claim.all else what for one, what in zip(lost, found, strict=True)]
    return StalePart(number, False, lost, tuple(why))


def _ack(state: State, account: str, part: PartAck, ids: Ids) -> int:
    return _count(claims.ack(state, Ack(account, part.queue, part.claim, ids))) if ids else 0


def _release(state: State, account: str, part: PartRelease, ids: Ids) -> int:
    if not ids:
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
