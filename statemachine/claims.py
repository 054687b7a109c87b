"""Claims: messages under one lease, until they are settled or the lease ends.

A claim is one record however many messages it holds, and only that record is
written: the messages stay as they are, and the heads of lanes move past them. When
a lease has ended nothing can be done under it any more, swept or not.
"""

from __future__ import annotations

from statemachine import (
    deadlines,
    events,
    giving_back,
    keys,
    messages,
    quotas,
    rates,
    records,
    stale,
    taking,
)
from statemachine.commands import Ack, Claim, Extend, ExtendMany, MessageId, Release, Take
from statemachine.deadlines import LEASE, later
from statemachine.giving_back import How
from statemachine.outcomes import (
    Claimed,
    Delivered,
    Extended,
    ManyExtended,
    Outcome,
    Refused,
    Settled,
)
from statemachine.queues import set_marks
from statemachine.records import ClaimRecord, Held
from statemachine.state import Queue, State

NONE_READY = Claimed(claim=0, until_ms=0, messages=())


def claim(state: State, command: Claim) -> Claimed | Refused:
    """See ``commands.Claim``."""
    queue = state.find_queue(command.account, command.queue)
    if queue is None or not queue.record.ready:
        return NONE_READY
    limit = command.limit
    if queue.account.record.quotas is not None:
        limit = quotas.claimable(state, queue.account, limit)
        if limit <= 0 < command.limit:
            return quotas.over(queue.account, "in_flight")
    state.touch_queue(queue)
    taken = taking.take(state, queue, command, limit)
    if not taken.held:
        return _none_ready(taken)
    claim_id = state.take_id()
    until_ms = _lease_end(state, queue, command.lease_ms)
    opened = _open(state, queue, claim_id, until_ms, taken.held, command.consumer)
    events.note_claim(state, queue, events.CLAIMED, claim_id, opened, taken.held, until_ms=until_ms)
    rates.count(state, queue, rates.CLAIMED, len(taken.held))
    return Claimed(claim_id, until_ms, tuple(taken.delivered))


def take(state: State, command: Take) -> Claimed:
    """See ``commands.Take``. Nothing is in flight by it, so there is always room for that."""
    queue = state.find_queue(command.account, command.queue)
    if queue is None or not queue.record.ready:
        return NONE_READY
    state.touch_queue(queue)
    taken = taking.take(state, queue, command, command.limit)
    if not taken.held:
        return _none_ready(taken)
    claim_id = state.take_id()
    over = ClaimRecord(queue.record.number, 0, False, taken.held, command.consumer)
    events.note_claim(state, queue, events.CLAIMED, claim_id, over, taken.held)
    events.note_claim(state, queue, events.ACKED, claim_id, over, taken.held)
    messages.leave(state, queue, taken.held)
    set_marks(queue.record, state.next_id)
    rates.count(state, queue, rates.CLAIMED, len(taken.held))
    rates.count(state, queue, rates.ACKED, len(taken.held))
    return Claimed(claim_id, 0, tuple(taken.delivered))


def extend(state: State, command: Extend) -> Outcome:
    """See ``commands.Extend``."""
    queue = state.find_queue(command.account, command.queue)
    found = _find(state, queue, command.claim)
    if queue is None or found is None:
        return stale.no_claim(state, queue, command.claim, command.ids)
    until_ms = _lease_end(state, queue, command.lease_ms)
    state.touch_queue(queue)
    if command.ids is None:
        _extend(state, queue, command.claim, found, until_ms)
        return Extended(until_ms)
    return _split(state, queue, command, found, until_ms)


def extend_many(state: State, command: ExtendMany) -> Outcome:
    """See ``commands.ExtendMany``."""
    queue = state.find_queue(command.account, command.queue)
    if queue is None:
        return ManyExtended(0, tuple([(claim_id, False) for claim_id in command.claims]))
    until_ms = _lease_end(state, queue, command.lease_ms)
    state.touch_queue(queue)
    ended = []
    for claim_id in command.claims:
        found = _find(state, queue, claim_id)
        if found is None:
            ended.append((claim_id, stale.over_record(state, queue, claim_id) is not None))
        else:
            _extend(state, queue, claim_id, found, until_ms)
    return ManyExtended(until_ms, tuple(ended))


def held(state: State, account: str, name: str, claim_id: int) -> list[Held] | None:
    """What a claim holds; None if it is over."""
    queue = state.find_queue(account, name)
    found = _find(state, queue, claim_id)
    if queue is None or found is None:
        return None
    if not queue.record.deleted_in_flight:
        return found.messages
    get, number = state.kv.get, queue.record.number
    return [one for one in found.messages if get(keys.deleted(number, one.id)) is None]


