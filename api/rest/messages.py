"""Messages: what one is, put by whole requests, looked at, deleted, purged."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec

from api import bodies, problems
from api.access.principals import Role
from api.access.rules import Access
from api.ports import Limits, Service
from api.problems import Problem
from api.rest import answers, browsing, envelopes, parameters
from api.rest.answers import Answer
from api.rest.browsing import MESSAGES
from api.rest.envelopes import Message, new_message
from api.rest.operations import Operation, Says
from api.rest.parameters import NoQuery
from api.rest.reads import ReadQuery
from api.rest.requests import JSON, Call, decode, is_json
from statemachine import outcomes, queries
from statemachine.commands import DeleteMessages, Enqueue, NewMessage, Purge
from statemachine.ids import message_id_from_text, message_id_text
from statemachine.outcomes import Deleted, Enqueued
from statemachine.records import StoredMessage

MESSAGE = MESSAGES + "/{message}"
HEADER_PREFIX = b"raftq-header-"


Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class PutQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a raw body is to be queued; in JSON these are fields, but for ``ids``.

    ``ids``: a stream is to be told those of its messages.
    """

    ttl: float | None = None
    delay: float | None = None
    zone: parameters.Name | None = None
    priority: int = 0
    group: str | None = None
    not_before: Moment | None = None
    dedup_id: str | None = None
    persistent: bool | None = None
    ids: bool = False


class MessageToPut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message; ``body`` is any JSON value, times are seconds."""

    body: msgspec.Raw
    ttl: float | None = None
    delay: float | None = None
    headers: dict[str, str] = {}
    zone: parameters.Name | None = None
    priority: int = 0
    group: str | None = None
    not_before: Moment | None = None
    dedup_id: str | None = None
    persistent: bool | None = None


class BatchToPut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Messages that are queued together, or not at all."""

    messages: list[MessageToPut]


class HasMessages(msgspec.Struct, frozen=True):
    """Tells a batch from a message that is wrong."""

    messages: msgspec.Raw


class Place(msgspec.Struct, frozen=True):
    """A queue in which a message is, and its id there."""

    queue: str
    id: str


class Put(msgspec.Struct, frozen=True):
    """The messages' ids, in the order in which they were given.

    ``duplicates`` has the positions, from 0, at which nothing was added; it is absent if
    there are none. If the queue is bound to others, ``routed`` says of each message where it
    is; its id in ``ids`` is that in the first of these.
    """

    ids: list[str]
    duplicates: tuple[int, ...] | msgspec.UnsetType = msgspec.UNSET
    routed: list[list[Place]] | msgspec.UnsetType = msgspec.UNSET


class Taken(msgspec.Struct, frozen=True):
    """How many messages the leader has taken: on no disk yet, and without ids."""

    accepted: int


class GetQuery(ReadQuery, frozen=True, kw_only=True):
    """``raw`` asks for the bare body."""

    raw: bool = False


class DeleteQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Comma-separated ids; without them the queue is purged."""

    ids: str | None = None


class DeletedMessages(msgspec.Struct, frozen=True):
    """How many messages are gone."""

    deleted: int


_NO_ATTRIBUTES = PutQuery()
ATTRIBUTES = ", ".join(name for name in PutQuery.__struct_fields__ if name != "ids")
decode_to_put = msgspec.json.Decoder(MessageToPut).decode
_decode_batch = msgspec.json.Decoder(BatchToPut).decode
_decode_has_messages = msgspec.json.Decoder(HasMessages).decode


async def put_whole(call: Call, query: PutQuery) -> Answer:
    """Put what the whole body says: a JSON message, a JSON batch, or one raw body."""
    if query.ids:
        raise Problem("invalid_request", "ids is for streams; others are told", field="ids")
    given: Sequence[MessageToPut | PutQuery]
    if is_json(call.content_type):
        if call.scope["query_string"] and query != _NO_ATTRIBUTES:
            raise Problem("invalid_request", f"{ATTRIBUTES} are fields of a JSON message")
        call.refuse_encoding()
        given = put = decode(_decode_put, await call.body())
        messages = new_messages(call, put)
    else:
        given = (query,)
        messages = (_from_raw(call, query, await call.body()),)
    account, queue = call.account, call.queue
    command = Enqueue(account, queue, messages)
    if not must_persist(call.service, account, queue, {one.persistent for one in given}):
        await call.accept(command)
        call.service.observe_put([message.zone for message in messages], call.home)
        return answers.json(202, Taken(len(messages)))
    outcome = await call.propose(command, Enqueued)
    call.service.observe_put([message.zone for message in messages], call.home)
    view = put_view(outcome)
    if len(view.ids) > 1:
        return answers.json(201, view)
    if outcome.routed:
        queue = outcome.routed[0][0].queue
    location = f"/v1/{account}/queues/{queue}/messages/{view.ids[0]}".encode()
    return answers.json(201, view, (b"location", location))


async def get_message(call: Call, query: GetQuery) -> Answer:
    """GET one message: its envelope, or its bare body."""
    account, queue, text = call.account, call.queue, call.path["message"]
    message_id = message_id_from_text(text)
    found = message_id and queries.message(call.service.reader(), account, queue, message_id)
    if not found:
        raise no_message(text)
    opened = bodies.opened(call.service, account, found.record)
    wanted = call.header(b"accept") or ""
    if query.raw or envelopes.prefers_raw(wanted, opened.stored.content_type):
        if opened.unreadable is not None:
            raise problems.unreadable(opened.unreadable)
        return _bare(opened.stored)
    return answers.json(200, browsing.shown(call, found), (b"vary", b"accept"))


async def delete_message(call: Call, query: NoQuery) -> Answer:
    """DELETE one message, whatever its state."""
    account, queue, text = call.account, call.queue, call.path["message"]
    message_id = message_id_from_text(text)
    if message_id is None:
        raise no_message(text)
    deleted = await call.propose(DeleteMessages(account, queue, (message_id,)), Deleted)
    if not deleted.count:
        raise no_message(text)
    return answers.empty()


async def delete_messages(call: Call, query: DeleteQuery) -> Answer:
    """DELETE messages: all, or those named."""
    account, queue = call.account, call.queue
    if query.ids is None:
        deleted = await call.propose(Purge(account, queue), Deleted)
    else:
        limit = call.service.limits.batch_messages_max
        ids = parameters.message_ids(query.ids.split(","), limit)
        deleted = await call.propose(DeleteMessages(account, queue, ids), Deleted)
    return answers.json(200, DeletedMessages(deleted.count))


def _bare(stored: StoredMessage) -> Answer:
    """The body as it came, never as a page of ours: a message must not run in our origin."""
    headers = [
        (HEADER_PREFIX + name.lower().encode(), value.encode()) for name, value in stored.headers
    ]
    encoding = []
    if stored.content_encoding:
        encoding.append((b"content-encoding", stored.content_encoding.encode("latin-1")))
    return Answer(
        200,
        stored.body,
        stored.content_type.encode("latin-1"),
        (b"content-security-policy", b"default-src 'none'; sandbox"),
        (b"x-content-type-options", b"nosniff"),
        (b"vary", b"accept"),
        *encoding,
        *headers,
    )


def must_persist(service: Service, account: str, queue: str, wishes: set[bool | None]) -> bool:
    """Whether any of the messages with these wishes is to be durable before it is answered for."""
    return True in wishes or (None in wishes and service.in_force(account, queue).persistent)


def no_message(text: str) -> Problem:
    """There is no such message."""
    return Problem("no_message", f"there is no message {text[:64]!r} in the queue")


def put_view(outcome: Enqueued) -> Put:
    """What a producer is told."""
    ids = [message_id_text(message_id) for message_id in outcome.ids]
    routed = _routed(outcome.routed) if outcome.routed else msgspec.UNSET
    return Put(ids, outcome.duplicates or msgspec.UNSET, routed)


def new_messages(call: Call, given: list[MessageToPut]) -> tuple[NewMessage, ...]:
    """Checked messages for the state machine."""
    if len(given) > call.service.limits.batch_messages_max:
        raise too_many(call.service.limits)
    if not given:
        raise Problem("invalid_request", "messages must not be empty", field="messages")
    return tuple([checked(call, message, call.home) for message in given])


def too_many(limits: Limits) -> Problem:
    """There are more messages than one request may have."""
    return Problem(
        "too_many_messages",
        f"a request may have at most {limits.batch_messages_max} messages",
        field="messages",
        limit=limits.batch_messages_max,
    )


def checked(call: Call, message: MessageToPut, home: str) -> NewMessage:
    """A message of JSON for the state machine; ``home`` is its zone if it names none."""
    return new_message(
        bytes(message.body),
        JSON,
        message.ttl,
        message.delay,
        message.headers,
        home if message.zone is None else parameters.name(message.zone, "zone"),
        message.priority,
        message.group,
        call.service.limits,
        None if message.not_before is None else _not_before_ms(call, message),
        message.dedup_id,
    )


def as_put(message: NewMessage) -> MessageToPut:
    """Inverse of ``checked``."""
    return MessageToPut(
        msgspec.Raw(message.body),
        parameters.optional_seconds(message.ttl_ms),
        parameters.optional_seconds(message.delay_ms),
        dict(message.headers),
        message.zone or None,
        message.priority,
        message.group or None,
        dedup_id=message.dedup_id or None,
    )


def _routed(routed: tuple[tuple[outcomes.Place, ...], ...]) -> list[list[Place]]:
    return [[Place(one.queue, message_id_text(one.id)) for one in message] for message in routed]


def _decode_put(data: bytes) -> list[MessageToPut]:
    """One message or a batch; when it is neither, the error is about what it looks like.

    Trying costs little: a batch fails as a message at its first key. Only what is JSON
    but has the wrong shape is tried again.
    """
    try:
        return [decode_to_put(data)]
    except msgspec.ValidationError as not_a_message:
        try:
            return _decode_batch(data).messages
        except msgspec.ValidationError:
            if _looks_like_batch(data):
                raise
        raise not_a_message from None


def _looks_like_batch(data: bytes) -> bool:
    try:
        _decode_has_messages(data)
    except msgspec.ValidationError:
        return False
    return True


def _from_raw(call: Call, query: PutQuery, data: bytes) -> NewMessage:
    return new_message(
        data,
        envelopes.checked_content_type(call.content_type),
        query.ttl,
        query.delay,
        _message_headers(call),
        parameters.zone(query.zone, call.home),
        query.priority,
        query.group,
        call.service.limits,
        _not_before_ms(call, query),
        query.dedup_id,
        envelopes.checked_content_encoding(call.content_encoding),
    )


def _not_before_ms(call: Call, given: MessageToPut | PutQuery) -> int | None:
    if given.not_before is None:
        return None
    service = call.service
    return envelopes.not_before(given.not_before, given.delay, service.now_ms(), service.limits)


def _message_headers(call: Call) -> dict[str, str]:
    if HEADER_PREFIX not in b" ".join(call.headers):  # Most messages have none.
        return {}
    names = [name for name in call.headers if name.startswith(HEADER_PREFIX)]
    try:
        return {name[len(HEADER_PREFIX) :].decode(): call.headers[name].decode() for name in names}
    except UnicodeDecodeError as error:
        raise Problem("invalid_header", f"message headers are UTF-8: {error}") from error


OPERATIONS = (
    *browsing.OPERATIONS,
    Operation(
        "DELETE",
        MESSAGES,
        delete_messages,
        "Delete all messages, claimed ones included, or those named",
        access=Access(Role.MANAGE, "queue"),
        query=DeleteQuery,
        answers={200: Says("How many are gone", DeletedMessages)},
        refusals=("no_queue",),
    ),
    Operation(
        "GET",
        MESSAGE,
        get_message,
        "One message: its envelope, or with raw or a fitting Accept its bare body",
        access=Access(Role.CONSUME, "queue"),
        query=GetQuery,
        answers={200: Says("The message", Message, media_type="*/*")},
        refusals=("no_message", "body_shredded"),
    ),
    Operation(
        "DELETE",
        MESSAGE,
        delete_message,
        "Delete one message, whatever its state",
        access=Access(Role.MANAGE, "queue"),
        query=NoQuery,
        answers={204: Says("It is gone")},
        refusals=("no_message",),
    ),
)
