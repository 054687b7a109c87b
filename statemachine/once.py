"""Idempotency keys: a client's request that comes again is answered again.

A key lives for the window of the request that used it first; after that, swept or
not, it is free.
"""

from __future__ import annotations

from collections.abc import Callable

from statemachine import keys, records
from statemachine.commands import Once, QueueCommand
from statemachine.deadlines import later
from statemachine.outcomes import Outcome, Reason, Refused
from statemachine.recollection import recalled, without_messages
from statemachine.records import OnceRecord
from statemachine.state import State
from statemachine.timers import ONCE, Timer


def run_once(state: State, command: Once, run: Callable[[State, QueueCommand], Outcome]) -> Outcome:
    """See ``commands.Once``. A refusal is remembered too, unless only the node is to hear it."""
    key = keys.once(command.account, command.key)
    data = state.kv.get(key)
    if data is not None:
        record = records.decode_once(data)
        if record.until_ms > state.now_ms:
            if record.fingerprint != command.fingerprint:
                detail = f"key {command.key!r} was used for another request"
                return Refused(Reason.KEY_REUSED, detail)
            return recalled(state, command.command, record.outcome)
        state.timers.remove(record.until_ms, ONCE, key[1:])
    outcome = run(state, command.command)
    if isinstance(outcome, Refused) and outcome.reason is Reason.STALE_SEAL:
        state.kv.delete(key)  # The node has yet to send what the client asked for.
        return outcome
    until_ms = later(state.now_ms, command.window_ms)
    record = OnceRecord(command.fingerprint, until_ms, without_messages(outcome))
    state.kv.put(key, records.encode(record))
    state.timers.put(until_ms, ONCE, key[1:])
    return outcome


def forget(state: State, timer: Timer) -> None:
    """The window is over."""
    state.kv.delete(b"k" + timer.subject)
    state.timers.remove(timer.due_ms, ONCE, timer.subject)
