"""The ASGI application: the chosen front ends behind one edge."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from api import frontends
from api.edge import Edge
from api.ports import Service

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
EXPOSED = ("Retry-After", "Raftq-Applied-Index", "Raftq-Nearest", "Raftq-Node", "Raftq-Zone")
"""What scripts may read beside bodies: what a client needs to go on."""


class Application(Edge):
    """Starlette's router behind ``Edge``, which does what Starlette's own application would.

    Starlette's error middlewares would answer outside the edge, untagged and uncounted,
    and cost a quarter of what a message costs here.
    """

    def __init__(
        self, service: Service, routes: Sequence[BaseRoute], origins: Sequence[str]
    ) -> None:
        # A path is right or it is not; a redirect would lose the body of a POST.
        router = Router(routes, redirect_slashes=False, default=_no_route)
        super().__init__(_across(router.app, origins) if origins else router.app, service)
        self.routes = router.routes


def create(
    service: Service, *, names: Sequence[str] = ("rest",), origins: Sequence[str] = ()
) -> Application:
    """An application that serves ``service`` through the front ends of these names.

    ``origins``: of the pages whose scripts may read its answers, beside its own.
    """
    routes = [route for frontend in frontends.load(names) for route in frontend.routes(service)]
    return Application(service, routes, origins)


def _across(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Without credentials: a page has to have a key to ask anything."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=METHODS,
        allow_headers=("*",),
        expose_headers=EXPOSED,
    )


async def _no_route(scope: Scope, receive: Receive, send: Send) -> None:
    raise HTTPException(404)
