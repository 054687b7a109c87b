"""What can be asked of the applied state. Nothing here changes anything.

Every function works on a ``kv.Reader`` of whole rounds, on any replica. Lists come
in pages: a marker is the last item of the page before, exclusive; None in an answer
says that nothing is left. "Now" is log time: a message that has expired by it is not
shown, nor is a claim whose lease has ended, swept or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import msgspec

from statemachine import filters, keys, quotas, rates, records
from statemachine.commands import (
    Filter,
    MessageId,
    MessageState,
    QueueSettings,
    Quotas,
)
from statemachine.kv import Reader
from statemachine.looking import Look
from statemachine.outcomes import Claimed, Delivered
from statemachine.records import JobRecord, LaneRecord, MachineRecord, QueueRecord
from statemachine.settings import Effective, effective

NOTHING_SET = QueueSettings()
SCANNED_MAX = 10_000
"""Rows after which a page is cut short."""

UNKNOWN = (0, "")


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over all queues."""

    accounts: int
    queues: int
    ready: int
    delayed: int
    claimed: int
    bytes: int
    blocked: int


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """An account; ``effective`` is what holds for a queue on which nothing is set."""

    name: str
    defaults: QueueSettings
    effective: Effective
    created_ms: int
    queues: int


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """How much of each quota's kind an account has, and the limits; 0 is none."""

    usage: Quotas
    limits: Quotas


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """A queue: what is set on it, what is in force, and how much is in it."""

    name: str
    settings: QueueSettings
    effective: Effective
    created_ms: int
    ready: int
    delayed: int
    claimed: int
    blocked: int
    bytes: int


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """How much is in a queue, and since when its oldest ready message has been there."""

    ready: int
    delayed: int
    claimed: int
    blocked: int
    bytes: int
    claims: int
    oldest_ready_ms: int | None
    dead: int
    """How many of its messages became dead letters so far."""
    leases_ended: int
    """How many of its claims ran out so far."""
    recent: dict[str, int]
    """What has happened of late (``rates.KINDS``): in the last ``recent_ms``."""
    recent_ms: int


class MessageView(msgspec.Struct, frozen=True):
    """A message where it is.

    ``record`` is for ``records.decode_message``. ``deliveries`` of a claimed message is
    0 if it was not found among the first ``looking.HELD_MAX`` that the queue's claims hold.
    """

    id: MessageId
    state: MessageState
    deliveries: int
    record: bytes
    error: str = ""  # What was last said to be wrong with it; of a claimed one like deliveries.


class Accounts(NamedTuple):
    """A page of accounts in the order of their names."""

    items: tuple[AccountView, ...]
    marker: str | None


class Queues(NamedTuple):
    """A page of queues in the order of their names."""

    items: tuple[QueueView, ...]
    marker: str | None


class Messages(NamedTuple):
    """A page of messages, the oldest first; it may be short, or even empty.

    Then it ends where enough was looked at, if ``marker`` says that there is more.
    """

    items: tuple[MessageView, ...]
    marker: MessageId | None
    looked: int = 0


def any_name(name: str) -> bool:
    """Of a reader who sees all."""
    return True


def applied(reader: Reader) -> tuple[int, int, int]:
    """Index and term of the last entry applied, and log time; zeros before the first."""
    machine = _machine(reader)
    return machine.index, machine.term, machine.stamp_ms


def totals(reader: Reader) -> Totals:
    """Sums over all queues."""
    machine = _machine(reader)
    return Totals(
        accounts=machine.accounts,
        queues=machine.queues,
        ready=machine.ready,
        delayed=machine.delayed,
        claimed=machine.claimed,
        bytes=machine.bytes,
        blocked=machine.blocked,
    )


def accounts(
    reader: Reader, *, limit: int, marker: str | None = None, prefix: str = ""
) -> Accounts:
    """Accounts whose names begin with ``prefix``."""
    found: list[AccountView] = []
    for name, data in named(reader, b"a", prefix, marker):
        if len(found) == limit:
            return Accounts(tuple(found), found[-1].name if found else marker)
        found.append(_account_view(name, data))
    return Accounts(tuple(found), None)


def account(reader: Reader, name: str) -> AccountView | None:
    """One account, or None."""
    data = reader.get(keys.account(name))
    return None if data is None else _account_view(name, data)


