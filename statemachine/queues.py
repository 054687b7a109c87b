"""Queues and accounts: they come with the first message, and go when told to."""

from __future__ import annotations

from statemachine import deadlines, events, keys, quotas
from statemachine.commands import (
    DeleteAccount,
    DeleteQueue,
    PatchAccount,
    PatchQueue,
    Purge,
    PutAccount,
    PutQueue,
    QueueSettings,
    SetQuotas,
)
from statemachine.outcomes import Deleted, Done, Outcome, Reason, Refused, Stored
from statemachine.records import FOR_EVER, AccountRecord, History, QueueRecord
from statemachine.settings import patched
from statemachine.state import Account, Queue, State

NOTHING_SET = QueueSettings()


def open_queue(state: State, account: str, name: str) -> Queue:
    """The queue, made with its account if there is none."""
    return state.find_queue(account, name) or _create(state, account, name, NOTHING_SET)


def open_account(state: State, name: str) -> Account:
    """The account, made if there is none."""
    return state.find_account(name) or _create_account(state, name, NOTHING_SET)


def put_queue(state: State, command: PutQueue) -> Outcome:
    """See ``commands.PutQueue``."""
    queue = state.find_queue(command.account, command.queue)
    if queue is None:
        refusal = quotas.refused(state, state.find_account(command.account), queues=1)
        if refusal is not None:
            return refusal
        _create(state, command.account, command.queue, command.settings)
        return Stored(created=True)
    return _set(state, queue, command.settings)


def patch_queue(state: State, command: PatchQueue) -> Outcome:
    """See ``commands.PatchQueue``."""
    queue = state.find_queue(command.account, command.queue)
    if queue is None:
        return no_queue(command.account, command.queue)
    return _set(state, queue, patched(queue.record.settings, command.settings, command.fields))


def delete_queue(state: State, command: DeleteQueue) -> Outcome:
    """See ``commands.DeleteQueue``."""
    queue = state.find_queue(command.account, command.queue)
    if queue is None:
        return no_queue(command.account, command.queue)
    events.queue_deleted(state, queue)
    _empty(state, queue)
    if queue.record.bindings:
        state.kv.delete(keys.bindings(*queue.names))
    _drop_subscriptions(state, queue.account, command.account, command.queue)
    state.drop_queue(queue)
    state.machine.queues -= 1
    queue.account.record.queues -= 1
    state.touch(queue.account)
    return Done()


def purge(state: State, command: Purge) -> Outcome:
    """See ``commands.Purge``."""
    queue = state.find_queue(command.account, command.queue)
    if queue is None:
        return no_queue(command.account, command.queue)
    record = queue.record
    count = record.ready + record.delayed + record.claimed + record.blocked
    if count or _has_more(record):
        _empty(state, queue)
        # Under a new number nothing of before can be found, by a late ack least of all.
        fresh = _new_record(state, record.settings, record.created_ms, record.history)
        fresh.tally, fresh.bindings = record.tally, record.bindings
        queue.begin(fresh)
        state.touch_queue(queue)
        events.note(state, queue, events.PURGED, count=count)
    return Deleted(count)


def put_account(state: State, command: PutAccount) -> Outcome:
    """See ``commands.PutAccount``."""
    account = state.find_account(command.account)
    if account is None:
        _create_account(state, command.account, command.defaults)
        return Stored(created=True)
    account.record.defaults = command.defaults
    state.touch(account)
    return Stored(created=False)


def patch_account(state: State, command: PatchAccount) -> Outcome:
    """See ``commands.PatchAccount``."""
    account = state.find_account(command.account)
    if account is None:
        return no_account(command.account)
    account.record.defaults = patched(account.record.defaults, command.defaults, command.fields)
    state.touch(account)
    return Stored(created=False)


def set_quotas(state: State, command: SetQuotas) -> Outcome:
    """See ``commands.SetQuotas``."""
    account, is_new = state.find_account(command.account), False
    if account is None:
        if command.fields is not None:
            return no_account(command.account)
        account, is_new = open_account(state, command.account), True
    account.record.quotas = quotas.changed(account.record.quotas, command)
    state.touch(account)
    return Stored(created=is_new)


