"""Who asks: what every way of authentication yields, and all that authorisation looks at."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

import msgspec

EVERY_QUEUE = ("*",)


class Role(enum.StrEnum):
    """What a key may do. Roles are added up; none but ``admin`` includes another."""

    PRODUCE = "produce"  # Put messages.
    CONSUME = "consume"  # Claim and settle messages, and look at them.
    MANAGE = "manage"  # Settings, jobs, bindings, schedules, subscriptions, keys of the account.
    ADMIN = "admin"  # Everything, everywhere: the operator's.


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks."""

    id: str
    """Stable and safe to log: a key's id, a token's subject; never a secret."""
    account: str = ""
    """The only account it may see; empty: all of them."""
    roles: frozenset[Role] = frozenset()
    queues: tuple[str, ...] = ()
    """Patterns of queue names, in which ``*`` stands for any characters."""
    kind: Literal["key", "token", "signed", "anyone", "nobody"]
    expires_ms: int | None = None
    """When it ends by itself; None: never."""

    @property
    def actor(self) -> str:
        """Who it is, for logs: what kind of one, and its id, whatever an issuer calls it."""
        return f"{self.kind}:{self.id if self.id.isprintable() else ascii(self.id)}"

    def has(self, role: Role | None) -> bool:
        """Whether it has the role; None: any role at all."""
        roles = self.roles
        if role is None:
            return bool(roles)
        # Of an account there is no administrator: that would be one of all the others.
        return (role is not Role.ADMIN and role in roles) or self.is_operator

    @property
    def is_operator(self) -> bool:
        """Whether it may everything."""
        return Role.ADMIN in self.roles and not self.account

    def sees(self, queue: str) -> bool:
        """Whether the queue is one of its own, whatever it may do there."""
        return self.queues == EVERY_QUEUE or matches(self.queues, queue)

    def includes(self, roles: Iterable[str], queues: Iterable[str]) -> bool:
        """Whether it may all that somebody with these roles and patterns may."""
        # What a pattern means is what it means as a text too: a star there only means itself.
        return all(self.has(Role(role)) for role in roles) and all(map(self.sees, queues))

    def may(self, role: Role | None, queue: str) -> bool:
        """Whether it has the role in the queue."""
        return self.has(role) and self.sees(queue)


PRINCIPAL = "raftq.principal"
"""Where a request's scope says who asks, once that is known."""

ANYONE = Principal(id="anyone", roles=frozenset(Role), queues=EVERY_QUEUE, kind="anyone")
"""Everybody, where ``auth.required`` is off: they may all."""

NOBODY = Principal(id="nobody", kind="nobody")
"""Who asks for what is public, and was not asked who they are: they may nothing else."""


@lru_cache(maxsize=4096)  # The same few keys ask for the same few queues.
def matches(patterns: tuple[str, ...], name: str) -> bool:
    """Whether one of the patterns means the name."""
    return any(_means(pattern, name) for pattern in patterns)


def _means(pattern: str, name: str) -> bool:
    """In linear time, whatever the pattern: it comes from clients."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    *middle, last = rest
    at, end = len(first), len(name) - len(last)
    if at > end or not name.startswith(first) or not name.endswith(last):
        return False
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
