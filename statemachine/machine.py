"""The state machine: entries of the log in, outcomes out. Start reading at ``apply``.

A *round* is several entries, then ``end_round``, then the engine's commit. How
entries are grouped into rounds differs between replicas, and so does when they
restart; what is in the store at the end of a round depends on the log alone.

An exception is a bug or damage: the round must not be committed and the replica
must stop. What a client can do wrong is an outcome (``Refused``).
"""

from __future__ import annotations

from typing import NamedTuple, assert_never

from statemachine import (
    access_keys,
    auditing,
    bindings,
    claims,
    events,
    jobs,
    messages,
    once,
    queues,
    schedules,
    sealing,
    sessions,
    subscriptions,
    sweeps,
    transactions,
)
from statemachine.commands import (
    ENTRY_VERSION,
    Ack,
    Audited,
    Barrier,
    Batch,
    CancelJob,
    Claim,
    Command,
    DeleteAccount,
    DeleteBinding,
    DeleteMessages,
    DeleteQueue,
    DeleteSchedule,
    DeleteSubscription,
    DisableSubscription,
    DropSealingKeys,
    Enqueue,
    Entry,
    Extend,
    ExtendMany,
    Once,
    OpenSession,
    PatchAccount,
    PatchQueue,
    Purge,
    PutAccount,
    PutBinding,
    PutKey,
    PutQueue,
    PutSchedule,
    PutSealingKeys,
    PutSubscription,
    Release,
    ReportDigest,
    RevokeKey,
    RotateKey,
    SetQuotas,
    StartJob,
    Sweep,
    Take,
    TakeDigest,
    TakeSubscriptions,
    Tick,
    Transact,
    TransactAndClaim,
    UseKeys,
)
from statemachine.kv import KV
from statemachine.outcomes import Done, Outcome, Reason, Refused
from statemachine.prospects import Prospects, prospects, ready_zones
from statemachine.recollection import recalled, without_messages
from statemachine.sealed import SealingRecord
from statemachine.settings import Effective
from statemachine.state import ORDINAL_BITS, State
from statemachine.state import UnknownVersion as UnknownVersion


class BatchResult(NamedTuple):
    """The outcomes of one batch, in the order of its commands."""

    session: int
    seq: int
    outcomes: tuple[Outcome, ...]


class Machine:
    """The replicated core over one store, of which it is the only writer."""

    def __init__(self, kv: KV) -> None:
        self._state = State(kv)

    @property
    def applied_index(self) -> int:
        """The last entry applied; 0 before the first."""
        return self._state.machine.index

    @property
    def applied_term(self) -> int:
        """Its term."""
        return self._state.machine.term

    @property
    def stamp_ms(self) -> int:
        """Log time."""
        return self._state.machine.stamp_ms

    def apply(self, index: int, term: int, entry: Entry | None) -> list[BatchResult]:
        """Apply the log's next entry; None is an entry of the log's own."""
        state = self._state
        before = state.machine.index
        assert state.is_empty or index == before + 1, (index, before)
        if entry is None:
            state.begin(index, term, 0)
            return []
        if entry.version != ENTRY_VERSION:
            raise UnknownVersion(f"entry {index} is of version {entry.version}")
        state.begin(index, term, entry.stamp_ms)
        results = [_run_batch(state, batch) for batch in entry.batches]
        events.tell(state)
        assert state.next_id >> ORDINAL_BITS == index, "an entry has too many messages"
        return results

    def end_round(self) -> None:
        """Write what was kept back; the engine commits after it."""
        self._state.end_round()

    def take_woken(self) -> dict[tuple[str, str, str], int]:
        """By account, queue and zone, how many messages became ready since last asked."""
        woken: dict[tuple[str, str, str], int] = {}
        for lane, count in self._state.woken.items():
            woken[lane.place] = woken.get(lane.place, 0) + count
        self._state.woken.clear()
        return woken

    def take_noted(self) -> list[tuple[str, str]]:
        """Account and queue of those with new events since last asked; see ``State.noted``."""
        noted, self._state.noted = self._state.noted, {}
        return list(noted)

    def in_force(self, account: str, queue: str) -> Effective:
        """The settings of a queue, or those that it would have."""
        return self._state.in_force(account, queue)

    def ready(self, account: str, queue: str) -> int:
        """How many messages claims may find in a queue."""
        found = self._state.find_queue(account, queue)
        return 0 if found is None else found.record.ready

    def ready_zones(self, account: str, queue: str) -> list[str]:
        """Of which zones these are; an empty one: of none."""
        found = self._state.find_queue(account, queue)
        return [] if found is None else ready_zones(found)

    def prospects(self, command: Claim | Take) -> Prospects:
        """What such a claim may find."""
        return prospects(self._state, command)

    def sealing(self, account: str) -> SealingRecord | None:
        """The keys of an account whose bodies are sealed, or some are; else None."""
        found = self._state.find_account(account)
        return None if found is None else found.sealing

    @property
    def sealing_changes(self) -> int:
        """A number that grows whenever the keys of an account change."""
        return self._state.sealing_changes

    def take_subscriptions_moved(self) -> bool:
        """Whether a subscription or a runner has come, gone, or changed since last asked."""
        moved, self._state.subscriptions_moved = self._state.subscriptions_moved, False
        return moved

    def take_keys_moved(self) -> bool:
        """Whether an access key has come, gone, or got another secret since last asked."""
        moved, self._state.keys_moved = self._state.keys_moved, False
        return moved

    def next_due_ms(self) -> int | None:
        """The log time at which a sweep is wanted next; None if nothing will be due."""
        return self._state.timers.first_ms()

    def next_tick_ms(self) -> int | None:
        """The log time at which a schedule ticks next; None if none will."""
        return schedules.first_ms(self._state)

    def due_schedules(self, now_ms: int, limit: int) -> list[schedules.Due]:
        """Schedules that have a tick by then; only a ``Tick`` makes it come."""
        return schedules.due(self._state, now_ms, limit)


