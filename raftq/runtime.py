"""Time, order, chance and background work: everything a node's logic takes from outside.

``raftq.clock`` implements it on asyncio; the simulator implements it on a virtual
clock. Node logic is callback-driven and runs on one thread: whatever needs to wait
is given a callback, which is called from the runtime and never from inside the call
that registered it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Timer(Protocol):
    """Something that will happen unless cancelled."""

    def cancel(self) -> None:
        """Do not call back; harmless when it has happened already."""
        ...


class Runtime(Protocol):
    """One node's view of the world."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary point; never runs backwards."""
        ...

    def wall_ms(self) -> int:
        """Unix time in milliseconds, as this machine believes; may step either way."""
        ...

    def random(self) -> float:
        """Uniform in [0, 1)."""
        ...

    def token(self, count: int) -> bytes:
        """``count`` unpredictable bytes, for identities and nonces."""
        ...

    def call_soon(self, callback: Callable[[], None]) -> None:
        """After everything that is being handled now."""
        ...

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Once, after ``delay_s`` seconds."""
        ...

    def offload(
        self, work: Callable[[], T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        """Run ``work`` off the loop, then ``done(result, error)`` on it; one of the two is None."""
        ...
