"""Requests that the node has no time or room for: answered before they are read, for little.

No task is started and nothing is parsed but the head, so that saying no costs a fraction of
what doing it would: or else a node that is asked for three times what it can do would be
busy with that.
"""

from __future__ import annotations

from typing import Any, cast

from uvicorn._types import (
    ASGI3Application,
    ASGIReceiveCallable,
    ASGISendCallable,
)
from uvicorn._types import (
    Scope as AnyScope,
)
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from api.fairness.admission import PLACE, Place
from api.problems import MEDIA_TYPE, Problem

RETRY_AFTER_S = 1
PAUSE_S = 0.2
"""How long a connection on which a request was shed is not read."""

_BODY = Problem("overloaded", "the node has more to do than time for it; nothing was done").body()
_HEAD = (
    f"HTTP/1.1 503 Service Unavailable\r\ncontent-type: {MEDIA_TYPE}\r\n"
    f"content-length: {len(_BODY)}\r\nretry-after: {RETRY_AFTER_S}\r\n"
).encode()
_GOES_ON = _HEAD + b"\r\n"
_IS_LAST = _HEAD + b"connection: close\r\n\r\n"


def announced(cycle: RequestResponseCycle, most: int) -> int:
    """How many bytes of the body will be in memory; of unknown length, it may be the most."""
    for name, value in cycle.scope["headers"]:
        if name == b"content-length":
            return min(int(value), most)
        if name == b"transfer-encoding":
            return most
    return 0


def placed(app: ASGI3Application, cycle: RequestResponseCycle, place: Place) -> ASGI3Application:
    """The application with a place, which it leaves however it ends."""
    cycle.scope["extensions"] = extensions = dict(_extensions(cycle))
    extensions[PLACE] = place
    if not cycle.more_body:
        place.read()

    async def serve(scope: AnyScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        try:
            await app(scope, receive, send)
        finally:
            place.leave()

    return serve


def go_on(cycle: RequestResponseCycle) -> None:
    """The whole request has been read: now there is something to do for it."""
    place = _extensions(cycle).get(PLACE)
    if isinstance(place, Place):
        place.read()


def answer(cycle: RequestResponseCycle, *, is_last: bool) -> None:
    """Answer in the place of the application; ``is_last``: and close the connection."""
    cycle.response_started = cycle.response_complete = True
    body = b"" if cycle.scope["method"] == "HEAD" else _BODY
    cycle.transport.write((_IS_LAST if is_last else _GOES_ON) + body)
    if is_last:
        cycle.transport.close()


def _extensions(cycle: RequestResponseCycle) -> dict[str, Any]:
    return cast(dict[str, Any], cycle.scope["extensions"])
