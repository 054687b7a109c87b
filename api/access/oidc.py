"""Bearer tokens of one OpenID Connect issuer: who is meant by a JSON Web Token (RFC 7519).

The operator names issuer, audience and algorithms; a token has no say in any of them, nor in
where keys come from (RFC 8725, sections 3.1 and 3.10): ``jku``, ``x5u`` and ``jwk`` of its
header are never looked at. PyJWT verifies. Keys are fetched from the issuer's JWKS (RFC 7517,
found by OpenID Connect Discovery 1.0), kept, and fetched again when they are old or when a
token names one that is not known, which strangers can provoke only so often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import jwt
import msgspec
from starlette.types import Scope

from api.access.bearer import token_in
from api.access.gate import Headers
from api.access.principals import EVERY_QUEUE, Principal, Role
from api.access.rules import unauthorized
from api.ports import OidcPolicy, Service
from api.problems import Problem

TOKEN_BYTES_MAX = 8_192
DOCUMENT_BYTES_MAX = 262_144
VERIFIED_MAX = 10_000

Fetch = Callable[[str, int], Awaitable[bytes]]
"""What lies at a URL, of at most so many bytes; raises OSError."""


class KeySet:
    """The issuer's keys, by their ids."""

    def __init__(self, policy: OidcPolicy, fetch: Fetch, monotonic: Callable[[], float]) -> None:
        self._policy, self._fetch, self._monotonic = policy, fetch, monotonic
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """The key of this id, or None; raises a problem if the issuer cannot be asked."""
        now, policy = self._monotonic(), self._policy
        is_old = now - self._fetched_at > policy.refresh_s
        if (is_old or kid not in self._keys) and (
            self._refreshing is not None or now - self._tried_at > policy.retry_s
        ):
            await self._refresh()
        if self._monotonic() - self._fetched_at > policy.keep_s:
            raise Problem("issuer_unreachable", "the token's issuer cannot be asked")
        return self._keys.get(kid)

    async def _refresh(self) -> None:
        """Fetch once for all who wait."""
        if self._refreshing is None:
            self._tried_at = self._monotonic()
            self._refreshing = asyncio.ensure_future(self._load())
            self._refreshing.add_done_callback(self._refreshed)
        # One of those who wait may go away; the others still want the keys.
        await asyncio.shield(self._refreshing)

    def _refreshed(self, _task: asyncio.Task[None]) -> None:
        self._refreshing = None

    async def _load(self) -> None:
        try:
            url = self._policy.jwks_url or await self._discovered()
            document = await self._document(url)
            found = jwt.PyJWKSet.from_dict(document).keys
        except (OSError, ValueError, msgspec.MsgspecError, jwt.PyJWTError):
            return  # What is known stays in force until it is too old.
        self._keys = {key.key_id: key for key in found if key.key_id}
        self._fetched_at = self._monotonic()

    async def _discovered(self) -> str:
        issuer = self._policy.issuer
        document = await self._document(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        url = document.get("jwks_uri")
        if document.get("issuer") != issuer or not isinstance(url, str):
            raise ValueError("the discovery document is another issuer's")
        if issuer.startswith("https:") and not url.startswith("https:"):
            raise ValueError("the issuer's keys are not to be had over TLS")
        return url

    async def _document(self, url: str) -> dict[str, Any]:
        return msgspec.json.decode(await self._fetch(url, DOCUMENT_BYTES_MAX), type=dict[str, Any])


class Oidc:
    """Who asks, by a token."""

    def __init__(self, service: Service, policy: OidcPolicy, fetch: Fetch) -> None:
        self._policy, self._now_ms = policy, service.now_ms
        self._keys = KeySet(policy, fetch, service.monotonic)
        self._verified: dict[str, Principal] = {}
        """Who it is, by the token."""

    def known(self, token: str) -> Principal | None:
        """Who has shown this token before, if it is still good."""
        found = self._verified.get(token)
        if found is None:
            return None
        assert found.expires_ms is not None
        if self._now_ms() < found.expires_ms:
            return found
        del self._verified[token]
        return None

    async def __call__(self, scope: Scope, headers: Headers) -> Principal | None:
        """See ``gate.Way``: what has the shape of a token is one, or nothing."""
        token = token_in(headers.get(b"authorization", b""))
        if token is None or token.count(".") != 2:
            return None
        who = await self.principal(token)
        if who is None:
            raise unauthorized()
        return who

    async def principal(self, token: str) -> Principal | None:
        """Who shows this token, or None; raises a problem if its issuer cannot be asked."""
        if (known := self.known(token)) is not None:
            return known
        if len(token) > TOKEN_BYTES_MAX:
            return None
        try:
            header = jwt.get_unverified_header(token)
            # Before a key is looked for: strangers need not learn which ones there are.
            if header.get("alg") not in self._policy.algorithms:
                return None
            key = await self._keys.find(str(header.get("kid", "")))
            claims = None if key is None else self._claims(token, key)
        except jwt.PyJWTError:
            return None
        return None if claims is None else self._believe(token, claims)

    def _claims(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        policy = self._policy
        return jwt.decode(
            token,
            key,
            algorithms=list(policy.algorithms),
            audience=policy.audience,
            issuer=policy.issuer,
            leeway=policy.leeway_s,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )

    def _believe(self, token: str, claims: dict[str, Any]) -> Principal | None:
        principal = principal_of(claims, self._policy)
        if principal is None:
            return None
        if len(self._verified) >= VERIFIED_MAX:
            self._verified.clear()
        self._verified[token] = principal
        return principal


def principal_of(claims: dict[str, Any], policy: OidcPolicy) -> Principal | None:
    """Who is meant by claims that were verified; None if they give no rights here."""
    roles = {Role(name) for name in _words(claims.get(policy.roles_claim)) if name in ROLE_NAMES}
    is_operator = Role.ADMIN in roles and policy.operators
    roles.discard(Role.ADMIN)
    account = claims.get(policy.account_claim, "")
    if is_operator:
        account, roles = "", {Role.ADMIN}
    elif not isinstance(account, str) or not account or not roles:
        return None
    queues = claims.get(policy.queues_claim)
    patterns = EVERY_QUEUE if queues is None else tuple(_words(queues))
    return Principal(
        id=str(claims["sub"])[:255],
        account=account,
        roles=frozenset(roles),
        queues=patterns,
        kind="token",
        expires_ms=(int(claims["exp"]) + policy.leeway_s) * 1_000,
    )


ROLE_NAMES = frozenset(role.value for role in Role)


def _words(given: object) -> list[str]:
    """A claim that is a list of words, or one text with spaces (as ``scope`` in RFC 8693)."""
    if isinstance(given, str):
        return given.split()
    if isinstance(given, list):
        return [word for word in given if isinstance(word, str)]
    return []
