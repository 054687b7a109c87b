"""What a member of the group asks of the node around it."""

from __future__ import annotations

from typing import Protocol

from raftq.consensus.guard import Intervention
from raftq.consensus.messages import RaftMessage
from raftq.journal import LogEntry


class Host(Protocol):
    """``raftq.replica`` provides it."""

    def send(self, member: str, message: RaftMessage) -> bool:
        """Send, or drop and answer False."""
        ...

    def apply(self, entries: list[LogEntry]) -> None:
        """Apply committed entries; an exception is fatal."""
        ...

    def needs_snapshot(self, member: str) -> None:
        """The log no longer holds what this member lacks."""
        ...

    def role_changed(self) -> None:
        """Leader or not, another leader, or the same one in another term."""
        ...

    def wake(self) -> None:
        """Call ``tick`` soon."""
        ...

    def intervened(self, what: Intervention) -> None:
        """The guard did something; for the metrics."""
        ...
