"""What a node takes on: it says no before it reads, while it still has the time to say it.

By Little's law (J. D. C. Little, "A Proof for the Queuing Formula L = λW", Operations Research
9(3), 1961) requests that are answered at some rate wait for as long as there are others in
front of them: as many as are answered in ``wait_target_s`` are enough. A burst may be larger.
As with CoDel (Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012) it is
a queue that stands for ``INTERVAL_S`` which is too long; then the number is kept to, until
nobody has had to be turned away for ``CALM_S``.

What finishes work makes room, and is let in until there is twice as much. An account may have
``SHARE`` times what is still free, as in ``raftq.replica.backlog``, and always an equal part:
who floods a node is shed, others are not. The account is that of the path, before anybody
has asked whose it is: those that are refused for it leave at once.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import Protocol

INTERVAL_S = 0.75
CALM_S = 5.0  # Long against what a busy machine may keep a process waiting.
WINDOW_S = 0.25
RISE_HALF_LIFE_S = 0.25
"""Of what is known of the rate: short against the interval, so that it is known after a pause,
and long against a log entry, which answers many at once."""
FALL_HALF_LIFE_S = 4.0
"""A rate that falls is believed slowly: fewer let in is fewer answered, and the two would pull
each other down. BBR keeps the greatest rate of late for that (Cardwell et al., "BBR:
Congestion-Based Congestion Control", ACM Queue 14(5), 2016)."""
ACTIVE_MIN = 16
"""So many are never too many: what has stood still does not know its rate."""
SHARE = 8
READING_S = 1.0
"""Whose body takes longer waits for its client, and not for others."""
PLACE = "raftq.place"
"""An extension of ASGI: the request's ``Place``."""

_OPEN = ("/livez", "/readyz", "/metrics", "/cluster")


class Kind(enum.StrEnum):
    """How dear a request is. The values are labels of metrics."""

    WORK = "work"
    FINISHING = "finishing"  # Acks, releases, extensions, transactions: afterwards there is less.
    ALWAYS = "always"  # How an operator and his tools see what is going on.


class Aside(Protocol):
    """What of a place the request itself has to do with."""

    def step_aside(self) -> None:
        """It waits for something to happen, and keeps nobody from working."""
        ...

    def step_back(self) -> None:
        """It goes on."""
        ...

    def hold(self, size: int) -> bool:
        """So many bytes of it are in memory from now on; False if there is no room for more."""
        ...

    def begin(self) -> bool:
        """One more piece of work begins, of a request that goes on.

        False: a request would be turned away now, and so this has to wait.
        """
        ...

    def end(self) -> None:
        """That is done, and counts as a request that was answered."""
        ...


class Admission:
    """All requests of one node that are under way."""

    def __init__(
        self,
        *,
        wait_target_s: float,
        active_max: int,
        bytes_max: int,
        clock: Callable[[], float],
        observe: Callable[[Kind], None],
    ) -> None:
        self._wait_target_s = wait_target_s
        self._active_max = active_max
        self._bytes_max = bytes_max
        self._clock = clock
        self._observe = observe
        self.active = 0
        """Requests that are being read or worked on."""
        self.held_bytes = 0
        """Of all bodies that are being read or worked on, as they were announced."""
        self._accounts: dict[str, _Held] = {}  # Only those with something under way.
        self._reading: deque[tuple[float, Place]] = deque()
        self._rate = 0.0
        self._limit = min(ACTIVE_MIN, active_max)
        self._served = 0
        self._window_s = clock()
        self._standing_since_s = clock()
        self._shed_at_s = 0.0
        self._is_shedding = False

    def ask(self, kind: Kind, account: str, size: int, *, is_read: bool = False) -> Place | None:
        """A place for a request with so many bytes; None if it must come back later.

        ``kind`` and ``account``: see ``kind_of``. ``is_read``: all of them are there already.
        """
        now_s = self._looked()
        held = self._accounts.get(account)
        if held is None:
            held = _Held()
        if not (self._has_room(kind, held, size) and self._has_time(kind, held, now_s)):
            self._observe(kind)
            return None
        place = Place(self, kind, account, held, size)
        if size and not is_read:
            self._reading.append((now_s, place))
        return place

    def _has_room(self, kind: Kind, held: _Held, size: int) -> bool:
        if kind is Kind.ALWAYS:
            return True
        twice = 2 if kind is Kind.FINISHING else 1
        free_bytes = twice * self._bytes_max - self.held_bytes - size
        return free_bytes >= 0 and held.size <= SHARE * free_bytes

    def _has_time(self, kind: Kind, held: _Held, now_s: float) -> bool:
        if kind is Kind.ALWAYS:
            return True
        twice = 2 if kind is Kind.FINISHING else 1
        if self.active >= twice * self._active_max:
            return False
        limit = self._limit
        if not self._is_too_long(limit, now_s):
            return True
        limit *= twice
        if held.active < SHARE * (limit - self.active):
            return True
        # Whatever the others have: an equal part, were it shared among all and one more.
        if (held.active + 1) * (len(self._accounts) + 1) <= limit:
            return True
        self._shed_at_s = now_s
        return False

    def _looked(self) -> float:
        """The time, having looked if that is due: also while all are turned away."""
        now_s = self._clock()
        if now_s - self._window_s >= WINDOW_S:
            self._look(now_s)
        return now_s

    def _look(self, now_s: float) -> None:
        """Now and then: how much is answered, and who is still being read?"""
        passed_s = now_s - self._window_s
        served_per_s = self._served / passed_s
        half_life_s = RISE_HALF_LIFE_S if served_per_s > self._rate else FALL_HALF_LIFE_S
        remembered = 0.5 ** (passed_s / half_life_s)
        self._rate = remembered * self._rate + (1 - remembered) * served_per_s
        self._served = 0
        self._window_s = now_s
        # As many as are answered in the time that one may wait.
        enough = max(int(self._rate * self._wait_target_s), ACTIVE_MIN)
        self._limit = min(enough, self._active_max)
        while self._reading and now_s - self._reading[0][0] > READING_S:
            self._reading.popleft()[1].still_read()

    def _is_too_long(self, limit: int, now_s: float) -> bool:
        """Whether there is a queue that stands, or somebody was turned away for it lately.

        Not: whether it is there now. Answers come by the log entry, so that it comes and goes.
        """
        if self._is_shedding:
            self._is_shedding = now_s - self._shed_at_s < CALM_S
        elif self.active < limit:
            self._standing_since_s = now_s
        elif now_s - self._standing_since_s >= INTERVAL_S:
            self._is_shedding = True
            self._shed_at_s = now_s
        return self._is_shedding


class _Held:
    """What one account has under way."""

    __slots__ = ("active", "places", "size")

    def __init__(self) -> None:
        self.active = self.places = self.size = 0


class Place:
    """One request's, from when it is let in until it is answered."""

    __slots__ = ("_account", "_admission", "_held", "_is_active", "_is_read", "_kind", "_size")

    def __init__(
        self, admission: Admission, kind: Kind, account: str, held: _Held, size: int
    ) -> None:
        self._admission = admission
        self._kind = kind
        self._account = account
        self._held = held
        self._size = size
        self._is_active, self._is_read = True, False
        if not held.places:
            admission._accounts[account] = held
        held.places += 1
        held.active += 1
        held.size += size
        admission.active += 1
        admission.held_bytes += size

    def read(self) -> None:
        """All of it is there."""
        self._is_read = True
        self.step_back()

    def still_read(self) -> None:
        """It has been coming for a while, and may take its time."""
        if not self._is_read:
            self.step_aside()

    def step_back(self) -> None:
        """See ``Aside``."""
        if not self._is_active:
            self._is_active = True
            self._held.active += 1
            self._admission.active += 1

    def step_aside(self) -> None:
        """See ``Aside``."""
        if self._is_active:
            self._is_active = False
            self._held.active -= 1
            self._admission.active -= 1

    def hold(self, size: int) -> bool:
        """See ``Aside``."""
        more = size - self._size
        if more > 0 and not self._admission._has_room(self._kind, self._held, more):
            return False
        self._size = size
        self._held.size += more
        self._admission.held_bytes += more
        return True

    def begin(self) -> bool:
        """See ``Aside``."""
        self.step_aside()  # It is not in its own way.
        if not self._admission._has_time(self._kind, self._held, self._admission._looked()):
            self._admission._observe(self._kind)
            return False
        self.step_back()
        return True

    def end(self) -> None:
        """See ``Aside``."""
        self.step_aside()
        self._admission._served += 1

    def leave(self) -> None:
        """It was answered, or nobody is there for an answer."""
        admission, held = self._admission, self._held
        self._is_read = True
        self.step_aside()
        admission._served += 1
        admission.held_bytes -= self._size
        held.size -= self._size
        held.places -= 1
        if not held.places:
            del admission._accounts[self._account]


def kind_of(path: str) -> tuple[Kind, str]:
    """How dear a request to this path is, and whose it claims to be."""
    if path.startswith(_OPEN):
        return Kind.ALWAYS, ""
    parts = path.split("/", 6)  # "", "v1", account, "queues", queue, what, which
    if len(parts) < 3:
        return Kind.WORK, ""
    of_queue = parts[5] if len(parts) > 5 else parts[3] if len(parts) == 4 else ""
    finishes = of_queue in ("extend", "transactions") or (of_queue == "claims" and len(parts) > 6)
    return Kind.FINISHING if finishes else Kind.WORK, parts[2]
