"""Requests that the node has no time or room for: answered before they are read, for little.

No task is started and nothing is parsed but the head, so that saying no costs a fraction of
what doing it would: or else a node that is asked for three times what it can do would be
busy with that.
"""

from __future__ import annotations

from api.problems import MEDIA_TYPE, Problem
from raftq.serving.exchange import Exchange

RETRY_AFTER_S = 1
"""What clients are told. For as long, the connection is not read either: who waits as he was told
does not notice, and who does not cannot ask for a no that costs as much as some answers."""

_BODY = Problem("overloaded", "the node has more to do than time for it; nothing was done").body()
_HEAD = (
    f"HTTP/1.1 503 Service Unavailable\r\ncontent-type: {MEDIA_TYPE}\r\n"
    f"content-length: {len(_BODY)}\r\nretry-after: {RETRY_AFTER_S}\r\n"
).encode()
_GOES_ON = _HEAD + b"\r\n"
_IS_LAST = _HEAD + b"connection: close\r\n\r\n"


def announced(exchange: Exchange, most: int) -> int:
    """How many bytes of the body will be in memory; of unknown length, it may be the most."""
    for name, value in exchange.scope["headers"]:
        if name == b"content-length":
            return min(int(value), most)
        if name == b"transfer-encoding":
            return most
    return 0


def answer(exchange: Exchange, *, is_last: bool) -> None:
    """Answer in the place of the application; ``is_last``: and close the connection."""
    exchange.response_started = exchange.response_complete = True
    body = b"" if exchange.scope["method"] == "HEAD" else _BODY
    exchange.transport.write((_IS_LAST if is_last else _GOES_ON) + body)
    exchange.forget()
    if is_last:
        exchange.transport.close()
