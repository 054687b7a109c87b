"""A node whose wall clock a test can step while it runs.

``python stepped_clock.py FILE PROGRAM ARGUMENT...`` runs the Python program with a wall
clock that is ahead by as many milliseconds as FILE says. The product has no switch for
this: its runtime adds an offset, nothing in it sets one, and here that offset is replaced
in this process alone, before the program takes over.
"""

from __future__ import annotations

import functools
import os
import runpy
import sys
import time
from pathlib import Path

LOOK_S = 0.05


class FileOffset:
    """What ``raftq.clock.ClockOffset`` is to a node, read from a file that may change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked_s = 0.0
        self._changed_ns = 0
        self._ms = 0

    @property
    def ms(self) -> int:
        """Cheap, since it is asked for with every stamp."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            self._look()
        return self._ms

    def _look(self) -> None:
        changed_ns = self._path.stat().st_mtime_ns
        if changed_ns != self._changed_ns:
            self._changed_ns = changed_ns
            self._ms = int(self._path.read_text())


def step(path: Path, ms: int) -> None:
    """Set the offset of whoever reads it there; never seen half-written."""
    draft = path.with_suffix(".new")
    draft.write_text(str(ms))
    os.replace(draft, path)


def _run(arguments: list[str]) -> None:
    module = arguments[0] == "-m"
    program, *sys.argv[1:] = arguments[module:]
    sys.argv[0] = program
    if module:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    from raftq import clock

    offset = functools.partial(FileOffset, Path(sys.argv[1]))
    setattr(clock, "ClockOffset", offset)  # noqa: B010  # mypy refuses the plain assignment
    _run(sys.argv[2:])
