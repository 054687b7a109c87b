"""Events as the state machine and the model of the queue tell them, to be compared."""

from __future__ import annotations

import queue_model
from statemachine import events, histories

Told = tuple[str, int, bytes | None, int, str, str]


def about(event: histories.Event, message_id: bytes | None) -> Told:
    """An event, about one message or none."""
    record = event.record
    rest = (record.claim, record.consumer, record.reason)
    return (events.KINDS[record.kind], event.time_ms, message_id, *rest)


def seen(event: histories.Event) -> list[Told]:
    """An event once for each message."""
    ids = [message_id for message_id, _ in events.messages_of(event.record)] or [None]
    return [about(event, message_id) for message_id in ids]


def told(event: queue_model.Event) -> Told:
    """The same of what the model knows."""
    message_id = None if event.message is None else event.message.id
    return (event.kind, event.time_ms, message_id, *event[3:])
