"""The way in with an access key: ``Authorization: Bearer rq_...``.

What was verified is remembered until a key changes in the state that this replica has
applied, so that a request costs a look into a dictionary. Its hash is keyed by the
process, so how long the look takes tells nothing of the keys in it.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import NamedTuple

from starlette.types import Scope

from api.access import tokens
from api.access.gate import Headers
from api.access.principals import Principal, Role
from api.access.rules import unauthorized
from api.ports import Service
from statemachine import keyring
from statemachine.records import FOR_EVER, KeyRecord

KNOWN_MAX = 10_000
SCHEME = b"bearer "
_NO_HASH = bytes(32)
_ROLES = {role.value: role for role in Role}


class _Known(NamedTuple):
    principal: Principal
    until_ms: int


class BearerKeys:
    """See the module."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._known: dict[bytes, _Known] = {}
        """By the whole header."""
        self._changes = -1

    async def __call__(self, scope: Scope, headers: Headers) -> Principal | None:
        """Whose key this is; None if it is none of ours."""
        given = headers.get(b"authorization")
        if given is None:
            return None
        service = self._service
        changes = service.key_changes()
        if changes != self._changes:
            self._known.clear()
            self._changes = changes
        known = self._known.get(given)
        if known is None:
            known = self._verified(given)
            if known is None:
                return None
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[given] = known
        principal, until_ms = known
        if until_ms < FOR_EVER and until_ms <= service.now_ms():
            raise unauthorized()
        service.key_used(principal.id)
        return principal

    def _verified(self, given: bytes) -> _Known | None:
        """Whose key this is, and until when; the same work whether there is such a key or not."""
        token = token_in(given)
        if token is None or not token.startswith(tokens.PREFIX):
            return None
        key_id = tokens.id_of(token)
        if key_id is None:
            raise unauthorized()
        service = self._service
        shown = tokens.digest(service.access.pepper, token)
        record = keyring.key(service.reader(), key_id)
        is_current = compare_digest(shown, record.hash if record else _NO_HASH)
        is_before = compare_digest(shown, record.before or _NO_HASH if record else _NO_HASH)
        if record is None or not (is_current or is_before):
            raise unauthorized()
        until_ms = FOR_EVER if is_current else record.before_until_ms
        expires_ms = record.settings.expires_ms
        until_ms = until_ms if expires_ms is None else min(until_ms, expires_ms)
        return _Known(principal_of(key_id, record), until_ms)


def token_in(given: bytes) -> str | None:
    """The token in an ``Authorization`` header (RFC 6750, section 2.1), or None."""
    if given[: len(SCHEME)].lower() != SCHEME:
        return None
    return given[len(SCHEME) :].decode("latin-1").strip()


def current(service: Service, key_id: str, now_ms: int) -> Principal | None:
    """What a key may now, for what was made with it; None if it is none any more."""
    record = keyring.key(service.reader(), key_id)
    who = None if record is None else principal_of(key_id, record)
    ended = who is not None and who.expires_ms is not None and who.expires_ms <= now_ms
    return None if ended else who


def principal_of(key_id: str, record: KeyRecord) -> Principal:
    """Who asks with this key."""
    settings = record.settings
    return Principal(
        id=key_id,
        account=record.account,
        # A role that a later version knows is none here.
        roles=frozenset([_ROLES[role] for role in settings.roles if role in _ROLES]),
        queues=settings.queues,
        kind="key",
        expires_ms=settings.expires_ms,
    )
