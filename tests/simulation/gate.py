"""What a node lets reach its core, and what it takes for its leader's log.

The core counts whatever it is handed. So each thing that it is handed is held against the
message that the node was handling, and against all that came in the same term; and what a
follower commits or vouches for, against what its leader's messages have shown to be equal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from raftq.consensus.core import CANDIDATE, LEADER
from raftq.consensus.messages import Append, AppendReply, RaftMessage, VoteReply
from raftq.journal import Journal
from simulation.node import Node

Tenure = tuple[str, int, int]  # A node, its life, a term.


class Gate:
    """The guards of all nodes, watched from both sides."""

    def __init__(self, refuse: Callable[[Node, str | None], None]) -> None:
        self._refuse = refuse
        self._handled: dict[str, RaftMessage] = {}  # By node: what has come and is being handled.
        self._votes: dict[Tenure, set[str]] = defaultdict(set)
        self._verified: dict[Tenure, int] = {}  # Up to where the log is the leader's.
        self._looked_at: dict[str, tuple[object, ...]] = {}  # By node: what it vouched for.

    def begun(self, node: Node) -> None:
        """A life has begun: listen to what its core is handed."""
        core: Any = node.running.consensus.core
        honest = core.deliver

        def deliver(member: str, message: dict[str, Any]) -> None:
            self._refuse(node, self._wrong_for_the_core(node, member, message))
            honest(member, message)

        core.deliver = deliver

    def heard(self, node: Node, message: RaftMessage) -> None:
        """A message has come to a node, which is about to handle it."""
        self._handled[node.name] = message

    def handles(self, node: Node) -> bool:
        """Whether the node was handling a message."""
        return node.name in self._handled

    def dying(self, node: Node) -> None:
        """A life ends, perhaps in the middle of a message."""
        self._handled.pop(node.name, None)

    def watched(self, node: Node, committed: int) -> str | None:
        """A node has done something: what is wrong with it. ``committed``: as it was before."""
        message = self._handled.pop(node.name, None)
        consensus = node.running.consensus
        core = consensus.core
        if core.state == LEADER:
            return None
        # Without a message nothing more is compared: only these can make it wrong.
        stands = (node.life, core.term, consensus._following, consensus._vouched)
        if message is None and stands == self._looked_at.get(node.name):
            return None
        self._looked_at[node.name] = stands
        tenure = (node.name, node.life, core.term)
        verified = self._verified.get(tenure, 0)
        if isinstance(message, Append) and message.term == core.term:
            if _holds(node.running.journal, message):
                verified = max(verified, message.prev_index + len(message.entries))
                self._verified[tenure] = verified
            if core.commit_index > max(committed, verified):
                return f"commits {core.commit_index}, compared with its leader to {verified}"
        vouched = consensus._vouched
        if vouched > verified and consensus._following[0] == core.term:
            # What is committed is in the log of every later leader.
            verified = max(verified, core.commit_index)
            if vouched > verified:
                return f"vouches for {vouched}, compared with its leader to {verified}"
        return None

    def _wrong_for_the_core(self, node: Node, member: str, message: dict[str, Any]) -> str | None:
        handled, consensus = self._handled.get(node.name), node.running.consensus
        term, kind = consensus.term, message["type"]
        if kind not in ("response_vote", "next_node_idx"):
            return None
        if member not in consensus.members:
            return f"hears {member}, who is no member"
        if isinstance(handled, AppendReply | VoteReply) and handled.term != term:
            return f"counts in term {term} what {member} said in term {handled.term}"
        if kind == "response_vote" and consensus.core.state == CANDIDATE:
            votes = self._votes[node.name, node.life, term]
            if member in votes:
                return f"counts the vote of {member} in term {term} again"
            votes.add(member)
        return None


def _holds(journal: Journal, message: Append) -> bool:
    """Whether a log is the leader's as far as its message goes: equal terms are equal entries."""
    before = (message.prev_term, *(term for term, _ in message.entries))
    return all(
        index <= journal.base_index or journal.term_at(index) == term
        for index, term in enumerate(before, message.prev_index)
    )
