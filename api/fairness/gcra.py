"""A rate limit as one number: the generic cell rate algorithm, by virtual scheduling.

ATM Forum, "Traffic Management Specification Version 4.0" (af-tm-0056.000, 1996), 4.4.4.1, with
amounts in the place of cells. ``due_s`` is when everything that came would have gone
through at the rate: its theoretical arrival time. What comes may be early by a tolerance,
which is the burst. A large amount passes as a small one does, and is paid off afterwards.
"""

from __future__ import annotations

import math

import msgspec

ROUNDING_S = 1e-9  # Who waited for as long as he was told must not find a hair missing.


class Rate(msgspec.Struct, frozen=True):
    """So many units in a second, and ``burst`` of them at once."""

    per_s: int
    burst: int

    @property
    def window_s(self) -> int:
        """Whole seconds in which a burst that was used up is there again."""
        return math.ceil(self.burst / self.per_s)


class Meter:
    """What one account has used of one rate."""

    __slots__ = ("due_s",)

    def __init__(self) -> None:
        self.due_s = 0.0

    def wait_s(self, rate: Rate, now_s: float) -> float:
        """Seconds until one unit conforms; 0 if it does now."""
        tolerance_s = (rate.burst - 1) / rate.per_s
        wait_s = self.due_s - tolerance_s - now_s
        return wait_s if wait_s > ROUNDING_S else 0.0

    def charge(self, rate: Rate, now_s: float, amount: int) -> None:
        """Count what came, whether or not it conforms."""
        self.due_s = max(self.due_s, now_s) + amount / rate.per_s

    def left(self, rate: Rate, now_s: float) -> int:
        """Units that conform at once."""
        used = (self.due_s - now_s) * rate.per_s
        return max(math.floor(rate.burst - max(used, 0.0) + ROUNDING_S * rate.per_s), 0)

    def full_in_s(self, now_s: float) -> float:
        """Seconds until the whole burst is there again."""
        return max(self.due_s - now_s, 0.0)