def _run_batch(state: State, batch: Batch) -> BatchResult:
    state.node = ""
    if not batch.session:
        return BatchResult(0, batch.seq, tuple([_run(state, one) for one in batch.commands]))
    session = state.find_session(batch.session)
    if session is None:
        detail = "the node's session is not known, or was forgotten for being idle"
        return _refused(batch, Refused(Reason.SESSION_EXPIRED, detail))
    if batch.seq < session.record.floor:
        detail = f"batch {batch.seq} is below the session's floor {session.record.floor}"
        return _refused(batch, Refused(Reason.STALE_BATCH, detail))
    sessions.use(state, session)
    known = sessions.recall(state, session, batch.seq)
    if known is not None:
        again = [recalled(state, *pair) for pair in zip(batch.commands, known, strict=True)]
        outcomes = tuple(again)
    else:
        state.node = session.record.node.partition("/")[
            0
        ]  # Its name; the rest is the session's own.
        outcomes = tuple([_run(state, command) for command in batch.commands])
        kept = tuple([without_messages(outcome) for outcome in outcomes])
        sessions.remember(state, batch.session, session, batch.seq, kept)
    sessions.forget(state, session, batch.floor)
    return BatchResult(batch.session, batch.seq, outcomes)


def _refused(batch: Batch, refusal: Refused) -> BatchResult:
    return BatchResult(batch.session, batch.seq, (refusal,) * len(batch.commands))


def _run(state: State, command: Command) -> Outcome:
    match command:
        case Enqueue():  # The most frequent ones first.
            return messages.enqueue(state, command)
        case Claim():
            return claims.claim(state, command)
        case Ack():
            return claims.ack(state, command)
        case Take():
            return claims.take(state, command)
        case Transact() | TransactAndClaim():
            return transactions.run(state, command)
        case Once():
            return once.run_once(state, command, _run)
        case Audited():
            return auditing.run_audited(state, command, _run)
        case Sweep():
            return sweeps.sweep(state, command)
        case Barrier() | ReportDigest() | TakeDigest():
            return Done()  # The node watches for them; the state does not change.
        case _:
            return _run_rare(state, command)


def _run_rare(
    state: State,
    command: OpenSession
    | Release
    | Extend
    | ExtendMany
    | DeleteMessages
    | Purge
    | StartJob
    | CancelJob
    | Tick
    | _SettingsCommand,
) -> Outcome:
    match command:
        case OpenSession():
            return sessions.open_session(state, command)
        case Release():
            return claims.release(state, command)
        case Extend():
            return claims.extend(state, command)
        case ExtendMany():
            return claims.extend_many(state, command)
        case DeleteMessages():
            return messages.delete_messages(state, command)
        case Purge():
            return queues.purge(state, command)
        case StartJob():
            return jobs.start(state, command)
        case CancelJob():
            return jobs.cancel(state, command)
        case Tick():
            return schedules.tick(state, command)
        case _:
            return _run_settings(state, command)


_SubscriptionCommand = (
    PutSubscription | DeleteSubscription | DisableSubscription | TakeSubscriptions
)
_KeyCommand = PutKey | RotateKey | RevokeKey | UseKeys
_StandingCommand = (
    PutBinding | DeleteBinding | PutSchedule | DeleteSchedule | _SubscriptionCommand | _KeyCommand
)
_SettingsCommand = (
    PutQueue
    | PatchQueue
    | DeleteQueue
    | PutAccount
    | PatchAccount
    | DeleteAccount
    | PutSealingKeys
    | DropSealingKeys
    | SetQuotas
    | _StandingCommand
)


def _run_settings(state: State, command: _SettingsCommand) -> Outcome:
    match command:
        case PutQueue():
            return queues.put_queue(state, command)
        case PatchQueue():
            return queues.patch_queue(state, command)
        case DeleteQueue():
            return queues.delete_queue(state, command)
        case PutAccount():
            return queues.put_account(state, command)
        case PatchAccount():
            return queues.patch_account(state, command)
        case DeleteAccount():
            return queues.delete_account(state, command)
        case PutSealingKeys():
            return sealing.put_keys(state, command)
        case DropSealingKeys():
            return sealing.drop_keys(state, command)
        case SetQuotas():
            return queues.set_quotas(state, command)
        case _:
            return _run_standing(state, command)


def _run_standing(state: State, command: _StandingCommand) -> Outcome:
    """What stands until it is taken back, and acts meanwhile."""
    match command:
        case PutBinding():
            return bindings.put_binding(state, command)
        case DeleteBinding():
            return bindings.delete_binding(state, command)
        case PutSchedule():
            return schedules.put_schedule(state, command)
        case DeleteSchedule():
            return schedules.delete_schedule(state, command)
        case _:
            return _run_subscription(state, command)


def _run_subscription(state: State, command: _SubscriptionCommand | _KeyCommand) -> Outcome:
    match command:
        case PutSubscription():
            return subscriptions.put(state, command)
        case DeleteSubscription():
            return subscriptions.delete(state, command)
        case DisableSubscription():
            return subscriptions.disable(state, command)
        case TakeSubscriptions():
            return subscriptions.take(state, command)
        case _:
            return _run_key(state, command)


def _run_key(state: State, command: _KeyCommand) -> Outcome:
    match command:
        case PutKey():
            return access_keys.put(state, command)
        case RotateKey():
            return access_keys.rotate(state, command)
        case RevokeKey():
            return access_keys.revoke(state, command)
        case UseKeys():
            return access_keys.use(state, command)
        case _ as unreachable:
            assert_never(unreachable)
