"""What makes a leader: nobody stands unasked, nor leads without a majority's votes on disk."""

from __future__ import annotations

from collections import defaultdict

from raftq.consensus.messages import (
    Append,
    AppendReply,
    PreVoteReply,
    RaftMessage,
    TimeoutNow,
    VoteReply,
)
from raftq.journal import TermFile
from raftq.journal.faults import Corruption
from raftq.replica.identity import node_of
from simulation.disk import FaultyDisk
from simulation.node import DATA, Node
from simulation.world import World

TERM = f"{DATA}/term"


class Elections:
    """What every member has been told, and has voted."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._votes: dict[tuple[str, int], str] = {}
        self._voted_on: dict[str, FaultyDisk] = {}  # By member: it may lose its disk, and be gone.
        self._cleared: dict[tuple[str, int, int], set[str]] = defaultdict(set)
        self._granted: dict[tuple[str, int, int], set[str]] = defaultdict(set)
        self.held: dict[tuple[str, int, int, str], int] = {}  # What members vouched for.
        self.refused: set[tuple[str, int, int, str]] = set()  # Who wanted something else.
        self._asked: set[tuple[str, int]] = set()  # Members that a leader has asked to stand.

    def heard(self, node: Node, member: str, message: RaftMessage) -> None:
        """A message has come to a node."""
        now = node.running.consensus.term
        match message:
            case AppendReply(term=term, next_index=index, success=True) if term == now:
                key = (node.name, node.life, term, member)
                self.held[key] = max(index - 1, self.held.get(key, 0))
            case AppendReply(term=term, success=False) if term == now:
                self.refused.add((node.name, node.life, term, member))
            case VoteReply(term=term, granted=True) if term == now:
                self._granted[node.name, node.life, term].add(member)
            case Append(term=term) if term == now:
                self._cleared.pop((node.name, node.life, term + 1), None)
            case PreVoteReply(asked_term=term, granted=True):
                self._cleared[node.name, node.life, term].add(member)
            case TimeoutNow(term=term):
                self._asked.add((node.running.self_id, term + 1))
            case _:
                pass

    def voted(self, node: Node, term: int, vote: str) -> str | None:
        """A vote: what is wrong with it."""
        self._voted_on[node.running.self_id] = node.disk
        known = self._votes.setdefault((node.running.self_id, term), vote)
        return None if known == vote else f"two votes in term {term}: {known} and {vote}"

    def stands(self, node: Node) -> str | None:
        """A node has become a candidate: what is wrong with that."""
        replica = node.running
        others = sorted(replica.consensus.core.others)
        term = replica.consensus.term
        if not others or (replica.self_id, term) in self._asked:
            return None
        cleared = self._cleared[node.name, node.life, term].intersection(others)
        if 2 * (len(cleared) + 1) > len(others) + 1:
            return None
        return f"stands in term {term}, asked for by {sorted(cleared)} of {others}"

    def leads(self, node: Node) -> str | None:
        """A node has become a leader: what is wrong with that."""
        replica = node.running
        term, members = replica.consensus.term, sorted(replica.consensus.members)
        voters = [m for m in members if self._votes.get((m, term)) == replica.self_id]
        if 2 * len(voters) <= len(members):
            return f"leads term {term} with the votes of {voters} of {members}"
        heard = len(self._granted[node.name, node.life, term].intersection(members))
        if replica.consensus.core._SyncObj__votesCount - 1 > heard:
            return f"counts more votes than the {heard} it was given in term {term}"
        lost = [m for m in voters if not self._is_on_disk(m, term, replica.self_id)]
        return f"leads with votes that are not on disk: {lost}" if lost else None

    def _is_on_disk(self, member: str, term: int, vote: str) -> bool:
        disk = self._voted_on[member]
        if disk is not self._world.nodes[node_of(member)].disk:
            return True  # It is gone.
        try:
            found = TermFile(disk.at_worst(TERM), TERM)
        except Corruption:
            return True
        return found.term > term or (found.term, found.voted_for) == (term, vote)
