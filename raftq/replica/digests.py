"""Replicas compare their states through the log; one that differs halts.

The leader now and then commits ``TakeDigest``; every replica digests its state as of
that entry, a slice at a time between other work; the leader then commits what it got
(``ReportDigest``), and whoever got something else stops before it can answer wrongly.
"""

from __future__ import annotations

from collections.abc import Callable

from raftq.runtime import Runtime
from raftq.stores.store import Frozen, Store
from statemachine.digest import Digest

SLICE_ROWS = 500
SLICE_PAUSE_S = 0.002
REMEMBERED_MAX = 8


class StateDiverged(Exception):
    """This replica's state is not the leader's: it must stop."""


class Digests:
    """Digests under way and done, by log index."""

    def __init__(self, runtime: Runtime, report: Callable[[int, bytes], None]) -> None:
        self._runtime = runtime
        self._report = report  # Called with each digest that is done.
        self._done: dict[int, bytes] = {}
        self._reported: dict[int, bytes] = {}
        self._running: tuple[int, Frozen, Digest] | None = None

    def take(self, index: int, store: Store) -> None:
        """Digest the committed state, which stands at ``index``; a running digest is given up."""
        self.cancel()
        frozen = store.frozen()
        self._running = (index, frozen, Digest(frozen))
        self._runtime.call_soon(self._step)

    def cancel(self) -> None:
        """The store is going away, or another digest is wanted."""
        if self._running is not None:
            self._running[1].close()
            self._running = None

    def reported(self, index: int, digest: bytes) -> None:
        """The leader's digest at ``index``; raises StateDiverged."""
        self._reported = _remember(self._reported, index, digest)
        self._compare(index)

    def _step(self) -> None:
        if self._running is None:
            return
        index, frozen, digest = self._running
        if not digest.step(SLICE_ROWS):
            self._runtime.call_later(SLICE_PAUSE_S, self._step)
            return
        self._running = None
        frozen.close()
        self._done = _remember(self._done, index, digest.result())
        self._compare(index)
        self._report(index, digest.result())

    def _compare(self, index: int) -> None:
        mine, reported = self._done.get(index), self._reported.get(index)
        if mine is not None and reported is not None and mine != reported:
            raise StateDiverged(
                f"state at index {index}: digest {mine.hex()} here, {reported.hex()} at the leader"
            )


def _remember(digests: dict[int, bytes], index: int, digest: bytes) -> dict[int, bytes]:
    newest = sorted({**digests, index: digest}.items())[-REMEMBERED_MAX:]
    return dict(newest)
