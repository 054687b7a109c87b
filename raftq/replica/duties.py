"""What a leader proposes because time has passed: sweeps, and ticks of schedules."""

from __future__ import annotations

from collections.abc import Callable

from raftq.replica.meter import Log
from raftq.replica.schedules import Schedules
from raftq.replica.sequencer import Sequencer
from raftq.replica.stamps import Stamps
from raftq.replica.sweeps import Sweeps
from raftq.replica.watch import Leading
from raftq.runtime import Runtime
from statemachine.commands import Command, Sweep, Tick
from statemachine.machine import Machine


class Duties:
    """All watches over log time."""

    def __init__(
        self,
        leading: Leading,
        machine: Callable[[], Machine],
        sequencer: Sequencer,
        stamps: Stamps,
        runtime: Runtime,
        log: Log,
    ) -> None:
        self._sweeps = Sweeps(leading, lambda: machine().next_due_ms(), sequencer, stamps, runtime)
        self._schedules = Schedules(leading, machine, sequencer, stamps, runtime, log)

    def arm(self) -> None:
        """Something may have become due, or this node may have become leader."""
        self._sweeps.arm()
        self._schedules.arm()

    def applied(self, command: Command) -> None:
        """A command that a leader proposed by itself was applied."""
        if isinstance(command, Sweep):
            self._sweeps.done()
        elif isinstance(command, Tick):
            self._schedules.done()

    def leads_no_more(self) -> None:
        """Nothing is to come of what was proposed."""
        self._sweeps.done()
        self._schedules.done()
