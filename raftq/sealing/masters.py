"""The master keys of a node: what wraps an account's data keys, and opens them again."""

from __future__ import annotations

import os
from collections.abc import Iterable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from raftq.config.masters import KEY_BYTES, MasterKey
from statemachine.parts import WrappedKey

NONCE_BYTES = 12
_PURPOSE = b"raftq data key\x00"


class NoMaster(Exception):
    """This node does not have the master key that is needed; the message names it."""


class Masters:
    """See the module."""

    def __init__(self, keys: Iterable[MasterKey]) -> None:
        self._keys = tuple(keys)
        self._by_name = {one.name: one for one in self._keys}

    def current(self, account: str) -> MasterKey:
        """The one under which new data keys of the account are wrapped; raises NoMaster."""
        own = [one for one in self._keys if one.account == account]
        for one in own or [one for one in self._keys if not one.account]:
            return one
        raise NoMaster("this node has no master key for the account")

    def wrap(self, account: str, data_key: bytes, number: int = 0) -> WrappedKey:
        """The data key for the log; raises NoMaster."""
        master = self.current(account)
        nonce = os.urandom(NONCE_BYTES)
        wrapped = AESGCM(master.key).encrypt(nonce, data_key, _bound(account))
        return WrappedKey(number, master.name, nonce + wrapped)

    def unwrap(self, account: str, master: str, wrapped: bytes) -> bytes:
        """Inverse of ``wrap``; raises NoMaster."""
        known = self._by_name.get(master)
        if known is None or known.account not in ("", account):
            raise NoMaster(f"this node does not have the master key {master!r}")
        try:
            nonce, rest = wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:]
            return AESGCM(known.key).decrypt(nonce, rest, _bound(account))
        except (InvalidTag, ValueError):
            raise NoMaster(f"the master key {master!r} of this node is another one") from None


def new_data_key() -> bytes:
    """A key for the bodies of one account."""
    return os.urandom(KEY_BYTES)


def _bound(account: str) -> bytes:
    """So that an account's wrapped key is none of another account."""
    return _PURPOSE + account.encode()
