"""The server on the loop: uvicorn's, with our protocol, our gate, and one watch over both."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable, Iterator
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from api.fairness.admission import Admission
from api.fairness.gcra import Rate
from raftq.config import ApiConfig
from raftq.metrics import Metrics
from raftq.serving.callers import Callers
from raftq.serving.gate import Gate
from raftq.serving.protocol import GuardedHttp, Intake, Shared
from raftq.transport.listening import Listening, Patience, Tls, anybody

GRACE_S = 5
TLS_RECEIVE_BYTES = 4 * 1024
"""Of who is not known yet. The kernel takes it twice, and the loop keeps, for each connection, as
much as ever came at once."""
HANDSHAKE_TIMEOUT_S = 10.0
HANDSHAKES_MAX = 256
"""Under TLS, at once: more than a node can finish in the time that the way to a client takes."""
TICK_S = 0.1
TICKS_PER_ROUND = 10
"""Each connection is looked at about once a second, and a server without any is as often."""


class HttpServer(uvicorn.Server):
    """uvicorn on our loop, under our signals, within our limits; with ``tls`` under that alone.

    It listens by itself: uvicorn would set no bound to callers whose TLS handshake is not
    done, and show nothing of them.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: ApiConfig,
        metrics: Metrics,
        *,
        request_bytes_max: int,
        tls: Tls | None = None,
    ) -> None:
        self._tls, self._refused = tls, metrics.handshake_failed
        self._callers = Callers(
            Rate(limits.handshakes_per_s, limits.handshakes_burst),
            clock=asyncio.get_running_loop().time,
            count=metrics.handshake_refused,
        )
        self._listening: Listening | None = None
        self._write_timeout_s = limits.write_timeout_s
        self._gate: Gate[GuardedHttp] = Gate(
            limits.connections_max, limits.connections_per_address_max, metrics.connection_ended
        )
        self._unwatched: list[GuardedHttp] = []
        self._told_to_stop = asyncio.Event()
        metrics.before_render(lambda: setattr(metrics, "connections", len(self._gate)))
        admission = Admission(
            wait_target_s=limits.wait_target_ms / 1000,
            active_max=limits.pending_max,
            bytes_max=limits.bodies_bytes_max,
            clock=asyncio.get_running_loop().time,
            observe=metrics.observe_shed,
        )
        shared = Shared(limits, self._gate, admission, body_bytes=request_bytes_max)
        protocol = functools.partial(Intake, shared)
        super().__init__(_config(app, cast(type[asyncio.Protocol], protocol)))

    @property
    def should_exit(self) -> bool:
        """Whether it was told to stop; to be set on the loop that it runs on."""
        return self._told_to_stop.is_set()

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        if value:
            self._told_to_stop.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The node stops the server, in its own order."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on these."""
        await super().startup(sockets=[])
        if self._tls is not None:
            for each in sockets or ():
                each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, TLS_RECEIVE_BYTES)
        self._listening = Listening(
            sockets or [],
            create=self._protocol,
            tls=self._tls,
            patience=Patience(HANDSHAKE_TIMEOUT_S, HANDSHAKES_MAX, self._write_timeout_s),
            may_open=anybody if self._tls is None else self._callers.may_begin,
            refused=self._refused,
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let nobody in any more, and wait for those who are."""
        assert self._listening is not None
        self._listening.stop()
        if self._tls is not None:
            # Nothing is under way to them, and who only rests need not hear a goodbye out.
            for idle in list(self._gate.idle):
                idle.transport.abort()
        await super().shutdown(sockets)
        await self._listening.wait_stopped()

    async def main_loop(self) -> None:
        """Tick, as uvicorn does ten times a second; but once while nobody is connected."""
        counter = 0
        while not await self.on_tick(counter):
            if len(self._gate):
                await asyncio.sleep(TICK_S)
                counter += 1
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S * TICKS_PER_ROUND):
                        await self._told_to_stop.wait()
                counter = 0

    async def on_tick(self, counter: int) -> bool:
        """Look at some connections at a time: at all at once would be a pause for all of them."""
        if not self._unwatched:
            self._unwatched = self._gate.connections()
        now_s = asyncio.get_running_loop().time()
        for _ in range(min(len(self._unwatched), len(self._gate) // TICKS_PER_ROUND + 1)):
            self._unwatched.pop().check(now_s)
        return await super().on_tick(counter)

    def _protocol(self) -> asyncio.Protocol:
        make = cast(Callable[..., asyncio.Protocol], self.config.http_protocol_class)
        return make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def _config(app: ASGIApp, protocol: type[asyncio.Protocol]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="none",
        http=protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
        backlog=4096,
    )
