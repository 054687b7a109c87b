"""Outcomes as they are remembered: without bodies, which are in the store already."""

from __future__ import annotations

from statemachine.claims import holding
from statemachine.commands import Claim, Command, Once, Take, TransactAndClaim
from statemachine.outcomes import Claimed, Outcome, TransactedAndClaimed
from statemachine.state import State


def without_messages(outcome: Outcome) -> Outcome:
    """The outcome to remember."""
    if type(outcome) is Claimed:
        return _without_messages(outcome)
    if type(outcome) is TransactedAndClaimed and type(outcome.claimed) is Claimed:
        return TransactedAndClaimed(outcome.transacted, _without_messages(outcome.claimed))
    return outcome


def _without_messages(claimed: Claimed) -> Claimed:
    return Claimed(claimed.claim, claimed.until_ms, ()) if claimed.messages else claimed


def recalled(state: State, command: Command, outcome: Outcome) -> Outcome:
    """The answer to ``command`` given again.

    A claim is answered with what it still holds; one that has ended with nothing, as if
    no message had been ready, for nothing can be done under it. So is what was taken: it is
    given out once.
    """
    if isinstance(command, Once):
        command = command.command
    if isinstance(outcome, Claimed) and isinstance(command, Claim | Take):
        return _recalled(state, command, outcome)
    if isinstance(outcome, TransactedAndClaimed) and isinstance(command, TransactAndClaim):
        claimed = outcome.claimed
        if isinstance(claimed, Claimed):
            claimed = _recalled(state, command.claim, claimed)
        return TransactedAndClaimed(outcome.transacted, claimed)
    return outcome


def _recalled(state: State, command: Claim | Take, claimed: Claimed) -> Claimed:
    if not claimed.claim:
        return claimed
    return holding(state, command.account, command.queue, claimed.claim)
