"""What is in force when nobody has set anything, and how settings stack.

A queue's settings go before its account's defaults, and those before the built-in
ones. Changing a built-in value changes what a log means: it needs a new entry version.
"""

from __future__ import annotations

import msgspec

from statemachine.commands import QueueSettings

TTL_MS = 4 * 86_400_000
DELAY_MS = 0
LEASE_MS = 30_000
HISTORY_MS = 3_600_000
HISTORY_BYTES = 4 << 20


class Effective(msgspec.Struct, frozen=True):
    """Settings in force. A ``ttl_ms`` of 0 means for ever."""

    ttl_ms: int = TTL_MS
    delay_ms: int = DELAY_MS
    lease_ms: int = LEASE_MS
    history_ms: int = HISTORY_MS
    history_bytes: int = HISTORY_BYTES

    def keeps_history(self) -> bool:
        """Whether events are kept at all."""
        return self.history_ms > 0 and self.history_bytes > 0


BUILT_IN = Effective()


def effective(queue: QueueSettings, defaults: QueueSettings) -> Effective:
    """What holds for a queue under its account's defaults."""
    return Effective(
        ttl_ms=_first(queue.ttl_ms, defaults.ttl_ms, TTL_MS),
        delay_ms=_first(queue.delay_ms, defaults.delay_ms, DELAY_MS),
        lease_ms=_first(queue.lease_ms, defaults.lease_ms, LEASE_MS),
        history_ms=_first(queue.history_ms, defaults.history_ms, HISTORY_MS),
        history_bytes=_first(queue.history_bytes, defaults.history_bytes, HISTORY_BYTES),
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


def _first(queue: int | None, account: int | None, built_in: int) -> int:
    if queue is not None:
        return queue
    return built_in if account is None else account
