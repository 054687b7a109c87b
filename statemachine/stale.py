"""What became of messages that a claim was said to hold and does not."""

from __future__ import annotations

from statemachine import messages, records
from statemachine.commands import MessageId
from statemachine.ids import claim_text
from statemachine.outcomes import Reason, Refused, Why
from statemachine.records import ClaimRecord
from statemachine.state import Queue, State


def why(state: State, queue: Queue, ids: tuple[MessageId, ...]) -> tuple[Why, ...]:
    """Of each message, after what was to be done was done."""
    return tuple([_why(state, queue, one, {}) for one in ids])


def no_claim(
    state: State, queue: Queue | None, claim_id: int, ids: tuple[MessageId, ...] | None
) -> Refused:
    """The answer to a command under a claim that is not there, or over."""
    text = claim_text(claim_id)
    over = None if queue is None else over_record(state, queue, claim_id)
    if over is not None:
        detail = f"the lease of claim {text} has ended; its messages go back"
    elif not 0 < claim_id < state.next_id:
        detail = f"claim {text} never was"
    else:
        detail = f"claim {text} was settled or has ended, or never was in this queue"
    if ids is None:
        return Refused(Reason.NO_CLAIM, detail)
    if queue is None:
        return Refused(Reason.NO_CLAIM, detail, ids, (Why.GONE,) * len(ids))
    own = dict.fromkeys([held.id for held in over.messages] if over else ())
    found = tuple([_why(state, queue, one, own) for one in ids])
    return Refused(Reason.NO_CLAIM, detail, ids, found)


def over_record(state: State, queue: Queue, claim_id: int) -> ClaimRecord | None:
    """The record of a claim that is over and not swept yet."""
    if not 0 < claim_id < state.next_id:
        return None
    data = state.kv.get(queue.claims + claim_id.to_bytes(8, "big"))
    return None if data is None else records.decode_claim(data)


def _why(
    state: State, queue: Queue, message_id: MessageId, going_back: dict[MessageId, None]
) -> Why:
    data = state.kv.get(queue.messages + message_id)
    if data is None:
        return Why.GONE
    if messages.is_claimed(state, queue, message_id):
        return Why.WAITING if message_id in going_back else Why.HELD
    return Why.GONE if records.times(data).expires_ms <= state.now_ms else Why.WAITING
