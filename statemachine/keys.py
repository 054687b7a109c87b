"""The layout of the store: every key is built here and nowhere else.

    space        key                                       value
    ----------   ---------------------------------------   ---------------------------------
    a account    a name(account)                           AccountRecord
    b bindings   b name(account) name(queue)               BindingsRecord
    c claim      c u64(queue) u64(claim)                   ClaimRecord
    d deadline   d u64(queue) u64(due_ms) u8(kind) rest    (empty), see ``deadlines``
    e schedule   e name(account) name(schedule)            ScheduleRecord
    f tick       f u64(due_ms) name(account) name(...)     (empty), see ``schedules``
    g group      g u64(queue) name(group) u64(seq)         u16 lane: a member
    h history    h u64(history) u64(index)                 EventsRecord, see ``events``
    i dedup      i u64(queue) text                         message id, u64 until_ms
    j job        j u64(queue)                              JobRecord
    k once       k name(account) name(key)                 OnceRecord
    l lane       l u64(queue) u16(lane)                    LaneRecord
    m message    m u64(queue) u16(lane) u64(seq)           header, meta, body, see ``records``
    n key        n 00 name(id)                             KeyRecord, see ``access_keys``
    n of account n 01 name(account) name(id)               (empty)
    o outcomes   o u64(session) u64(seq)                   outcomes of one batch
    p position   p                                         MachineRecord
    q queue      q name(account) name(queue)               QueueRecord
    r returned   r u64(queue) u16(lane) u64(seq) u16       u32 deliveries
    s session    s u64(session)                            SessionRecord
    t timer      t u64(due_ms) u8(kind) rest               see ``timers``
    u audit      u 00 u64(number)                          AuditRecord
    u audit      u 01 name(owner)                          AuditMarkRecord
    u audit      u 02 name(owner) u64(number)              (empty)
    u audit      u 03                                      u64: no act is below
    v sealing    v name(account)                           SealingRecord, see ``sealed``
    w whole      w u64(queue) name(group)                  GroupRecord
    x deleted    x u64(queue) u16(lane) u64(seq)           (empty): deleted while claimed
    y runner     y 00 name(node)                           RunnerRecord
    y hook       y 01 name(account) name(queue) name       SubscriptionRecord
    z delayed    z u64(queue) u16(lane) u64(seq)           u64 due_ms, u32 deliveries

Keys compare as bytes exactly as their parts compare as values. Integers are
big-endian for that reason, and names are closed by 00 01 with inner 00 escaped as
00 ff, so that no name is a prefix of another. A queue goes by a number given once
and never again: a deleted queue's leftovers can not be taken for a new one's. A purge
gives it a new one.

The first two bytes of a message id are a lane's number and two flags, ``PARKED`` and
``GROUPED``: what has a flag is never fresh. In space r they stand last: the returned
messages of a lane sort by age whatever their flags.

Everything of a queue but its record and its first lane's, which is in it, lies in the
spaces ``OF_QUEUE``, so that a purge is a range delete for each. But for its history: that
goes by the first number the queue had, so that it outlives a purge and tells of it. An
account's own goes by a number of its own.
"""

from __future__ import annotations

from struct import Struct

U64_MAX = 2**64 - 1
U32_MAX = 2**32 - 1
ID_BYTES = 10
PARKED = 0x8000
"""Lane flag of messages that were delayed when they came."""

GROUPED = 0x4000
"""Lane flag of messages of a group, delayed or not."""

LANE_MASK = 0x3FFF

NAME_END = b"\x00\x01"
POSITION = b"p"
END = b"\x7f"
"""Above every key."""

_EVENTS = Struct(">cQQ")

OF_QUEUE = (b"c", b"d", b"g", b"i", b"j", b"l", b"m", b"r", b"w", b"x", b"z")


def u64(value: int) -> bytes:
    """Eight bytes that sort as the number does."""
    return value.to_bytes(8, "big")


def events(history: int, index: int) -> bytes:
    """The events that a log entry brought to a history."""
    return _EVENTS.pack(b"h", history, index)


def number(data: bytes) -> int:
    """Inverse of ``u64``; of any big-endian bytes."""
    return int.from_bytes(data, "big")


def name(value: str) -> bytes:
    """A self-terminating string that sorts as its UTF-8 bytes do."""
    return value.encode().replace(b"\x00", b"\x00\xff") + NAME_END


def split_names(data: bytes) -> list[str]:
    """Inverse of names put one after the other."""
    closed = data.split(NAME_END)[:-1]
    return [part.replace(b"\x00\xff", b"\x00").decode() for part in closed]


def account(account_name: str) -> bytes:
    """An account's record."""
    return b"a" + name(account_name)


def queue(account_name: str, queue_name: str) -> bytes:
    """A queue's record."""
    return b"q" + name(account_name) + name(queue_name)


def once(account_name: str, key: str) -> bytes:
    """An idempotency key."""
    return b"k" + name(account_name) + name(key)


def bindings(account_name: str, queue_name: str) -> bytes:
    """All bindings of a queue."""
    return b"b" + name(account_name) + name(queue_name)


def schedule(account_name: str, schedule_name: str) -> bytes:
    """A schedule's record."""
    return b"e" + name(account_name) + name(schedule_name)


def tick(due_ms: int, schedule_key: bytes = b"e") -> bytes:
    """An entry of the index of ticks; without a schedule where a time begins."""
    return b"f" + u64(due_ms) + schedule_key[1:]


def split_tick(key: bytes) -> tuple[int, str, str]:
    """The due_ms, the account and the schedule of a ``tick`` key."""
    account_name, schedule_name = split_names(key[9:])
    return number(key[1:9]), account_name, schedule_name


