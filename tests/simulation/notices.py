"""Which interesting states of the queue an entry has been in, for ``sometimes``."""

from __future__ import annotations

import math
from collections.abc import Callable

from queue_model import Model, Queue
from statemachine import commands as c
from statemachine.outcomes import (
    Claimed,
    Delivered,
    Enqueued,
    Extended,
    ManyExtended,
    Outcome,
    Over,
    Reason,
    Refused,
    Swept,
    Transacted,
)
from steps import steps

Names = tuple[str, str]


class Notices:
    """Looks at the model right before it is shown what happened, and after a sweep."""

    def __init__(self, model: Model, sometimes: Callable[[str], None]) -> None:
        self._model, self._sometimes = model, sometimes
        self.index = 0
        self.term = 0
        self.born = 0  # What had been applied when the node that tells us of an entry started.
        self._used_at: dict[tuple[Names, str], int] = {}  # When a dedup id was last used.
        self._claimed_in: dict[tuple[Names, int], int] = {}  # To the term.
        self._moved_in: dict[tuple[Names, int], int] = {}  # By queue and job: the term.

    def command(self, command: c.Command, outcome: Outcome) -> None:
        """A command is about to be told to the model."""
        kind = type(command).__name__
        refused = isinstance(outcome, Refused)
        self._sometimes(f"{kind} was refused" if refused else f"{kind} took effect")
        if isinstance(command, c.Once):
            if (command.account, command.key) in self._model.once:
                self._sometimes("an idempotency key came again")
                self.again(command.command)
                return
            command = command.command
        if isinstance(command, c.Audited):
            if refused and outcome.reason is Reason.KEY_ENDED:
                self._sometimes("an act was refused, for its key was gone")
                return
            self.command(command.command, outcome)
            return
        self._rare(command, outcome)
        for one in steps(command, outcome):
            self._frequent(*one)

    def _frequent(self, command: c.Command, outcome: Outcome) -> None:
        match command, outcome:
            case c.Enqueue(), Enqueued():
                self._enqueued((command.account, command.queue), command.messages, outcome)
            case c.Claim() | c.Take(), Claimed():
                self._claimed(command, outcome)
            case c.Transact(), Transacted():
                self._transacted(command, outcome)
            case c.Ack() | c.DeleteQueue(), _:
                self._ends(command)

    def _rare(self, command: c.Command, outcome: Outcome) -> None:
        match command, outcome:
            case c.Extend(), Extended(claim=claim) if claim:
                self._sometimes("some of a claim went over to another")
            case _, Refused(over=Over(quota=quota)):
                self._sometimes(f"there was no room: {quota}")
            case c.ExtendMany(), ManyExtended(ended=ended) if ended:
                self._sometimes("of many claims some were over")
            case c.CancelJob(), one if not isinstance(one, Refused):
                job = self._queue(command).job
                if job is not None and job.done:
                    self._sometimes("a redrive was cancelled halfway")

    def again(self, command: c.Command) -> None:
        """A command came again, and is answered as before."""
        if isinstance(command, c.Once):
            command = command.command
        if isinstance(command, c.TransactAndClaim):
            self._sometimes("a transaction was remembered with the claim after it")
        if isinstance(command, c.Transact | c.TransactAndClaim):
            self._sometimes("a retry was answered from a remembered transaction")

    def sweep(self, outcome: Swept) -> Callable[[], None]:
        """A sweep is about to be told to the model; call the answer after that."""
        now_ms = self._model.now_ms
        before: list[tuple[Names, Queue, int, list[int]]] = []
        for names, queue in self._model.queues.items():
            ends = list(queue.claims.values())
            if outcome.count and any(end > now_ms for end in ends):
                self._sometimes("a sweep ran beside live claims")
            if any(end <= now_ms for end in ends):
                self._sometimes("a sweep ended a lease")
            if any(one.due_ms <= now_ms for one in queue.of("delayed")):
                self._sometimes("a sweep ended a delay")
            if any(one.expired(now_ms) for one in queue.of("ready")):
                self._sometimes("a sweep ended a message's life")
            if any(until_ms <= now_ms for _, until_ms in queue.dedup.values()):
                self._sometimes("a dedup id was free again")
            before.append((names, queue, queue.dead, list(queue.claims)))
        return lambda: self._swept(before)

    def worked(self, names: Names) -> None:
        """A job has come further."""
        job = self._model.queues[names].job
        assert job is not None
        if job.troubles:
            self._sometimes("a job could not do what it was to do")
        if not job.done:
            return
        if job.asked.dry_run:
            self._sometimes("a job only counted")
            return
        if job.asked.filter != c.Filter():
            self._sometimes(f"a job with a filter: {job.asked.act}")
        if job.asked.act not in ("redrive", "move"):
            return
        self._sometimes("a redrive moved messages")
        term = self._moved_in.setdefault((names, job.moment), self.term)
        if term != self.term:
            self._sometimes("a redrive went on under another leader")

    def _swept(self, before: list[tuple[Names, Queue, int, list[int]]]) -> None:
        for names, queue, dead, claims in before:
            if queue.dead == dead:
                continue
            self._sometimes("a lease that ended made a dead letter")
            terms = {self._claimed_in.get((names, one)) for one in claims} - {None}
            if terms and max(filter(None, terms)) < self.term:
                self._sometimes("a dead letter was made under another leader than claimed it")

    def _queue(self, command: c.Ack | c.DeleteQueue | c.CancelJob | c.Claim | c.Take) -> Queue:
        names = (command.account, command.queue)
        return self._model.queues.get(names) or Queue(c.QueueSettings())

    def _enqueued(
        self, names: Names, messages: tuple[c.NewMessage, ...], outcome: Enqueued
    ) -> None:
        for at, new in enumerate(messages):
            if not new.dedup_id:
                continue
            key = (names, new.dedup_id)
            if at not in outcome.duplicates:
                self._used_at[key] = self.index
                continue
            self._sometimes("a duplicate was recognised")
            if self._used_at.get(key, math.inf) <= self.born:
                self._sometimes("a duplicate was recognised after a restart")

    def _claimed(self, command: c.Claim | c.Take, outcome: Claimed) -> None:
        names = (command.account, command.queue)
        queue = self._queue(command)
        if outcome.claim:
            self._claimed_in[names, outcome.claim] = self.term
        elif outcome.until_ms:
            self._sometimes("a claim was told when others' messages are its turn")
        if len({one.id[:2] for one in outcome.messages}) > 1:
            self._sometimes("a claim took messages of several lanes")
        for one in outcome.messages:
            self._delivered(queue, one)
        blocked = {one.new.group for one in queue.of("blocked")}
        for message in queue.of("delayed"):
            if message.deliveries and message.new.group in blocked and queue.is_first(message):
                self._sometimes("a head that failed held up its group")

    def _delivered(self, queue: Queue, one: Delivered) -> None:
        message = queue.messages.get(one.id)
        if message is None:
            return
        if message.new.group and one.deliveries > 1:
            self._sometimes("a group's head was delivered again")
        if one.error:
            self._sometimes("a message came with what went wrong before")
        if message.new.dead:
            self._sometimes("a dead letter was claimed")

    def _transacted(self, command: c.Transact, outcome: Transacted) -> None:
        if outcome.stale:
            self._sometimes("a transaction was refused")
            if len(outcome.stale) < len(command.acks) + len(command.releases):
                self._sometimes("a transaction was refused for one of several parts")
            return
        if sum(outcome.acked) and outcome.put:
            self._sometimes("a transaction settled and put")
        for part, put in zip(command.puts, outcome.put, strict=True):
            self._enqueued((command.account, part.queue), part.messages, put)

    def _ends(self, command: c.Ack | c.DeleteQueue) -> None:
        claims = self._queue(command).claims
        if isinstance(command, c.DeleteQueue):
            if claims:
                self._sometimes("a queue was deleted with claims")
        elif claims.get(command.claim, math.inf) <= self._model.now_ms:
            self._sometimes("an ack arrived before the sweep that was due")
