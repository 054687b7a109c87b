"""What is done one after the other by one command, each with its own outcome."""

from __future__ import annotations

from statemachine import commands as c
from statemachine import outcomes as o


def steps(command: c.Command, outcome: o.Outcome) -> list[tuple[c.Command, o.Outcome]]:
    """The command itself, but for a transaction with a claim after it."""
    if not isinstance(command, c.TransactAndClaim):
        return [(command, outcome)]
    if isinstance(outcome, o.Refused):
        return [(command.transaction, outcome)]
    assert isinstance(outcome, o.TransactedAndClaimed), outcome
    done, claimed = outcome.transacted, outcome.claimed
    assert (claimed is None) is bool(done.stale), "it claims if it has done something"
    return [(command.transaction, done), *([] if claimed is None else [(command.claim, claimed)])]


def claim_of(outcome: object) -> object:
    """What the claim of a command was answered, if it has one."""
    return outcome.claimed if isinstance(outcome, o.TransactedAndClaimed) else outcome


def ids_given(outcome: object) -> set[bytes]:
    """The messages that the claim of a command was given."""
    claimed = claim_of(outcome)
    return {one.id for one in claimed.messages} if isinstance(claimed, o.Claimed) else set()


def takes(command: c.Command) -> bool:
    """Whether what it is given is gone with it."""
    last = command.claim if isinstance(command, c.TransactAndClaim) else command
    return isinstance(last, c.Take)
