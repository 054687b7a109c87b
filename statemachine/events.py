"""The history: what happened in a queue, one row for an entry, one event for a command.

An event's id is the index of its log entry and its ordinal among the events of that
entry, of whatever queue: unique in the cluster, and in the order in which things
happened. Those of one queue are written together, at the end of the entry. Adjacent
messages with the same count of deliveries are a run of eighteen bytes. That a delay is
over is no event: it is known beforehand.

Rows go in *stretches*, a quarter of what is kept each. When a stretch is begun and
there is too much, or the oldest is too old, the oldest goes with one range delete: no
scan looks for what to forget, and none ever begins below what is gone. So at least three
quarters of ``history_bytes`` are kept, and events of ``history_ms``, at most a quarter
longer. A queue in which nothing happens is rid of them by its timer (``forget_aged``).

Invariant: all events after a history's *gone* mark are there. A reader whose position
is at or behind the mark has missed nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct

from statemachine import deadlines, keys, records
from statemachine.commands import MessageId, QueueSettings
from statemachine.deadlines import later
from statemachine.records import FOR_EVER, ClaimRecord, EventRecord, Held, History, Stretch
from statemachine.settings import Effective, effective
from statemachine.state import Account, Queue, Said, State
from statemachine.timers import HISTORY, Timer

ENQUEUED = 1
CLAIMED = 2
EXTENDED = 3
RELEASED = 4
LEASE_ENDED = 5
ACKED = 6
EXPIRED = 7
DELETED = 8
DEAD_LETTERED = 9
REDRIVEN = 10
PURGED = 11
QUEUE_CREATED = 12
QUEUE_CHANGED = 13
QUEUE_DELETED = 14
MOVED = 15

KINDS = {
    ENQUEUED: "enqueued",
    CLAIMED: "claimed",
    EXTENDED: "extended",
    RELEASED: "released",
    LEASE_ENDED: "lease_ended",
    ACKED: "acked",
    EXPIRED: "expired",
    DELETED: "deleted",
    DEAD_LETTERED: "dead_lettered",
    REDRIVEN: "redriven",
    PURGED: "purged",
    QUEUE_CREATED: "queue_created",
    QUEUE_CHANGED: "queue_changed",
    QUEUE_DELETED: "queue_deleted",
    MOVED: "moved",
}
"""The numbers are in the store, the names are wire format: keep them."""

LAST = (ACKED, EXPIRED, DELETED, DEAD_LETTERED, REDRIVEN, MOVED, PURGED)
"""Nothing happens to a message in its queue after one of these."""

TO_ANOTHER = (DEAD_LETTERED, REDRIVEN, MOVED)
"""These have another queue as their target."""

STRETCHES = 4
ROW_BYTES = 17  # Of the key.

Message = tuple[MessageId, int]
"""A message and how often it was delivered; 0 if it was not, or that is not known here."""

Run = tuple[MessageId, int, int]
"""The first of adjacent messages, how many they are, and how often each was delivered."""

_NOTHING_SET = QueueSettings()
_RUN = Struct(">10sII")  # The first id, how many, deliveries.


def note(state: State, queue: Queue, kind: int, messages: bytes = b"", *, count: int = 0) -> None:
    """This happened in the queue, to messages in ``runs``. Its record is to be written."""
    said: Said = (kind, state.node, 0, "", messages)
    _note(state, queue, (*said, 0, "", "", count) if count else said)


def note_claim(
    state: State,
    queue: Queue,
    kind: int,
    claim: int,
    claim_record: ClaimRecord,
    messages: Sequence[Held],
    *,
    until_ms: int = 0,
    reason: str = "",
) -> None:
    """So it is with these messages of the claim; nothing is said of none."""
    if not messages:
        return
    if len(messages) == 1:  # Most claims are of one.
        found = _RUN.pack(messages[0].id, 1, messages[0].deliveries)
    else:
        found = runs([(one.id, 1, one.deliveries) for one in messages])
    said: Said = (kind, state.node, claim, claim_record.consumer, found)
    _note(state, queue, (*said, until_ms, reason) if until_ms or reason else said)


def gather(
    state: State,
    queue: Queue,
    kind: int,
    messages: Sequence[Run],
    *,
    reason: str = "",
    target: str = "",
) -> None:
    """This happened to messages of the queue, which is or will be told with others.

    What happens alike before anything else does becomes one event. The queue's record is
    to be written.
    """
    node = "" if kind == EXPIRED else state.node  # Nobody did it, whoever came upon it.
    key = (queue, kind, node, reason, target)
    found = state.gathered.get(key)
    if found is None:
        state.gathered[key] = [*messages]
    else:
        found.extend(messages)


def expired(state: State, queue: Queue, message_id: MessageId, deliveries: int = 0) -> None:
    """The message has expired."""
    gather(state, queue, EXPIRED, ((message_id, 1, deliveries),))


def tell(state: State) -> None:
    """Have what happened by the entry in the histories, at its end."""
    if state.gathered:
        _note_gathered(state)
    untold, state.untold = state.untold, []
    for holder in untold:
        if not holder.untold:
            continue  # It is gone.
        said, holder.untold = holder.untold, []
        if isinstance(holder, Queue):
            _tell_queue(state, holder, said)
        else:
            _tell_account(state, holder, said)


def queue_deleted(state: State, queue: Queue) -> None:
    """The queue's history goes; that it was deleted is in its account's."""
    _note_gathered(state)
    queue.untold.clear()
    _forget(state, queue.account, queue.record.history, len(queue.record.history.stretches))
    said = (QUEUE_DELETED, state.node, 0, "", b"", 0, "", queue.names[1])
    _note(state, queue.account, said)
    state.noted[queue.names[0], ""] = None
    # Also for those who look at the queue alone, to see that it is gone.
    state.noted[queue.names] = None
    state.touch(queue.account)


def account_deleted(state: State, account: Account) -> None:
    """Its own events go with it."""
    account.untold.clear()
    history = account.record.history
    _forget(state, account, history, len(history.stretches))
    if history.due_ms:
        state.timers.remove(history.due_ms, HISTORY, account.key[1:])


def forget_aged_of_account(state: State, timer: Timer) -> None:
    """The same for an account's own events, by a timer of its own."""
    account = state.find_account(keys.split_names(timer.subject)[0])
    assert account is not None, timer
    history, kept = account.record.history, effective(_NOTHING_SET, account.record.defaults)
    state.timers.remove(timer.due_ms, HISTORY, timer.subject)
    _trim(state, account, history, kept, kept.history_bytes)
    _set_account_timer(state, timer.subject, history, kept)
    state.touch(account)


