"""Dead letters: messages that are not tried again, in a queue of their own.

They go there in the entry in which they are given back, as new messages that live as long
as their new queue says. A dead letter does not become one again, however often it is
delivered: so nothing goes round in a circle, whatever queues are set up. It stops being
one when it is moved back (``acts``).
"""

from __future__ import annotations

from statemachine import events, messages, quotas, rates, records
from statemachine.commands import DeadLetter, NewMessage
from statemachine.queues import open_queue
from statemachine.records import DEAD, Held
from statemachine.settings import usual_dead_letter_queue
from statemachine.state import Queue, State

MAX_DELIVERIES = "max_deliveries"
REJECTED = "rejected"


def bury_if_due(state: State, queue: Queue, held: Held, error: str, *, rejected: bool) -> bool:
    """Make a message that a claim holds no more a dead letter, if it is to be one."""
    in_force = queue.in_force()
    most = in_force.max_deliveries
    if not rejected and (most <= 0 or held.deliveries < most):
        return False
    account, name = queue.names
    target = in_force.dead_letter_queue or usual_dead_letter_queue(name)
    # Without room for a new id in this entry it is tried once more.
    if target == name or not state.has_room():
        return False
    # Nor without room for one more queue.
    if state.find_queue(account, target) is None and not quotas.has_room_for_queue(queue.account):
        return False
    data = state.kv.get(queue.messages + held.id)
    assert data is not None, "a held message is stored"
    times = records.times(data)
    if times.flags & DEAD or times.expires_ms <= state.now_ms:
        return False
    stored = records.decode_message(data)
    reason = REJECTED if rejected else MAX_DELIVERIES
    dead = DeadLetter(reason, error, name, held.id, held.deliveries, stored.enqueued_ms)
    queue.record.claimed -= 1
    queue.record.tally.dead += 1
    rates.count(state, queue, rates.DEAD, 1)
    messages.leave(state, queue, (held,))
    buried = [(held.id, 1, held.deliveries)]
    events.gather(state, queue, events.DEAD_LETTERED, buried, reason=reason, target=target)
    letter = NewMessage(
        stored.body,
        stored.content_type,
        stored.headers,
        delay_ms=0,
        zone=stored.zone,
        priority=stored.priority,
        group=stored.group,
        dead=dead,
        content_encoding=stored.content_encoding,
    )
    messages.enqueue_into(state, open_queue(state, account, target), (letter,))
    return True
