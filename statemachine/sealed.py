"""Sealed bodies as the log knows them: how one is told from a plain one, and its account's keys.

A body is sealed by the node that takes it in, before it goes into the log, and opened by the
node that gives it out. In between it is bytes. That it is sealed, its content encoding says:
encryption is a content coding (RFC 8188 is one), the last one applied, and so a message
takes it along wherever it is copied or moved to. Its name is no token of HTTP, so that no
client can send it: see ``envelopes.checked_content_encoding`` in the API.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from statemachine import keys
from statemachine.kv import Reader
from statemachine.parts import NewMessage

CODING = "/sealed"
NUMBER_BYTES = 8
"""A sealed body begins with the number of the key that sealed it."""


class SealingKey(msgspec.Struct, frozen=True, array_like=True):
    """A data key of an account: as it was wrapped under a master key that only nodes have."""

    number: int
    master: str
    wrapped: bytes
    created_ms: int

    def __repr__(self) -> str:
        """Without the key, wrapped as it is: representations end up in logs."""
        return f"SealingKey({self.number}, {self.master!r})"


class SealingRecord(msgspec.Struct, frozen=True, array_like=True):
    """Whether new bodies of an account are to be sealed, and its keys: the last is the current."""

    enabled: bool
    keys: tuple[SealingKey, ...]


decode = msgspec.msgpack.Decoder(SealingRecord).decode


def is_sealed(content_encoding: str) -> bool:
    """Whether a body of this content encoding is sealed."""
    return content_encoding.endswith(CODING)


def with_coding(content_encoding: str) -> str:
    """The content encoding of a body that is sealed, from what it was before."""
    return f"{content_encoding}, {CODING}" if content_encoding else CODING


def without_coding(content_encoding: str) -> str:
    """Inverse of ``with_coding``."""
    return content_encoding.removesuffix(CODING).removesuffix(", ")


def key_of(message: NewMessage) -> int:
    """The number of the key that sealed its body; 0 if it is plain."""
    if not is_sealed(message.content_encoding):
        return 0
    return keys.number(message.body[:NUMBER_BYTES])


def of(reader: Reader, account: str) -> SealingRecord | None:
    """The keys of an account; None if it has none and needs none."""
    data = reader.get(keys.sealing(account))
    return None if data is None else decode(data)


def accounts(reader: Reader) -> Iterator[tuple[str, SealingRecord]]:
    """All accounts that have keys, with them."""
    for key, value in reader.scan(keys.SEALING, keys.SEALING_END):
        yield keys.split_names(key[1:])[0], decode(value)
