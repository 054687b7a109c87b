"""Outcomes as they are remembered: without bodies, which are in the store already."""

from __future__ import annotations

from statemachine.claims import holding
from statemachine.commands import Claim, Command, Once, Take
from statemachine.outcomes import Claimed, Outcome
from statemachine.state import State


def without_messages(outcome: Outcome) -> Outcome:
    """The outcome to remember."""
    if type(outcome) is Claimed and outcome.messages:
        return Claimed(outcome.claim, outcome.until_ms, ())
    return outcome


def recalled(state: State, command: Command, outcome: Outcome) -> Outcome:
    """The answer to ``command`` given again.

    A claim is answered with what it still holds; one that has ended with nothing, as if
    no message had been ready, for nothing can be done under it. So is what was taken: it is
    given out once.
    """
    if isinstance(command, Once):
        command = command.command
    if isinstance(outcome, Claimed) and outcome.claim and isinstance(command, Claim | Take):
        return holding(state, command.account, command.queue, outcome.claim)
    return outcome
