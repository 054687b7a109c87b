"""Who may begin a TLS handshake. It costs a signature, and nobody has to show anything for it.

Each address has a rate and a burst; those beyond ``ADDRESSES_MAX`` share one (``Shares``).
"""

from __future__ import annotations

from collections.abc import Callable

from api.fairness.gcra import Meter, Rate
from api.fairness.shares import Shares
from raftq.serving.gate import network

ADDRESSES_MAX = 10_000


class Callers:
    """All that call a server; ``count`` hears of each that is to be hung up on."""

    def __init__(
        self, rate: Rate, *, clock: Callable[[], float], count: Callable[[], None]
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._count = count
        self._meters: Shares[Meter] = Shares(ADDRESSES_MAX, lambda meter: meter.due_s <= clock())

    def __len__(self) -> int:
        return len(self._meters)

    def may_begin(self, host: str) -> bool:
        """Whether this address may begin one more handshake; if so, it is counted."""
        now_s = self._clock()
        address = network(host)
        meter = self._meters.get(address) or self._meters.begin(address, Meter)
        if meter.wait_s(self._rate, now_s):
            self._count()
            return False
        meter.charge(self._rate, now_s, 1)
        return True