def forget_aged(state: State, queue: Queue) -> int:
    """Forget what is too old; when to look again."""
    history, kept = queue.record.history, queue.in_force()
    _trim(state, queue.account, history, kept, kept.history_bytes)
    return _due_ms(history, kept)


def runs(messages: Sequence[Run]) -> bytes:
    """Messages, adjacent ones together."""
    if len(messages) == 1:  # Most puts and claims are of one.
        return _RUN.pack(*messages[0])
    parts: list[bytes] = []
    first, count, end, delivered = b"", 0, 0, 0
    for message_id, more, deliveries in messages:
        number = int.from_bytes(message_id, "big")
        if number == end and deliveries == delivered and count:
            count += more
        else:
            if count:
                parts.append(_RUN.pack(first, count, delivered))
            first, count, delivered = message_id, more, deliveries
        end = number + more
    if count:
        parts.append(_RUN.pack(first, count, delivered))
    return b"".join(parts)


def messages_of(event: EventRecord) -> Iterator[Message]:
    """The messages an event names."""
    for first, count, deliveries in _RUN.iter_unpack(event.messages):
        if count == 1:
            yield first, deliveries
            continue
        low = int.from_bytes(first, "big")
        for number in range(low, low + count):
            yield number.to_bytes(keys.ID_BYTES, "big"), deliveries


def deliveries_of(event: EventRecord, message_id: MessageId) -> int | None:
    """How often the message was delivered by then; None if the event does not name it."""
    for first, count, deliveries in _RUN.iter_unpack(event.messages):
        if first <= message_id and (
            first == message_id
            or int.from_bytes(message_id, "big") - int.from_bytes(first, "big") < count
        ):
            return int(deliveries)
    return None


def _note_gathered(state: State) -> None:
    """Before anything else happens."""
    gathered, state.gathered = state.gathered, {}
    for (queue, kind, node, reason, target), messages in gathered.items():
        if messages:
            said: Said = (kind, node, 0, "", runs(messages))
            _note(state, queue, (*said, 0, reason, target) if reason or target else said)


