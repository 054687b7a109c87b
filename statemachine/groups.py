"""Groups: messages that go one at a time, in the order in which they were enqueued.

Only the first member of a group can be ready, claimed or given back; it is among the
returned messages of its lane while it is ready. The others are *blocked*, or delayed,
until all before them are gone. A first member that is delayed, or that fails and comes
back, holds up its own group and no other.

The group's record says where its first member is, so that no scan walks over what is
gone; it is there while the group has members.
"""

from __future__ import annotations

from statemachine import keys, records
from statemachine.commands import MessageId
from statemachine.records import GroupRecord
from statemachine.state import Queue, State

_MEMBERS_END = b"\xff" * 9


def join(state: State, queue: Queue, group: str, message_id: MessageId) -> bool:
    """A new last member; whether it is the first one too."""
    kv, number = state.kv, queue.record.number
    kv.put(keys.member(number, group, message_id[2:]), message_id[:2])
    key = keys.group(number, group)
    data = kv.get(key)
    if data is None:
        record = GroupRecord(message_id, 1)
    else:
        before = records.decode_group(data)
        record = GroupRecord(before.head, before.members + 1)
    kv.put(key, records.encode(record))
    return data is None


def first(state: State, queue: Queue, group: str) -> MessageId | None:
    """The first member of a group; None if it has none."""
    data = state.kv.get(keys.group(queue.record.number, group))
    return None if data is None else records.decode_group(data).head


def is_first(state: State, queue: Queue, group: str, message_id: MessageId) -> bool:
    """Whether a member is the first of its group."""
    return _load(state, keys.group(queue.record.number, group)).head == message_id


def leave(state: State, queue: Queue, group: str, message_id: MessageId) -> MessageId | None:
    """A member is gone. If it was the first, the one that is first now."""
    kv, number = state.kv, queue.record.number
    key = keys.group(number, group)
    record = _load(state, key)
    kv.delete(keys.member(number, group, message_id[2:]))
    if record.members == 1:
        kv.delete(key)
        return None
    head = record.head
    if message_id == head:
        head = _next(state, number, group, message_id)
    kv.put(key, records.encode(GroupRecord(head, record.members - 1)))
    return None if head == record.head else head


def _load(state: State, key: bytes) -> GroupRecord:
    data = state.kv.get(key)
    assert data is not None, "a group with members has a record"
    return records.decode_group(data)


def _next(state: State, number: int, group: str, message_id: MessageId) -> MessageId:
    low = keys.member(number, group, message_id[2:] + b"\x00")
    for key, lane in state.kv.scan(low, keys.member(number, group, _MEMBERS_END)):
        return lane + key[-8:]
    raise AssertionError("a group has as many members as it counts")
