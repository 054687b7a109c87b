"""Access keys: what stands in the log for the secrets with which clients identify themselves.

A record holds a hash of the secret and what its bearer may do; whether he may is decided
by front ends, on every replica by itself. A key goes by an id of its own, since a bearer
says that and nothing of his account; which ids an account has is a second row.
"""

from __future__ import annotations

from itertools import islice

from msgspec.structs import replace

from statemachine import keys, records
from statemachine.commands import PutKey, RevokeKey, RotateKey, UseKeys
from statemachine.deadlines import later
from statemachine.outcomes import Done, KeyStored, Outcome, Reason, Refused
from statemachine.queues import open_account
from statemachine.records import KeyRecord
from statemachine.state import State

OF_ACCOUNT_MAX = 100
"""How many keys an account may have, expired ones included."""


def put(state: State, command: PutKey) -> Outcome:
    """See ``commands.PutKey``."""
    found = _find(state, command.id)
    if found is not None:
        return KeyStored(command.id, found.hash, created=False)
    rows = state.kv.scan(*keys.access_keys(command.account))
    count = sum(1 for _ in islice(rows, OF_ACCOUNT_MAX))
    if command.first and count:
        return KeyStored("", b"", created=False)
    if count == OF_ACCOUNT_MAX:
        detail = f"account {command.account!r} has {OF_ACCOUNT_MAX} keys, as many as it may have"
        return Refused(Reason.TOO_MANY_KEYS, detail)
    if command.account:
        open_account(state, command.account)
    state.kv.put(keys.access_key_of(command.account, command.id), b"")
    record = KeyRecord(command.account, command.settings, command.hash, state.now_ms)
    _write(state, command.id, record)
    return KeyStored(command.id, command.hash, created=True)


def rotate(state: State, command: RotateKey) -> Outcome:
    """See ``commands.RotateKey``."""
    found = _find(state, command.id)
    if found is None or found.account != command.account:
        return _none(command.account, command.id)
    until_ms = later(state.now_ms, max(command.grace_ms, 0))
    _write(
        state,
        command.id,
        replace(found, hash=command.hash, before=found.hash, before_until_ms=until_ms),
    )
    return KeyStored(command.id, command.hash, created=False)


def revoke(state: State, command: RevokeKey) -> Outcome:
    """See ``commands.RevokeKey``."""
    found = _find(state, command.id)
    if found is None or found.account != command.account:
        return _none(command.account, command.id)
    _delete(state, command.account, command.id)
    return Done()


def use(state: State, command: UseKeys) -> Outcome:
    """See ``commands.UseKeys``. What the key may do is as before: nobody need look again."""
    for key_id in command.ids:
        found = _find(state, key_id)
        if found is not None:
            used = replace(found, used_ms=state.now_ms)
            state.kv.put(keys.access_key(key_id), records.encode(used))
    return Done()


def _find(state: State, key_id: str) -> KeyRecord | None:
    data = state.kv.get(keys.access_key(key_id))
    return None if data is None else records.decode_key(data)


def _write(state: State, key_id: str, record: KeyRecord) -> None:
    state.kv.put(keys.access_key(key_id), records.encode(record))
    state.keys_moved = True


def _delete(state: State, account: str, key_id: str) -> None:
    state.kv.delete(keys.access_key(key_id))
    state.kv.delete(keys.access_key_of(account, key_id))
    state.keys_moved = True


def _none(account: str, key_id: str) -> Refused:
    return Refused(Reason.NO_KEY, f"account {account!r} has no key {key_id!r}")
