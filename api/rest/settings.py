"""What may be set on a queue, or on an account for its queues: one shape for both.

PUT replaces everything: what is not named goes back to the default. PATCH changes
what is named: null puts that one back to the default.
"""

from __future__ import annotations

from typing import Annotated, TypeVar, get_args

import msgspec

from api.access.principals import Role
from api.problems import Problem
from api.rest import parameters
from api.rest.parameters import ZoneMode, in_range, name, optional_milliseconds, seconds
from api.rest.requests import Call
from statemachine.commands import QueueSettings
from statemachine.settings import Effective, usual_dead_letter_queue

METADATA_BYTES_MAX = 16_384
HISTORY_BYTES_MAX = 1 << 40

MAX_DELIVERIES_MOST = 1_000_000

# Members of ``QueueSettings`` and what clients call them.
FIELDS = {
    "ttl_ms": "ttl",
    "delay_ms": "delay",
    "lease_ms": "lease",
    "metadata": "metadata",
    "max_deliveries": "max_deliveries",
    "dead_letter_queue": "dead_letter_queue",
    "retry_delay_ms": "retry_delay",
    "retry_delay_max_ms": "retry_delay_max",
    "dedup_window_ms": "dedup_window",
    "zone_mode": "zone_mode",
    "locality_wait_ms": "locality_wait",
    "history_ms": "history",
    "history_bytes": "history_bytes",
    "persistent": "persistent",
}

_MODES: dict[str, ZoneMode] = {mode: mode for mode in get_args(ZoneMode)}

UNSET = msgspec.UNSET
Unset = msgspec.UnsetType
T = TypeVar("T")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times are seconds; null or absent means the default.

    A ``ttl`` of 0 means for ever, a ``max_deliveries`` of 0 any number.
    """

    ttl: float | Unset | None = UNSET
    delay: float | Unset | None = UNSET
    lease: float | Unset | None = UNSET
    metadata: (
        Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": ["object", "null"]})] | Unset
    ) = UNSET
    """A JSON object, kept as it comes."""
    max_deliveries: int | Unset | None = UNSET
    dead_letter_queue: parameters.Name | Unset | None = UNSET
    retry_delay: float | Unset | None = UNSET
    retry_delay_max: float | Unset | None = UNSET
    dedup_window: float | Unset | None = UNSET
    zone_mode: ZoneMode | Unset | None = UNSET
    locality_wait: float | Unset | None = UNSET
    history: float | Unset | None = UNSET
    history_bytes: int | Unset | None = UNSET
    persistent: bool | Unset | None = UNSET


class SettingsView(msgspec.Struct, frozen=True, kw_only=True):
    """Settings in force, in seconds; what is not set here comes from the account or is built in."""

    ttl: float
    delay: float
    lease: float
    max_deliveries: int
    dead_letter_queue: str
    retry_delay: float
    retry_delay_max: float
    dedup_window: float
    zone_mode: str
    locality_wait: float
    history: float
    history_bytes: int
    persistent: bool


def to_store(call: Call, settings: Settings) -> QueueSettings:
    """Checked settings for the state machine."""

    def time(value: float | Unset | None, field: str, *, least_ms: int = 0) -> int | None:
        most_ms = call.service.limits.duration_ms_max
        return optional_milliseconds(_given(value), most_ms, field, least_ms=least_ms)

    deliveries, queue = _given(settings.max_deliveries), _given(settings.dead_letter_queue)
    if deliveries is not None:
        in_range(deliveries, 0, MAX_DELIVERIES_MOST, "max_deliveries")
    if queue is not None:
        call.demand(Role.MANAGE, name(queue, "dead_letter_queue"))
    size = _given(settings.history_bytes)
    if size is not None:
        in_range(size, 0, HISTORY_BYTES_MAX, "history_bytes")
    return QueueSettings(
        ttl_ms=time(settings.ttl, "ttl"),
        delay_ms=time(settings.delay, "delay"),
        lease_ms=time(settings.lease, "lease", least_ms=1),
        metadata=_metadata(settings.metadata),
        max_deliveries=deliveries,
        dead_letter_queue=queue,
        retry_delay_ms=time(settings.retry_delay, "retry_delay"),
        retry_delay_max_ms=time(settings.retry_delay_max, "retry_delay_max"),
        dedup_window_ms=time(settings.dedup_window, "dedup_window"),
        zone_mode=_given(settings.zone_mode),
        locality_wait_ms=time(settings.locality_wait, "locality_wait"),
        history_ms=time(settings.history, "history"),
        history_bytes=size,
        persistent=_given(settings.persistent),
    )


def named(settings: Settings) -> tuple[str, ...]:
    """Which members of the stored settings a PATCH is about."""
    return tuple(
        stored for stored, given in FIELDS.items() if getattr(settings, given) is not UNSET
    )


def from_store(stored: QueueSettings) -> Settings:
    """What was set, and nothing else."""
    return Settings(
        ttl=_seconds(stored.ttl_ms),
        delay=_seconds(stored.delay_ms),
        lease=_seconds(stored.lease_ms),
        metadata=UNSET if stored.metadata is None else msgspec.Raw(stored.metadata),
        max_deliveries=_set(stored.max_deliveries),
        dead_letter_queue=_set(stored.dead_letter_queue),
        retry_delay=_seconds(stored.retry_delay_ms),
        retry_delay_max=_seconds(stored.retry_delay_max_ms),
        dedup_window=_seconds(stored.dedup_window_ms),
        zone_mode=_zone_mode(stored.zone_mode),
        locality_wait=_seconds(stored.locality_wait_ms),
        history=_seconds(stored.history_ms),
        history_bytes=_set(stored.history_bytes),
        persistent=_set(stored.persistent),
    )


def in_force(queue: str, found: Effective) -> SettingsView:
    """What holds for the queue of this name."""
    return SettingsView(
        ttl=seconds(found.ttl_ms),
        delay=seconds(found.delay_ms),
        lease=seconds(found.lease_ms),
        max_deliveries=found.max_deliveries,
        dead_letter_queue=found.dead_letter_queue or usual_dead_letter_queue(queue),
        retry_delay=seconds(found.retry_delay_ms),
        retry_delay_max=seconds(found.retry_delay_max_ms),
        dedup_window=seconds(found.dedup_window_ms),
        zone_mode=found.zone_mode,
        locality_wait=seconds(found.locality_wait_ms),
        history=seconds(found.history_ms),
        history_bytes=found.history_bytes,
        persistent=found.persistent,
    )


def _given(value: T | Unset | None) -> T | None:
    return None if isinstance(value, Unset) else value


def _zone_mode(stored: str | None) -> ZoneMode | Unset:
    """What was set; nothing if it is of a later version."""
    return UNSET if stored is None else _MODES.get(stored, UNSET)


def _set(value: T | None) -> T | Unset:
    return UNSET if value is None else value


def _seconds(value_ms: int | None) -> float | Unset:
    return UNSET if value_ms is None else seconds(value_ms)


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
