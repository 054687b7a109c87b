"""What a value given to ``put`` becomes.

- ``bytes`` (and ``bytearray``, ``memoryview``) are kept byte for byte, with the content
  type given or ``application/octet-stream``.
- ``str`` with a content type other than JSON is kept as its UTF-8 bytes, under that type.
- Everything else, ``str`` included, is stored as the JSON value that msgspec makes of it:
  numbers, None, lists, dicts, dataclasses, structs; dates, UUIDs and enums as it does.
- With ``content_type="application/json"``, ``str`` and ``bytes`` are JSON text already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

JSON = "application/json"
OCTETS = "application/octet-stream"

_encode = msgspec.json.Encoder().encode


class NewMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message for ``put_many``, with everything that ``put`` takes."""

    body: Any
    ttl: float | None = None
    delay: float | None = None
    headers: Mapping[str, str] | None = None
    zone: str | None = None
    content_type: str | None = None


class Item(msgspec.Struct, frozen=True):
    """One encoded message: JSON of a batch, or a raw body with what goes beside it."""

    content: bytes
    raw_type: str | None = None
    query: dict[str, str] = {}
    headers: dict[str, str] = {}


def item(message: NewMessage, zone: str | None) -> Item:
    """The message as it goes out; ``zone`` if it names none. TypeError if it cannot."""
    beside: dict[str, Any] = {"ttl": message.ttl, "delay": message.delay}
    beside["zone"] = message.zone or zone
    fields = {name: value for name, value in beside.items() if value is not None}
    headers = dict(message.headers or {})
    raw = _raw(message)
    if raw is None:
        if headers:
            fields["headers"] = headers
        return Item(_encode({"body": _json(message), **fields}))
    named = {f"raftq-header-{name}": value for name, value in headers.items()}
    query = {name: str(value) for name, value in fields.items()}
    return Item(raw, message.content_type or OCTETS, query, named)


def batch(items: list[Item]) -> bytes:
    """The body of one request for all of them."""
    return b'{"messages":[%b]}' % b",".join(item.content for item in items)


def encode(value: object) -> bytes:
    """JSON."""
    return _encode(value)


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
