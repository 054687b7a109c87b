"""The access log: a line for each request that is to have one, and a bound on how many.

A stranger decides how often he is refused. So that he can not fill a disk, nor keep a node busy
with writing, lines beyond the bound are counted, and the next line says how many there were.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from api.ports import AccessLine
from raftq import logs


class AccessLog:
    """At most ``lines_max`` lines in a second."""

    def __init__(self, lines_max: int, monotonic: Callable[[], float]) -> None:
        self._lines_max = lines_max
        self._monotonic = monotonic
        self._log = logs.logger("access")
        self._second = 0
        self._lines = 0
        self._left_out = 0

    def write(self, line: AccessLine) -> None:
        """Write the line, unless there were too many of late."""
        second = int(self._monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= self._lines_max:
            self._left_out += 1
            return
        self._lines += 1
        if self._left_out:
            self._log.warning("lines were left out", count=self._left_out)
            self._left_out = 0
        self._log.info("request", **msgspec.structs.asdict(line))
