"""Filters: which messages are meant, by who looks for some and by jobs; and header matches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from api.problems import Problem
from api.rest import envelopes, parameters
from api.rest.requests import Call
from statemachine import commands
from statemachine.commands import HeaderMatch, MessageState

CONDITIONS_MAX = 16
TERMS_MAX = 64
"""Values and prefixes that one header may have."""

DELIVERIES_MOST = 2**31


class Prefix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a value begins with; an empty one is for any value."""

    prefix: str


Terms = str | Prefix | list[str | Prefix]
"""A value, a prefix, or a list of which one is enough."""


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Messages of which all of this holds; an empty group or zone is for those of none.

    Ages are seconds since a message came into the queue.
    """

    match: dict[str, Terms] = {}
    match_mode: Literal["all", "any"] = "all"
    group: str | None = None
    priority: int | None = None
    zone: str | None = None
    min_age: float | None = None
    max_age: float | None = None
    min_deliveries: int = 0
    state: MessageState | None = None


def checked(call: Call, given: Filter) -> commands.Filter:
    """A filter for the state machine."""
    most_ms = call.service.limits.duration_ms_max
    return commands.Filter(
        headers=matches(call, given.match, given.match_mode),
        any_of=given.match_mode == "any",
        group=given.group and parameters.group(given.group),
        priority=None if given.priority is None else parameters.priority(given.priority),
        zone=given.zone and parameters.name(given.zone, "zone"),
        min_age_ms=parameters.optional_milliseconds(given.min_age, most_ms, "min_age"),
        max_age_ms=parameters.optional_milliseconds(given.max_age, most_ms, "max_age"),
        min_deliveries=parameters.in_range(
            given.min_deliveries, 0, DELIVERIES_MOST, "min_deliveries"
        ),
        state=given.state,
    )


def shown(found: commands.Filter) -> Filter:
    """Inverse of ``checked``."""
    return Filter(
        match=shown_matches(found.headers),
        match_mode="any" if found.any_of else "all",
        group=found.group,
        priority=found.priority,
        zone=found.zone,
        min_age=parameters.optional_seconds(found.min_age_ms),
        max_age=parameters.optional_seconds(found.max_age_ms),
        min_deliveries=found.min_deliveries,
        state=found.state,
    )


def matches(call: Call, given: Mapping[str, Terms], mode: str) -> tuple[HeaderMatch, ...]:
    """What headers must be, for the state machine."""
    if len(given) > CONDITIONS_MAX:
        raise Problem(
            "out_of_range",
            f"match may name at most {CONDITIONS_MAX} headers",
            field="match",
            limit=CONDITIONS_MAX,
        )
    if not given and mode == "any":
        raise Problem(
            "invalid_request", "match_mode any of nothing matches nothing", field="match_mode"
        )
    found = tuple(_condition(header, wanted) for header, wanted in given.items())
    most = call.service.limits.header_bytes_max
    if sum(_size(one) for one in found) > most:
        raise Problem(
            "headers_too_large", f"match may have at most {most} bytes", field="match", limit=most
        )
    return found


def shown_matches(found: tuple[HeaderMatch, ...]) -> dict[str, Terms]:
    """Inverse of ``matches``."""
    match: dict[str, Terms] = {}
    for one in found:
        terms: list[str | Prefix] = [*one.values, *map(Prefix, one.prefixes)]
        match[one.header] = terms[0] if len(terms) == 1 else terms
    return match


def _condition(header: str, wanted: Terms) -> HeaderMatch:
    terms = wanted if isinstance(wanted, list) else [wanted]
    field = f"match.{header[:64]}"
    parameters.in_range(len(terms), 1, TERMS_MAX, field)
    values = tuple(term for term in terms if isinstance(term, str))
    prefixes = tuple(term.prefix for term in terms if isinstance(term, Prefix))
    for text in values + prefixes:
        envelopes.check_header(header, text, field)
    return HeaderMatch(header, values, prefixes)


def _size(match: HeaderMatch) -> int:
    return sum(len(text.encode()) for text in (match.header, *match.values, *match.prefixes))
