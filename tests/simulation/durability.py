"""What a node takes to be on disk, held against the disk: its journal, and the store behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftq.journal import Journal, layout
from simulation.node import Node
from statemachine import queries


class Durability:
    """What the journals have claimed."""

    def __init__(self, refuse: Callable[[Node, str | None], None]) -> None:
        self._refuse = refuse
        self._asked: dict[str, int] = {}  # By node: what its store had when work was asked for.
        self._flushed: dict[str, int] = {}  # By node: what its store is sure to hold on disk.
        self._durable: dict[str, tuple[int, int, int]] = {}  # By node: life, index, position.
        self._read: dict[str, tuple[int, int]] = {}  # Seals looked at: life, position.

    def begun(self, node: Node) -> None:
        """A life has begun: note what its store has when it asks for a flush.

        A flush takes its time; what is committed to it meanwhile may be in it or not.
        """
        replica = node.running
        keeper: Any = replica._keeper
        honest = keeper.run

        def run(work: Callable[[], object], done: Callable[[object], None]) -> None:
            asked = queries.applied(replica._applier.store.reader())[0]

            def noted() -> object:
                self._asked[node.name] = asked
                return work()

            honest(noted, done)

        keeper.run = run

    def opened(self, node: Node) -> None:
        """A node has another store than before: listen to how it is flushed."""
        replica = node.running
        store: Any = replica._applier.store
        honest, failed = store.flush, False
        self._flushed[node.name] = replica.machine.applied_index

        def flush() -> None:
            nonlocal failed
            if failed:  # Nobody knows what is in its files.
                self._refuse(node, "goes on after a failed flush of its store")
            failed = True
            honest()
            failed = False
            # A store that came meanwhile, as a snapshot, is ahead of what was asked for.
            self._flushed[node.name] = max(self._flushed[node.name], self._asked[node.name])

        store.flush = flush

    def watched(self, node: Node, journal: Journal) -> str | None:
        """Store or log have changed: what is wrong with what the journal says now."""
        if journal.base_index > self._flushed[node.name]:
            return f"cuts its journal at {journal.base_index}, beyond the store on its disk"
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
        if not _is_durable(node, journal, durable):
            return f"says that all up to {durable:#x} is on disk, which is not"
        return None

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
            written = node.disk.bytes_of(place.path)[start : place.end]
            if layout._SEAL_MAGIC not in written:
                continue
            for durable in layout.seals(bytes(start) + written, place.sequence):
                if not _is_durable(node, journal, durable):
                    return f"seals what is not on disk, up to {durable:#x}"
        return None


def _is_durable(node: Node, journal: Journal, position: int) -> bool:
    """Whether the log is on disk up to a position, as far as the position's own segment goes."""
    sequence, end = layout.split(position)
    path = next((place.path for place in journal._segments if place.sequence == sequence), None)
    return path is None or node.disk.keeps(path, end)
