"""What a call can end with instead of an answer.

The question after an error is always whether it happened. ``Refused`` and
``Unavailable`` say no, ``OutcomeUnknown`` says that nobody can tell.
"""

from __future__ import annotations

from typing import Any

import msgspec


class RaftqError(Exception):
    """Everything that this library raises on purpose.

    ``done``: what the same call had done before, as it would have been returned; or None.
    """

    done: Any = None


class Closed(RaftqError):
    """The client, or this producer, has been closed."""


class Refused(RaftqError):
    """A replica understood the request and will not do it; nothing was done.

    ``reason`` is the stable word of the API's table of errors, ``type`` its URN.
    """

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(str(problem) or f"HTTP {status}")
        self.status = status
        self.type = problem.type
        self.reason = problem.reason
        self.detail = problem.detail
        self.field = problem.field
        self.stale_parts = problem.stale
        self.after_unknown = False  # An earlier try of the same call may have taken effect.


class LeaseLost(Refused):
    """The claim no longer holds the messages: others may have them, or they are gone.

    ``why`` says of each message what became of it, where the server could tell:
    ``held_by_another_claim``, ``waiting`` (it is back in the queue) or ``gone``.
    """

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(status, problem)
        self.why = dict(problem.why)
        for part in problem.stale:
            self.why |= part.why


class Unauthorized(Refused):
    """No key was given, or one that is not good for this account."""


class Forbidden(Refused):
    """The key is good, but not for this: it has not the role, or not the queue."""


class QuotaExceeded(Refused):
    """The account has as much of something as it may have: how much, and of what."""

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(status, problem)
        self.quota = problem.quota
        self.limit = problem.limit
        self.usage = problem.usage


class Unavailable(RaftqError):
    """No replica could serve the call before its deadline; nothing was done.

    ``unreached``: not one of them could be connected to.
    """

    def __init__(self, text: str, *, unreached: bool = False) -> None:
        super().__init__(text)
        self.unreached = unreached


class OutcomeUnknown(RaftqError):
    """The call may have taken effect, or may yet, and its deadline has passed."""


class BodyLost(RaftqError):
    """The message is there and its body is lost: its key was destroyed, or it is damaged."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(f"the body of message {message} is lost ({reason})")
        self.reason = reason


class StalePart(msgspec.Struct, frozen=True):
    """A part of a transaction that could not be done."""

    part: str
    index: int
    claim_ended: bool = False
    why: dict[str, str] = {}


class Problem(msgspec.Struct, frozen=True):
    """What is read of an ``application/problem+json``."""

    type: str = "about:blank"
    title: str = ""
    status: int = 0
    reason: str = ""
    detail: str = ""
    field: str | None = None
    why: dict[str, str] = {}
    stale: tuple[StalePart, ...] = ()
    quota: str = ""
    limit: float | int = 0
    usage: int = 0

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.title}{detail} ({self.reason})" if self.title else ""


def problem(body: bytes) -> Problem:
    """The document, or an empty one if this is none."""
    try:
        return msgspec.json.decode(body, type=Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Problem()
