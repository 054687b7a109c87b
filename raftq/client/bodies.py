"""What a value given to ``put`` becomes.

- ``bytes`` (and ``bytearray``, ``memoryview``) are kept byte for byte, with the content
  type given or ``application/octet-stream``.
- ``str`` with a content type other than JSON is kept as its UTF-8 bytes, under that type.
- Everything else, ``str`` included, is stored as the JSON value that msgspec makes of it:
  numbers, None, lists, dicts, dataclasses, structs; dates, UUIDs and enums as it does.
- With ``content_type="application/json"``, ``str`` and ``bytes`` are JSON text already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

JSON = "application/json"
OCTETS = "application/octet-stream"
JSON_HEADERS = {"content-type": JSON}

_BESIDE = ("ttl", "delay", "priority", "group", "dedup_id", "persistent")


def _plain(value: object) -> object:
    """Ids of messages are text, but of a kind of their own."""
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot be put")


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


class NewMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message for ``put_many``, with everything that ``put`` takes."""

    body: Any
    ttl: float | None = None
    delay: float | None = None
    headers: Mapping[str, str] | None = None
    zone: str | None = None
    content_type: str | None = None
    priority: int | None = None
    group: str | None = None
    dedup_id: str | None = None
    not_before: datetime | None = None
    persistent: bool | None = None


class Item(msgspec.Struct, frozen=True):
    """One encoded message: JSON of a batch, or a raw body with what goes beside it."""

    content: bytes
    raw_type: str | None = None
    query: dict[str, str] = {}
    headers: dict[str, str] = {}


def item(message: NewMessage, zone: str | None) -> Item:
    """The message as it goes out; ``zone`` if it names none. TypeError if it cannot."""
    beside: dict[str, Any] = {name: getattr(message, name) for name in _BESIDE}
    beside["zone"] = message.zone or zone
    if message.not_before is not None:
        beside["not_before"] = message.not_before.isoformat()
    fields = {name: value for name, value in beside.items() if value is not None}
    headers = dict(message.headers or {})
    raw = _raw(message)
    if raw is None:
        if headers:
            fields["headers"] = headers
        return Item(_encode({"body": _json(message), **fields}))
    named = {f"raftq-header-{name}": value for name, value in headers.items()}
    query = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in fields.items()
    }
    return Item(raw, message.content_type or OCTETS, query, named)


def json_items(messages: Iterable[NewMessage | Any], zone: str | None) -> list[Item]:
    """What can go in one batch; TypeError for raw bodies."""
    given = [m if isinstance(m, NewMessage) else NewMessage(body=m) for m in messages]
    items = [item(message, zone) for message in given]
    if any(one.raw_type is not None for one in items):
        raise TypeError("raw bodies cannot be put in one batch; put them one by one")
    return items


def batch(items: list[Item]) -> bytes:
    """The body of one request for all of them."""
    return b'{"messages":[%b]}' % b",".join(item.content for item in items)


def encode(value: object) -> bytes:
    """JSON."""
    return _encode(value)


def encode_given(**fields: object) -> bytes:
    """JSON of those that are not None."""
    return _encode({name: value for name, value in fields.items() if value is not None})


raw = msgspec.Raw
"""JSON that is encoded already, for ``encode``."""


def _raw(message: NewMessage) -> bytes | None:
    body, content_type = message.body, message.content_type
    if content_type == JSON:
        return None
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    if content_type is None:
        return None
    if isinstance(body, str):
        return body.encode()
    raise TypeError(f"a {type(body).__name__} can only be put as {JSON}, not as {content_type}")


def _json(message: NewMessage) -> Any:
    body = message.body
    if message.content_type == JSON and isinstance(body, str | bytes | bytearray | memoryview):
        return msgspec.Raw(body if isinstance(body, str) else bytes(body))
    return body
