"""The console: one self-contained page over the same routes that everybody uses.

It is served under a policy that allows its own style and script, by their hashes,
and requests to its own origin: what a client managed to put on it could not run.
"""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from api.access.rules import PUBLIC
from api.rest.answers import Answer
from api.rest.operations import Operation, Says
from api.rest.parameters import NoQuery
from api.rest.requests import Call

PAGE = files("api.rest").joinpath("console.html").read_text("utf-8")


def _hash(tag: str) -> str:
    found = re.search(f"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    assert found is not None, f"the console has no {tag}"
    return f"'sha256-{b64encode(sha256(found.group(1).encode()).digest()).decode()}'"


POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_hash('style')}",
        f"script-src {_hash('script')}",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


async def show_console(call: Call, query: NoQuery) -> Answer:
    """GET /console."""
    return Answer(
        200,
        PAGE.encode(),
        b"text/html; charset=utf-8",
        (b"content-security-policy", POLICY.encode()),
        (b"x-content-type-options", b"nosniff"),
    )


OPERATIONS = (
    Operation(
        "GET",
        "/console",
        show_console,
        "A page for people: the cluster, and an account's queues",
        access=PUBLIC,
        query=NoQuery,
        answers={200: Says("The page", media_type="text/html")},
    ),
)
