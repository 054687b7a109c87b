"""What is in force when nobody has set anything, and how settings stack.

A queue's settings go before its account's defaults, and those before the built-in
ones. Changing a built-in value changes what a log means: it needs a new entry version.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from statemachine.commands import QueueSettings

TTL_MS = 4 * 86_400_000
DELAY_MS = 0
LEASE_MS = 30_000
ANY, PREFER, ONLY = "any", "prefer", "only"
ZONE_MODE = ANY
LOCALITY_WAIT_MS = 3_000

T = TypeVar("T")


class Effective(msgspec.Struct, frozen=True):
    """Settings in force. A ``ttl_ms`` of 0 means for ever."""

    ttl_ms: int = TTL_MS
    delay_ms: int = DELAY_MS
    lease_ms: int = LEASE_MS
    zone_mode: str = ZONE_MODE
    locality_wait_ms: int = LOCALITY_WAIT_MS


BUILT_IN = Effective()


def effective(queue: QueueSettings, defaults: QueueSettings) -> Effective:
    """What holds for a queue under its account's defaults."""
    return Effective(
        ttl_ms=_first(queue.ttl_ms, defaults.ttl_ms, TTL_MS),
        delay_ms=_first(queue.delay_ms, defaults.delay_ms, DELAY_MS),
        lease_ms=_first(queue.lease_ms, defaults.lease_ms, LEASE_MS),
        zone_mode=_first(queue.zone_mode, defaults.zone_mode, ZONE_MODE),
        locality_wait_ms=_first(
            queue.locality_wait_ms, defaults.locality_wait_ms, LOCALITY_WAIT_MS
        ),
    )


def patched(
    current: QueueSettings, change: QueueSettings, fields: tuple[str, ...]
) -> QueueSettings:
    """``current`` with the members named by ``fields`` taken from ``change``.

    A name that is no member is skipped: what it would change does not exist here.
    """
    named = {
        field: getattr(change, field)
        for field in QueueSettings.__struct_fields__
        if field in fields
    }
    return msgspec.structs.replace(current, **named)


def _first(queue: T | None, account: T | None, built_in: T) -> T:
    if queue is not None:
        return queue
    return built_in if account is None else account
