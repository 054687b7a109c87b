"""Administrative acts, and the record that goes into the log with each of them."""

from __future__ import annotations

from typing import get_args

from api.ports import AuditPolicy
from statemachine.commands import AdministrativeCommand, Audited, QueueCommand

ACTS = frozenset(get_args(AdministrativeCommand))
ACTOR_LENGTH_MAX = 200  # A token's subject may be longer than anybody wants to read.


def audited(
    command: QueueCommand,
    policy: AuditPolicy,
    *,
    owner: str,
    actor: str,
    source: str = "",
    request: str = "",
    key: str = "",
) -> Audited:
    """The command, which is one of ``ACTS``, with the record of who asked for it from where.

    ``owner``: the account of who asks, empty for the operator's. What is kept is bounded for each,
    so that no tenant can have what others did be forgotten. ``key``: the id of the access key
    with which it is asked for, if it is one.
    """
    assert isinstance(command, AdministrativeCommand)
    return Audited(
        command.account,
        owner,
        actor[:ACTOR_LENGTH_MAX],
        source,
        request,
        policy.keep_ms,
        policy.account_bytes_max if owner else policy.bytes_max,
        command,
        key,
    )
