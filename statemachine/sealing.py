"""The keys with which an account's bodies are sealed: kept here, made and used by nodes.

Nothing is opened or sealed here. What the log is good for is order: once it is said that an
account's bodies are to be sealed no plain one gets in, and none that was sealed with a key
that is gone. A node that did not know yet is refused (``STALE_SEAL``), and seals anew.
"""

from __future__ import annotations

import msgspec

from statemachine.commands import DropSealingKeys, NewMessage, PutSealingKeys
from statemachine.outcomes import Deleted, Outcome, Reason, Refused, Stored
from statemachine.queues import no_account
from statemachine.sealed import SealingKey, SealingRecord, key_of
from statemachine.state import Account, State

KEYS_MAX = 1_000
NOTHING = SealingRecord(enabled=False, keys=())


def put_keys(state: State, command: PutSealingKeys) -> Outcome:
    """See ``commands.PutSealingKeys``."""
    account = state.find_account(command.account)
    if account is None:
        return no_account(command.account)
    before = account.sealing or NOTHING
    new = sum(not given.number for given in command.keys)
    if len(before.keys) + new > KEYS_MAX:
        detail = f"account {command.account!r} has {len(before.keys)} keys; {KEYS_MAX} are the most"
        return Refused(Reason.TOO_MANY_SEALING_KEYS, detail)
    known = {key.number: key for key in before.keys}
    for given in command.keys:
        number = given.number or state.take_id()
        if given.number and number not in known:
            continue  # It was dropped meanwhile, and must not come back.
        created_ms = known[number].created_ms if number in known else state.now_ms
        known[number] = SealingKey(number, given.master, given.wrapped, created_ms)
    enabled = before.enabled if command.enabled is None else command.enabled
    created = account.sealing is None
    _keep(state, command.account, account, SealingRecord(enabled, tuple(known.values())))
    return Stored(created=created)


def drop_keys(state: State, command: DropSealingKeys) -> Outcome:
    """See ``commands.DropSealingKeys``."""
    account = state.find_account(command.account)
    if account is None:
        return no_account(command.account)
    before = account.sealing or NOTHING
    _keep(state, command.account, account, msgspec.structs.replace(before, keys=()))
    return Deleted(len(before.keys))


def refused(state: State, account: str, messages: tuple[NewMessage, ...]) -> Refused | None:
    """What is answered to messages that are not sealed as they are to be; None if they are.

    The messages of a command come from one node, which seals all of them or none.
    """
    found = state.find_account(account)
    record = None if found is None else found.sealing
    if record is None and not (messages and messages[0].content_encoding):
        return None
    known = {key.number: None for key in record.keys} if record is not None else {}
    if record is None or not record.enabled:
        known[0] = None
    if all(key_of(message) in known for message in messages):
        return None
    detail = f"the keys of account {account!r} have just changed; nothing was done"
    return Refused(Reason.STALE_SEAL, detail)


def _keep(state: State, name: str, account: Account, record: SealingRecord) -> None:
    state.keep_sealing(name, account, record if record.enabled or record.keys else None)
