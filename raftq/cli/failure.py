"""How a command fails: one line for the person, one exit code for the script."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """Exit codes; documented in README.md and in ``raftq --help``."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    UNKNOWN = 4
    EMPTY = 5


class Failure(Exception):
    """Ends the command with ``message`` on standard error."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code
