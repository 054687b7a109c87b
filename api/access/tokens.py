"""The text of an access key: ``rq_``, its id, a secret, and a checksum.

It is recognisable to people and to scanners of sources, is one word to click on, and may
stand in a URL. The checksum is no protection: it tells what was cut off or mistyped,
or never was a key, without a look at anything.
"""

from __future__ import annotations

import hmac
import re
from zlib import crc32

PREFIX = "rq_"
SECRET_BITS = 256
ID_DIGITS = 16
SECRET_DIGITS = 43  # That many have room for the bits.
CHECK_DIGITS = 6

ID_PATTERN = rf"[0-9A-Za-z]{{{ID_DIGITS}}}"
PATTERN = rf"{PREFIX}({ID_PATTERN})_[0-9A-Za-z]{{{SECRET_DIGITS + CHECK_DIGITS}}}"

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_parts = re.compile(PATTERN).fullmatch


def token_of(key_id: str, secret: int) -> str:
    """The key of this id, with a secret of ``SECRET_BITS``."""
    return _checked(f"{PREFIX}{key_id}_{_base62(secret, SECRET_DIGITS)}")


def id_of(token: str) -> str | None:
    """The id in a well-formed key; None for anything else."""
    parts = _parts(token)
    if parts is None or _checked(token[:-CHECK_DIGITS]) != token:
        return None
    return parts.group(1)


def digest(pepper: bytes, token: str) -> bytes:
    """What is stored of a key: nobody makes it, or tests a guess, without the pepper."""
    return hmac.digest(pepper, token.encode(), "sha256")


def pepper(secret: bytes) -> bytes:
    """A secret for ``digest`` alone, out of one that has other uses too."""
    # HKDF (RFC 5869) for one block: extract, then expand for this purpose.
    extracted = hmac.digest(b"raftq", secret, "sha256")
    return hmac.digest(extracted, b"access keys\x01", "sha256")


def _checked(text: str) -> str:
    return text + _base62(crc32(text.encode()), CHECK_DIGITS)


def _base62(number: int, length: int) -> str:
    digits = ""
    for _ in range(length):
        number, digit = divmod(number, len(DIGITS))
        digits = DIGITS[digit] + digits
    return digits
