"""Lists come in pages: ``limit`` and ``marker`` in, a ``marker`` and a ``Link`` header out."""

from __future__ import annotations

from typing import TypedDict
from urllib.parse import parse_qsl, urlencode

from api.ports import Limits
from api.rest import parameters
from api.rest.answers import Header
from api.rest.parameters import in_range, name_part
from api.rest.reads import ReadQuery
from api.rest.requests import Call

LIMIT_DEFAULT = 100


class ListQuery(ReadQuery, frozen=True, kw_only=True):
    """Which part of a list of names to show."""

    limit: parameters.Count | None = None
    marker: str | None = None
    prefix: parameters.NamePart = ""


class Part(TypedDict):
    """Of a list of names: how many, after which, and how they begin."""

    limit: int
    marker: str | None
    prefix: str


def part(query: ListQuery, limits: Limits) -> Part:
    """What was asked for, checked."""
    return Part(
        limit=limit(query.limit, limits),
        marker=None if query.marker is None else name_part(query.marker, "marker"),
        prefix=name_part(query.prefix, "prefix"),
    )


def limit(asked: int | None, limits: Limits) -> int:
    """How many items a page may have."""
    if asked is None:
        return min(LIMIT_DEFAULT, limits.page_max)
    return in_range(asked, 1, limits.page_max, "limit")


def link(call: Call, marker: str | None) -> list[Header]:
    """The header that leads to the next page, if there is one."""
    if marker is None:
        return []
    query = parse_qsl(call.scope["query_string"].decode("ascii"), keep_blank_values=True)
    kept = [(key, value) for key, value in query if key != "marker"]
    target = f"{call.scope['path']}?{urlencode([*kept, ('marker', marker)])}"
    return [(b"link", f'<{target}>; rel="next"'.encode())]
