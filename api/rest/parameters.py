"""What clients put into paths, queries and fields: checked here, refused with a reason.

Seconds with fractions outside, whole milliseconds inside. A name, an id or a
number that passes these functions is safe for the state machine.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from api.problems import Problem
from statemachine.ids import message_id_from_text
from statemachine.lanes import PRIORITY_MAX

NAME_PATTERN = r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}"
MESSAGE_ID_PATTERN = r"[0-9a-f]{20}"
CLAIM_PATTERN = r"[0-9a-f]{16}"
PARAMETERS_MAX = 32
LINE_LENGTH_MAX = 255
GROUP_BYTES_MAX = 128

HEADER = "header."
"""How the names of those parameters begin that name a message header."""

ZoneMode = Literal["any", "prefer", "only"]

Name = Annotated[str, Meta(extra_json_schema={"pattern": f"^{NAME_PATTERN}$"})]
"""Text that ``name`` is to check; here for the document alone."""
NamePart = Annotated[str, Meta(extra_json_schema={"pattern": r"^[A-Za-z0-9_.-]{0,128}$"})]
"""Text that ``name_part`` is to check; likewise."""
Count = Annotated[int, Meta(extra_json_schema={"minimum": 1})]
"""A number that ``in_range`` is to check; likewise."""

Q = TypeVar("Q", bound=msgspec.Struct)

_is_name = re.compile(NAME_PATTERN).fullmatch
_is_name_part = re.compile(r"[A-Za-z0-9_.-]{1,128}").fullmatch
_AT_PATH = re.compile(r" - at `\$\.?(.*)`$", re.DOTALL)
_UNKNOWN_FIELD = re.compile(r"unknown field `(.*?)`", re.DOTALL)


class NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query of an operation that takes no parameters."""


def name_part(value: str, field: str) -> str:
    """Where a list of names begins: a name, a part of one, or nothing."""
    if value and not _is_name_part(value):
        raise Problem(
            "invalid_name",
            f"{field} must be part of a name",
            field=field,
        )
    return value


@lru_cache(maxsize=4096)  # The same few names come with every request.
def name(value: str, field: str) -> str:
    """An account's, queue's or zone's name."""
    if not _is_name(value):
        raise Problem(
            "invalid_name",
            f"{field} must be 1 to 128 letters, digits, '_', '.' or '-', and not begin with '.'",
            field=field,
        )
    return value


def zone(value: str | None, home: str) -> str:
    """A zone's name; ``home`` when none is given."""
    return home if value is None else name(value, "zone")


def priority(value: int) -> int:
    """A message's priority."""
    return in_range(value, 0, PRIORITY_MAX, "priority")


def group(value: str) -> str:
    """A group's name: any text, but not too long."""
    if not 0 < len(value.encode()) <= GROUP_BYTES_MAX:
        raise Problem(
            "out_of_range",
            f"group must have from 1 to {GROUP_BYTES_MAX} bytes of UTF-8",
            field="group",
            limit=GROUP_BYTES_MAX,
        )
    return value


def line(value: str | None, field: str) -> str:
    """A short text for people; nothing when none is given."""
    if value is None:
        return ""
    if not (len(value) <= LINE_LENGTH_MAX and (value.isprintable() or not value)):
        raise Problem(
            "invalid_request",
            f"{field} must be at most {LINE_LENGTH_MAX} printable characters",
            field=field,
            limit=LINE_LENGTH_MAX,
        )
    return value


def message_ids(texts: list[str], limit: int) -> tuple[bytes, ...]:
    """Message ids of a list that must be well-formed, distinct ones once."""
    in_range(len(texts), 1, limit, "ids")
    found: dict[bytes, None] = {}
    for text in texts:
        value = message_id_from_text(text)
        if value is None:
            raise Problem("invalid_id", f"{text[:64]!r} is not a message id", field="ids")
        found[value] = None
    return tuple(found)


def in_range(value: int, least: int, most: int, field: str) -> int:
    """A count within its limits."""
    if not least <= value <= most:
        raise Problem(
            "out_of_range", f"{field} must be from {least} to {most}", field=field, limit=most
        )
    return value


def milliseconds(seconds: float, most_ms: int, field: str, *, least_ms: int = 0) -> int:
    """A duration; what is above nought stays above nought."""
    # Written so that NaN, of which every comparison is false, is refused too.
    if not 0 <= seconds <= most_ms / 1000:
        raise _out_of_range(most_ms, field)
    value = max(round(seconds * 1000), 1) if seconds else 0
    if not least_ms <= value <= most_ms:
        raise _out_of_range(most_ms, field, least="more than 0")
    return value


def optional_milliseconds(
    seconds: float | None, most_ms: int, field: str, *, least_ms: int = 0
) -> int | None:
    """Like ``milliseconds``; None stays None."""
    return None if seconds is None else milliseconds(seconds, most_ms, field, least_ms=least_ms)


def seconds(value_ms: int) -> float:
    """Milliseconds for an answer."""
    return value_ms / 1000


def optional_seconds(value_ms: int | None) -> float | None:
    """The same, of a duration that may be left out."""
    return None if value_ms is None else seconds(value_ms)


def query(raw: bytes, kind: type[Q]) -> Q:
    """A query string as a struct; unknown and repeated parameters are refused by name."""
    values: dict[str, str] = {}
    try:
        pairs = parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=PARAMETERS_MAX,
        )
    except ValueError as error:
        raise Problem("invalid_request", f"the query string is malformed: {error}") from error
    by_header: dict[str, str] = {}
    for key, value in pairs:
        given, name = (by_header, key[len(HEADER) :]) if key.startswith(HEADER) else (values, key)
        if name in given:
            raise Problem("invalid_request", f"parameter {key!r} is given twice", field=key)
        given[name] = value
    try:
        found = msgspec.convert(
            {**values, "header": by_header} if by_header else values, kind, strict=False
        )
    except msgspec.ValidationError as error:
        raise invalid(error, "query parameter") from error
    if any(value.lower() == "null" for value in values.values()):
        _refuse_null(found, values)
    return found


def invalid(error: msgspec.MsgspecError, what: str) -> Problem:
    """A decoding error of msgspec in our words, with the field it is about."""
    text = str(error)
    at = _AT_PATH.search(text)
    path = at.group(1) if at else ""
    unknown = _UNKNOWN_FIELD.search(text)
    if unknown:
        path = f"{path}.{unknown.group(1)}" if path else unknown.group(1)
        return Problem("invalid_request", f"unknown {what} {path!r}", field=path)
    detail = text[: at.start()] if at else text
    return Problem("invalid_request", f"{what}: {detail}", field=path or None)


def _refuse_null(found: msgspec.Struct, values: dict[str, str]) -> None:
    """msgspec takes the word for no value; here that is said by saying nothing."""
    for field in msgspec.structs.fields(found):
        if field.encode_name in values and getattr(found, field.name) is None:
            raise Problem(
                "invalid_request",
                f"query parameter: {field.encode_name} must have a value",
                field=field.encode_name,
            )


def _out_of_range(most_ms: int, field: str, *, least: str = "0 or more") -> Problem:
    most = most_ms / 1000
    detail = f"{field} must be {least} and at most {most:.15g} seconds"
    return Problem("out_of_range", detail, field=field, limit=most)
