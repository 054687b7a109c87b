"""The clients of a chaos run: ``Workload`` at a steady rate, against nodes on hosts.

A run of minutes must neither outgrow the memory that its history takes, a few hundred bytes
for each message, nor leave a backlog that cannot be drained: so producers share one pace,
well below what the consumers manage, and nobody catches up on what an outage has cost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from history import History, Result
from workload import Client, Workload


class RoutedLoop(asyncio.SelectorEventLoop):
    """Clients know nodes by their ports; this takes them to the hosts that have these."""

    def __init__(self, routes: Mapping[int, str]) -> None:
        super().__init__()
        self._routes = dict(routes)

    async def create_connection(
        self, factory: Callable[[], Any], host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        return await super().create_connection(
            factory, self._routes.get(port, host), port, **options
        )


class PacedWorkload(Workload):
    """Producers that together begin so many puts a second, and no more."""

    def __init__(self, ports: list[int], *, puts_per_s: float, **sizes: Any) -> None:
        super().__init__(ports, **sizes)
        self._interval_s = 1 / puts_per_s
        self._next_s = 0.0

    async def holds(self, seconds: float) -> None:
        """Let it run for so long; at once what a client could not explain."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            self._raise_failures()
            await asyncio.sleep(min(left_s, 0.1))

    async def _put(self, client: Client, number: int, repeats: int) -> None:
        now_s = time.monotonic()
        self._next_s = max(self._next_s + self._interval_s, now_s)
        await asyncio.sleep(self._next_s - now_s)
        await super()._put(client, number, repeats)


def counts(history: History) -> dict[str, int]:
    """What there is of everything so far."""
    of = [put.result for put in history.puts]
    return {
        "acknowledged": of.count(Result.DONE),
        "refused": of.count(Result.REFUSED),
        "unknown": of.count(Result.UNKNOWN),
        "deliveries": len(history.deliveries),
    }
