"""Looking at a queue's messages without claiming them: all, or those that a filter means."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from api import bodies
from api.access.principals import Role
from api.access.rules import Access
from api.problems import Problem
from api.rest import answers, filters, pages, parameters
from api.rest.answers import Answer
from api.rest.envelopes import Message, envelope
from api.rest.operations import Operation, Says
from api.rest.queues import no_queue
from api.rest.reads import ReadQuery
from api.rest.requests import Call
from statemachine import queries
from statemachine.commands import MessageId, MessageState
from statemachine.ids import message_id_from_text, message_id_text

MESSAGES = "/v1/{account}/queues/{queue}/messages"
AT_ONCE = 100  # Messages read before their sizes are looked at.


class BrowseQuery(ReadQuery, frozen=True, kw_only=True):
    """Which messages to look at: ``header.NAME`` is its value, or empty for any."""

    limit: parameters.Count | None = None
    marker: str | None = None
    include_claimed: bool = False
    header: dict[str, str] = msgspec.field(default_factory=dict)
    group: str | None = None
    priority: int | None = None
    zone: str | None = None
    min_age: float | None = None
    max_age: float | None = None
    min_deliveries: int = 0
    state: MessageState | None = None

    def filter(self) -> filters.Filter:
        """The same as jobs are given it."""
        return filters.Filter(
            {name: value or filters.Prefix("") for name, value in self.header.items()},
            "all",
            self.group,
            self.priority,
            self.zone,
            self.min_age,
            self.max_age,
            self.min_deliveries,
            self.state,
        )


class Page(msgspec.Struct, frozen=True):
    """A page of messages; ``marker`` asks for the next one and is null on the last.

    ``partial`` is there, and true, where a page ends because enough was looked at: it may be
    empty, and more may follow.
    """

    messages: list[Message]
    marker: str | None
    partial: bool | msgspec.UnsetType = msgspec.UNSET


async def browse_messages(call: Call, query: BrowseQuery) -> Answer:
    """GET messages: look without claiming."""
    limit = pages.limit(query.limit, call.service.limits)
    marker = None
    if query.marker is not None and (marker := message_id_from_text(query.marker)) is None:
        raise Problem("invalid_id", "marker must be a message id", field="marker")
    page = _page(call, limit, marker, query)
    messages = [shown(call, found) for found in page.items]
    next_marker = None if page.marker is None else message_id_text(page.marker)
    partial = page.is_partial or msgspec.UNSET
    return answers.json(200, Page(messages, next_marker, partial), *pages.link(call, next_marker))


def shown(call: Call, found: queries.MessageView) -> Message:
    """A message as clients see it."""
    opened = bodies.opened(call.service, call.account, found.record)
    return envelope(found.id, opened, found.state, found.deliveries, found.error)


class _Found(NamedTuple):
    items: list[queries.MessageView]
    marker: MessageId | None
    is_partial: bool = False


def _page(call: Call, limit: int, marker: MessageId | None, query: BrowseQuery) -> _Found:
    """A page that ends early rather than grow beyond the size of a request."""
    account, queue, reader = call.account, call.queue, call.service.reader()
    left, looks = call.service.limits.request_bytes_max, queries.SCANNED_MAX
    wanted = filters.checked(call, query.filter())
    found: list[queries.MessageView] = []
    while True:
        asked = min(limit - len(found), AT_ONCE)
        page = queries.browse(
            reader,
            account,
            queue,
            limit=asked,
            marker=marker,
            include_claimed=query.include_claimed or wanted.state == "claimed",
            wanted=wanted,
            now_ms=call.service.now_ms(),
            looks=looks,
        )
        if page is None:
            raise no_queue(call)
        for message in page.items:
            left -= len(message.record)
            if left < 0 and found:
                return _Found(found, found[-1].id)
            found.append(message)
        marker, looks = page.marker, looks - page.looked
        if marker is None or len(found) == limit:
            return _Found(found, marker)
        if len(page.items) < asked:
            return _Found(found, marker, is_partial=True)


OPERATIONS = (
    Operation(
        "GET",
        MESSAGES,
        browse_messages,
        "Look at messages without claiming them",
        access=Access(Role.CONSUME, "queue"),
        query=BrowseQuery,
        answers={200: Says("A page, the oldest first", Page)},
        refusals=("headers_too_large",),
    ),
)
