"""Raw ASGI exchanges: for what an HTTP client library would not let a test do.

Bodies in chunks, clients that leave, requests that are under way at the same time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope


class Reply(NamedTuple):
    """What came back; status 0 if nothing did."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Exchange:
    """One request under way."""

    def __init__(
        self,
        app: ASGIApp,
        method: str,
        target: str,
        *,
        body: Any = None,
        chunks: Sequence[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        if chunks is None:
            chunks = [b"" if body is None else json.dumps(body).encode()]
        fields = {"host": "test"} | ({} if body is None else {"content-type": "application/json"})
        self.left = asyncio.Event()
        self.chunks_read = 0
        self._chunks = chunks
        self._sent: list[Message] = []
        self._app = app
        self.scope = scope(method, target, fields | (headers or {}))

    async def run(self) -> Reply:
        """Until the application is done."""
        await self._app(self.scope, self._receive, self._send)
        if not self._sent:
            return Reply(0, {}, b"")
        start, *rest = self._sent
        headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        return Reply(start["status"], headers, b"".join(part.get("body", b"") for part in rest))

    async def _receive(self) -> Message:
        if self.chunks_read < len(self._chunks):
            self.chunks_read += 1
            more = self.chunks_read < len(self._chunks)
            body = self._chunks[self.chunks_read - 1]
            return {"type": "http.request", "body": body, "more_body": more}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self._sent.append(message)


async def request(app: ASGIApp, method: str, target: str, **more: Any) -> Reply:
    """A whole exchange."""
    return await Exchange(app, method, target, **more).run()


def scope(method: str, target: str, headers: dict[str, str]) -> Scope:
    """A request as a server hands it on."""
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
