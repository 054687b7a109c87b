"""Messages on the wire: how they come in, and the one envelope in which they go out.

A JSON body is sliced out of the request and put into answers as it came. Other
bodies are kept as bytes with their content type; in an envelope they are text or
base64. ``application/json`` as a stored content type is a promise that the body is
JSON: a front end that cannot keep it must store another type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from api.bodies import Opened
from api.ports import Limits, Lost
from api.problems import Problem
from api.rest import parameters
from api.rest.requests import JSON
from statemachine.commands import NewMessage
from statemachine.ids import message_id_text
from statemachine.records import StoredMessage

CONTENT_TYPE_LENGTH_MAX = 255
CONTENT_ENCODING_LENGTH_MAX = 64
_IS_TOKENS = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(, ?[!#$%&'*+.^_`|~0-9A-Za-z-]+)*").fullmatch
DEDUP_ID_LENGTH_MAX = 255
State = Literal["ready", "delayed", "claimed", "blocked", "acked"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_is_header_name = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+").fullmatch
# What HTTP allows in a header value: no control character but the tab.
_is_header_value = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*").fullmatch


class Dead(msgspec.Struct, frozen=True, kw_only=True):
    """Why and when a message became a dead letter, and what it was before."""

    reason: str
    error: str
    queue: str
    id: str
    deliveries: int
    at: datetime


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message; one of ``body``, ``body_text``, ``body_base64`` or ``unreadable`` is there."""

    id: str
    state: State
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    body_text: str | msgspec.UnsetType = msgspec.UNSET
    body_base64: bytes | msgspec.UnsetType = msgspec.UNSET
    unreadable: Lost | msgspec.UnsetType = msgspec.UNSET
    """Why the body is lost."""
    content_type: str
    content_encoding: str | msgspec.UnsetType = msgspec.UNSET
    """As its producer gave it: the body goes out as it came in."""
    headers: dict[str, str]
    enqueued_at: datetime
    expires_at: datetime | None
    deliveries: int
    zone: str
    priority: int
    group: str | None
    last_error: str | msgspec.UnsetType = msgspec.UNSET
    """What was said when it was last given back with a reason."""
    dead: Dead | msgspec.UnsetType = msgspec.UNSET
    """Only a dead letter has this."""


def timestamp(unix_ms: int) -> datetime:
    """Unix milliseconds for an answer; the encoder writes it in RFC 3339."""
    return _EPOCH + timedelta(milliseconds=unix_ms)


def optional_timestamp(unix_ms: int | None) -> datetime | None:
    """Like ``timestamp``; None stays None."""
    return None if unix_ms is None else timestamp(unix_ms)


def envelope(
    message_id: bytes, opened: Opened, state: State, deliveries: int, error: str
) -> Message:
    """A message as it goes out."""
    stored = opened.stored
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: bytes | msgspec.UnsetType = msgspec.UNSET
    if opened.unreadable is not None:
        pass  # There is none.
    elif stored.content_encoding:
        base64 = stored.body
    elif stored.content_type == JSON:
        body = msgspec.Raw(stored.body)
    elif (decoded := _text(stored)) is not None:
        text = decoded
    else:
        base64 = stored.body
    return Message(
        id=message_id_text(message_id),
        state=state,
        body=body,
        body_text=text,
        body_base64=base64,
        unreadable=msgspec.UNSET if opened.unreadable is None else opened.unreadable.reason,
        content_type=stored.content_type,
        content_encoding=stored.content_encoding or msgspec.UNSET,
        headers=dict(stored.headers),
        enqueued_at=timestamp(stored.enqueued_ms),
        expires_at=optional_timestamp(stored.expires_ms),
        deliveries=deliveries,
        zone=stored.zone,
        priority=stored.priority,
        group=stored.group or None,
        last_error=error or msgspec.UNSET,
        dead=_dead(stored),
    )


def _dead(stored: StoredMessage) -> Dead | msgspec.UnsetType:
    dead = stored.dead
    if dead is None:
        return msgspec.UNSET
    return Dead(
        reason=dead.reason,
        error=dead.error,
        queue=dead.queue,
        id=message_id_text(dead.id),
        deliveries=dead.deliveries,
        at=timestamp(stored.arrived_ms),
    )


