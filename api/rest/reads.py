"""How fresh a read must be: the replica asked answers, after waiting as long as it takes.

``local`` answers at once; ``session`` waits for the index the client has seen last;
``linearizable`` sends a barrier through the log and so sees all that was acknowledged.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from api.problems import Problem
from api.rest.requests import Call

Consistency = Literal["local", "session", "linearizable"]
LEVELS = get_args(Consistency)
CONSISTENCY_HEADER = b"raftq-consistency"
MIN_INDEX_HEADER = b"raftq-min-index"
INDEX_DIGITS_MAX = 19


class ReadQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every read may say."""

    consistency: Consistency | None = None


async def settle(call: Call, query: ReadQuery) -> None:
    """Return when this replica may answer. What is said is checked even where it does not count."""
    given, index = _level(call.header(CONSISTENCY_HEADER)), call.header(MIN_INDEX_HEADER)
    reached = 0 if index is None else _index(index)
    level = query.consistency or given
    if level is None:
        # An index without a word about consistency can only mean a session.
        level = "local" if index is None else "session"
    if level == "linearizable":
        await call.barrier()
    elif level == "session":
        await call.service.reach(reached)


def _level(text: str | None) -> str | None:
    if text is not None and text not in LEVELS:
        raise Problem(
            "invalid_header",
            f"Raftq-Consistency must be local, session or linearizable, not {text[:32]!r}",
            field="Raftq-Consistency",
        )
    return text


def _index(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= INDEX_DIGITS_MAX):
        raise Problem(
            "invalid_header", "Raftq-Min-Index must be a log index", field="Raftq-Min-Index"
        )
    return int(text)
