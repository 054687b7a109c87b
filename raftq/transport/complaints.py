"""The same complaint again and again: said once, then counted until its time has passed."""

from __future__ import annotations

KEYS_MAX = 1_000


class Complaints:
    """A key says what and about whom; should there ever be too many, all may be said again."""

    def __init__(self, again_s: float) -> None:
        self._again_s = again_s
        self._said: dict[tuple[str, ...], tuple[float, int]] = {}

    def admit(self, key: tuple[str, ...], now_s: float) -> int | None:
        """How many like it were left out before; None: leave this one out too."""
        said_s, left_out = self._said.get(key, (float("-inf"), 0))
        if now_s - said_s < self._again_s:
            self._said[key] = (said_s, left_out + 1)
            return None
        if len(self._said) >= KEYS_MAX:
            self._said.clear()
        self._said[key] = (now_s, 0)
        return left_out
