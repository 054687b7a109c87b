"""What may be set on a queue, or on an account for its queues: one shape for both.

PUT replaces everything: what is not named goes back to the default. PATCH changes
what is named: null puts that one back to the default.
"""

from __future__ import annotations

from typing import TypeVar, get_args

import msgspec

from api.ports import Limits
from api.problems import Problem
from api.rest.parameters import ZoneMode, optional_milliseconds, seconds
from statemachine.commands import QueueSettings
from statemachine.settings import Effective

METADATA_BYTES_MAX = 16_384

# Members of ``QueueSettings`` and what clients call them.
FIELDS = {
    "ttl_ms": "ttl",
    "delay_ms": "delay",
    "lease_ms": "lease",
    "metadata": "metadata",
    "zone_mode": "zone_mode",
    "locality_wait_ms": "locality_wait",
}

T = TypeVar("T")

_MODES: dict[str, ZoneMode] = {mode: mode for mode in get_args(ZoneMode)}

UNSET = msgspec.UNSET
Unset = msgspec.UnsetType


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times are seconds; null or absent means the default. A ``ttl`` of 0 means for ever."""

    ttl: float | Unset | None = UNSET
    delay: float | Unset | None = UNSET
    lease: float | Unset | None = UNSET
    metadata: msgspec.Raw | Unset = UNSET
    """A JSON object, kept as it comes."""
    zone_mode: ZoneMode | Unset | None = UNSET
    locality_wait: float | Unset | None = UNSET


class SettingsView(msgspec.Struct, frozen=True, kw_only=True):
    """Settings in force, in seconds; what is not set here comes from the account or is built in."""

    ttl: float
    delay: float
    lease: float
    zone_mode: str
    locality_wait: float


def to_store(settings: Settings, limits: Limits) -> QueueSettings:
    """Checked settings for the state machine."""
    most_ms = limits.duration_ms_max
    return QueueSettings(
        ttl_ms=optional_milliseconds(_given(settings.ttl), most_ms, "ttl"),
        delay_ms=optional_milliseconds(_given(settings.delay), most_ms, "delay"),
        lease_ms=optional_milliseconds(_given(settings.lease), most_ms, "lease", least_ms=1),
        metadata=_metadata(settings.metadata),
        zone_mode=_given(settings.zone_mode),
        locality_wait_ms=optional_milliseconds(
            _given(settings.locality_wait), most_ms, "locality_wait"
        ),
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
        zone_mode=_zone_mode(stored.zone_mode),
        locality_wait=(
            UNSET if stored.locality_wait_ms is None else seconds(stored.locality_wait_ms)
        ),
    )


def in_force(found: Effective) -> SettingsView:
    """What holds."""
    return SettingsView(
        ttl=seconds(found.ttl_ms),
        delay=seconds(found.delay_ms),
        lease=seconds(found.lease_ms),
        zone_mode=found.zone_mode,
        locality_wait=seconds(found.locality_wait_ms),
    )


def _given(value: T | Unset | None) -> T | None:
    return None if isinstance(value, Unset) else value


def _zone_mode(stored: str | None) -> ZoneMode | Unset:
    """What was set; nothing if it is of a later version."""
    return UNSET if stored is None else _MODES.get(stored, UNSET)


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
