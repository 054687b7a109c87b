"""Sessions: a batch that comes again is answered again, and not done again.

After Ongaro's dissertation, section 6.3. A node opens a session and numbers its
batches in it; the outcomes of a batch are kept until the node says, by its floor,
that it will not ask for them any more. A session that sends nothing for an hour of
log time is forgotten; whatever comes from it then is refused, since nobody can tell
any more what of it was done.
"""

from __future__ import annotations

from statemachine import keys, records
from statemachine.commands import OpenSession
from statemachine.outcomes import Outcome, SessionOpened
from statemachine.records import SessionRecord
from statemachine.state import Session, State
from statemachine.timers import SESSION, Timer

IDLE_MAX_MS = 3_600_000


def open_session(state: State, command: OpenSession) -> Outcome:
    """See ``commands.OpenSession``. Applied twice it opens two; the unused one expires."""
    session_id = state.take_id()
    record = SessionRecord(command.node, 0, state.now_ms)
    session = state.sessions[session_id] = Session(keys.session(session_id), record, {})
    state.touch(session)
    state.timers.put(state.now_ms + IDLE_MAX_MS, SESSION, keys.u64(session_id))
    return SessionOpened(session_id)


def expire(state: State, timer: Timer) -> None:
    """The session's timer has gone off; it is set anew if the session was used since."""
    session_id = keys.number(timer.subject)
    session = state.find_session(session_id)
    assert session is not None, timer
    state.timers.remove(timer.due_ms, SESSION, timer.subject)
    end_ms = session.record.used_ms + IDLE_MAX_MS
    if end_ms > state.now_ms:
        state.timers.put(end_ms, SESSION, timer.subject)
        return
    for key in session.remembered.values():
        state.kv.delete(key)
    state.drop_session(session_id)


def recall(state: State, session: Session, seq: int) -> tuple[Outcome, ...] | None:
    """What the batch was answered, if it was done and is remembered."""
    key = session.remembered.get(seq)
    if key is None:
        return None
    data = state.kv.get(key)
    assert data is not None, key
    return records.decode_outcomes(data)


def remember(
    state: State, session_id: int, session: Session, seq: int, outcomes: tuple[Outcome, ...]
) -> None:
    """Keep what the batch was answered."""
    key = keys.outcomes(session_id, seq)
    state.kv.put_new(key, records.encode(outcomes))
    session.remembered[seq] = key


def use(state: State, session: Session) -> None:
    """The session has sent a batch: before anything of it is done, which may be a sweep."""
    session.record.used_ms = state.now_ms
    state.touch(session)


def forget(state: State, session: Session, floor: int) -> None:
    """The session has this floor, and will not ask for what is below."""
    record = session.record
    if floor > record.floor:
        record.floor = floor
        for seq in [seq for seq in session.remembered if seq < floor]:
            state.kv.delete(session.remembered.pop(seq))
