"""The ASGI application: the chosen front ends behind one edge."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Router
from starlette.types import Receive, Scope, Send

from api import frontends
from api.edge import Edge
from api.ports import Service


class Application(Edge):
    """Starlette's router behind ``Edge``, which does what Starlette's own application would.

    Starlette's error middlewares would answer outside the edge, untagged and uncounted,
    and cost a quarter of what a message costs here.
    """

    def __init__(self, service: Service, routes: Sequence[BaseRoute]) -> None:
        # A path is right or it is not; a redirect would lose the body of a POST.
        router = Router(routes, redirect_slashes=False, default=_no_route)
        super().__init__(router.app, service)
        self.routes = router.routes


def create(service: Service, *, names: Sequence[str] = ("rest",)) -> Application:
    """An application that serves ``service`` through the front ends of these names."""
    routes = [route for frontend in frontends.load(names) for route in frontend.routes(service)]
    return Application(service, routes)


async def _no_route(scope: Scope, receive: Receive, send: Send) -> None:
    raise HTTPException(404)
