"""The outermost layer: every answer is tagged and counted here, once, whoever gave it.

A thin wrapper around ``send``, outside everything else, so that errors, unknown
routes and other protocols' answers are tagged and counted as well. It takes the
place of Starlette's two error middlewares: what nobody caught becomes a problem here.
"""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access.principals import PRINCIPAL
from api.ports import AccessLine, Service, Status
from api.problems import MEDIA_TYPE, Problem, from_status
from api.tracing import request_id

# A client may invent methods and paths; neither may become a new time series.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED = "unmatched"
ZONE_HEADER = b"raftq-zone"
PATH_SHOWN_MAX = 200
READY = "/readyz"  # That a node is not ready is an answer to who asks, and no error.
NO_ANSWER = 499  # The client went away first; nginx's number for it.


class Edge:
    """Tags and observes all requests of ``app``."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._known: Status | None = None
        self._own: list[tuple[bytes, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        service = self._service
        started_s = service.monotonic()
        status = 0

        def tagged(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *self._tags(scope)]
            return send(message)

        try:
            await self._app(scope, receive, tagged)
        except HTTPException as error:
            await send_problem(_of_framework(scope, error), tagged)
        except Exception:
            if not status:
                await send_problem(
                    Problem("internal_error", "This is a bug; the node's log says more."), tagged
                )
            raise  # The server logs it, and closes the connection.
        finally:
            route = scope.get("route")
            template = UNMATCHED if route is None else getattr(route, "path", UNMATCHED)
            method = scope["method"] if scope["method"] in METHODS else "OTHER"
            took_s = service.monotonic() - started_s
            status = status or NO_ANSWER
            service.observe_request(template, method, status, took_s)
            lowest = service.access_log_from
            if status >= lowest and (not lowest or template != READY):
                service.log_request(_line(scope, template, status, took_s))

    def _tags(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        status = self._service.status()
        if status is not self._known:  # It is the same one for all requests of a moment.
            self._known = status
            self._own = [
                (b"raftq-node", status.node.encode()),
                (b"raftq-zone", status.zone.encode()),
                (b"raftq-role", status.role.encode()),
                (b"raftq-applied-index", b"%d" % status.applied_index),
                (b"raftq-staleness-ms", b"%d" % status.staleness_ms),
            ]
        own = [*self._own, (b"raftq-request-id", request_id(scope))]
        for name, value in scope["headers"]:
            if name == ZONE_HEADER:
                own += self._hint(value, status.zone)
        return own

    def _hint(self, wanted: bytes, own: str) -> list[tuple[bytes, bytes]]:
        """For a client of another zone: who of its own it should ask."""
        if (zone := wanted.decode("latin-1")) == own:
            return []
        url = self._service.nearest(zone)
        return [] if url is None else [(b"raftq-nearest", url.encode())]


def _line(scope: Scope, route: str, status: int, took_s: float) -> AccessLine:
    client, who = scope.get("client"), scope.get(PRINCIPAL)
    return AccessLine(
        request=request_id(scope).decode(),
        client=client[0] if client else "",
        actor=who.actor if who else "",
        method=scope["method"],
        path=scope.get("raw_path", b"")[:PATH_SHOWN_MAX].decode("latin-1"),
        route=route,
        status=status,
        ms=round(took_s * 1000, 3),
    )


async def send_problem(problem: Problem, send: Send) -> None:
    """Answer with a problem document."""
    body = problem.body()
    fields = [(name.lower().encode(), value.encode()) for name, value in problem.headers]
    fields.append((b"content-length", b"%d" % len(body)))
    fields.append((b"content-type", MEDIA_TYPE.encode()))
    await send({"type": "http.response.start", "status": problem.status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def _of_framework(scope: Scope, error: HTTPException) -> Problem:
    detail = f"{scope['method']} {scope['path']}: {error.detail}"
    return from_status(error.status_code, detail, tuple((error.headers or {}).items()))