def usage(reader: Reader, name: str) -> Usage | None:
    """What an account has of what may be limited, or None; one row, whatever it has."""
    data = reader.get(keys.account(name))
    if data is None:
        return None
    record = records.decode_account(data)
    found = Quotas(*[getattr(record, quota) for quota in quotas.NAMES])
    return Usage(usage=found, limits=record.quotas or quotas.NO_LIMITS)


def queues(
    reader: Reader,
    account: str,
    *,
    limit: int,
    marker: str | None = None,
    prefix: str = "",
    sees: Callable[[str], bool] = any_name,
) -> Queues | None:
    """Queues of an account whose names begin with ``prefix``; None if there is no account.

    Only those that the reader ``sees``; he learns of no others.
    """
    data = reader.get(keys.account(account))
    if data is None:
        return None
    defaults = records.decode_account(data).defaults
    found: list[QueueView] = []
    for name, value in named(reader, b"q" + keys.name(account), prefix, marker):
        if not sees(name):
            continue
        if len(found) == limit:
            return Queues(tuple(found), found[-1].name if found else marker)
        found.append(_queue_view(name, records.decode_queue(value), defaults))
    return Queues(tuple(found), None)


def queue(reader: Reader, account: str, name: str) -> QueueView | None:
    """One queue, or None."""
    record = _queue(reader, account, name)
    if record is None:
        return None
    data = reader.get(keys.account(account))
    assert data is not None, "a queue has an account"
    return _queue_view(name, record, records.decode_account(data).defaults)


def stats(reader: Reader, account: str, name: str, *, now_ms: int | None = None) -> Stats | None:
    """A queue's counts and the age of its oldest ready message, or None.

    What has happened of late is that at ``now_ms``, since log time stands still where
    nothing happens.
    """
    record = _queue(reader, account, name)
    if record is None:
        return None
    stamp_ms = _machine(reader).stamp_ms
    recent, recent_ms = rates.recent(record.tally, max(stamp_ms, now_ms or 0))
    return Stats(
        ready=record.ready,
        delayed=record.delayed,
        claimed=record.claimed,
        blocked=record.blocked,
        bytes=record.bytes,
        claims=record.claims,
        oldest_ready_ms=_oldest_ready_ms(reader, record),
        dead=record.tally.dead,
        leases_ended=record.tally.leases_ended,
        recent=recent,
        recent_ms=recent_ms,
    )


def job(reader: Reader, account: str, name: str) -> JobRecord | None:
    """What is being done to many of the queue's messages, or last was; None if nothing is."""
    record = _queue(reader, account, name)
    data = None if record is None else reader.get(keys.job(record.number))
    return None if data is None else records.decode_job(data)


def browse(
    reader: Reader,
    account: str,
    name: str,
    *,
    limit: int,
    marker: MessageId | None = None,
    include_claimed: bool = False,
    wanted: Filter = filters.ANY,
    now_ms: int = 0,
    looks: int = SCANNED_MAX,
) -> Messages | None:
    """Messages of a queue that are meant; None if there is no queue.

    At most ``looks`` rows are looked at. Ages are those at ``now_ms``, see ``stats``.
    """
    record = _queue(reader, account, name)
    if record is None:
        return None
    look, stamp_ms = Look(reader, record, _lanes(reader, record)), _machine(reader).stamp_ms
    found: list[MessageView] = []
    looked, last = 0, marker
    for message_id, data in look.rows(marker, include_claimed, wanted):
        if len(found) == limit or looked >= min(looks, SCANNED_MAX):
            return Messages(tuple(found), last, looked)
        looked, last = looked + 1, message_id
        if not filters.suits(wanted, data, max(stamp_ms, now_ms)):
            continue
        state, deliveries, error = look.state(message_id, data)
        if state == "claimed":
            if not include_claimed:
                continue
            deliveries, error = look.held().get(message_id, UNKNOWN)
        elif records.times(data).expires_ms <= stamp_ms:
            continue
        if filters.is_there(wanted, state, deliveries):
            found.append(MessageView(message_id, state, deliveries, data, error))
    return Messages(tuple(found), None, looked)


