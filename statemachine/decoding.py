"""Decoding what somebody else has written, with one kind of error for all that is wrong with it."""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")


def decoded(decoder: msgspec.msgpack.Decoder[T], data: bytes | memoryview) -> T:
    """What ``data`` says; raises ``msgspec.MsgspecError`` and nothing else."""
    try:
        return decoder.decode(data)
    except UnicodeDecodeError as error:  # The one error that is not of msgspec's own kind.
        raise msgspec.ValidationError(str(error)) from error
