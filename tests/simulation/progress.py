"""What a leader believes of its members, held against what they have.

The match index is what commits rest on: it never falls within a term, is always below what is
sent next, and stands for an entry on the member's own disk (Raft, figure 2; the invariants
that SandTable, EuroSys 2024, found broken in the engine).
"""

from __future__ import annotations

from raftq.consensus.core import Core
from raftq.replica.identity import node_of
from simulation.elections import Elections
from simulation.node import Node
from simulation.world import World


class Progress:
    """The leaders' books."""

    def __init__(self, world: World, elections: Elections) -> None:
        self._world = world
        self._elections = elections
        self._match: dict[str, tuple[int, dict[str, int]]] = {}  # Leader to term, by member.
        self._books: dict[str, tuple[object, ...]] = {}  # By node: as they were looked at last.

    def watched(self, node: Node, core: Core) -> str | None:
        """A leader has done something: what is wrong with what it believes."""
        match, following = core._SyncObj__raftMatchIndex, core._SyncObj__raftNextIndex
        books = (node.life, core.term, core.others, match, following)
        if books == self._books.get(node.name):
            return None
        self._books[node.name] = (*books[:3], {**match}, {**following})
        return self._compared(node, core)

    def _compared(self, node: Node, core: Core) -> str | None:
        term, before = self._match.get(node.running.self_id, (0, {}))
        if term != core.term:
            before = {}
            self._match[node.running.self_id] = (core.term, before)
        for member in core.others:
            match, known = core.match_index(member), before.get(member, 0)
            # Who has refused may be sent again what he had vouched for.
            key = (node.name, node.life, core.term, member)
            refused = key in self._elections.refused
            if 0 < match >= core.next_index(member) and not refused:
                return f"sends {core.next_index(member)} next to {member}, who holds {match}"
            if match == known:
                continue
            before[member] = match
            if match < known:
                return f"the match index of {member} fell from {known} to {match}"
            if wrong := self._holds(node, member, match):
                return wrong
        return None

    def _holds(self, leader: Node, member: str, index: int) -> str | None:
        mine = leader.running.journal
        if index > mine.durable_index:
            return f"counts {member} for entry {index}, beyond its own disk"
        term = leader.running.consensus.term
        said = self._elections.held.get((leader.name, leader.life, term, member), 0)
        if index > said:
            return f"counts {member} for entry {index}, who spoke of {said} in this term"
        node = self._world.nodes[node_of(member)]
        if not node.is_up or node.running.self_id != member:
            return None  # What it said was true; its disk may be gone since.
        replica = node.running
        if replica.consensus.term != leader.running.consensus.term:
            return None
        if replica.journal.base_index >= index or mine.base_index >= index:
            return None
        if replica.journal.durable_index < index:
            return f"counts {member} for entry {index}, which is not on its disk"
        if replica.journal.term_at(index) != mine.term_at(index):
            return f"counts {member} for entry {index}, which is another one there"
        return None
