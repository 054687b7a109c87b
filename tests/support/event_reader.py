"""A reader of server-sent events over raw ASGI: takes them when the test says so."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, NamedTuple, Self

from starlette.types import ASGIApp, Message

from asgi_client import scope

PATIENCE_S = 5.0


class Block(NamedTuple):
    """What stands between two empty lines."""

    id: str
    event: str
    data: Any
    is_comment: bool


def parse(text: str) -> list[Block]:
    """Whole blocks."""
    return [_block(part) for part in text.split("\n\n") if part]


def _block(part: str) -> Block:
    fields: dict[str, str] = {}
    for line in part.split("\n"):
        name, _, value = line.partition(": ")
        fields[name] = value
    data = json.loads(fields["data"]) if "data" in fields else None
    return Block(fields.get("id", ""), fields.get("event", ""), data, "data" not in fields)


class EventReader:
    """One stream; ``async with`` opens it, and leaves it at the end."""

    def __init__(self, app: ASGIApp, target: str, *, last: str = "", takes: bool = True) -> None:
        self._app = app
        self._scope = scope(
            "GET", target, {"host": "test"} | ({"last-event-id": last} if last else {})
        )
        self.aborted = False
        self._scope["extensions"] = {"raftq.abort": {"abort": self._abort}}
        self._blocks: asyncio.Queue[Block] = asyncio.Queue()
        self.takes = asyncio.Event()
        if takes:
            self.takes.set()
        self.left = asyncio.Event()
        self._asked = False
        self.started: asyncio.Future[Message]
        self.status = 0
        self.body = b""

    async def __aenter__(self) -> Self:
        self.started = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._app(self._scope, self._receive, self._send))  # type: ignore[arg-type]  # It is a coroutine.
        self.status = (await asyncio.wait_for(self.started, PATIENCE_S))["status"]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.left.set()
        self.takes.set()
        await self.ended()

    async def ended(self) -> None:
        """Until the application is done with it."""
        await asyncio.wait_for(self.task, PATIENCE_S)

    async def next(self) -> Block:
        """The next event; comments are passed over."""
        while (found := await asyncio.wait_for(self._blocks.get(), PATIENCE_S)).is_comment:
            pass
        return found

    async def any_block(self) -> Block:
        """The next block, a comment too."""
        return await asyncio.wait_for(self._blocks.get(), PATIENCE_S)

    async def kinds(self, count: int) -> list[str]:
        """The kinds of so many events."""
        return [(await self.next()).event for _ in range(count)]

    def _abort(self) -> None:
        self.aborted = True

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started.set_result(message)
            return
        if not self.left.is_set():
            await self.takes.wait()
        self.body += message.get("body", b"")
        if message.get("more_body"):
            for block in parse(message.get("body", b"").decode()):
                self._blocks.put_nowait(block)
