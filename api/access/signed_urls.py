"""Pre-signed URLs: a key's right to some of a queue, handed to somebody who has no key.

In the manner of OpenStack Zaqar's: what is signed (HMAC-SHA256, RFC 2104) are account, queue,
methods, paths below the queue, and an end. A URL names the key it came from and may never do
more than that key may now; so it ends with the key too. It can be used again until then: who
wants a request to happen once sends an ``Idempotency-Key``.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlencode

from starlette.types import Scope

from api.access.bearer import current
from api.access.gate import Headers
from api.access.principals import Principal, Role
from api.access.rules import unauthorized
from api.ports import Service
from api.problems import Problem

PREFIX = "raftq-"
KEY, METHODS, PATHS, EXPIRES, SIGNATURE = (
    f"{PREFIX}{name}" for name in ("key", "methods", "paths", "expires", "signature")
)
NAMES = frozenset((KEY, METHODS, PATHS, EXPIRES, SIGNATURE))
VALUE_LENGTH_MAX = 256

SIGNED = "raftq.signed_url"
"""Where a request's scope keeps the fields of its signature."""

_is_queue = re.compile(r"/v1/([^/]+)/queues/([^/]+)(?:/(.*))?").fullmatch


class Grant(NamedTuple):
    """What a URL allows: methods on paths below a queue, and all that is below those."""

    key: str
    account: str
    queue: str
    methods: tuple[str, ...]
    paths: tuple[str, ...]
    expires_ms: int

    def covers(self, method: str, path: str) -> bool:
        """Whether a request for ``path``, relative to the queue, is one of those meant."""
        if method not in self.methods and not (method == "HEAD" and "GET" in self.methods):
            return False
        return any(path == one or path.startswith(f"{one}/") for one in self.paths)


def sign(pepper: bytes, grant: Grant) -> str:
    """The query that makes a URL below the queue good without a key.

    Each node that hashes keys with the same ``pepper`` knows it again.
    """
    fields = {
        KEY: grant.key,
        METHODS: ",".join(grant.methods),
        PATHS: ",".join(grant.paths),
        EXPIRES: str(grant.expires_ms),
        SIGNATURE: _signature(pepper, grant),
    }
    return urlencode(fields, safe=",")


class SignedUrls:
    """The way in with one. See ``gate.Way``."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, headers: Headers) -> Principal | None:
        """What the URL gives; its query is then what is left without the signature."""
        fields: dict[str, str] | None = scope.get(SIGNED)
        if fields is None:
            if f"{SIGNATURE}=".encode() not in scope["query_string"]:
                return None
            fields, rest = _split(scope["query_string"].decode("latin-1"))
            # A request that has waited is asked again who sends it.
            scope[SIGNED], scope["query_string"] = fields, rest.encode("latin-1")
        return self._believed(scope["method"], scope["path"], fields)

    def _believed(self, method: str, path: str, fields: dict[str, str]) -> Principal:
        service = self._service
        found = _is_queue(path)
        if found is None or fields.keys() != NAMES:
            raise unauthorized()
        grant = _grant(fields, found[1], found[2])
        signature = _signature(service.access.pepper, grant)
        if not hmac.compare_digest(signature.encode(), fields[SIGNATURE].encode()):
            raise unauthorized()
        now_ms = service.now_ms()
        if now_ms >= grant.expires_ms or not grant.covers(method, found[3] or ""):
            raise unauthorized()
        key = current(service, grant.key, now_ms)
        if key is None or key.account not in ("", grant.account):
            raise unauthorized()
        return _narrowed(key, grant)


def demand(scope: Scope, method: str, path: str) -> None:
    """Refuse what comes along in a request by a URL that was not signed for it."""
    fields: dict[str, str] | None = scope.get(SIGNED)
    if fields is not None and not _grant(fields, "", "").covers(method, path):
        raise Problem("forbidden", f"the URL is not signed for {method} on {path}")


def _signature(pepper: bytes, grant: Grant) -> str:
    said = (
        "signed url 1",
        grant.key,
        grant.account,
        grant.queue,
        ",".join(grant.methods),
        ",".join(grant.paths),
        str(grant.expires_ms),
    )
    return hmac.new(pepper, "\n".join(said).encode(), "sha256").hexdigest()


def _narrowed(key: Principal, grant: Grant) -> Principal:
    roles = frozenset(Role) if Role.ADMIN in key.roles else key.roles
    return Principal(
        id=key.id,
        account=grant.account,
        roles=roles - {Role.ADMIN},
        queues=(grant.queue,) if key.sees(grant.queue) else (),
        kind="signed",
        expires_ms=grant.expires_ms,
    )


def _split(query: str) -> tuple[dict[str, str], str]:
    """The fields of a signature, and the rest as it was."""
    fields: dict[str, str] = {}
    rest = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name not in NAMES:
            rest.append(part)
        elif name in fields or len(value) > VALUE_LENGTH_MAX:
            raise unauthorized()
        else:
            fields[name] = unquote(value)  # Some clients encode commas.
    return fields, "&".join(rest)


def _grant(fields: Mapping[str, str], account: str, queue: str) -> Grant:
    expires = fields[EXPIRES]
    if not expires.isdecimal() or len(expires) > 15:
        raise unauthorized()
    return Grant(
        fields[KEY],
        account,
        queue,
        tuple(fields[METHODS].split(",")),
        tuple(fields[PATHS].split(",")),
        int(expires),
    )