def ack(state: State, command: Ack) -> Outcome:
    """See ``commands.Ack``."""
    queue = state.find_queue(command.account, command.queue)
    found = _find(state, queue, command.claim)
    if queue is None or found is None:
        return stale.no_claim(state, queue, command.claim, command.ids)
    settled, lost = _settle(state, queue, command.claim, found, command.ids)
    events.note_claim(state, queue, events.ACKED, command.claim, found, settled)
    queue.record.claimed -= len(settled)
    messages.leave(state, queue, settled)
    set_marks(queue.record, state.next_id)
    state.touch_queue(queue)
    rates.count(state, queue, rates.ACKED, len(settled))
    return Settled(len(settled), lost, stale.why(state, queue, lost) if lost else ())


def release(state: State, command: Release) -> Outcome:
    """See ``commands.Release``."""
    queue = state.find_queue(command.account, command.queue)
    found = _find(state, queue, command.claim)
    if queue is None or found is None:
        return stale.no_claim(state, queue, command.claim, command.ids)
    settled, lost = _settle(state, queue, command.claim, found, command.ids)
    until_ms = 0 if command.delay_ms is None else later(state.now_ms, command.delay_ms)
    events.note_claim(
        state,
        queue,
        events.RELEASED,
        command.claim,
        found,
        settled,
        until_ms=until_ms,
        reason=command.reason,
    )
    how = How(command.delay_ms, command.reason, command.dead)
    giving_back.give_back(state, queue, settled, how)
    rates.count(state, queue, rates.RELEASED, len(settled))
    return Settled(len(settled), lost, stale.why(state, queue, lost) if lost else ())


def end_lease(state: State, queue: Queue, claim_id: int) -> None:
    """The lease has run out: all that the claim holds goes back."""
    found = state.claims.get(claim_id) or _stored(state, queue, claim_id)
    assert found is not None, claim_id
    assert found.until_ms <= state.now_ms, claim_id
    settled, _ = _settle(state, queue, claim_id, found, None)
    queue.record.tally.leases_ended += 1
    events.note_claim(state, queue, events.LEASE_ENDED, claim_id, found, settled)
    giving_back.give_back(state, queue, settled, giving_back.LEASE_ENDED)


def holding(state: State, account: str, name: str, claim_id: int) -> Claimed:
    """The answer to a claim, given again: what it holds now."""
    queue = state.find_queue(account, name)
    found = _find(state, queue, claim_id)
    if queue is None or found is None:
        return NONE_READY
    delivered = []
    for held in found.messages:
        data = state.kv.get(queue.messages + held.id)
        if data is not None:
            delivered.append(Delivered(held.id, held.deliveries, data, held.error))
    return Claimed(claim_id, found.until_ms, tuple(delivered)) if delivered else NONE_READY


def _none_ready(taken: taking.Taken) -> Claimed:
    return Claimed(claim=0, until_ms=taken.due_ms, messages=()) if taken.due_ms else NONE_READY


def _lease_end(state: State, queue: Queue, lease_ms: int | None) -> int:
    """At least a moment from now: a lease of nothing would hand out a claim that is over."""
    if lease_ms is None:
        lease_ms = queue.in_force().lease_ms
    return later(state.now_ms, max(lease_ms, 1))


def _extend(
    state: State, queue: Queue, claim_id: int, claim_record: ClaimRecord, until_ms: int
) -> None:
    subject = keys.u64(claim_id)
    if claim_record.timed:
        deadlines.remove(state, queue, claim_record.until_ms, LEASE, subject)
    claim_record.until_ms = until_ms
    claim_record.timed = True
    deadlines.put(state, queue, until_ms, LEASE, subject)
    if queue.record.deleted_in_flight:
        _sift(state, queue, claim_record)
    _write(state, queue, claim_id, claim_record)
    held = claim_record.messages
    events.note_claim(
        state, queue, events.EXTENDED, claim_id, claim_record, held, until_ms=until_ms
    )


