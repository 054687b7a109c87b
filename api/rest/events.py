"""Events and histories: what happened in a queue, as it happens or looked up afterwards."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

import msgspec

from api.access.principals import Role
from api.access.rules import Access
from api.problems import Problem
from api.rest import answers, pages, parameters, streams
from api.rest.accounts import ACCOUNT
from api.rest.answers import Answer, Stream
from api.rest.envelopes import optional_timestamp, timestamp
from api.rest.feeds import Ended, Feed
from api.rest.messages import MESSAGE, no_message
from api.rest.operations import Operation, Says
from api.rest.queues import QUEUE, no_account, no_queue
from api.rest.reads import ReadQuery
from api.rest.requests import Call
from api.rest.streams import EventStream
from statemachine import events, histories
from statemachine.events import KINDS
from statemachine.histories import Event, Marker, Position
from statemachine.ids import claim_text, message_id_from_text, message_id_text
from statemachine.records import EventRecord

LAST_EVENT_ID = b"last-event-id"
NUMBERS = {name: number for number, name in KINDS.items()}
UNSET = msgspec.UNSET
Unset = msgspec.UnsetType

_is_id = re.compile(r"(\d{1,19})(?:\.(\d{1,10}))?").fullmatch
_is_marker = re.compile(r"(\d{1,19})\.(\d{1,10})\.([01])").fullmatch

Start = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": r"^(now|oldest|[0-9]{1,19})$"})]


class EventsQuery(ReadQuery, frozen=True, kw_only=True):
    """From which log index on, and which kinds, with commas."""

    start: Start = msgspec.field(default="now", name="from")
    kind: str | None = None


class HistoryQuery(ReadQuery, frozen=True, kw_only=True):
    """Which page."""

    limit: parameters.Count | None = None
    marker: str | None = None


class Concerned(msgspec.Struct, frozen=True):
    """A message, and how often it had been delivered; 0 if it had not, or nobody counted."""

    id: str
    deliveries: int


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """One event. ``node`` had it done; null if it was due. What does not apply is left out."""

    id: str
    kind: str
    index: int
    term: int
    time: datetime
    node: str | None
    queue: str
    claim: str | Unset = UNSET
    consumer: str | Unset = UNSET
    lease_until: datetime | Unset | None = UNSET
    ready_at: datetime | Unset | None = UNSET
    reason: str | Unset = UNSET
    target: str | Unset = UNSET
    purged: int | Unset = UNSET
    deliveries: int | Unset = UNSET
    messages: list[Concerned] | Unset = UNSET


class HistoryView(msgspec.Struct, frozen=True):
    """A page of what happened to a message. ``whole``: it begins with the put."""

    message: str
    whole: bool
    events: list[Happened]
    marker: str | None


async def queue_events(call: Call, query: EventsQuery) -> Stream:
    """GET a queue's events."""
    if histories.known(call.service.reader(), call.account, call.queue) is None:
        raise no_queue(call)
    return await _stream(call, query, call.queue)


async def account_events(call: Call, query: EventsQuery) -> Stream:
    """GET the events of all queues of an account."""
    if histories.known(call.service.reader(), call.account, "") is None:
        raise no_account(call)
    return await _stream(call, query, None)


async def message_history(call: Call, query: HistoryQuery) -> Answer:
    """GET what happened to a message, also when it is gone."""
    text = call.path["message"]
    message_id = message_id_from_text(text)
    if message_id is None:
        raise no_message(text)
    found = histories.of_message(
        call.service.reader(),
        call.account,
        call.queue,
        message_id,
        limit=pages.limit(query.limit, call.service.limits),
        marker=None if query.marker is None else _marker(query.marker),
    )
    if found is None:
        raise no_queue(call)
    if not (found.items or found.marker or query.marker):
        if found.is_whole:
            raise no_message(text)
        detail = "the queue's events of the time when the message was put are not held any more"
        raise Problem("no_history", detail)
    items = [_happened(step.event, deliveries=step.deliveries) for step in found.items]
    marker = None if found.marker is None else _marker_text(found.marker)
    view = HistoryView(text, found.is_whole, items, marker)
    return answers.json(200, view, *pages.link(call, marker))


async def _stream(call: Call, query: EventsQuery, queue: str | None) -> Stream:
    kinds = None if query.kind is None else _kinds(query.kind)
    position = await _position(call, query.start)
    call.park()
    watch = call.service.watch_events(call.account, queue)
    feed = Feed(call.service, call.account, queue, kinds, call.principal.sees)
    try:
        if query.start == "oldest" and LAST_EVENT_ID not in call.headers:
            position = histories.through(feed.oldest() - 1)
        await feed.begin(position)
    except BaseException as error:
        watch.forget()
        call.unpark()
        if isinstance(error, Ended):
            raise streams.as_problem(error) from error
        raise
    return Stream(EventStream(call, feed, watch, _block).run)


