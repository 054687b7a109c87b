"""What can be asked about access keys, of the applied state on any replica; like ``queries``."""

from __future__ import annotations

from typing import NamedTuple

from statemachine import keys, queries, records
from statemachine.kv import Reader
from statemachine.records import KeyRecord


class KeyView(NamedTuple):
    """An access key."""

    id: str
    record: KeyRecord


def key(reader: Reader, key_id: str) -> KeyRecord | None:
    """One key of whatever account, or None."""
    data = reader.get(keys.access_key(key_id))
    return None if data is None else records.decode_key(data)


def of_account(reader: Reader, account: str) -> list[KeyView]:
    """All keys of an account, or of the operator, in the order of their ids."""
    found = []
    for key_id, _ in queries.named(reader, keys.access_keys(account)[0], "", None):
        record = key(reader, key_id)
        assert record is not None, key_id
        found.append(KeyView(key_id, record))
    return found
