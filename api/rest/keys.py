"""Access keys: of an account, and those of the operator, who is no account.

Whoever manages keys hands out no more than he may himself, and does not see, rotate or
revoke those that may more. A secret is in one answer and nowhere else.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

import msgspec

from api.access import minting, tokens
from api.access.principals import EVERY_QUEUE, Role
from api.access.rules import Access
from api.problems import Problem
from api.rest import answers, envelopes, parameters
from api.rest.accounts import ACCOUNT
from api.rest.answers import Answer
from api.rest.operations import Operation, Says
from api.rest.parameters import NoQuery
from api.rest.reads import ReadQuery
from api.rest.requests import Call, JsonBody
from statemachine import keyring
from statemachine.commands import KeySettings, PutKey, RevokeKey, RotateKey
from statemachine.outcomes import Done, KeyStored, Reason
from statemachine.records import KeyRecord

KEYS = ACCOUNT + "/keys"
OPERATOR_KEYS = "/cluster/keys"
QUEUES_MAX = 32
GRACE_MS = 86_400_000

_is_pattern = re.compile(r"[A-Za-z0-9_.*-]{1,128}").fullmatch


class KeyToMake(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a key may do, and in which queues; ``*`` stands for any characters of a name."""

    roles: Annotated[list[Role], msgspec.Meta(extra_json_schema={"minItems": 1})]
    name: str | None = None
    queues: tuple[str, ...] = EVERY_QUEUE
    expires_in: float | None = None
    """Seconds; null: it does not expire."""


class Rotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many seconds the secret before this one is still good; a day if nothing is said."""

    grace: float | None = None


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key. ``key`` is there once, in the answer to who had it made or rotated."""

    id: str
    key: str | msgspec.UnsetType = msgspec.UNSET
    name: str
    roles: list[str]
    queues: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    """To within an hour."""
    previous_until: datetime | None
    """Until when the secret before this one is good, too."""


class Keys(msgspec.Struct, frozen=True):
    """All keys that the caller may manage, in the order of their ids."""

    keys: list[Key]


NEW_KEY = JsonBody(KeyToMake)
ROTATION = JsonBody(Rotation, optional=True)


async def list_keys(call: Call, query: ReadQuery) -> Answer:
    """GET keys."""
    found = keyring.of_account(call.service.reader(), call.owner)
    shown = [_shown(call, one.id, one.record) for one in found if _is_within(call, one.record)]
    return answers.json(200, Keys(shown))


async def make_key(call: Call, query: NoQuery) -> Answer:
    """POST keys."""
    asked = _settings(call, await NEW_KEY.read(call))
    _check_handed_out(call, asked)
    key_id = minting.new_id()
    token = minting.new_token(key_id)
    digest = tokens.digest(call.service.access.pepper, token)
    stored = await call.propose(PutKey(call.owner, key_id, asked, digest), KeyStored)
    if stored.hash != digest:  # It was made by an earlier try, of which the secret is gone.
        return answers.json(200, _described(call, stored.id))
    location = (b"location", f"{call.scope['path']}/{key_id}".encode())
    return answers.json(201, _described(call, key_id, token), location)


async def get_key(call: Call, query: ReadQuery) -> Answer:
    """GET a key."""
    return answers.json(200, _described(call, call.path["key_id"]))


async def rotate_key(call: Call, query: NoQuery) -> Answer:
    """POST rotate."""
    given = (await ROTATION.read(call)).grace
    most_ms = call.service.limits.duration_ms_max
    grace_ms = parameters.optional_milliseconds(given, most_ms, "grace")
    key_id = call.path["key_id"]
    _check_handed_out(call, _found(call, key_id).settings)
    token = minting.new_token(key_id)
    digest = tokens.digest(call.service.access.pepper, token)
    command = RotateKey(call.owner, key_id, digest, GRACE_MS if grace_ms is None else grace_ms)
    stored = await call.propose(command, KeyStored)
    shown = token if stored.hash == digest else msgspec.UNSET
    return answers.json(200, _described(call, key_id, shown))


async def revoke_key(call: Call, query: NoQuery) -> Answer:
    """DELETE a key."""
    key_id = call.path["key_id"]
    _found(call, key_id)
    await call.propose(RevokeKey(call.owner, key_id), Done)
    return answers.empty()


async def list_operator_keys(call: Call, query: ReadQuery) -> Answer:
    """GET the operator's keys."""
    return await list_keys(call, query)


async def make_operator_key(call: Call, query: NoQuery) -> Answer:
    """POST the operator's keys."""
    return await make_key(call, query)


async def get_operator_key(call: Call, query: ReadQuery) -> Answer:
    """GET a key of the operator's."""
    return await get_key(call, query)


async def rotate_operator_key(call: Call, query: NoQuery) -> Answer:
    """POST rotate, of the operator's."""
    return await rotate_key(call, query)


async def revoke_operator_key(call: Call, query: NoQuery) -> Answer:
    """DELETE a key of the operator's."""
    return await revoke_key(call, query)


def _settings(call: Call, given: KeyToMake) -> KeySettings:
    if not given.roles:
        raise Problem("invalid_request", "a key must have a role", field="roles")
    if call.owner and Role.ADMIN in given.roles:
        detail = "admin is of the operator's keys only: it may everything in all accounts"
        raise Problem("invalid_request", detail, field="roles")
    parameters.in_range(len(given.queues), 1, QUEUES_MAX, "queues")
    for pattern in given.queues:
        if not _is_pattern(pattern):
            detail = "a pattern is 1 to 128 letters, digits, '_', '.', '-' or '*'"
            raise Problem("invalid_name", detail, field="queues")
    most_ms = call.service.limits.duration_ms_max
    left_ms = parameters.optional_milliseconds(given.expires_in, most_ms, "expires_in", least_ms=1)
    return KeySettings(
        name=parameters.line(given.name, "name"),
        roles=tuple(dict.fromkeys(given.roles)),
        queues=tuple(dict.fromkeys(given.queues)),
        expires_ms=None if left_ms is None else call.service.now_ms() + left_ms,
    )