def _split(
    state: State, queue: Queue, command: Extend, claim_record: ClaimRecord, until_ms: int
) -> Extended:
    """Extend the lease of some of a claim's messages."""
    assert command.ids is not None
    if queue.record.deleted_in_flight:
        _sift(state, queue, claim_record)
    moved, left, lost = _pick(claim_record, command.ids)
    why = stale.why(state, queue, lost)
    if moved and not left:
        _extend(state, queue, command.claim, claim_record, until_ms)
        return Extended(until_ms, 0, lost, why)
    claim_record.messages = left
    _write(state, queue, command.claim, claim_record)
    if not moved:
        return Extended(0, 0, lost, why)
    claim_id = state.take_id()
    queue.record.claimed -= len(moved)
    opened = _open(state, queue, claim_id, until_ms, moved, claim_record.consumer)
    events.note_claim(state, queue, events.EXTENDED, claim_id, opened, moved, until_ms=until_ms)
    return Extended(until_ms, claim_id, lost, why)


def _open(
    state: State, queue: Queue, claim_id: int, until_ms: int, held: list[Held], consumer: str
) -> ClaimRecord:
    record = queue.record
    timed = until_ms < record.lease_high_ms
    if timed:
        deadlines.put(state, queue, until_ms, LEASE, keys.u64(claim_id))
    else:
        record.lease_high_ms = until_ms
        if until_ms < record.due_ms:
            deadlines.set_timer(state, queue, until_ms)
    record.claims += 1
    record.claimed += len(held)
    opened = ClaimRecord(record.number, until_ms, timed, held, consumer)
    state.kv.put_new(queue.claims + keys.u64(claim_id), records.encode(opened))
    state.claims[claim_id] = opened
    state.claimed_messages += len(held)
    return opened


def _write(state: State, queue: Queue, claim_id: int, claim_record: ClaimRecord) -> None:
    state.kv.put(queue.claims + keys.u64(claim_id), records.encode(claim_record))
    if claim_id not in state.claims:
        state.claims[claim_id] = claim_record
        state.claimed_messages += len(claim_record.messages)


def _find(state: State, queue: Queue | None, claim_id: int) -> ClaimRecord | None:
    """The claim if it is the queue's and its lease has not ended."""
    if queue is None or not 0 < claim_id < state.next_id:
        return None
    found = state.claims.get(claim_id) or _stored(state, queue, claim_id)
    if found is None or found.queue != queue.record.number or found.until_ms <= state.now_ms:
        return None
    return found


def _stored(state: State, queue: Queue, claim_id: int) -> ClaimRecord | None:
    data = state.kv.get(queue.claims + keys.u64(claim_id))
    return None if data is None else records.decode_claim(data)


def _settle(
    state: State,
    queue: Queue,
    claim_id: int,
    claim_record: ClaimRecord,
    ids: tuple[MessageId, ...] | None,
) -> tuple[list[Held], tuple[MessageId, ...]]:
    """Take the named messages, or all, out of the claim; also those named that it lacks."""
    if queue.record.deleted_in_flight:
        _sift(state, queue, claim_record)
    if ids is None:
        _close(state, queue, claim_id, claim_record)
        return claim_record.messages, ()
    settled, claim_record.messages, lost = _pick(claim_record, ids)
    if claim_record.messages:
        _write(state, queue, claim_id, claim_record)
    else:
        _close(state, queue, claim_id, claim_record)
    return settled, lost


def _pick(
    claim_record: ClaimRecord, ids: tuple[MessageId, ...]
) -> tuple[list[Held], list[Held], tuple[MessageId, ...]]:
    """The messages named, those left, and the ids that name none; an id named again names none."""
    left = {held.id: held for held in claim_record.messages}
    picked, lost = [], []
    for message_id in ids:
        held = left.pop(message_id, None)
        if held is None:
            lost.append(message_id)
        else:
            picked.append(held)
    return picked, list(left.values()), tuple(lost)


def _close(state: State, queue: Queue, claim_id: int, claim_record: ClaimRecord) -> None:
    record = queue.record
    state.kv.delete(queue.claims + keys.u64(claim_id))
    state.claims.pop(claim_id, None)
    record.claims -= 1
    if claim_record.timed:
        deadlines.remove(state, queue, claim_record.until_ms, LEASE, keys.u64(claim_id))


def _sift(state: State, queue: Queue, claim_record: ClaimRecord) -> None:
    """Take out what was deleted while the claim held it, with its markers."""
    kv, record = state.kv, queue.record
    left = []
    for held in claim_record.messages:
        marker = keys.deleted(record.number, held.id)
        if record.deleted_in_flight and kv.get(marker) is not None:
            kv.delete(marker)
            record.deleted_in_flight -= 1
        else:
            left.append(held)
    claim_record.messages = left
