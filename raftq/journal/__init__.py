"""The Raft log and the node's vote on disk.

Start reading at ``journal.Journal``; DESIGN.md has the format and the reasoning about
crashes and corruption; ``layout`` is the bytes, ``survey`` the judgement at start.
Nothing here knows a clock, a thread or an event loop, and all IO goes through
``raftq.disk``.
"""

from __future__ import annotations

from raftq.journal.faults import Corruption, JournalFailure
from raftq.journal.journal import Journal, LogEntry, SegmentInfo
from raftq.journal.recovery import Cut
from raftq.journal.sync import SyncWork
from raftq.journal.terms import TermFile

__all__ = [
    "Corruption",
    "Cut",
    "Journal",
    "JournalFailure",
    "LogEntry",
    "SegmentInfo",
    "SyncWork",
    "TermFile",
]
