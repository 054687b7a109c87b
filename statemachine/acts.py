"""What a job does with a message, and what it counts."""

from __future__ import annotations

from statemachine import events, filters, fresh, groups, keys, messages, quotas, records
from statemachine.commands import MessageId, MessageState, NewMessage
from statemachine.looking import Look
from statemachine.queues import open_queue
from statemachine.records import Failure, Held, JobRecord, StoredMessage, Trouble
from statemachine.state import Queue, State

FAILURES_MAX = 100
KINDS = {"redrive": events.REDRIVEN, "move": events.MOVED}
"""What is told of messages that go to another queue."""


class Step:
    """A step of a job, which may look at so much, and do something with so many."""

    __slots__ = ("_limit", "_look", "is_heavy", "job", "left", "may_do", "queue", "state")

    def __init__(self, state: State, queue: Queue, job: JobRecord, limit: int, may_do: int) -> None:
        self.state = state
        self.queue = queue
        self.job = job
        self.left = limit
        self.may_do = may_do
        self.is_heavy = False
        """Whether bodies are so large that it is enough for this sweep."""
        self._limit = limit
        self._look = Look(state.kv, queue.record, [lane.record for lane in queue.lanes])

    @property
    def is_over(self) -> bool:
        """Whether it may do no more."""
        return self.left <= 0 or self.may_do <= 0

    def cost(self) -> int:
        """How much of what a sweep may do it has used."""
        return self._limit if self.is_heavy else max(self._limit - self.left, 1)

    def is_new(self, number: int) -> bool:
        """Whether a message or a claim came after the job began."""
        return number >= self.job.mark

    def may_hold(self, message_id: MessageId) -> bool:
        """Whether messages of this one's lane may be meant."""
        return filters.may_hold(self.job.filter, self.queue.lane_of(message_id).record)

    def look_at(self, message_id: MessageId, data: bytes) -> None:
        """Do with a message what is to be done; one that has to wait its turn is passed over."""
        self.left -= 1
        self.job.looked += 1
        where = self._where(message_id, data)
        if where is not None:
            self._meet(message_id, data, *where)

    def look_again_at(self, message_id: MessageId, data: bytes) -> None:
        """The same, with one that was passed over; unless it was not, or has to wait still."""
        self.left -= 1
        where = self._where(message_id, data)
        if where is not None and where[0] == (self.job.filter.state or "ready"):
            self._meet(message_id, data, *where)

    def look_at_held(self, held: Held, data: bytes) -> bool:
        """Whether a message of a claim is to be released; one to be deleted is deleted."""
        self.left -= 1
        self.job.looked += 1
        if not self._is_meant(data, "claimed", held.deliveries):
            self.job.skipped += 1
            return False
        self._count()
        if self.job.act == "delete" and not self.job.dry_run:
            self._delete(held.id, data)
        return not self.job.dry_run

    def settle(self) -> None:
        """Leave the queue as it is to be between commands."""
        fresh.settle_gaps(self.state, self.queue)

    def _where(self, message_id: MessageId, data: bytes) -> tuple[MessageState, int | None] | None:
        """State and deliveries, or None if it has to wait for others of its group to go.

        Nobody goes in a dry run: so all count as if they had their turn.
        """
        state, deliveries, _ = self._look.state(message_id, data)
        if self.job.act == "delete":
            return state, None if state == "claimed" else deliveries
        if state == "blocked":
            return ("ready", deliveries) if self.job.dry_run else None
        if state == "claimed":
            return state, None
        if state == "delayed" and self.job.filter.state == state and not self.job.dry_run:
            group = records.group_of(data)
            if group and not groups.is_first(self.state, self.queue, group, message_id):
                return None
        return state, deliveries

    def _is_meant(self, data: bytes, state: MessageState, deliveries: int | None) -> bool:
        wanted = self.job.filter
        there = filters.is_there(wanted, state, deliveries)
        return there and filters.suits(wanted, data, self.job.started_ms)

    def _meet(
        self, message_id: MessageId, data: bytes, state: MessageState, deliveries: int | None
    ) -> None:
        job = self.job
        if not self._is_meant(data, state, deliveries):
            job.skipped += 1
        elif state == "claimed":
            self._fail(message_id, "claimed")
        elif job.act == "delete":
            self._count()
            if not job.dry_run:
                self._delete(message_id, data)
        elif state == "delayed" and job.filter.state != state:
            self._fail(message_id, "delayed")
        else:
            self._send(message_id, data)

    def _send(self, message_id: MessageId, data: bytes) -> None:
        """Move a message, which begins anew: not delivered, not dead, with a life of its own."""
        stored = records.decode_message(data)
        target = self.job.to or (stored.dead.queue if stored.dead else "")
        if target in ("", self.queue.names[1]):
            self._fail(message_id, "own_queue" if target else "no_source")
            return
        state, queue = self.state, self.queue
        is_there = state.find_queue(queue.names[0], target) is not None
        if not (self.job.dry_run or is_there or quotas.has_room_for_queue(queue.account)):
            self._fail(message_id, "no_room")
            return
        self._count()
        if self.job.dry_run:
            return
        moved = _anew(stored, self._delay_ms(message_id))
        messages.remove(state, queue, message_id, records.times(data))
        kind = KINDS[self.job.act]
        events.gather(state, queue, kind, [(message_id, 1, 0)], target=target)
        messages.enqueue_into(state, open_queue(state, queue.names[0], target), (moved,))
        self.job.group = stored.group

    def _delay_ms(self, message_id: MessageId) -> int:
        """How long a message is delayed from now on."""
        if self.job.filter.state != "delayed":
            return 0
        waiting = self.state.kv.get(keys.delayed(self.queue.record.number, message_id))
        assert waiting is not None, "a delayed message has an entry"
        return records.decode_delayed(waiting)[0] - self.state.now_ms

    def _delete(self, message_id: MessageId, data: bytes) -> None:
        messages.remove(self.state, self.queue, message_id, records.times(data))
        events.gather(self.state, self.queue, events.DELETED, [(message_id, 1, 0)])

    def _count(self) -> None:
        self.job.done += 1
        self.may_do -= 1

    def _fail(self, message_id: MessageId, reason: Trouble) -> None:
        self.job.failed += 1
        if len(self.job.failures) < FAILURES_MAX:
            self.job.failures.append(Failure(message_id, reason))


def _anew(stored: StoredMessage, delay_ms: int) -> NewMessage:
    return NewMessage(
        stored.body,
        stored.content_type,
        stored.headers,
        delay_ms=delay_ms,
        zone=stored.zone,
        priority=stored.priority,
        group=stored.group,
        content_encoding=stored.content_encoding,
    )
