"""Keeping one outbound connection alive: dial, wait for its end, back off, dial again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from raftq.runtime import Runtime
from raftq.transport.connection import Connection
from raftq.transport.listening import Tls
from raftq.transport.network import Address
from raftq.transport.settings import Settings


class Backoff:
    """Delays that double from ``min_s`` to ``max_s``, each cut by up to half at random.

    The chance in them keeps the nodes of a cluster from knocking in step.
    """

    def __init__(self, min_s: float, max_s: float) -> None:
        assert 0 < min_s <= max_s
        self._min_s, self._max_s = min_s, max_s
        self._next_s = min_s

    def next(self, random: float, *, lived_s: float = 0.0) -> float:
        """The delay before the next attempt; ``random`` is uniform in [0, 1).

        ``lived_s``: how long the last connection was proven. A short life is no
        success: a peer that drops us at once must not be knocked at fast.
        """
        if lived_s >= self._max_s:
            self._next_s = self._min_s
        delay_s = self._next_s * (1 - random / 2)
        self._next_s = min(2 * self._next_s, self._max_s)
        return delay_s


class Dialling:
    """Runs until ``stop``; ``unreachable`` is told why an attempt came to nothing."""

    def __init__(
        self,
        peer: str,
        address: Address,
        *,
        create: Callable[[], Connection],
        unreachable: Callable[[Exception], None],
        failed: Callable[[BaseException], None],
        runtime: Runtime,
        settings: Settings,
        tls: Tls | None,
    ) -> None:
        self.address = address
        self._create, self._unreachable, self._failed = create, unreachable, failed
        self._runtime, self._settings, self._tls = runtime, settings, tls
        self.task = asyncio.get_running_loop().create_task(self._run(), name=f"raftq dials {peer}")
        self.task.add_done_callback(self._ended)

    def stop(self) -> None:
        """Dial no more; a connection that exists is not touched."""
        self.task.cancel()

    async def _run(self) -> None:
        backoff = Backoff(self._settings.backoff_min_s, self._settings.backoff_max_s)
        while True:
            lived_s = 0.0
            try:
                connection = await self._dial()
            except (OSError, UnicodeError) as error:  # Names that are no host's: UnicodeError.
                self._unreachable(error)
            else:
                await connection.closed.wait()
                if connection.proven_at is not None:
                    lived_s = self._runtime.monotonic() - connection.proven_at
            await asyncio.sleep(backoff.next(self._runtime.random(), lived_s=lived_s))

    async def _dial(self) -> Connection:
        loop, tls = asyncio.get_running_loop(), self._tls
        async with asyncio.timeout(self._settings.connect_timeout_s):
            _, connection = await loop.create_connection(
                self._create,
                *self.address,
                ssl=tls.client if tls is not None else None,
                # No name of the host: a certificate is a node's, wherever that runs.
                server_hostname="" if tls is not None else None,
                ssl_shutdown_timeout=self._settings.goodbye_s if tls is not None else None,
            )
        return connection

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed(error)
