"""Claims that are on their way from this node, so that others do not go for the same messages.

Each claim in vain is a command in the log, and keeps its poll busy when the next message is put
here, which it would have had from the same entry. So a poll waits where those before it want all
that is ready. If they leave something, the next one who waits and can take it is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from raftq.replica.submitter import Answer, Done
from raftq.replica.waiters import QueueKey, Waiters
from statemachine.commands import Claim, Take
from statemachine.machine import Machine
from statemachine.outcomes import Claimed
from statemachine.prospects import Prospects

PASS_ON_S = 0.05
"""After a claim in vain, until somebody else may try: what it did not get others may not get."""


class Claiming:
    """Of one node; claims that are parts of other commands are not counted."""

    def __init__(
        self,
        waiters: Waiters,
        machine: Callable[[], Machine],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._waiters = waiters
        self._machine = machine
        self._call_later = call_later
        self._wanted = Counter[QueueKey]()  # Messages.

    def begins(self, command: Claim | Take, done: Done) -> Done:
        """Such a claim is on its way until what is returned is called, in the place of ``done``."""
        key, limit = (command.account, command.queue), command.limit
        self._wanted[key] += limit

        def ended(answer: Answer) -> None:
            self._wanted[key] -= limit
            if not self._wanted[key]:
                del self._wanted[key]
            if isinstance(answer, Claimed) and answer.messages:
                self._pass_on(key)
            elif self._waiters.are_waiting(key):
                self._call_later(PASS_ON_S, lambda: self._pass_on(key))
            done(answer)

        return ended

    def prospects(self, command: Claim | Take) -> Prospects:
        """What such a claim may find that nobody from here is about to get."""
        seen = self._machine().prospects(command)
        if seen.near and self._is_spoken_for((command.account, command.queue)):
            return seen._replace(near=False)
        return seen

    def _is_spoken_for(self, key: QueueKey) -> bool:
        return self._machine().ready(*key) <= self._wanted[key]

    def _pass_on(self, key: QueueKey) -> None:
        if self._waiters.are_waiting(key) and not self._is_spoken_for(key):
            zones = self._machine().ready_zones(*key)
            self._waiters.wake({(*key, zone): 1 for zone in zones}, 0)
