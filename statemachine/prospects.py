"""What a claim may find, as the machine has it in memory: nothing is read, no round is ended.

Who waits asks for this again and again. Through a reader it would have the store take all that
was applied first.
"""

from __future__ import annotations

from typing import NamedTuple

from statemachine.commands import Claim, Take
from statemachine.settings import ONLY, PREFER
from statemachine.state import Queue, State


class Prospects(NamedTuple):
    """Messages for such a claim at once, or ones that may have to wait for it."""

    mode: str
    near: bool
    far: bool

    @property
    def is_empty(self) -> bool:
        """Neither."""
        return not (self.near or self.far)


def ready_zones(queue: Queue) -> list[str]:
    """Of which zones its ready messages are, by lane; an empty one: of none."""
    return [lane.record.zone for lane in queue.lanes if lane.record.ready]


def prospects(state: State, command: Claim | Take) -> Prospects:
    """For one from ``command.zone``; what has expired but is not swept counts too."""
    queue = state.find_queue(command.account, command.queue)
    mode = command.zone_mode or state.in_force(command.account, command.queue).zone_mode
    if queue is None or not queue.record.ready:
        return Prospects(mode, near=False, far=False)
    if mode not in (ONLY, PREFER):
        return Prospects(mode, near=True, far=False)
    is_near = [zone in ("", command.zone) for zone in ready_zones(queue)]
    return Prospects(mode, near=any(is_near), far=mode == PREFER and not all(is_near))