def new_message(
    body: bytes,
    content_type: str,
    ttl_s: float | None,
    delay_s: float | None,
    headers: Mapping[str, str],
    zone: str,
    priority: int,
    group: str | None,
    limits: Limits,
    not_before_ms: int | None,
    dedup_id: str | None,
    content_encoding: str = "",
) -> NewMessage:
    """A checked message for the state machine."""
    if len(body) > limits.body_bytes_max:
        raise Problem(
            "body_too_large",
            f"a message body may have at most {limits.body_bytes_max} bytes, not {len(body)}",
            field="body",
            limit=limits.body_bytes_max,
        )
    most_ms = limits.duration_ms_max
    return NewMessage(
        body,
        content_type,
        _checked(headers, limits) if headers else (),
        None if ttl_s is None else parameters.milliseconds(ttl_s, most_ms, "ttl"),
        None if delay_s is None else parameters.milliseconds(delay_s, most_ms, "delay"),
        zone,
        parameters.priority(priority) if priority else 0,
        "" if group is None else parameters.group(group),
        "" if dedup_id is None else checked_text(dedup_id, DEDUP_ID_LENGTH_MAX, "dedup_id"),
        not_before_ms,
        None,
        content_encoding,
    )


def not_before(at: datetime, delay_s: float | None, now_ms: int, limits: Limits) -> int:
    """From when on a message is ready, said in absolute time."""
    if delay_s is not None:
        detail = "not_before and delay exclude each other"
        raise Problem("invalid_request", detail, field="not_before")
    at_ms = -((_EPOCH - at) // timedelta(milliseconds=1))  # Rather later than before.
    if at_ms > now_ms + limits.duration_ms_max:
        most = limits.duration_ms_max / 1000
        raise Problem(
            "out_of_range",
            f"not_before may be at most {most:.15g} seconds from now",
            field="not_before",
            limit=most,
        )
    return max(at_ms, 0)


def checked_text(given: str, most: int, field: str) -> str:
    """A text of at least one and at most so many characters."""
    if not 1 <= len(given) <= most:
        raise Problem(
            "out_of_range", f"{field} must be 1 to {most} characters", field=field, limit=most
        )
    return given


def checked_content_type(given: str) -> str:
    """The content type of a raw body."""
    if not given:
        return "application/octet-stream"
    if len(given) > CONTENT_TYPE_LENGTH_MAX or not (given.isascii() and given.isprintable()):
        raise Problem(
            "invalid_header",
            f"Content-Type must be at most {CONTENT_TYPE_LENGTH_MAX} printable ASCII characters",
            field="Content-Type",
            limit=CONTENT_TYPE_LENGTH_MAX,
        )
    return given


def checked_content_encoding(given: str) -> str:
    """The content encoding of a raw body: names of encodings, with commas (RFC 9110, 8.4)."""
    if given and (len(given) > CONTENT_ENCODING_LENGTH_MAX or not _IS_TOKENS(given)):
        raise Problem(
            "invalid_header",
            f"Content-Encoding must name encodings, in at most {CONTENT_ENCODING_LENGTH_MAX} "
            "characters",
            field="Content-Encoding",
            limit=CONTENT_ENCODING_LENGTH_MAX,
        )
    return given


def prefers_raw(accept: str, content_type: str) -> bool:
    """Whether ``Accept`` asks for the bare body: it names its type, and not JSON."""
    ranges = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    essence = content_type.partition(";")[0].strip().lower()
    if JSON in ranges or essence == JSON:
        return False
    return essence in ranges or f"{essence.partition('/')[0]}/*" in ranges


def check_header(name: str, value: str, field: str) -> None:
    """A header of a message can have this name and value."""
    if not (_is_header_name(name) and _is_header_value(value)):
        raise Problem(
            "invalid_header",
            f"message header {name[:64]!r} must be an HTTP token with a value of one line",
            field=field,
        )


def _checked(headers: Mapping[str, str], limits: Limits) -> tuple[tuple[str, str], ...]:
    if len(headers) > limits.headers_max:
        raise Problem(
            "headers_too_large",
            f"a message may have at most {limits.headers_max} headers",
            field="headers",
            limit=limits.headers_max,
        )
    if _size(headers.items()) > limits.header_bytes_max:
        raise Problem(
            "headers_too_large",
            f"a message's headers may have at most {limits.header_bytes_max} bytes together",
            field="headers",
            limit=limits.header_bytes_max,
        )
    for name, value in headers.items():
        check_header(name, value, "headers")
    return tuple(headers.items())


def _size(headers: Iterable[tuple[str, str]]) -> int:
    return sum(len(name.encode()) + len(value.encode()) for name, value in headers)


def _text(stored: StoredMessage) -> str | None:
    essence, _, rest = stored.content_type.lower().partition(";")
    if not essence.startswith("text/") or ("charset=" in rest and "utf-8" not in rest):
        return None
    try:
        return stored.body.decode()
    except UnicodeDecodeError:
        return None
