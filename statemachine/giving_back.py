"""Giving back: what becomes of messages that a claim holds no more and that are not done.

It is one of four things, in this order: what has expired is dropped; what was rejected, or
has been delivered often enough, becomes a dead letter; what is to wait is delayed; and
the rest is ready again.
"""

from __future__ import annotations

from typing import NamedTuple

from statemachine import dead_letters, messages
from statemachine.queues import set_marks
from statemachine.records import Held
from statemachine.settings import Effective
from statemachine.state import Queue, State

DOUBLINGS_MAX = 63
"""More would be longer than any delay that can be written."""


class How(NamedTuple):
    """What was said when messages were given back."""

    delay_ms: int | None
    error: str
    dead: bool


LEASE_ENDED = How(None, "", False)


def give_back(state: State, queue: Queue, settled: list[Held], how: How) -> None:
    """A claim holds these no more, and they are not done."""
    in_force = queue.in_force()
    for held in settled:
        error = how.error or held.error
        if dead_letters.bury_if_due(state, queue, held, error, rejected=how.dead):
            continue
        delay_ms = how.delay_ms
        if delay_ms is None:
            delay_ms = _retry_delay_ms(in_force, held.deliveries)
        if messages.give_back(state, queue, held, delay_ms, error):
            state.wake(queue, queue.lane_of(held.id), 1)
    set_marks(queue.record, state.next_id)
    state.touch_queue(queue)


def _retry_delay_ms(in_force: Effective, deliveries: int) -> int:
    if in_force.retry_delay_ms <= 0:
        return 0
    delay_ms = in_force.retry_delay_ms << min(deliveries - 1, DOUBLINGS_MAX)
    return min(delay_ms, in_force.retry_delay_max_ms)
