"""Quotas: how much of each kind an account may have, all its queues together.

What an account has is in its record, exactly, and so are its limits: they come through
the log, and every replica refuses alike. A command that would add more than there is
room for is refused before it has done anything; what a limit below that amount does is
to stop growth. What only goes from one queue to another adds nothing.

Queues, schedules, subscriptions and bytes of the history are counted as they come and go;
the rest is summed up from the queues that commands have touched (``State.sum_up``), which
costs nothing where there are no limits.
"""

from __future__ import annotations

from msgspec.structs import replace

from statemachine.commands import Quotas, SetQuotas
from statemachine.outcomes import Over, Reason, Refused
from statemachine.state import Account, State

NAMES = Quotas.__struct_fields__
"""Members of ``Quotas``, and of an account's record."""

NO_LIMITS = Quotas()


def refused(state: State, account: Account | None, **more: int) -> Refused | None:
    """The answer to a command that would add so much of each kind; None if there is room.

    To be asked before the command has done anything.
    """
    if account is None or account.record.quotas is None:
        return None
    state.sum_up()
    record, limits = account.record, account.record.quotas
    for quota, count in more.items():
        limit = getattr(limits, quota)
        if limit and count > 0 and getattr(record, quota) + count > limit:
            return over(account, quota)
    return None


def claimable(state: State, account: Account, limit: int) -> int:
    """Up to ``limit``, how many more messages may be under claims."""
    limits = account.record.quotas
    if limits is None or not limits.in_flight:
        return limit
    state.sum_up()
    return max(min(limit, limits.in_flight - account.record.in_flight), 0)


def has_room_for_queue(account: Account) -> bool:
    """Whether there may be one more; to be asked at any time."""
    limits = account.record.quotas
    return limits is None or not limits.queues or account.record.queues < limits.queues


def over(account: Account, quota: str) -> Refused:
    """The answer where there is no room."""
    limit, usage = getattr(account.record.quotas, quota), getattr(account.record, quota)
    detail = f"the account has {usage} of {limit} {quota}, which does not leave enough room"
    return Refused(Reason.QUOTA_EXCEEDED, detail, over=Over(quota, limit, usage))


def changed(current: Quotas | None, command: SetQuotas) -> Quotas | None:
    """The limits after the command; a name that is no member is skipped."""
    fields = NAMES if command.fields is None else command.fields
    named = {name: max(getattr(command.quotas, name), 0) for name in NAMES if name in fields}
    quotas = replace(current or NO_LIMITS, **named)
    return None if quotas == NO_LIMITS else quotas
