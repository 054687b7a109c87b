"""What a journal says is on disk, held against the disk."""

from __future__ import annotations

from raftq.journal import Journal, layout
from simulation.node import Node


class Durability:
    """What the journals have claimed."""

    def __init__(self) -> None:
        self._durable: dict[str, tuple[int, int, int]] = {}  # By node: life, index, position.
        self._read: dict[str, tuple[int, int]] = {}  # Seals looked at: life, position.

    def watched(self, node: Node) -> str | None:
        """A node has done something: what is wrong with what its journal says now."""
        journal = node.running.journal
        claim = (node.life, journal.durable_index, journal._durable)
        if claim != self._durable.get(node.name):
            self._durable[node.name] = claim
            if wrong := self._claims(node, journal):
                return wrong
        return self._awaits(journal) or self._seals(node, journal)

    def _claims(self, node: Node, journal: Journal) -> str | None:
        index, durable = journal.durable_index, journal._durable
        if index > journal.last_index:
            return f"says that entry {index} is on disk, and its log ends at {journal.last_index}"
        # An entry is durable by a sync that was begun after it was written.
        if index > journal.base_index and journal._entries.position_at(index) >= durable:
            return f"says that entry {index} is on disk, which was written after the last sync"
        return None if _is_durable(node, journal, durable) else f"says {durable:#x} is on disk"

    def _awaits(self, journal: Journal) -> str | None:
        """A sync under way was begun after what it is to make durable was written."""
        work, index = journal._in_flight, journal._in_flight_index
        if work is None or index <= journal.base_index:
            return None
        if index <= journal.last_index and journal._entries.position_at(index) < work.position:
            return None
        return f"takes entry {index} to be durable by a sync that was begun before it"

    def _seals(self, node: Node, journal: Journal) -> str | None:
        """Each seal, when it is written, tells the truth."""
        active = journal._active
        end = layout.position(active.sequence, active.end)
        life, read = self._read.get(node.name, (0, 0))
        if (life, read) == (node.life, end):
            return None
        self._read[node.name] = (node.life, end)
        if life != node.life:
            return None  # What a start finds was written in another life.
        for place in journal._segments:
            first = layout.position(place.sequence, 0)
            if first | place.end <= read:
                continue
            start = max(read - first, 0)
            new = bytes(start) + node.disk.bytes_of(place.path)[start : place.end]
            for durable in layout.seals(new, place.sequence):
                if not _is_durable(node, journal, durable):
                    return f"seals what is not on disk, up to {durable:#x}"
        return None


def _is_durable(node: Node, journal: Journal, position: int) -> bool:
    """Whether the log is on disk up to a position, as far as the position's own segment goes."""
    sequence, end = layout.split(position)
    path = next((place.path for place in journal._segments if place.sequence == sequence), None)
    return path is None or node.disk.keeps(path, end)
