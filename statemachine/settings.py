"""What is in force when nobody has set anything, and how settings stack.

A queue's settings go before its account's defaults, and those before the built-in
ones. Changing a built-in value changes what a log means: it needs a new entry version.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from statemachine.commands import QueueSettings

T = TypeVar("T")

TTL_MS = 4 * 86_400_000
DELAY_MS = 0
LEASE_MS = 30_000
ANY, PREFER, ONLY = "any", "prefer", "only"
ZONE_MODE = ANY
LOCALITY_WAIT_MS = 3_000
MAX_DELIVERIES = 0
RETRY_DELAY_MS = 0
RETRY_DELAY_MAX_MS = 3_600_000
DEDUP_WINDOW_MS = 300_000
DEAD = ".dead"
NAME_LENGTH_MAX = 128  # As in ``api.rest.parameters``.


class Effective(msgspec.Struct, frozen=True):
    """Settings in force. A ``ttl_ms`` of 0 means for ever, a ``max_deliveries`` of 0 any number."""

    ttl_ms: int = TTL_MS
    delay_ms: int = DELAY_MS
    lease_ms: int = LEASE_MS
    max_deliveries: int = MAX_DELIVERIES
    dead_letter_queue: str = ""  # Nothing: see ``usual_dead_letter_queue``.
    retry_delay_ms: int = RETRY_DELAY_MS
    retry_delay_max_ms: int = RETRY_DELAY_MAX_MS
    dedup_window_ms: int = DEDUP_WINDOW_MS
    zone_mode: str = ZONE_MODE
    locality_wait_ms: int = LOCALITY_WAIT_MS


BUILT_IN = Effective()


def effective(queue: QueueSettings, defaults: QueueSettings) -> Effective:
    """What holds for a queue under its account's defaults."""
    return Effective(
        ttl_ms=_first(queue.ttl_ms, defaults.ttl_ms, TTL_MS),
        delay_ms=_first(queue.delay_ms, defaults.delay_ms, DELAY_MS),
        lease_ms=_first(queue.lease_ms, defaults.lease_ms, LEASE_MS),
        max_deliveries=_first(queue.max_deliveries, defaults.max_deliveries, MAX_DELIVERIES),
        dead_letter_queue=_first(queue.dead_letter_queue, defaults.dead_letter_queue, ""),
        retry_delay_ms=_first(queue.retry_delay_ms, defaults.retry_delay_ms, RETRY_DELAY_MS),
        retry_delay_max_ms=_first(
            queue.retry_delay_max_ms, defaults.retry_delay_max_ms, RETRY_DELAY_MAX_MS
        ),
        dedup_window_ms=_first(queue.dedup_window_ms, defaults.dedup_window_ms, DEDUP_WINDOW_MS),
        zone_mode=_first(queue.zone_mode, defaults.zone_mode, ZONE_MODE),
        locality_wait_ms=_first(
            queue.locality_wait_ms, defaults.locality_wait_ms, LOCALITY_WAIT_MS
        ),
    )


def usual_dead_letter_queue(queue: str) -> str:
    """Where a queue's dead letters go unless it says otherwise; a name like any other."""
    return queue[: NAME_LENGTH_MAX - len(DEAD)] + DEAD


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
