"""Signatures after Standard Webhooks (standardwebhooks.com), symmetric ones: ``v1``.

A receiver knows by them that a request comes from here, that it is whole, and when it
was made; the id tells it that it has seen the message before.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

PREFIX = "whsec_"
BYTES_MIN, BYTES_MAX = 24, 64  # As the standard has it.
BYTES_MADE = 32


def make() -> bytes:
    """A new secret."""
    return secrets.token_bytes(BYTES_MADE)


def text(secret: bytes) -> str:
    """A secret as people pass it on."""
    return PREFIX + base64.b64encode(secret).decode()


def from_text(given: str) -> bytes | None:
    """Inverse of ``text``; None for what is no secret, or one of a length that is not allowed."""
    encoded = given.removeprefix(PREFIX)
    if encoded == given:
        return None
    try:
        secret = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        return None
    return secret if BYTES_MIN <= len(secret) <= BYTES_MAX else None


def sign(secret: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """The value of ``webhook-signature``."""
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp_s, body)
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def webhook_id(account: str, queue: str, message_id: str) -> str:
    """The same for each attempt at a message, and without a dot, which separates what is signed."""
    place = hashlib.blake2b(f"{account}/{queue}".encode(), digest_size=8).hexdigest()
    return f"msg_{place}_{message_id}"
