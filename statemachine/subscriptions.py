"""Subscriptions: where a queue's messages are posted, and which node does it.

A node that runs subscriptions is a *runner*: it says so again and again, and is believed
until its lease ends. A subscription names the runner that has it. So one command keeps
all of a node's subscriptions, however many; and when the runner is no more they are
free, with nothing written to them.
"""

from __future__ import annotations

from msgspec.structs import replace

from statemachine import keys, quotas, records
from statemachine.commands import (
    DeleteSubscription,
    DisableSubscription,
    PutSubscription,
    SubscriptionName,
    TakeSubscriptions,
)
from statemachine.deadlines import later
from statemachine.outcomes import (
    Done,
    Outcome,
    Reason,
    Refused,
    SubscriptionsTaken,
    SubscriptionStored,
)
from statemachine.queues import open_queue
from statemachine.records import RunnerRecord, SubscriptionRecord
from statemachine.state import State
from statemachine.timers import RUNNER, Timer

OF_QUEUE_MAX = 16
"""How many subscriptions a queue may have. They share its messages: more are no faster."""


def put(state: State, command: PutSubscription) -> Outcome:
    """See ``commands.PutSubscription``."""
    names = (command.account, command.queue, command.name)
    found = find(state, names)
    if found is None and _are_too_many(state, command):
        detail = f"queue {command.queue!r} has {OF_QUEUE_MAX} subscriptions, as many as it may have"
        return Refused(Reason.TOO_MANY_SUBSCRIPTIONS, detail)
    known = state.find_queue(command.account, command.queue)
    refusal = quotas.refused(
        state,
        state.find_account(command.account),
        queues=int(known is None),
        subscriptions=int(found is None),
    )
    if refusal is not None:
        return refusal
    owner = open_queue(state, command.account, command.queue).account
    revision = state.take_id()
    if found is None:
        owner.record.subscriptions += 1
        state.touch(owner)
        record = SubscriptionRecord(revision, command.settings, command.secret, state.now_ms)
    else:
        record = replace(
            found,
            revision=revision,
            settings=command.settings,
            secret=found.secret if command.made else command.secret,
            disabled_ms=0,
            disabled_reason="",
        )
    _write(state, names, record)
    shown = command.secret if command.made and found is None else b""
    return SubscriptionStored(found is None, shown)


def delete(state: State, command: DeleteSubscription) -> Outcome:
    """See ``commands.DeleteSubscription``."""
    names = (command.account, command.queue, command.name)
    if find(state, names) is None:
        return _none(names)
    state.kv.delete(keys.subscription(*names))
    state.subscriptions_moved = True
    owner = state.find_account(command.account)
    assert owner is not None, "a subscription has an account"
    owner.record.subscriptions -= 1
    state.touch(owner)
    return Done()


def disable(state: State, command: DisableSubscription) -> Outcome:
    """See ``commands.DisableSubscription``."""
    names = (command.account, command.queue, command.name)
    found = find(state, names)
    if found is None:
        return _none(names)
    if found.revision == command.revision and not found.disabled_reason:
        reason = command.reason or "no reason was given"
        _write(state, names, replace(found, disabled_ms=state.now_ms, disabled_reason=reason))
    return Done()


def take(state: State, command: TakeSubscriptions) -> Outcome:
    """See ``commands.TakeSubscriptions``."""
    node = command.node
    runner = _runner(state, node)
    if command.lease_ms <= 0:
        if runner is not None:
            _forget(state, node, runner)
        return SubscriptionsTaken(0, 0)
    until_ms = later(state.now_ms, command.lease_ms)
    if runner is not None:
        state.timers.remove(runner.until_ms, RUNNER, keys.name(node))
    number = runner.number if runner is not None and runner.until_ms > state.now_ms else 0
    if not number:
        number = state.take_id()
        state.subscriptions_moved = True
    state.kv.put(keys.runner(node), records.encode(RunnerRecord(number, until_ms)))
    state.timers.put(until_ms, RUNNER, keys.name(node))
    for names in command.drop:
        found = find(state, names)
        if found is not None and found.runner == number:
            _write(state, names, replace(found, node="", runner=0))
    for names in command.take:
        found = find(state, names)
        if found is not None and not _is_taken(state, found):
            _write(state, names, replace(found, node=node, runner=number))
    return SubscriptionsTaken(number, until_ms)


def forget_runner(state: State, timer: Timer) -> None:
    """The runner has not been heard of for as long as its lease."""
    (node,) = keys.split_names(timer.subject)
    runner = _runner(state, node)
    assert runner is not None, timer
    assert runner.until_ms == timer.due_ms, timer
    _forget(state, node, runner)


def find(state: State, names: SubscriptionName) -> SubscriptionRecord | None:
    """The subscription, or None."""
    data = state.kv.get(keys.subscription(*names))
    return None if data is None else records.decode_subscription(data)


def _are_too_many(state: State, command: PutSubscription) -> bool:
    low, high = keys.subscriptions(command.account, command.queue)
    return sum(1 for _ in state.kv.scan(low, high)) >= OF_QUEUE_MAX


def _is_taken(state: State, record: SubscriptionRecord) -> bool:
    if not record.runner:
        return False
    runner = _runner(state, record.node)
    return runner is not None and runner.number == record.runner and runner.until_ms > state.now_ms


def _runner(state: State, node: str) -> RunnerRecord | None:
    data = state.kv.get(keys.runner(node))
    return None if data is None else records.decode_runner(data)


def _forget(state: State, node: str, runner: RunnerRecord) -> None:
    state.kv.delete(keys.runner(node))
    state.timers.remove(runner.until_ms, RUNNER, keys.name(node))
    state.subscriptions_moved = True


def _write(state: State, names: SubscriptionName, record: SubscriptionRecord) -> None:
    state.kv.put(keys.subscription(*names), records.encode(record))
    state.subscriptions_moved = True


def _none(names: SubscriptionName) -> Refused:
    account, queue, name = names
    detail = f"queue {queue!r} of account {account!r} has no subscription {name!r}"
    return Refused(Reason.NO_SUBSCRIPTION, detail)
