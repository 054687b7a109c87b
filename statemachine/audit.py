"""The audit log: who did which administrative act, from where, and how it ended.

It is an append-only stream in the replicated state, read by whoever operates the cluster. There is
nothing in it but names and words: no bodies, no secrets, no settings' values.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

import msgspec

from statemachine import keys
from statemachine.kv import Reader

DONE = "done"


class AuditRecord(msgspec.Struct, frozen=True, array_like=True):
    """One act. ``outcome`` is ``DONE``, or why it was refused."""

    time_ms: int
    actor: str  # A key's id or the like, after what kind of one it is.
    source: str  # The address from which it came.
    request: str
    account: str  # Empty: the operator's.
    act: str
    subject: str  # What it was done to, below the account.
    detail: str
    outcome: str
    owner: str  # The account of who asked; empty: the operator.


class AuditMarkRecord(msgspec.Struct, array_like=True):
    """How much of an owner is kept, and where it begins: nothing of its is below ``low``."""

    low: int = 0
    bytes: int = 0


class AuditPage(NamedTuple):
    """Numbers of acts with their records, in the order of the log; None: nothing is left."""

    items: tuple[tuple[int, AuditRecord], ...]
    marker: int | None


decode_record = msgspec.msgpack.Decoder(AuditRecord).decode
decode_mark = msgspec.msgpack.Decoder(AuditMarkRecord).decode


def mark(reader: Reader, owner: str) -> AuditMarkRecord:
    """How much of an owner is kept."""
    data = reader.get(keys.audit_mark(owner))
    return AuditMarkRecord() if data is None else decode_mark(data)


def first(reader: Reader) -> int:
    """No act of a lower number is there."""
    return keys.number(reader.get(keys.AUDIT_FIRST) or b"")


def page(reader: Reader, *, limit: int, after: int = 0) -> AuditPage:
    """Acts later than the one of this number, the oldest first."""
    low = keys.audit(min(max(after + 1, first(reader)), keys.U64_MAX))
    rows = list(islice(reader.scan(low, keys.AUDIT_END), limit + 1))
    items = tuple([(keys.number(key[2:]), decode_record(value)) for key, value in rows[:limit]])
    return AuditPage(items, items[-1][0] if len(rows) > limit else None)
