"""The events of a queue, or of all queues of an account, in the order of the log.

A feed pulls: it reads the applied state page by page as its reader takes them, and
keeps only where it stands, and for each queue with more to read a mark that its next
event is not before. So the queue with the least mark is read up to the next mark, and
a queue is opened no more often than there are events, however many queues there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush

from api.ports import Changed, Service
from statemachine import histories, queries
from statemachine.histories import Event, Known, Position

QUEUES_AT_ONCE = 200
"""Queues looked at before others get their turn."""

ACCOUNT = ""
"""In place of a queue's name: the account's own events."""


class Ended(Exception):
    """There is nothing more to come. ``reason`` is a stable word."""

    def __init__(self, reason: str, detail: str, oldest: int | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.oldest = oldest  # The index from which all events are still there.


class Feed:
    """One reader's; without ``queue`` all of the account that he ``sees``."""

    def __init__(
        self,
        service: Service,
        account: str,
        queue: str | None,
        kinds: frozenset[int] | None,
        sees: Callable[[str], bool],
    ) -> None:
        self._service = service
        self._account = account
        self._queue = queue
        self._kinds = kinds
        self._sees = sees
        self._number: int | None = None
        self._marks: list[tuple[Position, str]] = []
        self._until = 0  # The marks stand for all events up to this log index.
        self.position = histories.BEGINNING

    async def begin(self, position: Position | None) -> None:
        """Stand behind ``position``; None: behind all that has been applied."""
        self._until = self._applied()
        self.position = histories.through(self._until) if position is None else position
        known = self._known(self._queue or ACCOUNT)
        self._number = known.number if known else None
        if position is not None:
            await self._look_at_all()
        elif self._queue is not None:
            self._checked(self._queue)

    async def go_on(self, changed: Changed) -> None:
        """All has been read; these queues have more."""
        if changed is None:
            await self._look_at_all()
            return
        self._until = self._applied()
        self._marks = [(self.position, name) for name in changed if self._may_read(name)]
        heapify(self._marks)
        if not changed:
            self.position = max(self.position, histories.through(self._until))

    def oldest(self) -> int:
        """The index from which the queue's, or the account's own, events are all there."""
        known = self._known(self._queue or ACCOUNT)
        return 1 if known is None else known.gone.at + 1

    def read(self, rows: int) -> list[Event]:
        """What is wanted of up to so many of the next events; raises ``Ended``."""
        found: list[Event] = []
        while self._marks and rows:
            _, name = heappop(self._marks)
            known = self._checked(name)
            if known is not None:
                rows = self._read_one(name, known, rows, found)
        if not self._marks:
            self.position = max(self.position, histories.through(self._until))
        return found

    @property
    def is_done(self) -> bool:
        """Whether all has been read up to where the marks reach."""
        return not self._marks

    def _read_one(self, name: str, known: Known, rows: int, found: list[Event]) -> int:
        """Read a queue up to the next one's mark; how many rows are left to read."""
        reader, after = self._service.reader(), self.position
        for event in histories.between(reader, known.number, name, after, self._until):
            if not rows or (self._marks and event.position > self._marks[0][0]):
                heappush(self._marks, (event.position, name))
                break
            rows -= 1
            self.position = event.position
            is_wanted = self._kinds is None or event.record.kind in self._kinds
            if is_wanted and self._sees(event.queue):
                found.append(event)
        return rows

    async def _look_at_all(self) -> None:
        self._until = self._applied()
        self._marks = []
        if self._queue is not None:
            self._mark([(self._queue, self._checked(self._queue))])
            return
        self._mark([(ACCOUNT, self._checked(ACCOUNT))])
        marker = ""
        while page := histories.queues(
            self._service.reader(), self._account, marker, QUEUES_AT_ONCE
        ):
            self._mark((name, self._still_whole(known)) for name, known in page if self._sees(name))
            marker = page[-1][0]
            await asyncio.sleep(0)

    def _may_read(self, name: str) -> bool:
        """The account's own events are of many queues: each is looked at when it is read."""
        return name == ACCOUNT or self._sees(name)

    def _mark(self, queues: Iterable[tuple[str, Known | None]]) -> None:
        for name, known in queues:
            if known is None or known.oldest is None or known.latest is None:
                continue
            if known.latest > self.position:
                heappush(self._marks, (max(self.position, known.oldest), name))

    def _checked(self, name: str) -> Known | None:
        """A queue's history; None if the account has no such queue, or it keeps none."""
        known = self._known(name)
        if self._queue is not None and (known is None or known.number != self._number):
            raise Ended("queue_deleted", f"queue {self._queue!r} was deleted")
        return None if known is None else self._still_whole(known)

    def _still_whole(self, known: Known) -> Known | None:
        if not known.is_kept:
            if self._queue is not None:
                raise Ended("history_off", f"queue {self._queue!r} keeps no events")
            return None
        if known.gone > self.position:
            oldest = known.gone.at + 1
            detail = f"events from index {oldest} on are held; some that come before are not"
            raise Ended("events_gone", detail, oldest)
        return known

    def _known(self, name: str) -> Known | None:
        return histories.known(self._service.reader(), self._account, name)

    def _applied(self) -> int:
        return queries.applied(self._service.reader())[0]
