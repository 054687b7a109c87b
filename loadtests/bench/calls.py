"""How many calls a piece of work takes: as many each time, whatever else the machine does."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import msgspec

from loadtests.bench.records import Record

CODERS = (
    msgspec.json.Decoder,
    msgspec.json.Encoder,
    msgspec.msgpack.Decoder,
    msgspec.msgpack.Encoder,
)
KINDS = ("calls", "c_calls", "codings")
"""Of functions in Python, of others, and of these those that encode or decode."""


@contextmanager
def counted(counts: Counter[str]) -> Iterator[None]:
    """Count what is called meanwhile, on this thread."""

    def called(_frame: FrameType, event: str, function: object) -> None:
        if event == "call":
            counts["calls"] += 1
        elif event == "c_call":
            counts["c_calls"] += 1
            if isinstance(getattr(function, "__self__", None), CODERS):
                counts["codings"] += 1

    sys.setprofile(called)
    try:
        yield
    finally:
        sys.setprofile(None)


def row(part: str, counts: Counter[str], messages: int) -> Record:
    """What each of so many messages took."""
    return {"part": part, **{kind: round(counts[kind] / messages, 2) for kind in KINDS}}
