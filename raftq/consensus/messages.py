"""What members say to each other about the log. Tags are permanent; fields only grow at the end.

``Entry.payload`` starts with one byte of kind: see ``Kind``.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from statemachine.decoding import decoded


class Kind(enum.IntEnum):
    """The first byte of every log payload; the values are pysyncobj's."""

    REGULAR = 0  # An encoded ``statemachine.commands.Entry`` follows.
    NO_OP = 1  # A new leader's first entry.
    MEMBERSHIP = 2  # An encoded ``MembershipChange`` follows.


Payload = Annotated[bytes, msgspec.Meta(min_length=1)]
"""A peer that sends one without a kind is one that sends rubbish."""


class MembershipChange(msgspec.Struct, frozen=True, array_like=True):
    """One member in or out. ``member`` is ``name/identity``."""

    add: bool
    member: str


class Append(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """AppendEntries (Raft, figure 2): ``entries`` (term, payload) follow ``prev_index``.

    A heartbeat is one with ``is_heartbeat``: it is answered even if there is nothing new to say.
    """

    term: int
    prev_index: int
    prev_term: int
    commit_index: int
    entries: tuple[tuple[int, Payload], ...] = ()
    is_heartbeat: bool = False


class Beat(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A leader's sign of life to a member it cannot append to (it needs a snapshot)."""

    term: int


class AppendReply(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """``next_index`` is what the member wants next.

    With ``success`` it vouches: everything below is on its disk and equals the leader's log.
    """

    term: int
    next_index: int
    success: bool


class VoteRequest(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """RequestVote. ``transfer``: the leader itself asked for this election."""

    term: int
    last_index: int
    last_term: int
    transfer: bool = False


class VoteReply(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The answer in the voter's ``term``."""

    term: int
    granted: bool


class PreVoteRequest(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Would you vote for me in ``term``? (Ongaro's dissertation, section 9.6)."""

    term: int
    last_index: int
    last_term: int


class PreVoteReply(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """``asked_term`` repeats the question's; ``term`` is the voter's own."""

    asked_term: int
    term: int
    granted: bool


class TimeoutNow(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """The leader asks a caught-up member to stand at once."""

    term: int


RaftMessage = (
    Append
    | Beat
    | AppendReply
    | VoteRequest
    | VoteReply
    | PreVoteRequest
    | PreVoteReply
    | TimeoutNow
)

_changes = msgspec.msgpack.Decoder(MembershipChange)


def membership_payload(change: MembershipChange) -> bytes:
    """The log payload of a membership change, without its kind byte."""
    return msgspec.msgpack.encode(change)


def membership_change(payload: bytes) -> MembershipChange | None:
    """The change that a whole log payload carries, or None if it is of another kind.

    Raises ``msgspec.MsgspecError``.
    """
    if payload[0] != Kind.MEMBERSHIP:
        return None
    return decoded(_changes, memoryview(payload)[1:])