def _check_handed_out(call: Call, asked: KeySettings) -> None:
    """Nobody hands out more than he has, nor for longer."""
    who = call.principal
    if not who.includes(asked.roles, asked.queues):
        raise Problem("forbidden", "this key would have roles or queues that yours has not")
    if who.expires_ms is not None and (asked.expires_ms or who.expires_ms + 1) > who.expires_ms:
        raise Problem("forbidden", "this key would last longer than yours")


def _is_within(call: Call, record: KeyRecord) -> bool:
    return call.principal.includes(record.settings.roles, record.settings.queues)


def _found(call: Call, key_id: str) -> KeyRecord:
    """The account's key of this id, which may no more than the caller; else a problem."""
    record = keyring.key(call.service.reader(), key_id)
    if record is None or record.account != call.owner:
        raise Problem(Reason.NO_KEY, f"there is no key {key_id[:64]!r}")
    if not _is_within(call, record):
        raise Problem("forbidden", "this key has roles or queues that yours has not")
    return record


def _described(call: Call, key_id: str, token: str | msgspec.UnsetType = msgspec.UNSET) -> Key:
    return _shown(call, key_id, _found(call, key_id), token)


def _shown(
    call: Call, key_id: str, record: KeyRecord, token: str | msgspec.UnsetType = msgspec.UNSET
) -> Key:
    settings, before_ms = record.settings, record.before_until_ms
    return Key(
        id=key_id,
        key=token,
        name=settings.name,
        roles=list(settings.roles),
        queues=list(settings.queues),
        created_at=envelopes.timestamp(record.created_ms),
        expires_at=envelopes.optional_timestamp(settings.expires_ms),
        last_used_at=envelopes.optional_timestamp(record.used_ms or None),
        previous_until=envelopes.optional_timestamp(
            before_ms if before_ms > call.service.now_ms() else None
        ),
    )


MADE = {
    201: Says("It is new; its secret is shown this once", Key),
    200: Says("An earlier request with this Idempotency-Key made it", Key),
}
ROTATED = {200: Says("It has another secret, which is shown this once", Key)}
OF_ACCOUNT = Access(Role.MANAGE, "account")
OF_OPERATOR = Access(Role.ADMIN, "cluster")

OPERATIONS = (
    Operation(
        "GET",
        KEYS,
        list_keys,
        "The account's keys, as far as the caller may manage them",
        access=OF_ACCOUNT,
        query=ReadQuery,
        answers={200: Says("All of them", Keys)},
    ),
    Operation(
        "POST",
        KEYS,
        make_key,
        "Make a key that may no more than the caller",
        access=OF_ACCOUNT,
        query=NoQuery,
        body=NEW_KEY,
        answers=MADE,
        refusals=("too_many_keys",),
    ),
    Operation(
        "GET",
        KEYS + "/{key_id}",
        get_key,
        "A key, without its secret",
        access=OF_ACCOUNT,
        query=ReadQuery,
        answers={200: Says("The key", Key)},
        refusals=("no_key",),
    ),
    Operation(
        "DELETE",
        KEYS + "/{key_id}",
        revoke_key,
        "Revoke a key: within a second no replica lets anybody in with it",
        access=OF_ACCOUNT,
        query=NoQuery,
        answers={204: Says("It is gone")},
        refusals=("no_key",),
    ),
    Operation(
        "POST",
        KEYS + "/{key_id}/rotate",
        rotate_key,
        "Give a key another secret; the one before stays good for a while",
        access=OF_ACCOUNT,
        query=NoQuery,
        body=ROTATION,
        answers=ROTATED,
        refusals=("no_key",),
    ),
    Operation(
        "GET",
        OPERATOR_KEYS,
        list_operator_keys,
        "The operator's keys",
        access=OF_OPERATOR,
        query=ReadQuery,
        answers={200: Says("All of them", Keys)},
    ),
    Operation(
        "POST",
        OPERATOR_KEYS,
        make_operator_key,
        "Make a key for all accounts",
        access=OF_OPERATOR,
        query=NoQuery,
        body=NEW_KEY,
        answers=MADE,
        refusals=("too_many_keys",),
    ),
    Operation(
        "GET",
        OPERATOR_KEYS + "/{key_id}",
        get_operator_key,
        "A key of the operator's, without its secret",
        access=OF_OPERATOR,
        query=ReadQuery,
        answers={200: Says("The key", Key)},
        refusals=("no_key",),
    ),
    Operation(
        "DELETE",
        OPERATOR_KEYS + "/{key_id}",
        revoke_operator_key,
        "Revoke a key of the operator's",
        access=OF_OPERATOR,
        query=NoQuery,
        answers={204: Says("It is gone")},
        refusals=("no_key",),
    ),
    Operation(
        "POST",
        OPERATOR_KEYS + "/{key_id}/rotate",
        rotate_operator_key,
        "Give a key of the operator's another secret",
        access=OF_OPERATOR,
        query=NoQuery,
        body=ROTATION,
        answers=ROTATED,
        refusals=("no_key",),
    ),
)
