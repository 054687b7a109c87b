"""The members of the cluster: one small file, and what the log has said since.

The file holds the membership as of a log index that is on this node's disk; it is
written when a change is applied, before the journal is cut, and before a snapshot is
installed. It may run ahead of the store after a crash, never behind the journal's base.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from raftq.consensus.messages import membership_change
from raftq.disk import Disk
from raftq.journal import Journal, LogEntry, record_file
from statemachine.decoding import decoded

READ_BYTES = 4 << 20


class Membership(msgspec.Struct, frozen=True, array_like=True):
    """The members as of a log index; later changes are in the log itself."""

    cluster_id: str
    index: int
    members: tuple[str, ...]


_memberships = msgspec.msgpack.Decoder(Membership)


def cluster_id(members: Iterable[str]) -> str:
    """The name of the cluster that these members founded."""
    return hashlib.sha256("\n".join(sorted(members)).encode()).hexdigest()[:16]


def decode_membership(data: bytes) -> Membership:
    """Inverse of encoding one; raises ``msgspec.MsgspecError``."""
    return decoded(_memberships, data)


class MembershipFile:
    """The membership on disk."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path
        data = record_file.recover(disk, path)
        self.current = None if data is None else decode_membership(data)

    def store(self, membership: Membership) -> None:
        """Durable when it returns."""
        if membership != self.current:
            record_file.store(self._disk, self._path, msgspec.msgpack.encode(membership))
            self.current = membership

    @property
    def cluster_id(self) -> str:
        """The cluster's name; empty while this node belongs to none."""
        return "" if self.current is None else self.current.cluster_id

    def at_end_of(self, journal: Journal) -> list[str]:
        """The membership on disk and what the log says since."""
        if self.current is None:
            return []
        members = list(self.current.members)
        first = max(self.current.index, journal.base_index) + 1
        while first <= journal.last_index:
            for entry in journal.slice(first, journal.last_index, READ_BYTES):
                members = _changed(members, entry)
                first = entry.index + 1
        return members

    def applied(self, entry: LogEntry) -> None:
        """A change of membership was committed and applied."""
        current = self.current
        if current is not None and entry.index > current.index:
            members = tuple(sorted(_changed(list(current.members), entry)))
            self.store(Membership(current.cluster_id, entry.index, members))

    def advance(self, index: int) -> None:
        """The membership is the same at ``index``: the log before it may go."""
        current = self.current
        if current is not None and index > current.index:
            self.store(Membership(current.cluster_id, index, current.members))


def _changed(members: list[str], entry: LogEntry) -> list[str]:
    change = membership_change(entry.payload)
    if change is None:
        return members
    others = [member for member in members if member != change.member]
    return [*others, change.member] if change.add else others
