"""The one seam through which bodies go into the log and come out of the state.

Commands that carry bodies pass ``sealed`` before they are proposed, and messages pass
``opened`` before they are shown. So no front end has to do anything, nor can it forget to.
Of an account whose bodies are plain it costs one look into a table for each command.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import msgspec

from api.ports import Unavailable, Unreadable
from raftq.sealing.masters import Masters, NoMaster, new_data_key
from raftq.sealing.ring import Damaged, Ring, Shredded
from statemachine import sealed, standing
from statemachine.commands import (
    Audited,
    Barrier,
    Claim,
    Enqueue,
    NewMessage,
    Once,
    PutSchedule,
    QueueCommand,
    Take,
    Transact,
    TransactAndClaim,
    WrappedKey,
)
from statemachine.kv import Reader
from statemachine.records import StoredMessage
from statemachine.sealed import SealingKey, SealingRecord

RINGS_MAX = 10_000
RETRY_AFTER_S = 30  # Somebody has to do something about it first.

CONCERNED = frozenset(
    {Enqueue, Claim, Take, Transact, TransactAndClaim, PutSchedule, Once, Audited}
)

M = TypeVar("M", StoredMessage, NewMessage)


class State(NamedTuple):
    """What is looked at of the applied state."""

    sealing: Callable[[str], SealingRecord | None]
    reader: Callable[[], Reader]
    changes: Callable[[], object]
    """Something else whenever the keys of an account have changed."""


class Bodies:
    """See the module."""

    def __init__(self, masters: Masters, state: State) -> None:
        self._masters = masters
        self._state = state
        self._rings: dict[str, Ring] = {}
        self._looked: tuple[object, tuple[str, ...]] = (None, ())

    def sealed(self, command: QueueCommand | Once | Barrier) -> QueueCommand | Once | Barrier:
        """The command as it may go into the log; raises Unavailable.

        A claim is stopped here too where this node could not open what it gives.
        """
        if type(command) not in CONCERNED:  # Quicker than to ask for each kind.
            return command
        match command:
            case Enqueue() | Claim() | Take() | Transact() | PutSchedule():
                record = self._state.sealing(command.account)
                if record is None:
                    return command
                return self._sealed(command, self._ring(command.account, record))
            case TransactAndClaim():
                transaction = self.sealed(command.transaction)
                if transaction is command.transaction:
                    return command
                return msgspec.structs.replace(command, transaction=transaction)
            case Once() | Audited():
                inner = self.sealed(command.command)
                if inner is command.command:
                    return command
                return msgspec.structs.replace(command, command=inner)
            case _:
                return command

    def opened(self, account: str, message: M) -> M:
        """A message with its body as it was put; raises Unreadable or Unavailable."""
        if not sealed.is_sealed(message.content_encoding):
            return message
        record = self._state.sealing(account) or SealingRecord(enabled=False, keys=())
        ring = self._ring(account, record)
        try:
            body = ring.open(message.body)
        except Shredded as error:
            raise Unreadable("body_shredded", str(error)) from None
        except Damaged as error:
            raise Unreadable("body_damaged", str(error)) from None
        encoding = sealed.without_coding(message.content_encoding)
        return msgspec.structs.replace(message, body=body, content_encoding=encoding)

    def wrapped(self, account: str, key: SealingKey | None) -> WrappedKey:
        """A new data key for the log, or a known one under the current master key.

        Raises Unavailable.
        """
        try:
            if key is None:
                return self._masters.wrap(account, new_data_key())
            data_key = self._masters.unwrap(account, key.master, key.wrapped)
            return self._masters.wrap(account, data_key, key.number)
        except NoMaster as error:
            raise _no_master(str(error)) from None

    def without_keys(self) -> tuple[str, ...]:
        """The accounts some of whose keys this node can not use."""
        now = self._state.changes()
        if self._looked[0] != now:
            rings = [
                (account, Ring(account, record, self._masters))
                for account, record in sealed.accounts(self._state.reader())
            ]
            self._looked = now, tuple([account for account, ring in rings if ring.missing])
        return self._looked[1]

    def _ring(self, account: str, record: SealingRecord) -> Ring:
        """The account's keys; raises Unavailable if some of them can not be used here."""
        ring = self._rings.get(account)
        if ring is None or (ring.record is not record and ring.record != record):
            if len(self._rings) >= RINGS_MAX:
                self._rings.clear()
            ring = self._rings[account] = Ring(account, record, self._masters)
        if ring.missing is not None:
            raise _no_master(ring.missing)
        return ring

    def _sealed(self, command: QueueCommand, ring: Ring) -> QueueCommand:
        replace = msgspec.structs.replace
        if not ring.record.enabled or isinstance(command, Claim | Take):
            return command
        if not ring.record.keys:
            detail = "the account's keys were destroyed; PUT its encryption for a new one"
            raise Unavailable("encryption_key_shredded", detail, RETRY_AFTER_S)
        match command:
            case Enqueue():
                return replace(command, messages=_all(command.messages, ring))
            case Transact():
                puts = [replace(one, messages=_all(one.messages, ring)) for one in command.puts]
                return replace(command, puts=tuple(puts))
            case PutSchedule():
                return replace(command, message=self._of_schedule(command, ring))
            case _:
                return command

    def _of_schedule(self, command: PutSchedule, ring: Ring) -> NewMessage:
        """As it is stored already, if it is the same: the same schedule again changes nothing."""
        record = standing.schedule(self._state.reader(), command.account, command.schedule)
        if record is not None and sealed.key_of(record.message) == ring.record.keys[-1].number:
            try:
                if self.opened(command.account, record.message) == command.message:
                    return record.message
            except Unreadable:
                pass  # What is there is of no use, and is replaced.
        return _one(command.message, ring)


def _all(messages: tuple[NewMessage, ...], ring: Ring) -> tuple[NewMessage, ...]:
    return tuple([_one(message, ring) for message in messages])


def _one(message: NewMessage, ring: Ring) -> NewMessage:
    encoding = sealed.with_coding(message.content_encoding)
    return msgspec.structs.replace(message, body=ring.seal(message.body), content_encoding=encoding)


def _no_master(detail: str) -> Unavailable:
    return Unavailable("encryption_key_missing", detail, RETRY_AFTER_S)
