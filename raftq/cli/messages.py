"""Messages between text and requests: what ``put`` reads, and what ``claim`` and ``peek`` print.

A line of ``claim --ndjson`` or ``peek --ndjson`` is a line for ``put --ndjson``: id,
state and the like are left out on the way back in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from raftq.cli.failure import Exit, Failure

BATCH_MESSAGES_MAX = 500
BATCH_BYTES_MAX = 1 << 20  # A single larger message goes alone; the server's limits decide.
JSON = "application/json"


class Attributes(NamedTuple):
    """What a producer may say of a message besides its body; times in seconds."""

    ttl: float | None = None
    delay: float | None = None
    zone: str | None = None
    headers: Mapping[str, str] = {}
    priority: int | None = None
    group: str | None = None


class Item(NamedTuple):
    """One message: of a JSON batch if ``content_type`` is JSON, else a request of its own."""

    content: bytes  # The encoded JSON message, or the raw body.
    content_type: str = JSON
    attributes: Attributes = Attributes()


class Line(msgspec.Struct, frozen=True):
    """What is read of a line of NDJSON; other fields are what a server added."""

    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    body_text: str | msgspec.UnsetType = msgspec.UNSET
    body_base64: bytes | msgspec.UnsetType = msgspec.UNSET
    content_type: str = JSON
    ttl: float | None = None
    delay: float | None = None
    zone: str | None = None
    headers: dict[str, str] = {}
    priority: int | None = None
    group: str | None = None

    def attributes(self) -> Attributes:
        """All but the body."""
        return Attributes(self.ttl, self.delay, self.zone, self.headers, self.priority, self.group)


_decode_line = msgspec.json.Decoder(Line).decode
encode = msgspec.json.Encoder().encode


raw = msgspec.Raw
"""JSON that is encoded already, for ``encode``."""


def json_item(body: bytes, attributes: Attributes) -> Item:
    """A message whose body is the JSON value ``body``."""
    fields: dict[str, object] = {"body": msgspec.Raw(body)}
    # A ttl or a delay of 0 means something; an empty zone or no headers do not.
    given = attributes._asdict().items()
    fields |= {key: value for key, value in given if value or value == 0}
    return Item(encode(fields))


def texts(values: Iterable[str], attributes: Attributes, *, as_json: bool) -> Iterator[Item]:
    """One message each: the text as a JSON string, or as the JSON value it is."""
    for number, value in enumerate(values, start=1):
        if as_json:
            try:
                msgspec.json.decode(value)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise Failure(f"message {number} is not JSON: {error}", Exit.USAGE) from None
        body = value.encode() if as_json else encode(value)
        yield json_item(body, attributes)


def ndjson(lines: Iterable[bytes]) -> Iterator[Item]:
    """One message for each line that is not blank."""
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        try:
            message = _decode_line(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Failure(f"line {number}: {error}", Exit.USAGE) from None
        if isinstance(message.body, msgspec.Raw):
            yield json_item(bytes(message.body), message.attributes())
        elif isinstance(message.body_text, str):
            yield Item(message.body_text.encode(), message.content_type, message.attributes())
        elif isinstance(message.body_base64, bytes):
            yield Item(message.body_base64, message.content_type, message.attributes())
        else:
            raise Failure(f"line {number}: no body, body_text or body_base64", Exit.USAGE)


def whole(content: bytes, content_type: str | None, attributes: Attributes) -> Item:
    """One message with exactly these bytes."""
    if content_type is None:
        try:
            content.decode()
            content_type = "text/plain; charset=utf-8"
        except UnicodeDecodeError:
            content_type = "application/octet-stream"
    if content_type == JSON:
        return json_item(content, attributes)
    return Item(content, content_type, attributes)


def batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """In order, as few requests as the bounds allow; a raw body is a request of its own."""
    batch: list[Item] = []
    size = 0
    for item in items:
        full = len(batch) == BATCH_MESSAGES_MAX or size + len(item.content) > BATCH_BYTES_MAX
        if batch and (full or item.content_type != JSON or batch[-1].content_type != JSON):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += len(item.content) + 1
    if batch:
        yield batch


def body_text(message: Mapping[str, Any]) -> str:
    """A body for people: one line, as short as it is."""
    if "body" in message:
        body = message["body"]
        return body if isinstance(body, str) else encode(body).decode()
    if "body_text" in message:
        return str(message["body_text"])
    if "unreadable" in message:
        return f"<{message['unreadable']}>"
    base64 = str(message.get("body_base64", ""))
    size = len(base64) * 3 // 4 - base64.count("=")
    return f"<{size:,} bytes of {message.get('content_type')}>"