async def _position(call: Call, start: str) -> Position | None:
    """What the reader has seen; None: all so far. This replica has applied it."""
    position = _asked(start)  # Looked at in any case: what is wrong is told.
    resumed = call.header(LAST_EVENT_ID)
    if resumed:
        position = _id(resumed)
    if position is not None:
        await call.service.reach(position.at)
    return position


def _asked(start: str) -> Position | None:
    if start in ("now", "oldest"):
        return None
    if start.isascii() and start.isdigit() and len(start) <= 19:
        return histories.through(max(int(start), 1) - 1)
    raise Problem("invalid_request", "from must be now, oldest, or a log index", field="from")


def _id(text: str) -> Position:
    found = _is_id(text)
    if found is None:
        raise Problem(
            "invalid_header", "Last-Event-ID must be the id of an event", field="Last-Event-ID"
        )
    index, ordinal = found.groups()
    return histories.through(int(index)) if ordinal is None else Position(int(index), int(ordinal))


def _kinds(text: str) -> frozenset[int]:
    names = text.split(",")
    for name in names:
        if name not in NUMBERS:
            raise Problem("invalid_request", f"there is no kind {name[:32]!r}", field="kind")
    return frozenset(NUMBERS[name] for name in names)


def _marker(text: str) -> Marker:
    found = _is_marker(text)
    if found is None:
        raise Problem("invalid_id", "marker must be one that was given", field="marker")
    index, ordinal, is_seen = map(int, found.groups())
    return Marker(Position(index, ordinal), bool(is_seen))


def _marker_text(marker: Marker) -> str:
    return f"{marker.position.at}.{marker.position.ordinal}.{int(marker.is_seen)}"


def _block(event: Event) -> bytes:
    messages = [
        Concerned(message_id_text(message_id), deliveries)
        for message_id, deliveries in events.messages_of(event.record)
    ]
    data = msgspec.json.encode(_happened(event, messages=messages or UNSET))
    return streams.block(event.position, KINDS[event.record.kind], data)


def _happened(
    event: Event,
    *,
    deliveries: int | Unset = UNSET,
    messages: list[Concerned] | Unset = UNSET,
) -> Happened:
    record = event.record
    is_lease = record.kind in (events.CLAIMED, events.EXTENDED)
    return Happened(
        id=f"{event.position.at}.{event.position.ordinal}",
        kind=KINDS[record.kind],
        index=event.position.at,
        term=event.term,
        time=timestamp(event.time_ms),
        node=record.node or None,
        queue=event.queue,
        claim=claim_text(record.claim) if record.claim else UNSET,
        consumer=record.consumer or UNSET,
        lease_until=_time(record) if is_lease and record.until_ms else UNSET,
        ready_at=_time(record) if record.kind == events.RELEASED and record.until_ms else UNSET,
        reason=record.reason or UNSET,
        target=record.target if record.kind in events.TO_ANOTHER else UNSET,
        purged=record.count if record.kind == events.PURGED else UNSET,
        deliveries=deliveries,
        messages=messages,
    )


def _time(record: EventRecord) -> datetime | None:
    return optional_timestamp(record.until_ms)


EVENT_STREAM = Says("Server-sent events, until one side leaves", media_type=streams.MEDIA_TYPE)

OPERATIONS = (
    Operation(
        "GET",
        QUEUE + "/events",
        queue_events,
        "What happens in a queue, from now on or from a log index that is still held",
        access=Access(Role.CONSUME, "queue"),
        query=EventsQuery,
        answers={200: EVENT_STREAM},
        refusals=("no_queue", "history_off", "events_gone"),
        resumes=True,
    ),
    Operation(
        "GET",
        MESSAGE + "/history",
        message_history,
        "What happened to a message, also when it is gone",
        access=Access(Role.CONSUME, "queue"),
        query=HistoryQuery,
        answers={200: Says("A page of events, the oldest first", HistoryView)},
        refusals=("no_queue", "no_message", "no_history"),
    ),
    Operation(
        "GET",
        ACCOUNT + "/events",
        account_events,
        "What happens in all queues of an account",
        access=Access(Role.CONSUME, "account"),
        query=EventsQuery,
        answers={200: EVENT_STREAM},
        refusals=("no_account", "events_gone"),
        resumes=True,
    ),
)