def access_key(key_id: str) -> bytes:
    """An access key's record."""
    return b"n\x00" + name(key_id)


def access_keys(account_name: str) -> tuple[bytes, bytes]:
    """Between which keys the ids of an account's access keys lie."""
    low = b"n\x01" + name(account_name)
    return low, low + b"\xff"  # Above every name: none contains this byte.


def access_key_of(account_name: str, key_id: str) -> bytes:
    """That the account has this access key."""
    return access_keys(account_name)[0] + name(key_id)


def session(session_id: int) -> bytes:
    """A session's record."""
    return b"s" + u64(session_id)


def outcomes(session_id: int, seq: int = 0) -> bytes:
    """What a batch was answered; with ``seq`` 0 where a session's outcomes begin."""
    return b"o" + u64(session_id) + u64(seq)


def of_queue(space: bytes, queue_number: int) -> bytes:
    """Where a queue's keys in one of its spaces begin; those of the queue before end there."""
    return space + u64(queue_number)


def claim(queue_number: int, claim_id: int) -> bytes:
    """A claim's record."""
    return b"c" + u64(queue_number) + u64(claim_id)


def lane(queue_number: int, number: int) -> bytes:
    """A lane's record."""
    return b"l" + u64(queue_number) + number.to_bytes(2, "big")


def lane_number(message_id: bytes) -> int:
    """The lane of a message, without the flags."""
    return (message_id[0] << 8 | message_id[1]) & LANE_MASK


def group(queue_number: int, group_name: str) -> bytes:
    """A group's record."""
    return b"w" + u64(queue_number) + name(group_name)


def member(queue_number: int, group_name: str, age: bytes) -> bytes:
    """A message of a group; they sort by ``age``, the last eight bytes of their ids."""
    return b"g" + u64(queue_number) + name(group_name) + age


def returned(queue_number: int, message_id: bytes) -> bytes:
    """A message that is ready and not fresh: by lane, then by age."""
    number = lane_number(message_id).to_bytes(2, "big")
    return b"r" + u64(queue_number) + number + message_id[2:] + message_id[:2]


def returned_from(queue_number: int, number: int, seq: int = 0) -> bytes:
    """Where a lane's returned messages from ``seq`` on begin."""
    return b"r" + u64(queue_number) + number.to_bytes(2, "big") + u64(seq)


def returned_id(key: bytes) -> bytes:
    """The message id at the end of a ``returned`` key."""
    return key[-2:] + key[-10:-2]


def delayed(queue_number: int, message_id: bytes) -> bytes:
    """A message that is not ready yet."""
    return b"z" + u64(queue_number) + message_id


def deleted(queue_number: int, message_id: bytes) -> bytes:
    """A message that was deleted while a claim held it."""
    return b"x" + u64(queue_number) + message_id


def job(queue_number: int) -> bytes:
    """What is done to many of a queue's messages."""
    return b"j" + u64(queue_number)


def dedup(queue_number: int, subject: bytes) -> bytes:
    """A ``dedup_id``, in UTF-8, that was used in the queue."""
    return b"i" + u64(queue_number) + subject


def deadline(queue_number: int, due_ms: int, kind: int = 0, subject: bytes = b"") -> bytes:
    """An entry of a queue's own time index; without ``kind`` where a time begins."""
    return b"d" + u64(queue_number) + u64(due_ms) + bytes((kind,)) + subject


def split_deadline(key: bytes) -> tuple[int, int, bytes]:
    """The (due_ms, kind, subject) of a ``deadline`` key."""
    return number(key[9:17]), key[17], key[18:]


def runner(node: str) -> bytes:
    """The record of a node that runs subscriptions."""
    return b"y\x00" + name(node)


RUNNERS = b"y\x00"
SUBSCRIPTIONS = b"y\x01"
"""Where the subscriptions of all queues begin, and the runners end."""

SUBSCRIPTIONS_END = b"y\x02"


def audit(number: int) -> bytes:
    """An act that is in the audit log."""
    return b"u\x00" + u64(number)


AUDIT_END = b"u\x01"
AUDIT_FIRST = b"u\x03"
"""Where the first act is: no scan begins before it."""


def audit_mark(owner: str) -> bytes:
    """How much of the audit log is an owner's."""
    return b"u\x01" + name(owner)


def audit_of(owner: str, number: int) -> bytes:
    """An act of an owner's."""
    return b"u\x02" + name(owner) + u64(number)


def sealing(account_name: str) -> bytes:
    """The keys of an account whose bodies are sealed."""
    return SEALING + name(account_name)


SEALING = b"v"
SEALING_END = b"w"


def subscriptions(account_name: str, queue_name: str) -> tuple[bytes, bytes]:
    """Between which keys the subscriptions of a queue lie."""
    low = SUBSCRIPTIONS + name(account_name) + name(queue_name)
    return low, low + b"\xff"  # Above every name: none contains this byte.


def subscription(account_name: str, queue_name: str, subscription_name: str) -> bytes:
    """A subscription's record. It goes by names, since a purge gives the queue a new number."""
    return subscriptions(account_name, queue_name)[0] + name(subscription_name)


def timer(due_ms: int, kind: int = 0, subject: bytes = b"") -> bytes:
    """An entry of the global time index; without ``kind`` where a time begins."""
    return b"t" + u64(due_ms) + bytes((kind,)) + subject


def split_timer(key: bytes) -> tuple[int, int, bytes]:
    """The (due_ms, kind, subject) of a ``timer`` key."""
    return number(key[1:9]), key[9], key[10:]


def message_id(seq: int, lane: int = 0) -> bytes:
    """Ten bytes that name a message for ever."""
    return (lane << 64 | seq).to_bytes(ID_BYTES, "big")
