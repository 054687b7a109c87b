"""Broken builds on purpose: ``python sabotage.py NAME -- serve --config FILE``.

The product has no switches for this. Each sabotage replaces a piece of it in this process
alone, before the command line takes over, and breaks one promise that the tests of whole
clusters claim to watch. A checker that passes such a cluster is worth nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable

from raftq.cli import main
from raftq.disk import OsFile
from raftq.service import NodeService
from statemachine import claims, keys
from statemachine.commands import Barrier, Enqueue, Entry, Once, QueueCommand, Release
from statemachine.machine import BatchResult, Machine
from statemachine.outcomes import Enqueued, Outcome
from statemachine.state import State
from workload import ACCOUNT, QUEUE

LAZINESS_S = 0.2
"""Long enough that some put is always between its answer and its proposal."""


def acknowledge_before_commit() -> None:
    """A put is answered at once and proposed later; what the node holds when it dies is lost."""
    honest = NodeService.propose
    made_up = itertools.count(1)
    under_way: set[asyncio.Task[Outcome]] = set()

    async def later(self: NodeService, command: QueueCommand | Once | Barrier) -> Outcome:
        await asyncio.sleep(LAZINESS_S)
        return await honest(self, command)

    async def propose(
        self: NodeService, command: QueueCommand | Once | Barrier, *, account: str | None = None
    ) -> Outcome:
        inner = command.command if isinstance(command, Once) else command
        if not isinstance(inner, Enqueue):
            return await honest(self, command, account=account)
        task = asyncio.create_task(later(self, command))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        return Enqueued(tuple(next(made_up).to_bytes(10, "big") for _ in inner.messages))

    setattr(NodeService, "propose", propose)  # noqa: B010  # mypy refuses the plain assignment


def sync_nothing() -> None:
    """Nothing is asked of the disk: what was written is on it whenever the system likes."""
    OsFile.sync = lambda _self: None  # type: ignore[method-assign]
    OsFile.begin_sync = lambda _self, _ended: False  # type: ignore[method-assign]


def forget_leases() -> None:
    """Every claim of the workload's queue ends with a new leader, on all replicas alike."""
    honest = Machine.apply

    def apply(self: Machine, index: int, term: int, entry: Entry | None) -> list[BatchResult]:
        new_leader = self.applied_term not in (0, term)
        results = honest(self, index, term, entry)
        if new_leader:
            _release_all(self._state)
        return results

    setattr(Machine, "apply", apply)  # noqa: B010  # As above.


def _release_all(state: State) -> None:
    queue = state.find_queue(ACCOUNT, QUEUE)
    if queue is None:
        return
    number = queue.record.number
    rows = list(state.kv.scan(keys.claim(number, 0), keys.claim(number + 1, 0)))
    for key, _ in rows:
        claims.release(state, Release(ACCOUNT, QUEUE, keys.number(key[-8:])))


SABOTAGES: dict[str, Callable[[], None]] = {
    "acknowledge_before_commit": acknowledge_before_commit,
    "forget_leases": forget_leases,
    "sync_nothing": sync_nothing,
}

if __name__ == "__main__":
    name, dashes, *arguments = sys.argv[1:]
    assert dashes == "--", __doc__
    SABOTAGES[name]()
    raise SystemExit(main(arguments))
