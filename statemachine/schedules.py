"""Schedules: a message that is put at every tick, once, whoever leads.

What a calendar says is not for the state machine. A schedule waits for one tick, at
``next_ms``. When that is due the leader proposes ``Tick`` with the time of the tick
that follows; it takes effect only if the schedule still waits for that very tick.

The index of ticks (space f) has an entry for each schedule that waits, and
``MachineRecord.first_tick`` is the first of them, exactly: no scan begins where it would
walk over ticks that have been. It is not the index of ``timers``: a sweep does all that
is due there, and takes for granted that nothing due is left; a tick stays due until
somebody has told which one follows.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

import msgspec

from statemachine import keys, messages, quotas, records, room, sealing
from statemachine.commands import DeleteSchedule, Enqueue, PutSchedule, Tick
from statemachine.outcomes import Done, Enqueued, Outcome, Reason, Refused, Stored
from statemachine.queues import open_account
from statemachine.records import FOR_EVER, ScheduleRecord
from statemachine.state import State

SCHEDULES_MAX = 1_000
"""Of one account."""

NAME_HEADER = "raftq-schedule"
TICK_HEADER = "raftq-tick"
"""Of the messages: which schedule, and which tick, in Unix milliseconds."""


class Due(NamedTuple):
    """A schedule whose tick is due."""

    account: str
    schedule: str
    record: ScheduleRecord


def put_schedule(state: State, command: PutSchedule) -> Outcome:
    """See ``commands.PutSchedule``."""
    refusal = sealing.refused(state, command.account, (command.message,))
    if refusal is not None:
        return refusal
    key = keys.schedule(command.account, command.schedule)
    before = _find(state, key)
    record = ScheduleRecord(0, command.queue, command.message, command.timing, state.now_ms)
    if before is None:
        account = state.find_account(command.account)
        if account is not None and account.record.schedules >= SCHEDULES_MAX:
            detail = f"account {command.account!r} has {SCHEDULES_MAX} schedules, the most"
            return Refused(Reason.TOO_MANY_SCHEDULES, detail)
        refusal = quotas.refused(state, account, schedules=1)
        if refusal is not None:
            return refusal
        account = open_account(state, command.account)
        account.record.schedules += 1
        state.touch(account)
    else:
        if _same(before, command):
            return Stored(created=False)
        record.created_ms, record.next_ms = before.created_ms, before.next_ms
        record.ticks, record.last_ms = before.ticks, before.last_ms
        record.refused = before.refused
    record.version = state.take_id()
    _wait(state, key, record, command.next_ms)
    return Stored(created=before is None)


def delete_schedule(state: State, command: DeleteSchedule) -> Outcome:
    """See ``commands.DeleteSchedule``."""
    key = keys.schedule(command.account, command.schedule)
    record = _find(state, key)
    if record is None:
        detail = f"account {command.account!r} has no schedule {command.schedule!r}"
        return Refused(Reason.NO_SCHEDULE, detail)
    _wait(state, key, record, None)
    state.kv.delete(key)
    account = state.find_account(command.account)
    assert account is not None, "a schedule has an account"
    account.record.schedules -= 1
    state.touch(account)
    return Done()


def tick(state: State, command: Tick) -> Outcome:
    """See ``commands.Tick``."""
    key = keys.schedule(command.account, command.schedule)
    record = _find(state, key)
    if (
        record is None
        or (command.version, command.due_ms) != (record.version, record.next_ms)
        or command.due_ms > state.now_ms
    ):
        detail = f"schedule {command.schedule!r} does not wait for {command.due_ms}"
        return Refused(Reason.STALE_TICK, detail)
    outcome: Outcome = Enqueued(())
    if not command.skip:
        headers = (
            *record.message.headers,
            (NAME_HEADER, command.schedule),
            (TICK_HEADER, str(command.due_ms)),
        )
        message = msgspec.structs.replace(record.message, headers=headers)
        # Sealed or not: it is as it was when the schedule was put, and the tick has to come.
        put = Enqueue(command.account, record.queue, (message,))
        if room.refused(state, put) is not None:
            record.refused += 1  # It is over: one that waited would hold up those that follow.
        elif isinstance(outcome := messages.put(state, put), Refused):
            return outcome
        else:
            record.ticks += 1
    record.last_ms = command.due_ms
    is_behind = command.next_ms is not None and command.next_ms <= state.now_ms
    record.behind = record.behind + 1 if is_behind else 0
    _wait(state, key, record, command.next_ms)
    return outcome


def first_ms(state: State) -> int | None:
    """When the first tick of all schedules is due; None if there is none."""
    first = state.machine.first_tick
    return keys.split_tick(first)[0] if first else None


def due(state: State, now_ms: int, limit: int) -> list[Due]:
    """Up to ``limit`` schedules whose tick is due at ``now_ms``, the first ones first."""
    first = first_ms(state)
    if first is None or first > now_ms:
        return []
    low = state.machine.first_tick
    rows = list(islice(state.kv.scan(low, keys.tick(_indexed(now_ms + 1))), limit))
    found = []
    for row, _ in rows:
        _, account, schedule = keys.split_tick(row)
        record = _find(state, keys.schedule(account, schedule))
        assert record is not None, row
        found.append(Due(account, schedule, record))
    return found


def _find(state: State, key: bytes) -> ScheduleRecord | None:
    data = state.kv.get(key)
    return None if data is None else records.decode_schedule(data)


def _same(record: ScheduleRecord, command: PutSchedule) -> bool:
    """Whether the command would change nothing, so that no tick need be reckoned anew."""
    return (record.queue, record.message, record.timing) == (
        command.queue,
        command.message,
        command.timing,
    ) and (record.next_ms is not None or command.next_ms is None)


def _wait(state: State, key: bytes, record: ScheduleRecord, next_ms: int | None) -> None:
    """Store the record; it waits for another tick than before, or for none any more."""
    machine, kv = state.machine, state.kv
    if record.next_ms is not None:
        before = keys.tick(_indexed(record.next_ms), key)
        kv.delete(before)
        if before == machine.first_tick:
            rows = kv.scan(before, keys.tick(FOR_EVER))
            machine.first_tick = next((row for row, _ in rows), b"")
    record.next_ms = next_ms
    kv.put(key, records.encode(record))
    if next_ms is not None:
        after = keys.tick(_indexed(next_ms), key)
        kv.put(after, b"")
        if not machine.first_tick or after < machine.first_tick:
            machine.first_tick = after


def _indexed(time_ms: int) -> int:
    """A time that can be part of a key."""
    return min(max(time_ms, 0), FOR_EVER - 1)
