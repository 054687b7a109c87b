"""The leader's watch over log time: what is due happens by a command in the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from raftq.replica.stamps import Stamps
from raftq.runtime import Runtime, Timer

GAP_S = 0.01  # What becomes due together is done together.
LOOK_AGAIN_S = 1.0  # Log time can leap ahead of what a timer was set by.


class Leading(Protocol):
    """Whether this node leads."""

    @property
    def is_leader(self) -> bool:
        """As far as it knows."""
        ...


class Watch:
    """Has one bounded thing proposed at a time, when something is due."""

    def __init__(
        self,
        leading: Leading,
        next_due_ms: Callable[[], int | None],
        propose: Callable[[int], bool],
        stamps: Stamps,
        runtime: Runtime,
    ) -> None:
        """``propose`` is given log time; False: the proposal was not taken."""
        self._leading, self._next_due_ms, self._propose_due = leading, next_due_ms, propose
        self._stamps, self._runtime = stamps, runtime
        self._timer: tuple[int, Timer] | None = None
        self._under_way = False

    def done(self) -> None:
        """What was proposed has been applied, or leadership is gone."""
        self._under_way = False

    def arm(self) -> None:
        """See to it that something is proposed when log time reaches the next thing due."""
        if self._under_way or not self._leading.is_leader:
            return
        due_ms = self._next_due_ms()
        if due_ms is None:
            return
        if self._timer is not None:
            if self._timer[0] <= due_ms:
                return
            self._timer[1].cancel()
        delay_s = (due_ms - self._stamps.now_ms()) / 1000
        delay_s = min(max(GAP_S, delay_s), LOOK_AGAIN_S)
        self._timer = (due_ms, self._runtime.call_later(delay_s, self._propose))

    def _propose(self) -> None:
        self._timer = None
        due_ms = self._next_due_ms()
        if due_ms is None or self._under_way or not self._leading.is_leader:
            return
        now_ms = self._stamps.now_ms()
        if due_ms > now_ms:
            self.arm()
        else:
            self._under_way = self._propose_due(now_ms)
