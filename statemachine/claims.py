"""Claims: messages under one lease, until they are settled or the lease ends.

A claim is one record however many messages it holds, and only that record is
written: the messages stay as they are, and the heads of lanes move past them. When
a lease has ended nothing can be done under it any more, swept or not.
"""

from __future__ import annotations

from statemachine import deadlines, giving_back, keys, messages, records, taking
from statemachine.commands import Ack, Claim, Extend, MessageId, Release
from statemachine.deadlines import LEASE, later
from statemachine.giving_back import How
from statemachine.outcomes import Claimed, Delivered, Extended, Outcome, Reason, Refused, Settled
from statemachine.queues import set_marks
from statemachine.records import ClaimRecord, Held
from statemachine.state import Queue, State

NONE_READY = Claimed(claim=0, until_ms=0, messages=())


def claim(state: State, command: Claim) -> Outcome:
    """See ``commands.Claim``."""
    queue = state.find_queue(command.account, command.queue)
    if queue is None or not queue.record.ready:
        return NONE_READY
    state.touch_queue(queue)
    taken = taking.take(state, queue, command)
    if not taken.held:
        return Claimed(claim=0, until_ms=taken.due_ms, messages=()) if taken.due_ms else NONE_READY
    lease_ms = command.lease_ms
    if lease_ms is None:
        lease_ms = queue.in_force().lease_ms
    claim_id = state.take_id()
    until_ms = _lease_end(state, lease_ms)
    _open(state, queue, claim_id, until_ms, taken.held)
    return Claimed(claim_id, until_ms, tuple(taken.delivered))


def extend(state: State, command: Extend) -> Outcome:
    """See ``commands.Extend``."""
    queue = state.find_queue(command.account, command.queue)
    found = _find(state, queue, command.claim)
    if queue is None or found is None:
        return _no_claim(command.claim)
    lease_ms = command.lease_ms
    if lease_ms is None:
        lease_ms = queue.in_force().lease_ms
    subject = keys.u64(command.claim)
    if found.timed:
        deadlines.remove(state, queue, found.until_ms, LEASE, subject)
    found.until_ms = _lease_end(state, lease_ms)
    found.timed = True
    deadlines.put(state, queue, found.until_ms, LEASE, subject)
    _write(state, queue, command.claim, found)
    state.touch_queue(queue)
    return Extended(found.until_ms)


def ack(state: State, command: Ack) -> Outcome:
    """See ``commands.Ack``."""
    queue = state.find_queue(command.account, command.queue)
    found = _find(state, queue, command.claim)
    if queue is None or found is None:
        return _no_claim(command.claim)
    settled, stale = _settle(state, queue, command.claim, found, command.ids)
    queue.record.claimed -= len(settled)
    for held in settled:
        messages.leave(state, queue, held.id, held.bytes)
    set_marks(queue.record, state.next_id)
    state.touch_queue(queue)
    return Settled(len(settled), stale)


def release(state: State, command: Release) -> Outcome:
    """See ``commands.Release``."""
    queue = state.find_queue(command.account, command.queue)
    found = _find(state, queue, command.claim)
    if queue is None or found is None:
        return _no_claim(command.claim)
    settled, stale = _settle(state, queue, command.claim, found, command.ids)
    how = How(command.delay_ms, command.reason, command.dead)
    giving_back.give_back(state, queue, settled, how)
    return Settled(len(settled), stale)


def end_lease(state: State, queue: Queue, claim_id: int) -> None:
    """The lease has run out: all that the claim holds goes back."""
    found = _load(state, queue, claim_id)
    assert found is not None, claim_id
    assert found.until_ms <= state.now_ms, claim_id
    settled, _ = _settle(state, queue, claim_id, found, None)
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


def _lease_end(state: State, lease_ms: int) -> int:
    """At least a moment from now: a lease of nothing would hand out a claim that is over."""
    return later(state.now_ms, max(lease_ms, 1))


def _open(state: State, queue: Queue, claim_id: int, until_ms: int, held: list[Held]) -> None:
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
    _write(state, queue, claim_id, ClaimRecord(record.number, until_ms, timed, held))


def _write(state: State, queue: Queue, claim_id: int, claim_record: ClaimRecord) -> None:
    state.kv.put(queue.claims + keys.u64(claim_id), records.encode(claim_record))
    if claim_id not in state.claims:
        state.claims[claim_id] = claim_record
        state.claimed_messages += len(claim_record.messages)


def _find(state: State, queue: Queue | None, claim_id: int) -> ClaimRecord | None:
    """The claim if it is the queue's and its lease has not ended."""
    if queue is None or not 0 < claim_id < state.next_id:
        return None
    found = _load(state, queue, claim_id)
    return None if found is None or found.until_ms <= state.now_ms else found


def _load(state: State, queue: Queue, claim_id: int) -> ClaimRecord | None:
    found = state.claims.get(claim_id)
    if found is None:
        data = state.kv.get(queue.claims + keys.u64(claim_id))
        return None if data is None else records.decode_claim(data)
    return found if found.queue == queue.record.number else None


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
    held_by_id = {held.id: held for held in claim_record.messages}
    settled, stale = [], []
    for message_id in ids:
        held = held_by_id.pop(message_id, None)
        if held is None:
            stale.append(message_id)
        else:
            settled.append(held)
    claim_record.messages = [held for held in claim_record.messages if held.id in held_by_id]
    if claim_record.messages:
        _write(state, queue, claim_id, claim_record)
    else:
        _close(state, queue, claim_id, claim_record)
    return settled, tuple(stale)


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


def _no_claim(claim_id: int) -> Refused:
    detail = f"claim {records.claim_text(claim_id)} has ended, was settled, or never was"
    return Refused(Reason.NO_CLAIM, detail)
