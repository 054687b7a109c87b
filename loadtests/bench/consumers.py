"""Lifecycles of clients that are given messages instead of asking for them.

Each puts by requests on one connection, and has a stream of claims on another. It acknowledges
on the stream, and puts again without waiting for the answer to that; a lifecycle ends with it
all the same. So it waits once for a lifecycle, as a consumer of AMQP does, whose acks are not
answered: until what it has put is confirmed and it was given a message.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import cast

from loadtests.bench.client import (
    ERRORS_MAX,
    BadAnswer,
    HttpFraming,
    Measured,
    connect,
    opened,
)
from loadtests.bench.exchanges import CREATED, LEASE_S, STARTED, chunk, put_request, stream_head

_CLAIMED = re.compile(rb'\{"claim":"([0-9a-f]+)"')
_ACKED = re.compile(rb'\{"acked":(\d+)(,)?')
_MESSAGE = b'{"id":"'
PREFETCH = 4
"""So many times what it puts may be on its way to a consumer."""


class Consumer:
    """See ``Client``; all consumers of a load share a queue.

    Who is given more than he has put is not given it again: what is on its way is never more
    than what was put, and all get on.
    """

    def __init__(
        self,
        queue: str,
        batch: int,
        body_bytes: int,
        measured: Measured,
        opening: asyncio.Semaphore,
        *,
        key: str = "",
    ) -> None:
        """``opening``: so few streams begin at once that none is turned away for that."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._measured, self._batch, self._opening = measured, batch, opening
        self._is_open = asyncio.Event()
        self._put = put_request(queue, batch, body_bytes, key=key)
        query = f"?batch={batch}&lease={LEASE_S}"
        self._head = stream_head(queue, f"consume{query}", key=key)
        self._framing = HttpFraming()
        self._puts, self._takes = _Side(self, self._put_answered), _Side(self, self._told)
        self._unread = b""
        self._is_confirmed = False
        self._taken = self._acked = 0
        self._began_s = deque[float]()

    async def open(self, port: int, tls: ssl.SSLContext | None) -> None:
        """See ``Client``."""
        async with self._opening:
            for side in (self._takes, self._puts):
                await opened(connect, port, tls, side)
            self._takes.say(self._head)
            await self._is_open.wait()

    def start(self) -> None:
        """See ``Client``."""
        self._takes.say(chunk(b'{"credit":%d}\n' % (PREFETCH * self._batch)))
        self._put_again()

    def stop(self) -> None:
        """At once: whoever waits for a message that another one would have put waits for ever."""
        self._end()

    def broken(self, why: str) -> None:
        """It is of no use any more."""
        if not self.ended.done():
            self._measured.errors.extend([why] * ERRORS_MAX)
            self._end()

    def _end(self) -> None:
        self._is_open.set()
        if not self.ended.done():
            self.ended.set_result(None)
        for side in (self._takes, self._puts):
            side.close()

    def _put_again(self) -> None:
        self._is_confirmed = False
        self._began_s.append(perf_counter())
        self._puts.say(self._put)

    def _put_answered(self, data: bytes) -> None:
        answer = self._framing.feed(data)
        if answer is None:
            return
        if answer[0] != CREATED:
            raise BadAnswer
        self._measured.requests += self._measured.open
        self._is_confirmed = True
        self._go_on()

    def _told(self, data: bytes) -> None:
        whole, _, self._unread = (self._unread + data).rpartition(b"\n")
        if b'{"problem"' in whole or (whole.startswith(b"HTTP") and not whole.startswith(STARTED)):
            raise BadAnswer
        self._is_open.set()
        acks = b""
        for line in whole.split(b"\n"):
            if (claimed := _CLAIMED.match(line)) is not None:
                count = line.count(_MESSAGE)
                self._taken += count
                acks += b'{"ack":"%b","credit":%d}\n' % (claimed[1], count)
            elif (acked := _ACKED.match(line)) is not None:
                self._settled(int(acked[1]), is_whole=acked[2] is None)
        if acks:
            self._takes.say(chunk(acks))
            self._go_on()

    def _settled(self, count: int, *, is_whole: bool) -> None:
        if not is_whole:
            raise BadAnswer
        measured = self._measured
        self._acked += count
        if measured.open:
            measured.requests += 1
            measured.messages += count
        while self._acked >= self._batch:
            self._acked -= self._batch
            if not self._began_s:  # It was of another client's.
                continue
            took_s = perf_counter() - self._began_s.popleft()
            if measured.open:
                measured.latencies_s.append(took_s)

    def _go_on(self) -> None:
        if self._is_confirmed and self._taken >= self._batch:
            self._taken -= self._batch
            self._put_again()


class _Side(asyncio.Protocol):
    """One of the two connections."""

    def __init__(self, consumer: Consumer, heard: Callable[[bytes], None]) -> None:
        self._consumer, self._heard = consumer, heard
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has no such base.

    def connection_lost(self, error: Exception | None) -> None:
        self._consumer.broken(f"hung up: {error}")

    def data_received(self, data: bytes) -> None:
        try:
            self._heard(data)
        except BadAnswer:
            self._consumer.broken(f"{data[:300]!r}")

    def say(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
