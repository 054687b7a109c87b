"""What may be set on a queue, or on an account for its queues: one shape for both.

PUT replaces everything: what is not named goes back to the default. PATCH changes
what is named: null puts that one back to the default.
"""

from __future__ import annotations

import msgspec

from api.ports import Limits
from api.problems import Problem
from api.rest.parameters import in_range, optional_milliseconds, seconds
from statemachine.commands import QueueSettings
from statemachine.settings import Effective

METADATA_BYTES_MAX = 16_384
HISTORY_BYTES_MAX = 1 << 40

# Members of ``QueueSettings`` and what clients call them.
FIELDS = {
    "ttl_ms": "ttl",
    "delay_ms": "delay",
    "lease_ms": "lease",
    "metadata": "metadata",
    "history_ms": "history",
    "history_bytes": "history_bytes",
}

UNSET = msgspec.UNSET
Unset = msgspec.UnsetType


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times are seconds; null or absent means the default. A ``ttl`` of 0 means for ever."""

    ttl: float | Unset | None = UNSET
    delay: float | Unset | None = UNSET
    lease: float | Unset | None = UNSET
    metadata: msgspec.Raw | Unset = UNSET
    """A JSON object, kept as it comes."""
    history: float | Unset | None = UNSET
    history_bytes: int | Unset | None = UNSET


class SettingsView(msgspec.Struct, frozen=True, kw_only=True):
    """Settings in force, in seconds; what is not set here comes from the account or is built in."""

    ttl: float
    delay: float
    lease: float
    history: float
    history_bytes: int


def to_store(settings: Settings, limits: Limits) -> QueueSettings:
    """Checked settings for the state machine."""
    most_ms = limits.duration_ms_max
    return QueueSettings(
        ttl_ms=optional_milliseconds(_given(settings.ttl), most_ms, "ttl"),
        delay_ms=optional_milliseconds(_given(settings.delay), most_ms, "delay"),
        lease_ms=optional_milliseconds(_given(settings.lease), most_ms, "lease", least_ms=1),
        metadata=_metadata(settings.metadata),
        history_ms=optional_milliseconds(_given(settings.history), most_ms, "history"),
        history_bytes=_history_bytes(settings.history_bytes),
    )


def named(settings: Settings) -> tuple[str, ...]:
    """Which members of the stored settings a PATCH is about."""
    return tuple(
        stored for stored, given in FIELDS.items() if getattr(settings, given) is not UNSET
    )


def from_store(stored: QueueSettings) -> Settings:
    """What was set, and nothing else."""
    return Settings(
        ttl=UNSET if stored.ttl_ms is None else seconds(stored.ttl_ms),
        delay=UNSET if stored.delay_ms is None else seconds(stored.delay_ms),
        lease=UNSET if stored.lease_ms is None else seconds(stored.lease_ms),
        metadata=UNSET if stored.metadata is None else msgspec.Raw(stored.metadata),
        history=UNSET if stored.history_ms is None else seconds(stored.history_ms),
        history_bytes=UNSET if stored.history_bytes is None else stored.history_bytes,
    )


def in_force(found: Effective) -> SettingsView:
    """What holds."""
    return SettingsView(
        ttl=seconds(found.ttl_ms),
        delay=seconds(found.delay_ms),
        lease=seconds(found.lease_ms),
        history=seconds(found.history_ms),
        history_bytes=found.history_bytes,
    )


def _given(value: float | Unset | None) -> float | None:
    return None if isinstance(value, Unset) else value


def _history_bytes(value: int | Unset | None) -> int | None:
    if value is None or isinstance(value, Unset):
        return None
    return in_range(value, 0, HISTORY_BYTES_MAX, "history_bytes")


def _metadata(value: msgspec.Raw | Unset) -> bytes | None:
    if isinstance(value, Unset):
        return None
    data = bytes(value)
    if data == b"null":
        return None
    if not data.startswith(b"{"):
        raise Problem("invalid_request", "metadata must be a JSON object", field="metadata")
    if len(data) > METADATA_BYTES_MAX:
        raise Problem(
            "request_too_large",
            f"metadata may have at most {METADATA_BYTES_MAX} bytes",
            field="metadata",
            limit=METADATA_BYTES_MAX,
        )
    return data
