"""Which member should lead, by zone: the decision alone. Time is given, nothing is sent.

Rules, in the order in which they are asked:

* Only a zone with a greater weight than the leader's own is worth a move.
* A member is fit while it is reached, holds everything that the leader had at the look
  before, and its disk is not slow; it must have been fit for the whole of ``hold_s``.
* After every election ``pause_s`` passes before a move, and each move that failed doubles it.
* Who lost the leadership gets it back only after a penalty, which doubles each time it is
  lost soon again. So a member whose link comes and goes is left alone for longer and longer.

Every node sees every leader come and go; a leader therefore knows of losses before its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

SLOW_SYNC_S = 0.1
SLOW_RATIO = 4.0
DOUBLINGS_MAX = 5


class Standing(NamedTuple):
    """What a leader knows at one look of another member that it reaches."""

    member: str
    zone: str
    match_index: int
    sync_s: float  # What an fsync of its journal takes lately.


class _Loss(NamedTuple):
    times: int
    until: float


class Placement:
    """See the module. One for each node, whether it leads or not."""

    def __init__(
        self, weights: Mapping[str, int], zone: str, *, hold_s: float, pause_s: float
    ) -> None:
        self._weights, self._zone = weights, zone
        self._hold_s, self._pause_s = hold_s, pause_s
        self._leader: tuple[str, int, float] | None = None  # Who, in which term, since when.
        self._lost: dict[str, _Loss] = {}
        self._not_before = 0.0
        self._failures = 0
        self._fit_since: dict[str, float] = {}
        self._mark = 0  # The end of the log at the last look.

    def led_by(self, member: str, term: int, now: float) -> None:
        """A leader is known; the one before it, if another or in another term, has lost."""
        if self._leader is not None:
            before, its_term, since = self._leader
            if its_term == term:
                return
            self._lose(before, now - since, now)
        self._leader = (member, term, now)
        self._fit_since.clear()
        self._mark = 0
        self._wait(now)

    def disconnected(self, member: str) -> None:
        """Between two looks, perhaps: its time of being fit begins anew."""
        self._fit_since.pop(member, None)

    def tried(self, now: float, *, moved: bool) -> None:
        """A move has ended."""
        self._failures = 0 if moved else min(self._failures + 1, DOUBLINGS_MAX)
        self._wait(now)

    def look(
        self, members: Iterable[Standing], *, last_index: int, own_sync_s: float, now: float
    ) -> str | None:
        """The leader looks at the others: the member to move to now, if there is one."""
        if not self._weights:
            return None
        own = self.weight(self._zone)
        better = [one for one in members if self.weight(one.zone) > own]
        fit = {one.member: one for one in better if self._is_fit(one, own_sync_s)}
        self._fit_since = {member: self._fit_since.get(member, now) for member in fit}
        self._mark = last_index
        if now < self._not_before:
            return None
        ready = [one for one in fit.values() if self._is_ready(one.member, now)]
        best = min(ready, key=lambda one: (-self.weight(one.zone), one.member), default=None)
        return None if best is None else best.member

    def weight(self, zone: str) -> int:
        """How much a zone is wanted; a zone that is not named is not."""
        return self._weights.get(zone, 0)

    def _is_fit(self, one: Standing, own_sync_s: float) -> bool:
        slow = one.sync_s > SLOW_SYNC_S and one.sync_s > SLOW_RATIO * own_sync_s
        return one.match_index >= self._mark and not slow

    def _is_ready(self, member: str, now: float) -> bool:
        lost = self._lost.get(member)
        penalised = lost is not None and now < lost.until
        return not penalised and now - self._fit_since[member] >= self._hold_s

    def _lose(self, member: str, led_s: float, now: float) -> None:
        longest_s = self._pause_s * 2**DOUBLINGS_MAX
        before = self._lost.get(member)
        # One that led for long, or was well for long after its last loss, begins anew.
        again = before is not None and led_s < longest_s and now < before.until + longest_s
        times = min(before.times + 1, DOUBLINGS_MAX) if before is not None and again else 1
        self._lost[member] = _Loss(times, now + self._pause_s * 2**times)

    def _wait(self, now: float) -> None:
        self._not_before = now + self._pause_s * 2**self._failures
