"""A table of what each of many has used, that neither a flood of names nor time makes grow.

Nothing is kept of those who owe nothing. When so many others are there that they cannot all be
honest, newcomers share what one of them may have: none may push out what another one has used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

SWEEP_MIN = 64

S = TypeVar("S")


class Shares(Generic[S]):
    """``most`` of them, and one for all others; ``is_idle``: nothing is lost if it is forgotten."""

    def __init__(self, most: int, is_idle: Callable[[S], bool]) -> None:
        self._most = most
        self._is_idle = is_idle
        self._kept: dict[str, S] = {}
        self._sweep_at = SWEEP_MIN

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, name: str) -> S | None:
        """The share of who has one."""
        return self._kept.get(name)

    def begin(self, name: str, make: Callable[[], S]) -> S:
        """The share of who has none yet."""
        if len(self._kept) >= self._sweep_at:
            self._sweep()
        if len(self._kept) >= self._most:
            name = ""
        found = self._kept.get(name)
        if found is None:
            found = self._kept[name] = make()
        return found

    def _sweep(self) -> None:
        """Each sweep is paid for by as many newcomers as it leaves behind."""
        self._kept = {name: one for name, one in self._kept.items() if not self._is_idle(one)}
        self._sweep_at = max(2 * len(self._kept), SWEEP_MIN)
