"""How much has happened in a queue of late: counts by log time, in slots of ten seconds.

What is added up are this slot and the five before it: of the last fifty to sixty seconds.
"""

from __future__ import annotations

from statemachine.records import Tally
from statemachine.state import Queue, State

ENQUEUED, CLAIMED, ACKED, RELEASED, EXPIRED, DEAD = range(6)
KINDS = ("enqueued", "claimed", "acked", "released", "expired", "dead")
SLOTS = 6
SLOT_MS = 10_000


def count(state: State, queue: Queue, kind: int, number: int) -> None:
    """So much has happened; the queue's record is to be touched."""
    tally, slot = queue.record.tally, state.now_ms // SLOT_MS
    if slot != tally.slot:
        _turn(tally, slot)
    tally.counts[kind * SLOTS + slot % SLOTS] += number


def recent(tally: Tally, now_ms: int) -> tuple[dict[str, int], int]:
    """How much of each kind, and in how many milliseconds."""
    slot = now_ms // SLOT_MS
    known = range(max(slot - SLOTS, tally.slot - SLOTS, -1) + 1, tally.slot + 1)
    sums = {
        name: sum(tally.counts[kind * SLOTS + one % SLOTS] for one in known)
        for kind, name in enumerate(KINDS)
    }
    return sums, (SLOTS - 1) * SLOT_MS + now_ms % SLOT_MS


def _turn(tally: Tally, slot: int) -> None:
    passed = slot - tally.slot
    if not tally.counts or passed >= SLOTS:
        tally.counts = [0] * (SLOTS * len(KINDS))
    else:
        for one in range(tally.slot + 1, slot + 1):
            tally.counts[one % SLOTS :: SLOTS] = [0] * len(KINDS)
    tally.slot = slot
