"""Messages as they are stored, made readable: the one way from a record to a body.

Every front end goes through here, so that none has to know that bodies may be sealed.
"""

from __future__ import annotations

import msgspec

from api.ports import Service, Unreadable
from statemachine import sealed
from statemachine.records import StoredMessage, decode_message


class Opened(msgspec.Struct, frozen=True):
    """A message; its body is there unless ``unreadable`` says why not."""

    stored: StoredMessage
    unreadable: Unreadable | None = None


def opened(service: Service, account: str, record: bytes) -> Opened:
    """The message in a record of the account; raises ``Unavailable``.

    A message whose body is lost is still a message: it can be looked at, and be settled.
    """
    stored = decode_message(record)
    if not sealed.is_sealed(stored.content_encoding):
        return Opened(stored)
    try:
        return Opened(service.opened(account, stored))
    except Unreadable as error:
        encoding = sealed.without_coding(stored.content_encoding)
        return Opened(msgspec.structs.replace(stored, body=b"", content_encoding=encoding), error)
