"""Commands about accounts as tenants: their access keys, their sealing keys, their quotas.

A part of ``commands``, which says them again for its users; the same promises hold.
"""

from __future__ import annotations

import msgspec

from statemachine.parts import KeySettings, Quotas, WrappedKey


class PutKey(msgspec.Struct, frozen=True, array_like=True, tag=50):
    """Add an access key to an account, or to the operator's, whose name is empty.

    One that is there under this id stays as it is. ``first``: only if the account has none.
    ``hash`` stands for the secret, which is in no log.
    """

    account: str
    id: str
    settings: KeySettings
    hash: bytes
    first: bool = False


class RotateKey(msgspec.Struct, frozen=True, array_like=True, tag=51):
    """Give a key another secret; the one before it is good for ``grace_ms`` more."""

    account: str
    id: str
    hash: bytes
    grace_ms: int


class RevokeKey(msgspec.Struct, frozen=True, array_like=True, tag=52):
    """Delete a key: nobody gets in with it from now on."""

    account: str
    id: str


class UseKeys(msgspec.Struct, frozen=True, array_like=True, tag=53):
    """Keys of any account that were used of late; those that are gone do not matter."""

    ids: tuple[str, ...]


class PutSealingKeys(msgspec.Struct, frozen=True, array_like=True, tag=58):
    """Keep new data keys of an account, or known ones as they are wrapped now.

    The last new one is the current one from then on. ``enabled``: whether new bodies of the
    account are to be sealed; None: as before.
    """

    account: str
    keys: tuple[WrappedKey, ...]
    enabled: bool | None = None


class DropSealingKeys(msgspec.Struct, frozen=True, array_like=True, tag=59):
    """Forget all data keys of an account, so that nobody can open what they have sealed.

    If new bodies are to be sealed, none gets in until there is a new key.
    """

    account: str


class SetQuotas(msgspec.Struct, frozen=True, array_like=True, tag=56):
    """Set the limits of an account: all of them, or those that ``fields`` names.

    All of them are also set on an account that is not there yet, which is made.
    """

    account: str
    quotas: Quotas
    fields: tuple[str, ...] | None = None
