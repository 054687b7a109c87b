"""Encryption at rest of an account's bodies: switched on and off, keys rotated and destroyed."""

from __future__ import annotations

from datetime import datetime

import msgspec

from api.access.principals import Role
from api.access.rules import Access
from api.problems import Problem
from api.rest import answers
from api.rest.answers import Answer
from api.rest.envelopes import timestamp
from api.rest.operations import Operation, Says
from api.rest.parameters import NoQuery
from api.rest.queues import no_account
from api.rest.reads import ReadQuery
from api.rest.requests import Call, JsonBody
from statemachine import queries, sealed
from statemachine.commands import DropSealingKeys, PutSealingKeys
from statemachine.outcomes import Deleted, Stored
from statemachine.sealed import SealingKey, SealingRecord

ENCRYPTION = "/v1/{account}/encryption"
ROTATE = ENCRYPTION + "/rotate"
REWRAP = ENCRYPTION + "/rewrap"
KEYS = ENCRYPTION + "/keys"

ADMIN = Access(Role.ADMIN, "account")
NOTHING = SealingRecord(enabled=False, keys=())


class Switch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether bodies are encrypted from now on; those that are there stay as they are."""

    enabled: bool = True


class EncryptionKey(msgspec.Struct, frozen=True):
    """A key of the account, and the master key under which it is wrapped."""

    id: str
    master: str
    created_at: datetime


class Encryption(msgspec.Struct, frozen=True):
    """Whether new bodies are encrypted, and the keys: the last one is used for them."""

    enabled: bool
    keys: list[EncryptionKey]


class DestroyedKeys(msgspec.Struct, frozen=True):
    """How many keys are gone."""

    deleted: int


SWITCH = JsonBody(Switch, optional=True)


async def show_encryption(call: Call, query: ReadQuery) -> Answer:
    """GET an account's encryption."""
    return answers.json(200, _view(_record(call)))


async def switch_encryption(call: Call, query: NoQuery) -> Answer:
    """PUT an account's encryption: on, with a first key if it has none; or off."""
    enabled, record = (await SWITCH.read(call)).enabled, _record(call)
    wanted = [call.service.wrapped_key(call.account)] if enabled and not record.keys else []
    await call.propose(PutSealingKeys(call.account, tuple(wanted), enabled), Stored)
    return answers.json(200, _view(_record(call)))


async def rotate_encryption_key(call: Call, query: NoQuery) -> Answer:
    """POST rotate: another key for new bodies."""
    _keys(call)
    command = PutSealingKeys(call.account, (call.service.wrapped_key(call.account),))
    await call.propose(command, Stored)
    return answers.json(200, _view(_record(call)))


async def rewrap_encryption_keys(call: Call, query: NoQuery) -> Answer:
    """POST rewrap: the keys under the current master key."""
    wrapped = [call.service.wrapped_key(call.account, key) for key in _keys(call)]
    await call.propose(PutSealingKeys(call.account, tuple(wrapped)), Stored)
    return answers.json(200, _view(_record(call)))


async def destroy_encryption_keys(call: Call, query: NoQuery) -> Answer:
    """DELETE the keys: what they have encrypted is lost."""
    deleted = await call.propose(DropSealingKeys(call.account), Deleted)
    return answers.json(200, DestroyedKeys(deleted.count))


def _record(call: Call) -> SealingRecord:
    reader = call.service.reader()
    if queries.account(reader, call.account) is None:
        raise no_account(call)
    return sealed.of(reader, call.account) or NOTHING


def _keys(call: Call) -> tuple[SealingKey, ...]:
    keys = _record(call).keys
    if not keys:
        raise Problem("not_encrypted", f"account {call.account!r} has no encryption keys")
    return keys


def _view(record: SealingRecord) -> Encryption:
    keys = [
        EncryptionKey(f"{one.number:016x}", one.master, timestamp(one.created_ms))
        for one in record.keys
    ]
    return Encryption(record.enabled, keys)


OPERATIONS = (
    Operation(
        "GET",
        ENCRYPTION,
        show_encryption,
        "Whether an account's message bodies are encrypted at rest, and its keys",
        access=ADMIN,
        query=ReadQuery,
        answers={200: Says("The encryption", Encryption)},
        refusals=("no_account",),
    ),
    Operation(
        "PUT",
        ENCRYPTION,
        switch_encryption,
        "Encrypt new message bodies of an account at rest, or do so no more",
        access=ADMIN,
        query=NoQuery,
        body=SWITCH,
        answers={200: Says("The encryption as it is now", Encryption)},
        refusals=("no_account", "encryption_key_missing"),
    ),
    Operation(
        "POST",
        ROTATE,
        rotate_encryption_key,
        "Another key for new bodies; those before stay for what they have encrypted",
        access=ADMIN,
        query=NoQuery,
        answers={200: Says("The encryption as it is now", Encryption)},
        refusals=(
            "no_account",
            "not_encrypted",
            "too_many_encryption_keys",
            "encryption_key_missing",
        ),
    ),
    Operation(
        "POST",
        REWRAP,
        rewrap_encryption_keys,
        "Wrap the account's keys under the current master key; no message is touched",
        access=ADMIN,
        query=NoQuery,
        answers={200: Says("The encryption as it is now", Encryption)},
        refusals=("no_account", "not_encrypted", "encryption_key_missing"),
    ),
    Operation(
        "DELETE",
        KEYS,
        destroy_encryption_keys,
        "Destroy the account's keys: all bodies that they have encrypted are lost for good",
        access=ADMIN,
        query=NoQuery,
        answers={200: Says("How many keys are gone", DestroyedKeys)},
        refusals=("no_account",),
    ),
)
