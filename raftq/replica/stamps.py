"""The time that a leader writes into its entries.

Derived from a monotonic clock anchored to the last stamp seen and slewed towards wall
time, so that a step of the wall clock, or a new leader with another opinion, cannot
expire every lease at once. A whole cluster that was down trusts the wall again: until
a live leader has been followed there is nothing to anchor to.
"""

from __future__ import annotations

from raftq.runtime import Runtime

SLEW = 0.1  # At most a tenth of real time faster or slower.


class Stamps:
    """One node's idea of log time, in Unix milliseconds."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._anchor_ms = 0.0
        self._anchored_at = runtime.monotonic()
        self._live = False

    def observe(self, stamp_ms: int, *, live: bool) -> None:
        """An entry with this stamp was applied; ``live``: it was written while we were running."""
        self._anchor_ms = max(float(stamp_ms), self._now_ms() if self._live else self._anchor_ms)
        self._anchored_at = self._runtime.monotonic()
        self._live = self._live or live

    def now_ms(self) -> int:
        """Log time now; never behind a stamp that was observed.

        It is anchored anew: the room to slew in must not grow while nobody looks.
        """
        now_ms = self._now_ms()
        if self._live:
            self._anchor_ms, self._anchored_at = now_ms, self._runtime.monotonic()
        return int(now_ms)

    def _now_ms(self) -> float:
        wall_ms = float(self._runtime.wall_ms())
        if not self._live:
            return max(wall_ms, self._anchor_ms)
        elapsed_ms = (self._runtime.monotonic() - self._anchored_at) * 1000
        slowest_ms = self._anchor_ms + elapsed_ms * (1 - SLEW)
        fastest_ms = self._anchor_ms + elapsed_ms * (1 + SLEW)
        return min(max(wall_ms, slowest_ms), fastest_ms)
