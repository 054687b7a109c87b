"""Who may have a connection: so many in all, so many from one address. No IO in here.

A node that is full makes room by hanging up on whoever has been idle for longest, and turns
newcomers away only when nobody is idle. All of it is a few dictionaries keyed by what is
connected, so that none of them outgrows the limits.
"""

from __future__ import annotations

import enum
import ipaddress
from collections import Counter
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

V6_NETWORK = 64
"""Who has one v6 address has all of its network, commonly."""


class End(enum.StrEnum):
    """Why this side ended a connection; few, because they are labels of a metric."""

    ADDRESS_FULL = "address_full"
    NODE_FULL = "node_full"
    EVICTED = "evicted"
    IDLE = "idle"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    HEAD_TOO_SLOW = "head_too_slow"
    BODY_TOO_SLOW = "body_too_slow"
    READS_TOO_SLOWLY = "reads_too_slowly"


class Held(Protocol):
    """A connection, as the gate sees it."""

    def hang_up(self, why: End) -> None:
        """End it now."""
        ...


C = TypeVar("C", bound=Held)


class Gate(Generic[C]):
    """All connections of a server.

    ``count`` hears of each that this side ended. ``idle`` are those without a request, in the
    order in which they fell idle; they keep that up themselves.
    """

    def __init__(
        self, connections_max: int, per_address_max: int, count: Callable[[End], None]
    ) -> None:
        self.count = count
        self.idle: dict[C, None] = {}
        self._connections_max = connections_max
        self._per_address_max = per_address_max
        self._addresses: dict[C, str] = {}
        self._by_address: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._addresses)

    def connections(self) -> list[C]:
        """All of them, as of now."""
        return list(self._addresses)

    def admit(self, connection: C, host: str) -> End | None:
        """Let it in, idle at first; or why not."""
        address = network(host)
        if self._by_address[address] >= self._per_address_max:
            return End.ADDRESS_FULL
        if len(self._addresses) >= self._connections_max:
            longest = next(iter(self.idle), None)
            if longest is None:
                return End.NODE_FULL
            self.release(longest)
            longest.hang_up(End.EVICTED)
        self._addresses[connection] = address
        self._by_address[address] += 1
        self.idle[connection] = None
        return None

    def release(self, connection: C) -> None:
        """It is gone, or as good as gone."""
        self.idle.pop(connection, None)
        address = self._addresses.pop(connection, None)
        if address is None:
            return
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


def network(host: str) -> str:
    """What counts as one address: a v4 address, or the network of a v6 address."""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, V6_NETWORK), strict=False))
