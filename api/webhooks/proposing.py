"""Proposing as one who can wait: what only says "not now" is never an outcome."""

from __future__ import annotations

from api.ports import Service, Unavailable
from statemachine.commands import QueueCommand
from statemachine.outcomes import Outcome, Reason, Refused


async def propose(service: Service, command: QueueCommand) -> Outcome:
    """The command's outcome; raises Unavailable or OutcomeUnknown."""
    outcome = await service.propose(command)
    if isinstance(outcome, Refused) and outcome.reason in (
        Reason.SESSION_EXPIRED,
        Reason.STALE_BATCH,
    ):
        raise Unavailable(outcome.reason, outcome.detail)
    return outcome