def message(reader: Reader, account: str, queue: str, message_id: MessageId) -> MessageView | None:
    """One message, or None."""
    record = _queue(reader, account, queue)
    if record is None:
        return None
    data = reader.get(keys.of_queue(b"m", record.number) + message_id)
    if data is None:
        return None
    look = Look(reader, record, _lanes(reader, record))
    state, deliveries, error = look.state(message_id, data)
    if state == "claimed":
        deliveries, error = look.held().get(message_id, UNKNOWN)
    elif records.times(data).expires_ms <= _machine(reader).stamp_ms:
        return None
    return MessageView(message_id, state, deliveries, data, error)


def claim(reader: Reader, account: str, queue: str, claim_id: int) -> Claimed | None:
    """A claim whose lease has not ended, with what it holds; None if there is none."""
    record = _queue(reader, account, queue)
    if record is None or not 0 < claim_id <= keys.U64_MAX:
        return None
    data = reader.get(keys.claim(record.number, claim_id))
    if data is None:
        return None
    found = records.decode_claim(data)
    if found.until_ms <= _machine(reader).stamp_ms:
        return None
    messages = keys.of_queue(b"m", record.number)
    rows = [(held, reader.get(messages + held.id)) for held in found.messages]
    delivered = [
        Delivered(held.id, held.deliveries, data, held.error) for held, data in rows if data
    ]
    return Claimed(claim_id, found.until_ms, tuple(delivered))


def _machine(reader: Reader) -> MachineRecord:
    data = reader.get(keys.POSITION)
    return MachineRecord() if data is None else records.decode_machine(data)


def _queue(reader: Reader, account: str, name: str) -> QueueRecord | None:
    data = reader.get(keys.queue(account, name))
    return None if data is None else records.decode_queue(data)


def _lanes(reader: Reader, record: QueueRecord) -> list[LaneRecord]:
    """A queue's lanes, by number."""
    lanes = [] if record.first is None else [record.first]
    if record.lanes > 1:
        low, high = keys.lane(record.number, 1), keys.lane(record.number + 1, 0)
        lanes.extend(records.decode_lane(data) for _, data in reader.scan(low, high))
    return lanes


def named(
    reader: Reader, space: bytes, prefix: str, marker: str | None
) -> Iterator[tuple[str, bytes]]:
    """Names in a space, and values, that begin with ``prefix`` and come after ``marker``."""
    low = space + keys.name(prefix)[: -len(keys.NAME_END)]
    high = low + b"\xff"  # Above every name that begins so: no name contains this byte there.
    if marker is not None:
        low = max(low, space + keys.name(marker) + b"\x00")
    for key, value in reader.scan(low, high):
        (name,) = keys.split_names(key[len(space) :])
        yield name, value


def _account_view(name: str, data: bytes) -> AccountView:
    record = records.decode_account(data)
    return AccountView(
        name=name,
        defaults=record.defaults,
        effective=effective(NOTHING_SET, record.defaults),
        created_ms=record.created_ms,
        queues=record.queues,
    )


def _queue_view(name: str, record: QueueRecord, defaults: QueueSettings) -> QueueView:
    return QueueView(
        name=name,
        settings=record.settings,
        effective=effective(record.settings, defaults),
        created_ms=record.created_ms,
        ready=record.ready,
        delayed=record.delayed,
        claimed=record.claimed,
        blocked=record.blocked,
        bytes=record.bytes,
    )


def _oldest_ready_ms(reader: Reader, record: QueueRecord) -> int | None:
    """Ids are given in the order of time, so the smallest sequence is the oldest."""
    messages = keys.of_queue(b"m", record.number)
    found: list[int] = []
    for number, lane in enumerate(_lanes(reader, record)):
        if lane.ready > lane.returned:
            low = messages + keys.message_id(lane.head, number)
            high = messages + keys.message_id(0, number + 1)
            found.extend(_enqueued_ms(data) for _, data in _first(reader, low, high))
        if lane.returned:
            low = keys.returned_from(record.number, number, lane.returned_low)
            high = keys.returned_from(record.number, number + 1)
            for key, _ in _first(reader, low, high):
                data = reader.get(messages + keys.returned_id(key))
                assert data is not None, "a returned message is stored"
                found.append(_enqueued_ms(data))
    return min(found, default=None)


def _first(reader: Reader, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
    return islice(reader.scan(low, high), 1)


def _enqueued_ms(data: bytes) -> int:
    return records.times(data).enqueued_ms