def _note(state: State, holder: Queue | Account, said: Said) -> None:
    if state.gathered:
        _note_gathered(state)
    ordinal = state.next_event
    state.next_event = ordinal + 1
    if not holder.untold:
        state.untold.append(holder)
    holder.untold.append((ordinal, *said))


def _tell_queue(state: State, queue: Queue, said: list[Said]) -> None:
    history, kept = queue.record.history, queue.in_force()
    _append(state, queue.account, history, kept, said)
    state.noted[queue.names] = None
    # Under shorter settings than those before, what is too old may have been so for long.
    due_ms, timer_ms = _due_ms(history, kept), queue.record.due_ms
    if due_ms < timer_ms and state.now_ms < timer_ms:
        deadlines.set_timer(state, queue, max(state.now_ms, due_ms))


def _tell_account(state: State, account: Account, said: list[Said]) -> None:
    history, kept = account.record.history, effective(_NOTHING_SET, account.record.defaults)
    _append(state, account, history, kept, said)
    if not history.due_ms:
        _set_account_timer(state, account.key[1:], history, kept)


def _append(
    state: State, account: Account, history: History, kept: Effective, said: list[Said]
) -> None:
    index, now_ms, ordinal = state.machine.index, state.now_ms, said[-1][0]
    assert isinstance(ordinal, int)
    data = records.encode((now_ms, state.machine.term, said)) if kept.keeps_history() else b""
    size = len(data) + ROW_BYTES
    if not data or not _make_room(state, account, history, size):
        _forget(state, account, history, len(history.stretches))
        history.gone_index, history.gone_ordinal = index, ordinal
        return
    state.kv.put_new(keys.events(history.number, index), data)
    account.record.history_bytes += size
    state.touch(account)
    stretch = history.stretches[-1] if history.stretches else None
    if stretch is None or _is_full(stretch, kept, now_ms, size):
        if stretch is not None:
            room = kept.history_bytes - kept.history_bytes // STRETCHES
            _trim(state, account, history, kept, room)
        stretch = Stretch(index, now_ms, index, ordinal, now_ms)
        history.stretches.append(stretch)
    stretch.bytes += size
    history.bytes += size
    stretch.last_index, stretch.last_ordinal, stretch.last_ms = index, ordinal, now_ms


def _is_full(stretch: Stretch, kept: Effective, now_ms: int, size: int) -> bool:
    return (stretch.bytes + size) * STRETCHES > kept.history_bytes or (
        now_ms - stretch.from_ms
    ) * STRETCHES >= kept.history_ms


def _make_room(state: State, account: Account, history: History, size: int) -> bool:
    """Keep to the account's quota: forget the oldest of this history; whether that is enough.

    Nothing is ever refused for want of room in the history.
    """
    quotas = account.record.quotas
    if quotas is None or not quotas.history_bytes:
        return True
    over, count = account.record.history_bytes + size - quotas.history_bytes, 0
    for stretch in history.stretches:
        if over <= 0:
            break
        over -= stretch.bytes
        count += 1
    _forget(state, account, history, count)
    return over <= 0


def _trim(state: State, account: Account, history: History, kept: Effective, room: int) -> None:
    """Forget stretches that are too old, and the oldest of those for which there is no room."""
    size, count = history.bytes, 0
    for stretch in history.stretches:
        if size <= room and later(stretch.last_ms, kept.history_ms) > state.now_ms:
            break
        size -= stretch.bytes
        count += 1
    _forget(state, account, history, count)


def _forget(state: State, account: Account, history: History, count: int) -> None:
    """Forget so many of the oldest stretches."""
    if not count:
        return
    gone = history.stretches[:count]
    history.stretches = history.stretches[count:]
    size = sum(stretch.bytes for stretch in gone)
    history.bytes -= size
    account.record.history_bytes -= size
    state.touch(account)
    history.gone_index, history.gone_ordinal = gone[-1].last_index, gone[-1].last_ordinal
    low = keys.events(history.number, gone[0].index)
    state.kv.delete_range(low, keys.events(history.number, history.gone_index + 1))


def _due_ms(history: History, kept: Effective) -> int:
    if not history.stretches:
        return FOR_EVER
    return later(history.stretches[0].last_ms, kept.history_ms)


def _set_account_timer(state: State, subject: bytes, history: History, kept: Effective) -> None:
    due_ms = _due_ms(history, kept)
    history.due_ms = 0 if due_ms == FOR_EVER else due_ms
    if history.due_ms:
        state.timers.put(due_ms, HISTORY, subject)
