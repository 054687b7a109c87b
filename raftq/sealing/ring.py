"""The data keys of one account, opened, and what they do to a body.

    sealed body    u64 number of the data key, 16 bytes salt, 12 bytes nonce, AES-256-GCM

A data key seals nothing itself: each process derives a key of its own from it, by HKDF with a
random salt, and again after ``SEALS_MAX`` bodies. So random nonces are as good as never the
same under one key (NIST SP 800-38D, 8.3), however many nodes seal for however long.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from raftq.config.masters import KEY_BYTES
from raftq.sealing.masters import NONCE_BYTES, Masters, NoMaster
from statemachine import keys
from statemachine.sealed import NUMBER_BYTES, SealingRecord

SALT_BYTES = 16
TAG_BYTES = 16
HEAD_BYTES = NUMBER_BYTES + SALT_BYTES
OVERHEAD_BYTES = HEAD_BYTES + NONCE_BYTES + TAG_BYTES
SEALS_MAX = 1 << 31
DERIVED_MAX = 256
_PURPOSE = b"raftq body\x00"


class Shredded(Exception):
    """The key that sealed the body is gone for good."""


class Damaged(Exception):
    """The body is not what was sealed."""


class _Seal(NamedTuple):
    head: bytes
    cipher: AESGCM


class Ring:
    """See the module."""

    def __init__(self, account: str, record: SealingRecord, masters: Masters) -> None:
        self.record = record
        self.missing: str | None = None
        """Why some of the keys can not be used on this node; None: all can."""
        self._bound = _PURPOSE + account.encode()
        self._keys: dict[int, bytes] = {}
        for key in record.keys:
            try:
                self._keys[key.number] = masters.unwrap(account, key.master, key.wrapped)
            except NoMaster as error:
                self.missing = str(error)
        self._derived: dict[bytes, AESGCM] = {}
        self._sealing: _Seal | None = None
        self._left = 0

    def data_key(self, number: int) -> bytes:
        """A key, to be wrapped anew; it must be there."""
        return self._keys[number]

    def seal(self, body: bytes) -> bytes:
        """The body, for nobody to read; there must be a current key."""
        if not self._left:
            self._begin()
        self._left -= 1
        assert self._sealing is not None
        head, cipher = self._sealing
        nonce = os.urandom(NONCE_BYTES)
        return b"".join((head, nonce, cipher.encrypt(nonce, body, self._bound)))

    def open(self, sealed: bytes) -> bytes:
        """Inverse of ``seal``; raises Shredded or Damaged."""
        head, nonce = sealed[:HEAD_BYTES], sealed[HEAD_BYTES : HEAD_BYTES + NONCE_BYTES]
        cipher = self._derived.get(head) or self._derive(head)
        try:
            return cipher.decrypt(nonce, sealed[HEAD_BYTES + NONCE_BYTES :], self._bound)
        except (InvalidTag, ValueError):
            raise Damaged("the body is not what was sealed") from None

    def _begin(self) -> None:
        number = self.record.keys[-1].number
        head = keys.u64(number) + os.urandom(SALT_BYTES)
        self._sealing, self._left = _Seal(head, self._derive(head)), SEALS_MAX

    def _derive(self, head: bytes) -> AESGCM:
        """The cipher of a process that has sealed under this number and salt."""
        number, salt = keys.number(head[:NUMBER_BYTES]), head[NUMBER_BYTES:]
        key = self._keys.get(number)
        if key is None:
            raise Shredded("the key that sealed the body was destroyed")
        derived = HKDF(SHA256(), KEY_BYTES, salt, self._bound).derive(key)
        if len(self._derived) >= DERIVED_MAX:
            self._derived.clear()
        cipher = self._derived[head] = AESGCM(derived)
        return cipher
