"""A connection of the HTTP server without a socket: what it writes can be seen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from starlette.types import ASGIApp

from raftq.config import ApiConfig
from raftq.metrics import Metrics
from raftq.serving.protocol import Intake
from raftq.serving.server import HttpServer

REQUEST_BYTES_MAX = 1 << 20
TURNS = 2  # Of the loop: until a task has begun, and if it waits for nothing, has ended.


class Wire(asyncio.Transport):
    """Takes everything, and keeps it as it was written."""

    def __init__(self, more: dict[str, object] | None = None) -> None:
        names = {"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 6)}
        super().__init__(names | (more or {}))
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def abort(self) -> None:
        raise AssertionError


Connect = Callable[[Wire], Intake]


def server_of(app: ASGIApp) -> Connect:
    """What connects wires to a server with ``app`` behind it."""
    server = HttpServer(app, ApiConfig(), Metrics(), request_bytes_max=REQUEST_BYTES_MAX)
    server.config.load()
    server.server_state.default_headers = [(b"date", b"today")]
    make = cast(Callable[..., Intake], server.config.http_protocol_class)

    def connect(wire: Wire) -> Intake:
        intake = make(config=server.config, server_state=server.server_state, app_state={})
        intake.connection_made(wire)
        return intake

    return connect


def connected(app: ASGIApp, wire: Wire) -> Intake:
    """A server's end of the wire, with ``app`` behind it."""
    return server_of(app)(wire)


async def ask(intake: Intake, request: bytes, turns: int = TURNS) -> None:
    """Let a request come, in one piece, and the loop take some turns."""
    intake.get_buffer(-1)[: len(request)] = request
    intake.buffer_updated(len(request))
    for _ in range(turns):
        await asyncio.sleep(0)
