"""Who may begin a TLS handshake. It costs a signature, and nobody has to show anything for it.

Each address has a rate and a burst. Of one that has paid off what it began nothing is kept;
when ``ADDRESSES_MAX`` have not, the others have together what one of them may have.
"""

from __future__ import annotations

from collections.abc import Callable

from api.fairness.gcra import Meter, Rate
from raftq.serving.gate import network

ADDRESSES_MAX = 10_000
SWEEP_MIN = 64


class Callers:
    """All that call a server; ``count`` hears of each that is to be hung up on."""

    def __init__(
        self, rate: Rate, *, clock: Callable[[], float], count: Callable[[], None]
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._count = count
        self._meters: dict[str, Meter] = {}
        self._sweep_at = SWEEP_MIN

    def __len__(self) -> int:
        return len(self._meters)

    def may_begin(self, host: str) -> bool:
        """Whether this address may begin one more handshake; if so, it is counted."""
        now_s = self._clock()
        meter = self._of(network(host), now_s)
        if meter.wait_s(self._rate, now_s):
            self._count()
            return False
        meter.charge(self._rate, now_s, 1)
        return True

    def _of(self, address: str, now_s: float) -> Meter:
        found = self._meters.get(address)
        if found is not None:
            return found
        if len(self._meters) >= self._sweep_at:
            self._meters = {
                one: meter for one, meter in self._meters.items() if meter.due_s > now_s
            }
            # Each sweep is paid for by as many newcomers as it leaves behind.
            self._sweep_at = max(2 * len(self._meters), SWEEP_MIN)
        if len(self._meters) >= ADDRESSES_MAX:
            address = ""
        return self._meters.setdefault(address, Meter())
