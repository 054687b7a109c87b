"""A budget for retries: when replicas are in trouble, clients must not add to it.

Every call pays in a tenth of a retry, so that retries are a tenth of the calls at
most; a small reserve, which fills up again by itself, is for clients with few calls.
Only tries that a replica had to deal with cost anything.
"""

from __future__ import annotations

PER_CALL = 0.1
RESERVE = 20.0
REFILL_PER_S = 5.0
ROUNDING = 1e-6  # Who has waited for as long as he was told must not find a hair missing.


class Budget:
    """A token bucket."""

    def __init__(self, now_s: float) -> None:
        self._tokens = RESERVE
        self._at_s = now_s

    def pay_in(self, now_s: float) -> None:
        """A call begins."""
        self._refill(now_s)
        self._tokens = min(self._tokens + PER_CALL, RESERVE)

    def take(self, now_s: float) -> float:
        """Pay for one retry: seconds until there is enough, 0 if it is paid for."""
        self._refill(now_s)
        if self._tokens >= 1 - ROUNDING:
            self._tokens = max(self._tokens - 1, 0.0)
            return 0.0
        return (1 - self._tokens) / REFILL_PER_S

    def _refill(self, now_s: float) -> None:
        passed_s = max(now_s - self._at_s, 0.0)
        self._tokens = min(self._tokens + passed_s * REFILL_PER_S, RESERVE)
        self._at_s = now_s
