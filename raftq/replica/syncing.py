"""Keeping the journal on disk: one fsync in flight, the next segment ready, a seal when quiet."""

from __future__ import annotations

from collections.abc import Callable

from raftq.journal import Journal
from raftq.replica.meter import Meter
from raftq.runtime import Runtime

SEAL_AFTER_S = 0.05
LATELY_S = 10.0


class Syncing:
    """One journal's background work. Any error in it is fatal."""

    def __init__(
        self, journal: Journal, runtime: Runtime, meter: Meter, synced: Callable[[], None]
    ) -> None:
        self._journal, self._runtime, self._meter = journal, runtime, meter
        self._synced = synced  # Called when the durable index has moved.
        self._syncing = False
        self._since = 0.0
        self._ended_at = 0.0
        self._usual_s = 0.0  # What an fsync takes, the last ones counting most.
        self._preparing = False
        self._syncs = 0
        self._seal_is_due = False

    def go_on(self) -> None:
        """Start an fsync if something is unsynced and none is under way."""
        if self._syncing:
            return
        work = self._journal.begin_sync()
        if work is None:
            return
        self._syncing = True
        started = self._since = self._runtime.monotonic()

        def done(_result: None, error: BaseException | None) -> None:
            if error is not None:
                raise error
            self._syncing = False
            self._syncs += 1
            self._ended_at = self._runtime.monotonic()
            took_s = self._ended_at - started
            self._usual_s += (took_s - self._usual_s) / 8
            self._meter.synced(took_s)
            self._journal.end_sync(work)
            self._synced()
            self.go_on()
            self._prepare()

        if not work.begin(lambda error: self._runtime.call_soon(lambda: done(None, error))):
            self._runtime.offload(work.run, done)

    def go_on_soon(self) -> None:
        """The same when frames and answers have left: the kernel begins it on this very core."""
        self._runtime.call_soon(self.go_on)

    def hangs(self, patience_s: float) -> bool:
        """Whether an fsync has been under way for longer than that."""
        return self._syncing and self._runtime.monotonic() - self._since > patience_s

    def lately_s(self) -> float:
        """What an fsync takes these days, the one under way included; 0 after a quiet time."""
        now = self._runtime.monotonic()
        if self._syncing:
            return max(self._usual_s, now - self._since)
        return self._usual_s if now - self._ended_at < LATELY_S else 0.0

    def _prepare(self) -> None:
        if not self._preparing and (work := self._journal.prepare()) is not None:
            self._preparing = True

            def done(_result: None, error: BaseException | None) -> None:
                if error is not None:
                    raise error
                self._preparing = False

            self._runtime.offload(work, done)
        if not self._seal_is_due:
            self._seal_is_due = True
            self._seal_later(self._syncs)

    def _seal_later(self, syncs: int) -> None:
        self._runtime.call_later(SEAL_AFTER_S, lambda: self._seal(syncs))

    def _seal(self, syncs: int) -> None:
        if self._syncing or syncs != self._syncs:
            self._seal_later(self._syncs)
            return
        self._seal_is_due = False
        self._journal.seal()
