"""Accounts: tenants, and the defaults of their queues. The first message creates one."""

from __future__ import annotations

from datetime import datetime

import msgspec

from api.access.principals import Role
from api.access.rules import Access
from api.rest import answers, envelopes, pages, settings
from api.rest.answers import Answer
from api.rest.operations import Operation, Says
from api.rest.pages import ListQuery
from api.rest.parameters import NoQuery
from api.rest.queues import no_account
from api.rest.reads import ReadQuery
from api.rest.requests import Call, JsonBody
from api.rest.settings import Settings
from statemachine import queries
from statemachine.commands import DeleteAccount, PatchAccount, PutAccount
from statemachine.outcomes import Done, Stored

ACCOUNTS = "/v1"
ACCOUNT = ACCOUNTS + "/{account}"


class AccountSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be set on an account."""

    defaults: Settings = Settings()


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account."""

    name: str
    defaults: Settings
    queues: int
    created_at: datetime


class AccountItem(msgspec.Struct, frozen=True):
    """An account in a list."""

    name: str
    queues: int


class Accounts(msgspec.Struct, frozen=True):
    """A page of accounts in the order of their names; ``marker`` is null on the last."""

    accounts: list[AccountItem]
    marker: str | None


SETTINGS = JsonBody(AccountSettings, optional=True)


async def list_accounts(call: Call, query: ListQuery) -> Answer:
    """GET accounts."""
    part = pages.part(query, call.service.limits)
    page = queries.accounts(call.service.reader(), **part)
    items = [AccountItem(found.name, found.queues) for found in page.items]
    return answers.json(200, Accounts(items, page.marker), *pages.link(call, page.marker))


async def put_account(call: Call, query: NoQuery) -> Answer:
    """PUT an account: create it, or replace its defaults."""
    given = settings.to_store(call, (await SETTINGS.read(call)).defaults)
    stored = await call.propose(PutAccount(call.account, given), Stored)
    if not stored.created:
        return answers.json(200, _describe(call))
    return answers.json(201, _describe(call), (b"location", f"/v1/{call.account}".encode()))


async def get_account(call: Call, query: ReadQuery) -> Answer:
    """GET an account."""
    return answers.json(200, _describe(call))


async def patch_account(call: Call, query: NoQuery) -> Answer:
    """PATCH an account: change the defaults named."""
    given = (await SETTINGS.read(call)).defaults
    changed = settings.to_store(call, given)
    await call.propose(PatchAccount(call.account, changed, settings.named(given)), Stored)
    return answers.json(200, _describe(call))


async def delete_account(call: Call, query: NoQuery) -> Answer:
    """DELETE an account, which must have no queues."""
    await call.propose(DeleteAccount(call.account), Done)
    return answers.empty()


def _describe(call: Call) -> Account:
    found = queries.account(call.service.reader(), call.account)
    if found is None:
        raise no_account(call)
    return Account(
        name=found.name,
        defaults=settings.from_store(found.defaults),
        queues=found.queues,
        created_at=envelopes.timestamp(found.created_ms),
    )


OPERATIONS = (
    Operation(
        "GET",
        ACCOUNTS,
        list_accounts,
        "All accounts in the order of their names",
        access=Access(Role.ADMIN, "cluster"),
        query=ListQuery,
        answers={200: Says("A page", Accounts)},
    ),
    Operation(
        "PUT",
        ACCOUNT,
        put_account,
        "Create an account, or replace its defaults",
        access=Access(Role.ADMIN, "account"),
        query=NoQuery,
        body=SETTINGS,
        answers={201: Says("It is new", Account), 200: Says("It was there", Account)},
    ),
    Operation(
        "GET",
        ACCOUNT,
        get_account,
        "An account and its defaults",
        access=Access(None, "account"),
        query=ReadQuery,
        answers={200: Says("The account", Account)},
        refusals=("no_account",),
    ),
    Operation(
        "PATCH",
        ACCOUNT,
        patch_account,
        "Change the defaults named; null puts one back to the built-in one",
        access=Access(Role.MANAGE, "account", whole=True),
        query=NoQuery,
        body=SETTINGS,
        answers={200: Says("The account as it is now", Account)},
        refusals=("no_account",),
    ),
    Operation(
        "DELETE",
        ACCOUNT,
        delete_account,
        "Delete an account that has no queues",
        access=Access(Role.ADMIN, "account"),
        query=NoQuery,
        answers={204: Says("It is gone")},
        refusals=("no_account", "account_in_use"),
    ),
)
