"""New access keys, by chance."""

from __future__ import annotations

import secrets

from api.access import tokens


def new_id() -> str:
    """A key's id: unlike any other, and no secret."""
    return "".join([secrets.choice(tokens.DIGITS) for _ in range(tokens.ID_DIGITS)])


def new_token(key_id: str) -> str:
    """A key of this id with a new secret: shown once, and stored nowhere."""
    return tokens.token_of(key_id, secrets.randbits(tokens.SECRET_BITS))
