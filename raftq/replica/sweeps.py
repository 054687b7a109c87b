"""Leases, delays and lifetimes end by a command in the log, which the leader proposes."""

from __future__ import annotations

from collections.abc import Callable

from raftq.replica.sequencer import Sequencer
from raftq.replica.stamps import Stamps
from raftq.replica.watch import Leading, Watch
from raftq.runtime import Runtime
from statemachine.commands import Sweep

SWEEP_LIMIT = 1_000


class Sweeps(Watch):
    """Proposes one bounded sweep at a time, when something is due."""

    def __init__(
        self,
        leading: Leading,
        next_due_ms: Callable[[], int | None],
        sequencer: Sequencer,
        stamps: Stamps,
        runtime: Runtime,
    ) -> None:
        def propose(now_ms: int) -> bool:
            return sequencer.propose_own(Sweep(SWEEP_LIMIT))

        super().__init__(leading, next_due_ms, propose, stamps, runtime)
