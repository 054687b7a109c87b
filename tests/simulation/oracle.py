"""What the log means, told by the plain model of the queue's promises as the log grows.

The model (``queue_model``) shares no code with the state machine. It is shown each entry
when the first node applies it, with the outcomes that this node came to; every other node
has to come to the same ones.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable

from queue_model import Model, Queue
from statemachine import commands as c
from statemachine.machine import BatchResult
from statemachine.outcomes import Claimed, Done, Outcome, Reason, Refused, SessionOpened, Swept
from statemachine.queries import Stats

SESSION_IDLE_MS = 3_600_000
Names = tuple[str, str]
Counts = tuple[int, ...] | None  # Ready, delayed, claimed, blocked, claims; None: no queue.


class Effect:
    """A command that took effect: where, and what came of it."""

    __slots__ = ("command", "index", "outcome")

    def __init__(self, index: int, command: c.Command, outcome: Outcome) -> None:
        self.index = index
        self.command = command
        self.outcome = outcome


class Session:
    """What a node may ask for again."""

    def __init__(self, used_ms: int) -> None:
        self.used_ms = used_ms
        self.floor = 0
        self.known: dict[int, tuple[Outcome, ...]] = {}


class Oracle:
    """See the module. Every method raises AssertionError when a promise is broken."""

    def __init__(self, sometimes: Callable[[str], None]) -> None:
        self.model = Model()
        self.index = 0
        self.effects: list[Effect] = []
        self._sometimes = sometimes
        self._sessions: dict[int, Session] = {}
        self._counts: dict[Names, tuple[list[int], list[Counts]]] = {}

    def applied(self, index: int, entry: c.Entry | None, results: Iterable[BatchResult]) -> None:
        """The log's next entry, and what the first node to apply it answered."""
        assert index == self.index + 1, (index, self.index)
        self.index = index
        if entry is None:
            return
        model = self.model
        model.now_ms = max(model.now_ms, entry.stamp_ms)
        for batch, result in zip(entry.batches, results, strict=True):
            assert (result.session, result.seq) == (batch.session, batch.seq)
            assert len(result.outcomes) == len(batch.commands), "an outcome for each command"
            self._batch(batch, result.outcomes)
        self._count()

    def _batch(self, batch: c.Batch, outcomes: tuple[Outcome, ...]) -> None:
        if not batch.session:
            for command, outcome in zip(batch.commands, outcomes, strict=True):
                self._own(command, outcome)
            return
        session = self._sessions.get(batch.session)
        refused = outcomes[0] if isinstance(outcomes[0], Refused) else None
        if session is None or (refused and refused.reason is Reason.SESSION_EXPIRED):
            assert refused is not None, "a session that nobody opened"
            idle_ms = SESSION_IDLE_MS if session is None else self.model.now_ms - session.used_ms
            assert idle_ms >= SESSION_IDLE_MS, f"a session forgotten after {idle_ms} ms"
            return
        session.used_ms = self.model.now_ms
        if batch.seq < session.floor:
            self._sometimes("a batch came that nobody waits for any more")
            assert refused is not None, "a batch below the floor took effect"
            assert refused.reason is Reason.STALE_BATCH
            return
        self._run(session, batch, outcomes)
        session.floor = max(session.floor, batch.floor)
        for seq in [seq for seq in session.known if seq < session.floor]:
            del session.known[seq]

    def _run(self, session: Session, batch: c.Batch, outcomes: tuple[Outcome, ...]) -> None:
        known = session.known.get(batch.seq)
        if known is not None:
            self._sometimes("a retry was answered from the remembered outcome")
            for command, before, outcome in zip(batch.commands, known, outcomes, strict=True):
                assert outcome == self.model.again(command, before), "remembered wrongly"
            return
        session.known[batch.seq] = outcomes
        for command, outcome in zip(batch.commands, outcomes, strict=True):
            self._take(command, outcome)

    def _take(self, command: c.Command, outcome: Outcome) -> None:
        self.effects.append(Effect(self.index, command, outcome))
        if isinstance(command, c.Barrier):
            assert outcome == Done()
        else:
            self._notice(command, outcome)
            self.model.check(command, outcome)

    def _notice(self, command: c.Command, outcome: Outcome) -> None:
        kind = type(command).__name__
        self._sometimes(
            f"{kind} took effect" if not isinstance(outcome, Refused) else f"{kind} was refused"
        )
        if isinstance(command, c.Once) and (command.account, command.key) in self.model.once:
            self._sometimes("an idempotency key came again")
        if isinstance(command, c.Claim) and isinstance(outcome, Claimed):
            if outcome.until_ms and not outcome.claim:
                self._sometimes("a claim was told when others' messages are its turn")
            if len({one.id[:2] for one in outcome.messages}) > 1:
                self._sometimes("a claim took messages of several lanes")
        if isinstance(command, c.Ack | c.DeleteQueue):
            queue = self.model.queues.get((command.account, command.queue))
            claims = {} if queue is None else queue.claims
            if (
                isinstance(command, c.Ack)
                and claims.get(command.claim, math.inf) <= self.model.now_ms
            ):
                self._sometimes("an ack arrived before the sweep that was due")
            if isinstance(command, c.DeleteQueue) and claims:
                self._sometimes("a queue was deleted with claims")

    def _own(self, command: c.Command, outcome: Outcome) -> None:
        match command:
            case c.OpenSession():
                assert isinstance(outcome, SessionOpened)
                assert outcome.session not in self._sessions, "a session given twice"
                self._sessions[outcome.session] = Session(self.model.now_ms)
            case c.Sweep():
                assert isinstance(outcome, Swept)
                assert not outcome.more, "more than one sweep's work was due"
                self._notice_sweep(outcome)
                self.model.sweep()
            case c.Tick():
                self._sometimes(
                    "two leaders told of one tick"
                    if isinstance(outcome, Refused)
                    else "a schedule ticked"
                )
                self.model.check(command, outcome)
            case _:
                assert outcome == Done()

    def _notice_sweep(self, outcome: Swept) -> None:
        now_ms = self.model.now_ms
        for queue in self.model.queues.values():
            ends = list(queue.claims.values())
            if outcome.count and any(end > now_ms for end in ends):
                self._sometimes("a sweep ran beside live claims")
            if any(end <= now_ms for end in ends):
                self._sometimes("a sweep ended a lease")
            if any(
                one.due_ms <= now_ms for one in queue.messages.values() if one.state == "delayed"
            ):
                self._sometimes("a sweep ended a delay")
            if any(one.expired(now_ms) for one in queue.messages.values() if one.state == "ready"):
                self._sometimes("a sweep ended a message's life")

    # What reads may say.

    def _count(self) -> None:
        for names in [*self._counts, *self.model.queues]:
            counts = counted(self.model.queues.get(names))
            if counts is not None and counts[3]:
                self._sometimes("a message waited behind others of its group")
            at, values = self._counts.setdefault(names, ([0], [None]))
            if values[-1] != counts:
                at.append(self.index)
                values.append(counts)

    def counts(self, names: Names, index: int) -> Counts:
        """What a queue held right after the entry at ``index``."""
        at, values = self._counts.get(names, ([0], [None]))
        return values[bisect_right(at, index) - 1]


def counted(queue: Queue | None) -> Counts:
    """The model's counts of one queue."""
    if queue is None:
        return None
    states = [message.state for message in queue.messages.values()]
    return (
        states.count("ready"),
        states.count("delayed"),
        states.count("claimed"),
        states.count("blocked"),
        len(queue.claims),
    )


def of_stats(stats: Stats | None) -> Counts:
    """The same of what a replica says."""
    if stats is None:
        return None
    return stats.ready, stats.delayed, stats.claimed, stats.blocked, stats.claims
