"""Keys for tests: put into the state directly, as the log would bring them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from api.access import minting, tokens
from local_service import LocalService
from statemachine.commands import KeySettings, PutKey
from statemachine.outcomes import KeyStored


def make_key(
    service: LocalService,
    account: str = "",
    roles: Sequence[str] = ("admin",),
    queues: Sequence[str] = ("*",),
    expires_ms: int | None = None,
) -> str:
    """The text of a new key."""
    key_id = minting.new_id()
    token = minting.new_token(key_id)
    settings = KeySettings("", tuple(roles), tuple(queues), expires_ms)
    digest = tokens.digest(service.access.pepper, token)
    stored = asyncio.run(service.propose(PutKey(account, key_id, settings, digest)))
    assert stored == KeyStored(key_id, digest, created=True)
    return token


def bearing(token: str) -> dict[str, str]:
    """The header that says it."""
    return {"Authorization": f"Bearer {token}"}
