"""What a replica reports about itself while it works: ``raftq.metrics`` and ``raftq.logs``."""

from __future__ import annotations

from typing import Protocol

from raftq.consensus.guard import Intervention


class Log(Protocol):
    """A structured log: an event and its fields."""

    def debug(self, event: str, **fields: object) -> object:
        """For whoever looks closely."""
        ...

    def info(self, event: str, **fields: object) -> object:
        """Seldom, and of interest to an operator."""
        ...

    def warning(self, event: str, **fields: object) -> object:
        """An operator may have to act."""
        ...


class Meter(Protocol):
    """Counters and timings on the replica's paths; each call must be cheap."""

    def applied(self, entries: int, commands: int, seconds: float) -> None:
        """One apply round."""
        ...

    def appended(self, commands: int, size_bytes: int) -> None:
        """A leader appended one entry."""
        ...

    def committed(self, seconds: float) -> None:
        """One of this node's batches came back, applied, so long after it was made."""
        ...

    def synced(self, seconds: float) -> None:
        """One fsync of the journal."""
        ...

    def intervened(self, what: Intervention) -> None:
        """The guard corrected something."""
        ...

    def leader_changed(self) -> None:
        """This node learnt of another leader."""
        ...
