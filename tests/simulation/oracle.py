"""What the log means, told by the plain model of the queue's promises as the log grows.

The model (``queue_model``) shares no code with the state machine. It is shown each entry
when the first node applies it, with the outcomes that this node came to; every other node
has to come to the same ones.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

import msgspec

from queue_model import Job, Model, Queue, is_stored
from simulation.agreement import Store, Told
from simulation.arrangements import Arrangements
from simulation.notices import Notices
from statemachine import commands as c
from statemachine.acts import FAILURES_MAX
from statemachine.machine import BatchResult
from statemachine.outcomes import Done, Outcome, Reason, Refused, SessionOpened, Swept
from statemachine.queries import Stats
from statemachine.records import JobRecord
from steps import ids_given

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
        self._notices = Notices(self.model, sometimes)
        self.arrangements = Arrangements(self.model, sometimes)
        self.told = Told()
        self._store: Store
        self._gone: frozenset[bytes] = frozenset()  # What commands of the entry may have taken.
        self._learnt = 0  # How many ids the model had made up when it last knew all true ones.

    def applied(
        self,
        at: tuple[int, int],
        entry: c.Entry | None,
        results: Sequence[BatchResult],
        store: Store,
        born: int,
    ) -> None:
        """The log's next entry, and what the first node to apply it answered, and holds now.

        ``at`` is the entry's index and term; ``born`` the index with which that node started.
        """
        index, term = at
        assert index == self.index + 1, (index, self.index)
        self.index, self._store = index, store
        self._notices.index, self._notices.term, self._notices.born = index, term, born
        if entry is None:
            return
        model = self.model
        model.now_ms = max(model.now_ms, entry.stamp_ms)
        self._gone = _gone(entry, results)
        for batch, result in zip(entry.batches, results, strict=True):
            assert (result.session, result.seq) == (batch.session, batch.seq)
            assert len(result.outcomes) == len(batch.commands), "an outcome for each command"
            self._batch(batch, result.outcomes)
        self._learn()
        self._have_learnt_all()
        for names, job in self._jobs():
            if not job.mark:
                self._stored(names, job)
        self.told.entry(index, model)
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
                self._notices.again(command)
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
            self._learn()
            self._notices.command(command, outcome)
            self.arrangements.command(command, outcome, self._store)
            self.model.check(command, outcome)

    def _learn(self) -> None:
        """Show the model the ids of what came from other queues, of which no outcome tells."""
        if self.model.made_up == self._learnt:
            return
        for names, queue in self.model.queues.items():
            unknown = [one for one in queue.messages.values() if not one.is_known]
            for message_id, record in self._store.rows(names) if unknown else ():
                # What a later command of the entry puts is not there yet.
                if any(is_stored(one, record) for one in unknown if not one.is_known):
                    self.model.learn(names, message_id, record)

    def _have_learnt_all(self) -> None:
        if self.model.made_up == self._learnt:
            return
        for names, queue in self.model.queues.items():
            lost = [one for one in queue.messages.values() if not one.is_known]
            assert not lost, f"{names} has not got {lost}"
        self._learnt = self.model.made_up

    def _own(self, command: c.Command, outcome: Outcome) -> None:
        match command:
            case c.OpenSession():
                assert isinstance(outcome, SessionOpened)
                assert outcome.session not in self._sessions, "a session given twice"
                self._sessions[outcome.session] = Session(self.model.now_ms)
            case c.Sweep():
                assert isinstance(outcome, Swept)
                assert not outcome.more, "more than one sweep's work was due"
                self._sweep(outcome)
            case c.Tick():
                self.arrangements.tick(command, outcome, self._notices.term)
                self.model.check(command, outcome)
            case _:
                assert outcome == Done()

    def _sweep(self, outcome: Swept) -> None:
        swept = self._notices.sweep(outcome)
        model = self.model
        moved = {names: job.done for names, job in self._jobs()}
        model.sweep(self._moves)
        for names, before in moved.items():
            job = model.queues[names].job
            assert job is not None, "a sweep takes no job away"
            self._agrees(names, job)
            if job.done > before or job.is_over:
                self._notices.worked(names)
        swept()

    def _agrees(self, names: Names, job: Job) -> None:
        """A job tells of itself what it has done."""
        found = self._stored(names, job)
        if found is None:
            assert self._store.job(names) is not None, f"the job of {names} is not told of"
            return  # The entry has begun another one as well.
        assert (found.done, bool(found.ended_ms)) == (job.done, job.is_over), f"{names}: {found}"
        if job.is_over and not job.asked.rate:
            assert found.failed == len(job.troubles), f"{names}: {found}"
            failures = {one.id: one.reason for one in found.failures}
            assert failures.items() <= job.troubles.items(), f"{names}: {found}"
            assert len(failures) == min(found.failed, FAILURES_MAX), f"{names}: {found}"

    def _jobs(self) -> list[tuple[Names, Job]]:
        queues = self.model.queues.items()
        return [(names, one.job) for names, one in queues if one.job and not one.job.is_over]

    def _moves(self, names: Names, job: Job) -> None:
        """How far a job comes that takes its time is up to the store; what it does is not."""
        # The store is that at the entry's end: what is not there a later command may have taken.
        there = self._gone.union([message_id for message_id, _ in self._store.rows(names)])
        while gone := [one for one in self.model.movable(names) if one.id not in there]:
            for message in gone:
                self.model.moves(names, message)
        found = self._stored(names, job)
        job.is_over = found is None or (found.ended_ms > 0 and not found.cancelled)

    def _stored(self, names: Names, job: Job) -> JobRecord | None:
        """The job as the store holds it; None if there is none, or one that came after it."""
        found = self._store.job(names)
        if found is not None and not job.mark:
            job.mark = found.mark
        return found if found is not None and found.mark == job.mark else None

    @property
    def redrives(self) -> list[Names]:
        """Queues with a job that is not over."""
        return [names for names, _ in self._jobs()]

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


def _gone(entry: c.Entry, results: Sequence[BatchResult]) -> frozenset[bytes]:
    """Messages that commands of the entry took or deleted, whether they were there or not."""
    ids: set[bytes] = set()
    for batch, result in zip(entry.batches, results, strict=False):
        for command, outcome in zip(batch.commands, result.outcomes, strict=False):
            bare = command.command if isinstance(command, c.Once) else command
            if isinstance(bare, c.DeleteMessages):
                ids.update(bare.ids)
            ids |= ids_given(outcome)
    return frozenset(ids)


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


def key_of(command: c.Command) -> bytes:
    """Equal for equal commands alone."""
    return msgspec.msgpack.encode(command)
