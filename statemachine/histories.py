"""Reading histories: page by page, on any replica, each page a bounded number of rows.

A *position* is what a reader has seen: all events up to and with it. The rules of
``queries`` hold here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from statemachine import events, keys, records
from statemachine.commands import MessageId, QueueSettings
from statemachine.events import LAST, PURGED
from statemachine.kv import Reader
from statemachine.records import EventRecord, History
from statemachine.settings import effective
from statemachine.state import ORDINAL_BITS

NOTHING_SET = QueueSettings()
SCANNED_MAX = 5_000
"""Rows after which a page of a message's history is cut short."""


class Position(NamedTuple):
    """Everything up to this event has been seen."""

    at: int  # Index of the log entry.
    ordinal: int


BEGINNING = Position(0, 0)
"""Before all events: the log's first entry is 1."""


class Event(NamedTuple):
    """What happened, and where in the order of everything."""

    position: Position
    queue: str
    time_ms: int
    term: int
    record: EventRecord


class Known(NamedTuple):
    """How far a history reaches."""

    number: int
    gone: Position  # The last event that is gone; ``BEGINNING`` if none is.
    oldest: Position | None  # At or before the first event that is there.
    latest: Position | None
    is_kept: bool  # Whether new events are kept, by the settings as they are now.


class Step(NamedTuple):
    """A message's history: one event, and how often the message was delivered by then."""

    event: Event
    deliveries: int


class Marker(NamedTuple):
    """Where the next page of a message's history begins."""

    position: Position
    is_seen: bool  # Whether an earlier page knew of the message.


class Steps(NamedTuple):
    """A page of a message's history."""

    items: tuple[Step, ...]
    marker: Marker | None
    is_whole: bool  # Whether the history reaches back to when the message was put.


def through(index: int) -> Position:
    """The position of who has seen all of the log up to an index."""
    return Position(index, keys.U32_MAX)


def known(reader: Reader, account: str, queue: str) -> Known | None:
    """How far the history of a queue reaches, or an account's own; None if it is not there."""
    found = _history(reader, account, queue)
    return None if found is None else _known(*found)


def queues(reader: Reader, account: str, marker: str, limit: int) -> list[tuple[str, Known]]:
    """Up to ``limit`` queues of the account behind ``marker``, in the order of their names."""
    defaults = _defaults(reader, account)
    prefix = b"q" + keys.name(account)
    low = prefix + keys.name(marker) + b"\x00" if marker else prefix
    found: list[tuple[str, Known]] = []
    for key, data in reader.scan(low, prefix + b"\xff"):
        record = records.decode_queue(data)
        is_kept = effective(record.settings, defaults).keeps_history()
        found.append((keys.split_names(key[1:])[1], _known(record.history, is_kept)))
        if len(found) == limit:
            break
    return found


def between(
    reader: Reader, number: int, queue: str, after: Position, through_index: int
) -> Iterator[Event]:
    """Events of one history behind a position, up to and with a log index, in order."""
    low, high = keys.events(number, after.at), keys.events(number, through_index + 1)
    for key, data in reader.scan(low, high):
        at, row = keys.number(key[-8:]), records.decode_events(data)
        for record in row.events:
            position = Position(at, record.ordinal)
            if position > after:
                # An account's own events are about the queues they name.
                yield Event(position, queue or record.target, row.time_ms, row.term, record)


def of_message(
    reader: Reader,
    account: str,
    queue: str,
    message_id: MessageId,
    *,
    limit: int,
    marker: Marker | None = None,
) -> Steps | None:
    """What happened to one message, from when it was put; None if there is no queue."""
    found = _history(reader, account, queue)
    if found is None:
        return None
    reach = _known(*found)
    put_index = keys.number(message_id[2:]) >> ORDINAL_BITS
    is_whole = reach.gone.at < put_index or reach.gone == BEGINNING
    after = max(through(put_index - 1) if put_index else BEGINNING, reach.gone)
    is_seen = False
    if marker is not None:
        after, is_seen = max(after, marker.position), marker.is_seen
    steps: list[Step] = []
    for scanned, event in enumerate(between(reader, reach.number, queue, after, keys.U64_MAX - 1)):
        if is_whole and not is_seen and event.position.at > put_index:
            break  # It was not put when its id says.
        if scanned == SCANNED_MAX or len(steps) == limit:
            return Steps(tuple(steps), Marker(after, is_seen), is_whole)
        after = event.position
        deliveries = events.deliveries_of(event.record, message_id)
        if deliveries is None and event.record.kind == PURGED and is_seen:
            deliveries = 0  # It was still there, or nothing more would be looked for.
        if deliveries is not None:
            is_seen = True
            steps.append(Step(event, deliveries))
            if event.record.kind in LAST:
                break
    return Steps(tuple(steps), None, is_whole)


def _known(history: History, is_kept: bool) -> Known:
    stretches = history.stretches
    return Known(
        history.number,
        Position(history.gone_index, history.gone_ordinal),
        Position(stretches[0].index, 0) if stretches else None,
        Position(stretches[-1].last_index, stretches[-1].last_ordinal) if stretches else None,
        is_kept,
    )


def _history(reader: Reader, account: str, queue: str) -> tuple[History, bool] | None:
    """A queue's history, or with no name the account's own; and whether events are kept."""
    data = reader.get(keys.account(account))
    if data is None:
        return None
    owner = records.decode_account(data)
    history, settings = owner.history, NOTHING_SET
    if queue:
        data = reader.get(keys.queue(account, queue))
        if data is None:
            return None
        record = records.decode_queue(data)
        history, settings = record.history, record.settings
    return history, effective(settings, owner.defaults).keeps_history()


def _defaults(reader: Reader, account: str) -> QueueSettings:
    data = reader.get(keys.account(account))
    return NOTHING_SET if data is None else records.decode_account(data).defaults
