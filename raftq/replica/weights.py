"""About how many bytes a command has, without encoding it."""

from __future__ import annotations

from collections.abc import Iterable

from statemachine.commands import (
    Audited,
    Barrier,
    Enqueue,
    NewMessage,
    Once,
    PutSchedule,
    QueueCommand,
    Transact,
    TransactAndClaim,
)

COMMAND_BYTES = 64  # What a command weighs besides its bodies, roughly.


def weight(command: QueueCommand | Once | Barrier) -> int:
    """What a command weighs, its bodies included."""
    inner = command.command if isinstance(command, Once) else command
    inner = inner.command if isinstance(inner, Audited) else inner
    if isinstance(inner, Enqueue):
        return _weight(inner.messages)
    if isinstance(inner, TransactAndClaim):
        inner = inner.transaction
    if isinstance(inner, Transact):
        return COMMAND_BYTES + sum([_weight(part.messages) for part in inner.puts])
    if isinstance(inner, PutSchedule):
        return len(inner.message.body) + COMMAND_BYTES
    return COMMAND_BYTES


def _weight(messages: Iterable[NewMessage]) -> int:
    return sum(len(message.body) + COMMAND_BYTES for message in messages)
