"""The name of a request: in its answer, in the access log and in the audit log.

It is the trace id of a W3C ``traceparent`` if the client sent a good one, so that a request can be
followed from system to system; else one is made, of the same form.
"""

from __future__ import annotations

import re
import secrets
from itertools import count

from starlette.types import Scope

HEADER = b"traceparent"
_KEY = "raftq.request_id"
_is_traceparent = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
).fullmatch

# Random for the process, counted within it: a random number for each request would cost more.
_process = secrets.token_hex(8).encode()
_next = count(1).__next__


def request_id(scope: Scope) -> bytes:
    """The request's id, the same each time it is asked for."""
    known: bytes | None = scope.get(_KEY)
    if known is None:
        for name, value in scope["headers"]:
            if name == HEADER and (found := _trace_id(value)):
                known = found
                break
        else:
            known = b"%b%016x" % (_process, _next())
        scope[_KEY] = known
    return known


def _trace_id(traceparent: bytes) -> bytes | None:
    found = _is_traceparent(traceparent)
    # A version of which nothing more is known may go on; the first one may not.
    if found is None or (found[2] is not None and traceparent.startswith(b"00")):
        return None
    return found[1]
