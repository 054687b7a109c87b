"""Who asks? A short list of ways to tell, tried in order; whoever none of them knows is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette.types import Scope

from api.access.principals import ANYONE, Principal
from api.access.rules import unauthorized
from api.ports import Service, Unavailable

Headers = Mapping[bytes, bytes]
Way = Callable[[Scope, Headers], Awaitable[Principal | None]]
"""Who asks, if this is a way for them to tell: None leaves it to the next one.

Raises the problem ``unauthorized`` for what is meant for this way and does not hold.
"""


class Gate:
    """What stands before every route that is not public."""

    def __init__(self, service: Service, ways: Sequence[Way]) -> None:
        self._service = service
        self._ways = ways

    async def authenticate(self, scope: Scope, headers: Headers) -> Principal:
        """Who asks; raises the problem ``unauthorized``, or Unavailable."""
        policy = self._service.access
        if not policy.required:
            return ANYONE
        if self._service.status().staleness_ms > policy.staleness_ms_max:
            # A key may have been revoked since: rather no answer than that one.
            raise Unavailable(
                "not_current",
                "this replica does not know whether its keys are up to date; ask again, or another",
            )
        for way in self._ways:
            who = await way(scope, headers)
            if who is not None:
                return who
        raise unauthorized()
