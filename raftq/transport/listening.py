"""Sockets that others call. Bound at once, so that a wrong address is an error at start.

Under TLS nobody is told of a caller before its handshake is done; until then it costs a
task, and what OpenSSL keeps. How long that may be and how many there may be at once is
bounded here: above that the oldest goes, so that callers who only connect keep nobody out.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

from raftq.transport.network import Address

BACKLOG = 128
ACCEPTED_AT_ONCE = 32
PAUSE_S = 1.0
# Above what a TLS record may have, or a connection that waits for the rest of one waits for ever.
KEPT_BYTES_LOW = 24 * 1024
KEPT_BYTES_HIGH = 32 * 1024
"""How much is kept for a protocol that does not read, beside what the loop reads at once."""


class Tls(Protocol):
    """Contexts for the next connection; they may be others for the one after it."""

    @property
    def server(self) -> ssl.SSLContext:
        """To accept with."""
        ...

    @property
    def client(self) -> ssl.SSLContext:
        """To dial with."""
        ...


class _KeepsUnread(Protocol):
    """A transport under TLS, of either kind of loop."""

    def set_read_buffer_limits(self, *, high: int, low: int) -> None:
        """As ``set_write_buffer_limits``, for what came and was not asked for."""
        ...


class Patience(NamedTuple):
    """With callers under TLS."""

    handshake_timeout_s: float
    handshakes_max: int
    goodbye_s: float
    """From ``close`` to the end: to take what was sent, and to say that it was heard."""


def anybody(_host: str) -> bool:
    """Whoever calls may."""
    return True


def bind(address: Address) -> list[socket.socket]:
    """Listening sockets for every address of the host; OSError says which one failed."""
    infos = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    for family, kind, protocol, _, where in infos:
        plug = socket.socket(family, kind, protocol)
        try:
            _bind(plug, where)
        except OSError as error:
            plug.close()
            # A name may stand for a v6 address on a machine that has none.
            if error.errno != errno.EADDRNOTAVAIL:
                _close(sockets)
                raise _cannot(address, error) from error
            absent = error
        else:
            sockets.append(plug)
    if absent is not None and not sockets:
        raise _cannot(address, absent)
    return sockets


class Listening:
    """Accepts on bound sockets until ``stop``.

    ``may_open`` is asked for each caller's host: whoever may not is hung up on at once.
    ``refused`` is told address and reason of those of whom nothing became.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        *,
        create: Callable[[], asyncio.Protocol],
        tls: Tls | None,
        patience: Patience,
        may_open: Callable[[str], bool],
        refused: Callable[[str, str], None],
    ) -> None:
        self._sockets = list(sockets)
        self._create, self._tls = create, tls
        self._patience, self._may_open, self._refused = patience, may_open, refused
        self._loop = asyncio.get_running_loop()
        self._opening: dict[asyncio.Task[None], str] = {}  # Oldest first, with their addresses.
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        for plug in sockets:
            self._loop.add_reader(plug, self._accept, plug)

    def stop(self) -> None:
        """Accept no more; open connections are not touched, and the sockets are not ours."""
        while self._sockets:
            self._loop.remove_reader(self._sockets.pop())
        for pause in self._pauses.values():
            pause.cancel()
        for task in self._opening:
            task.cancel()

    async def wait_stopped(self) -> None:
        """After ``stop``: until nothing is left of those who were let in half."""
        if self._opening:
            await asyncio.wait(list(self._opening))

    def _accept(self, plug: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                wire, where = plug.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # No descriptors or no memory: there may be some again in a while.
                self._loop.remove_reader(plug)
                self._pauses[plug] = self._loop.call_later(PAUSE_S, self._go_on, plug)
                return
            if not self._may_open(where[0]):
                wire.close()
                continue
            wire.setblocking(False)
            address = f"{where[0]}:{where[1]}"
            task = self._loop.create_task(self._open(wire, address), name=f"raftq opens {address}")
            self._opening[task] = address
            task.add_done_callback(self._opened)
            if self._tls is not None and len(self._opening) > self._patience.handshakes_max:
                oldest = next(iter(self._opening))
                oldest.cancel()
                self._refused(self._opening.pop(oldest), "too many handshakes at once")

    def _go_on(self, plug: socket.socket) -> None:
        del self._pauses[plug]
        self._loop.add_reader(plug, self._accept, plug)

    async def _open(self, wire: socket.socket, address: str) -> None:
        try:
            if self._tls is None:
                await self._loop.connect_accepted_socket(self._create, wire)
            else:
                transport, _ = await self._loop.connect_accepted_socket(
                    self._create,
                    wire,
                    ssl=self._tls.server,
                    ssl_handshake_timeout=self._patience.handshake_timeout_s,
                    ssl_shutdown_timeout=self._patience.goodbye_s,
                )
                kept = cast(_KeepsUnread, transport)
                kept.set_read_buffer_limits(high=KEPT_BYTES_HIGH, low=KEPT_BYTES_LOW)
        except OSError as error:
            self._refused(address, in_words(error))

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.pop(task, None)


def in_words(error: Exception) -> str:
    """Why a connection did not come about; of OpenSSL's reasons only what they say."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(error) or type(error).__name__


def _cannot(address: Address, error: OSError) -> OSError:
    return OSError(error.errno, f"cannot listen on {address.host}:{address.port}: {error}")


def _bind(plug: socket.socket, where: tuple[object, ...]) -> None:
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if plug.family == socket.AF_INET6:
        plug.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    plug.bind(where)
    plug.listen(BACKLOG)
    plug.setblocking(False)


def _close(sockets: list[socket.socket]) -> None:
    for plug in sockets:
        plug.close()
