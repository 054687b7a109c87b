"""A wire with a delay: ``python relay.py LISTEN TARGET``, one process inside each host.

The kernels we test on cannot delay packets, so the nodes' connections pass through this
process, which accepts on the address that the other nodes know and carries every chunk on
to the node. Each connection is two one-way lines, each with the delay that holds for its
sender and receiver at the moment; what entered first comes out first, as from TCP.
Without a delay chunks pass at once: that relay is the baseline of every measurement.

Standard input carries the delays, one JSON list of [from, to, delay_s, jitter_s] per line,
each line in place of the one before. When it ends, because whoever started it did, so does
the relay.
"""

from __future__ import annotations

import asyncio
import collections
import json
import random
import signal
import sys
from collections.abc import Callable
from typing import NamedTuple

HELD_BYTES_MAX = 4 << 20


class Delay(NamedTuple):
    """How long a chunk is under way: between ``delay_s`` and ``delay_s + jitter_s``."""

    delay_s: float = 0.0
    jitter_s: float = 0.0


NONE = Delay()


class Line:
    """Chunks under way in one direction of one connection; pure, time is given."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._chunks: collections.deque[tuple[float, bytes]] = collections.deque()
        self._latest_s = 0.0
        self.held_bytes = 0

    def enter(self, now_s: float, chunk: bytes, delay: Delay) -> None:
        """The chunk is due after the delay, and never before one that entered earlier."""
        due_s = now_s + delay.delay_s + delay.jitter_s * self._chance()
        self._latest_s = max(self._latest_s, due_s)
        self._chunks.append((self._latest_s, chunk))
        self.held_bytes += len(chunk)

    def leave(self, now_s: float) -> list[bytes]:
        """What is due, in the order in which it entered."""
        found = []
        while self._chunks and self._chunks[0][0] <= now_s:
            found.append(self._chunks.popleft()[1])
        self.held_bytes -= sum(map(len, found))
        return found

    @property
    def due_s(self) -> float | None:
        """When there is something to ``leave``."""
        return self._chunks[0][0] if self._chunks else None


class Delays:
    """The delay from one address to another, as last told."""

    def __init__(self) -> None:
        self._delays: dict[tuple[str, str], Delay] = {}

    def tell(self, text: str | bytes) -> None:
        self._delays = {(a, b): Delay(delay, jitter) for a, b, delay, jitter in json.loads(text)}

    def of(self, sender: str, receiver: str) -> Delay:
        return self._delays.get((sender, receiver), NONE)


class End(asyncio.Protocol):
    """One end of a relayed connection: what it hears comes out of the other end."""

    def __init__(self, delay: Callable[[], Delay], made: Callable[[], None] = lambda: None) -> None:
        self._delay = delay
        self._made = made
        self._loop = asyncio.get_running_loop()
        self._line = Line(random.random)
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._closed = False
        self._choked = False  # It cannot take what the other end hears.
        self.other: End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._made()

    def data_received(self, data: bytes) -> None:
        self._line.enter(self._loop.time(), data, self._delay())
        self._pass_on()
        self.throttle()

    def eof_received(self) -> bool:
        return False  # The transport closes itself; ``connection_lost`` tells the other end.

    def connection_lost(self, error: Exception | None) -> None:
        self._closed = True
        self._pass_on()

    def pause_writing(self) -> None:
        self._writable(False)

    def resume_writing(self) -> None:
        self._writable(True)

    def throttle(self) -> None:
        """Read on only while there is room for it."""
        if self._transport is None or self._transport.is_closing():
            return
        full = self._line.held_bytes > HELD_BYTES_MAX
        choked = self.other is not None and self.other._choked
        if full or choked:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _writable(self, yes: bool) -> None:
        self._choked = not yes
        if self.other is not None:
            self.other.throttle()

    def _pass_on(self) -> None:
        if self.other is None or self.other._transport is None:
            return
        for chunk in self._line.leave(self._loop.time()):
            self.other._transport.write(chunk)
        due_s = self._line.due_s
        if due_s is not None and self._timer is None:
            self._timer = self._loop.call_at(due_s, self._on_time)
        if due_s is None and self._closed:
            self.other._transport.close()

    def _on_time(self) -> None:
        self._timer = None
        self._pass_on()
        self.throttle()

    def join(self, other: End) -> None:
        """From now on the two are one connection."""
        self.other, other.other = other, self
        self._pass_on()
        other._pass_on()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    @property
    def peer(self) -> str:
        assert self._transport is not None
        return str(self._transport.get_extra_info("peername")[0])


class Relay:
    """Accepts on one address and carries on to another."""

    def __init__(self, address: str, target: tuple[str, int], delays: Delays) -> None:
        self._address = address
        self._target = target
        self._delays = delays
        self._dialling: set[asyncio.Task[None]] = set()

    def accept(self) -> asyncio.Protocol:
        """A new connection: the near end now, the far end as soon as the node answers."""
        near = End(lambda: self._delays.of(near.peer, self._address), lambda: self._dial(near))
        return near

    def _dial(self, near: End) -> None:
        task = asyncio.get_running_loop().create_task(self._join(near))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    async def _join(self, near: End) -> None:
        peer = near.peer
        loop = asyncio.get_running_loop()
        try:
            _, far = await loop.create_connection(
                lambda: End(lambda: self._delays.of(self._address, peer)), *self._target
            )
        except OSError:
            near.abort()
            return
        near.join(far)


async def serve(listen: str, target: str) -> None:
    """Relay until standard input ends."""
    loop = asyncio.get_running_loop()
    delays = Delays()
    (host, port), (target_host, target_port) = (text.rsplit(":", 1) for text in (listen, target))
    relay = Relay(host, (target_host, int(target_port)), delays)
    server = await loop.create_server(relay.accept, host, int(port))
    print("ready", flush=True)
    told = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)
    async with server:
        while line := await told.readline():
            delays.tell(line)
            print("told", flush=True)


if __name__ == "__main__":
    # A Ctrl-C is for whoever started this, and reaches it as the end of input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(serve(*sys.argv[1:]))
