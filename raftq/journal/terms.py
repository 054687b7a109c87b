"""The node's term and vote: written and synced before anybody hears of them.

A node that forgets its vote can vote twice in a term and elect two leaders, so a
damaged file stops the node; only an absent one means that it never voted.
"""

from __future__ import annotations

import msgspec

from raftq.disk import Disk
from raftq.journal import record_file
from raftq.journal.faults import Corruption


class _Vote(msgspec.Struct, frozen=True, array_like=True):
    """Layout of the payload: new fields only at the end, with a default."""

    term: int
    voted_for: str | None


_decoder = msgspec.msgpack.Decoder(_Vote)


class TermFile:
    """The present term and whom this node voted for in it."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path
        vote = _load(disk, path)
        self.term = vote.term
        self.voted_for = vote.voted_for

    def store(self, term: int, voted_for: str | None) -> None:
        """Durable when this returns; does nothing when it says nothing new.

        An OSError leaves open which of the two is on disk: the node must stop.
        """
        if (term, voted_for) == (self.term, self.voted_for):
            return
        assert term >= self.term, f"term goes back from {self.term} to {term}"
        assert term > self.term or self.voted_for is None, (
            f"a second vote in term {term}: {self.voted_for}, then {voted_for}"
        )
        payload = msgspec.msgpack.encode(_Vote(term, voted_for))
        record_file.store(self._disk, self._path, payload)
        self.term = term
        self.voted_for = voted_for


def _load(disk: Disk, path: str) -> _Vote:
    payload = record_file.recover(disk, path)
    if payload is None:
        return _Vote(0, None)
    try:
        return _decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise Corruption(path, 0, f"not a term and vote: {error}") from error
