"""The engine's own messages: dictionaries with the keys that its message handler reads."""

from __future__ import annotations

from typing import Any

from raftq.consensus.guard import AppendPlan
from raftq.consensus.messages import VoteReply, VoteRequest
from raftq.journal import LogEntry

EngineMessage = dict[str, Any]


def append(term: int, commit_index: int, plan: AppendPlan) -> EngineMessage:
    """Entries that follow the log, as the guard planned."""
    entries = [
        LogEntry(payload, index, entry_term)
        for index, (entry_term, payload) in enumerate(plan.entries, plan.prev_index + 1)
    ]
    return {
        "type": "append_entries",
        "term": term,
        "commit_index": commit_index,
        "entries": entries,
        "prevLogIdx": plan.prev_index,
        "prevLogTerm": plan.prev_term,
    }


def sign_of_life(term: int, commit_index: int) -> EngineMessage:
    """A leader speaks, and the log stays as it is."""
    return {
        "type": "append_entries",
        "term": term,
        "commit_index": commit_index,
        "serialized": None,
    }


def append_reply(next_index: int, *, success: bool) -> EngineMessage:
    """What a member wants next."""
    return {
        "type": "next_node_idx",
        "next_node_idx": next_index,
        "reset": not success,
        "success": success,
    }


def vote_request(message: VoteRequest) -> EngineMessage:
    """A candidate asks."""
    return {
        "type": "request_vote",
        "term": message.term,
        "last_log_index": message.last_index,
        "last_log_term": message.last_term,
    }


def vote(message: VoteReply) -> EngineMessage:
    """A vote was granted."""
    return {"type": "response_vote", "term": message.term}


def timeout_now(term: int) -> EngineMessage:
    """The leader asks this member to stand."""
    return {"type": "timeout_now", "term": term}
