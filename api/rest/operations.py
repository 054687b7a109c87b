"""The route table's rows, and the one ASGI endpoint that serves them.

An ``Operation`` declares all that is known about a request before any handler runs.
Routing, validation, errors and the OpenAPI document are derived from it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from api import problems
from api.access.rules import Access
from api.edge import send_problem
from api.fairness.admission import Kind, kind_of
from api.fairness.allowances import Allowances
from api.ports import Service
from api.problems import ENDINGS, Problem
from api.rest import parameters, reads
from api.rest.answers import BODILESS, Answer, Stream
from api.rest.requests import Call, Disconnected, JsonBody

Q = TypeVar("Q", bound=msgspec.Struct)
_NO_MATCH: tuple[Match, Scope] = (Match.NONE, {})


class Says(msgspec.Struct, frozen=True):
    """One successful answer: what it means, and its JSON type or other media type."""

    meaning: str
    kind: Any = None  # A struct, or None for no JSON body.
    media_type: str = ""


class Operation(Generic[Q]):
    """One method on one path."""

    def __init__(
        self,
        method: str,
        path: str,
        handler: Callable[[Call, Q], Awaitable[Answer | Stream]],
        summary: str,
        *,
        access: Access,
        query: type[Q],
        answers: dict[int, Says],
        body: JsonBody[Any] | None = None,
        body_kinds: tuple[Any, ...] = (),
        line_kinds: tuple[Any, ...] = (),
        raw_body: bool = False,
        refusals: tuple[str, ...] = (),
        resumes: bool = False,
    ) -> None:
        assert access.fits(path), f"{path} is not {access.resource}"
        self.access = access
        self.method = method
        self.path = path
        self.handler = handler
        self.summary = summary
        self.query = query
        self.answers = answers
        self.body_kinds = (body.kind,) if body else body_kinds
        self.line_kinds = line_kinds
        """Of a body that may be a stream; the answer 200 is one then, too."""
        self.body_optional = body is not None and body.optional
        self.raw_body = raw_body
        self.refusals = refusals
        self.resumes = resumes
        self.reads = issubclass(query, reads.ReadQuery)
        self.proposes = method != "GET" and not (line_kinds and not body_kinds)
        """Whether it is a write that can be repeated; a stream can not."""
        self._defaults = query()

    @property
    def id(self) -> str:
        """A name that is unique in the table."""
        return self.handler.__name__

    @property
    def problems(self) -> tuple[str, ...]:
        """Reasons of refusals: its own, for who asks, and for what the node has to do."""
        found = [*self.refusals, *self.access.refusals]
        if "{account}" in self.path:
            found.append("rate_limited")
        if self.access.refusals and kind_of(self.path)[0] is not Kind.ALWAYS:
            found.append("overloaded")
        if self.proposes or self.reads:
            found.append("no_leader")
        if self.reads:
            found.append("behind")
        return tuple(found)

    def parsed(self, query_string: bytes) -> Q:
        """The checked query."""
        if not query_string:
            return self._defaults
        return parameters.query(query_string, self.query)


def routes(table: Sequence[Operation[Any]], service: Service) -> list[BaseRoute]:
    """One Starlette route for each path, in the table's order: put busy paths first."""
    by_path: dict[str, dict[str, Operation[Any]]] = {}
    for operation in table:
        methods = by_path.setdefault(operation.path, {})
        assert operation.method not in methods, f"{operation.id} is not the first of its kind"
        methods[operation.method] = operation
        if operation.method == "GET":
            methods["HEAD"] = operation
    allowances = Allowances(service.fairness, service.monotonic, service.observe_limited)
    return [
        LeanRoute(path, Endpoint(methods, service, allowances)) for path, methods in by_path.items()
    ]


class LeanRoute(Route):
    """A route of all methods whose parameters are all text: no conversion, no copies."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See Starlette."""
        if scope["type"] != "http" or scope.get("root_path"):
            return super().matches(scope)
        match = self.path_regex.match(scope["path"])
        if match is None:
            return _NO_MATCH
        return Match.FULL, {"endpoint": self.endpoint, "path_params": match.groupdict()}

    def handle(  # type: ignore[override] # It is awaited all the same.
        self, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]:
        """See Starlette. Which methods there are is known to the endpoint."""
        return self.app(scope, receive, send)


class Endpoint:
    """The ASGI endpoint of one path."""

    def __init__(
        self, methods: dict[str, Operation[Any]], service: Service, allowances: Allowances
    ) -> None:
        self._methods = methods
        self._service = service
        self._allowances = allowances
        self._home = ""
        self._allow = (("Allow", ", ".join(sorted(methods))),)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; whatever goes wrong becomes a problem."""
        method = scope["method"]
        call: Call | None = None
        try:
            operation = self._methods.get(method)
            if operation is None:
                detail = f"{method} does nothing here"
                raise Problem("method_not_allowed", detail, headers=self._allow)
            # Asked for once, and not before the node runs: a node's zone does not change.
            home = self._home = self._home or self._service.status().zone
            call = Call(scope, receive, self._service, home)
            await call.admit(operation.access)
            send = call.enter(self._allowances, send)
            query = operation.parsed(scope["query_string"])
            if operation.reads:
                await reads.settle(call, query)
            answer = await operation.handler(call, query)
        except ENDINGS as error:
            await send_problem(problems.of(error), send)
        except Disconnected:
            pass  # Nobody is left to answer.
        else:
            if isinstance(answer, Stream):
                await answer.run(send, method != "HEAD")
                return
            await send(answer.start)
            await send(answer.end if method != "HEAD" else BODILESS)
        finally:
            if call is not None:
                call.leave()