def delete_account(state: State, command: DeleteAccount) -> Outcome:
    """See ``commands.DeleteAccount``."""
    account = state.find_account(command.account)
    if account is None:
        return no_account(command.account)
    if account.record.queues:
        count = account.record.queues
        return Refused(Reason.ACCOUNT_IN_USE, f"account {command.account!r} has {count} queues")
    if account.record.schedules:
        count = account.record.schedules
        return Refused(Reason.ACCOUNT_IN_USE, f"account {command.account!r} has {count} schedules")
    events.account_deleted(state, account)
    _forget_keys(state, command.account)
    state.drop_account(command.account)
    state.machine.accounts -= 1
    return Done()


def _forget_keys(state: State, account: str) -> None:
    """The keys of an account that is no more."""
    low, high = keys.access_keys(account)
    for row in [row for row, _ in state.kv.scan(low, high)]:
        (key_id,) = keys.split_names(row[len(low) :])
        state.kv.delete(keys.access_key(key_id))
        state.kv.delete(row)
        state.keys_moved = True


def set_marks(record: QueueRecord, next_id: int) -> None:
    """Raise the marks of claims if none is left; for those of messages see ``lanes.settle``."""
    if not record.claims:
        record.claims_low = record.leases_low = next_id
        record.lease_high_ms = 0


def no_queue(account: str, queue: str) -> Refused:
    """The answer to a command for a queue that is not there."""
    return Refused(Reason.NO_QUEUE, f"account {account!r} has no queue {queue!r}")


def no_account(account: str) -> Refused:
    """The answer to a command for an account that is not there."""
    return Refused(Reason.NO_ACCOUNT, f"there is no account {account!r}")


def _create(state: State, account: str, name: str, settings: QueueSettings) -> Queue:
    owner = open_account(state, account)
    record = _new_record(state, settings, state.now_ms)
    queue = Queue((account, name), keys.queue(account, name), record, owner)
    state.queues[queue.names] = queue
    state.machine.queues += 1
    owner.record.queues += 1
    state.touch(owner)
    state.touch_queue(queue)
    events.note(state, queue, events.QUEUE_CREATED)
    return queue


def _new_record(
    state: State, settings: QueueSettings, created_ms: int, history: History | None = None
) -> QueueRecord:
    """The record of a queue in which nothing is."""
    number = state.take_id()
    record = QueueRecord(number, settings, created_ms, history or History(number))
    record.deadlines_low_ms = state.now_ms
    set_marks(record, state.next_id)
    return record


def _create_account(state: State, name: str, defaults: QueueSettings) -> Account:
    record = AccountRecord(defaults, state.now_ms, History(state.take_id()))
    account = Account(keys.account(name), record)
    state.accounts[name] = account
    state.machine.accounts += 1
    state.touch(account)
    return account


def _set(state: State, queue: Queue, settings: QueueSettings) -> Outcome:
    queue.record.settings = settings
    queue.settings_changed()
    state.touch_queue(queue)
    events.note(state, queue, events.QUEUE_CHANGED)
    return Stored(created=False)


def _has_more(record: QueueRecord) -> bool:
    """Whether there is something to a queue besides its messages."""
    return bool(record.claims or record.dedup_ids) or record.job_ms != FOR_EVER


def _drop_subscriptions(state: State, owner: Account, account: str, name: str) -> None:
    for key, _ in list(state.kv.scan(*keys.subscriptions(account, name))):
        state.kv.delete(key)
        owner.record.subscriptions -= 1
        state.subscriptions_moved = True


def _empty(state: State, queue: Queue) -> None:
    record = queue.record
    deadlines.set_timer(state, queue, FOR_EVER)
    has_messages = record.ready or record.delayed or record.blocked
    if has_messages or _has_more(record) or record.lanes > 1:
        for space in keys.OF_QUEUE:
            low = keys.of_queue(space, record.number)
            state.kv.delete_range(low, keys.of_queue(space, record.number + 1))
