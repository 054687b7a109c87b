"""Master keys: what an operator writes, one a line, and what a node makes of it.

    NAME BASE64 [ACCOUNT]

The first line is the current key, with which new data keys are wrapped; the others are for
opening what was wrapped before. A line with an account is for this account alone, and goes
before those without for it: who takes such a line away everywhere has destroyed what the
account has sealed, copies of logs and snapshots included.
"""

from __future__ import annotations

import binascii
import re
from typing import NamedTuple

KEY_BYTES = 32
_is_name = re.compile(r"[A-Za-z0-9_.-]{1,64}").fullmatch


class MasterKey(NamedTuple):
    """A key that only nodes have, under a name that is in the log."""

    name: str
    key: bytes
    account: str  # Empty: of all accounts.

    def __repr__(self) -> str:
        """Without the key: representations end up in logs."""
        return f"MasterKey({self.name!r}, account={self.account!r})"


def parsed(text: str) -> tuple[MasterKey, ...]:
    """The keys in the order of their lines; ValueError says which line is wrong, never what is
    in it."""
    found: list[MasterKey] = []
    for number, line in enumerate(re.split(r"[\n,]", text), start=1):
        words = line.split("#")[0].split()
        if words:
            key = _key(words, f"key {number}")
            if any(key.name == other.name for other in found):
                raise ValueError(f'key {number}: the name "{key.name}" is there twice')
            found.append(key)
    return tuple(found)


def _key(words: list[str], where: str) -> MasterKey:
    if len(words) not in (2, 3) or not _is_name(words[0]):
        raise ValueError(f'{where} is not "NAME BASE64" or "NAME BASE64 ACCOUNT"')
    try:
        key = binascii.a2b_base64(words[1].encode(), strict_mode=True)
    except ValueError:
        raise ValueError(f"{where} is not base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"{where} has {len(key)} bytes; {KEY_BYTES} are needed")
    return MasterKey(words[0], key, words[2] if len(words) == 3 else "")
