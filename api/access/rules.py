"""What a route asks of who asks: declared with the route, and checked before anything else.

The answer to a foreign account is the one to an unknown key: who asks does not learn
that the account is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from api.access.principals import ANYONE, Principal, Role
from api.problems import Problem

Resource = Literal["public", "cluster", "account", "queue"]

_NAMED_BY: dict[Resource, set[str]] = {
    "public": set(),
    "cluster": set(),
    "account": {"account"},
    "queue": {"account", "queue"},
}


class Access:
    """The role that a route needs, and in what; without a role, any good key is enough.

    ``whole``: it concerns all queues of the account, so a key for some of them is not enough.
    """

    def __init__(self, role: Role | None, resource: Resource, *, whole: bool = False) -> None:
        self.role = role
        self.resource = resource
        self.whole = whole

    def fits(self, path: str) -> bool:
        """Whether a path names the resource, so that nothing it names goes unchecked."""
        return set(re.findall(r"{(account|queue)}", path)) == _NAMED_BY[self.resource]

    @property
    def refusals(self) -> tuple[str, ...]:
        """What may come of ``check``, and of asking who it is."""
        if self.resource == "public":
            return ()
        if self.role is None and self.resource != "queue":
            return ("unauthorized", "not_current")
        return ("unauthorized", "forbidden", "not_current")

    def check(self, who: Principal, path: Mapping[str, str]) -> None:
        """Return if ``who`` may; else a problem."""
        if who is ANYONE:
            return
        if who.account and self.resource != "cluster" and path["account"] != who.account:
            raise unauthorized()
        if not who.has(self.role):
            raise forbidden(self.role)
        if self.resource == "queue" and not who.sees(path["queue"]):
            raise not_seen(path["queue"])
        if self.whole and "*" not in who.queues:
            raise Problem("forbidden", "this needs a key for all queues of the account")


PUBLIC = Access(None, "public")
"""Nobody is asked who they are."""


def demand(who: Principal, role: Role | None, queue: str) -> None:
    """Return if ``who`` has the role in the queue; else a problem."""
    if who is ANYONE:
        return
    if not who.has(role):
        raise forbidden(role)
    if not who.sees(queue):
        raise not_seen(queue)


def not_seen(queue: str) -> Problem:
    """A good key of this account, for other queues."""
    return Problem("forbidden", f"this key is not for the queue {queue[:128]}")


def forbidden(role: Role | None) -> Problem:
    """A good key of this account, without the role."""
    return Problem("forbidden", f"this needs a key with the role {role or 'of any kind'}")


def unauthorized() -> Problem:
    """The one answer to no key, and to any that is unknown, expired, revoked or foreign."""
    return Problem(
        "unauthorized",
        "this needs a valid key for this account, as Authorization: Bearer KEY",
        headers=(("WWW-Authenticate", "Bearer"),),
    )
