"""Sockets that peers call. Bound at once, so that a wrong address is an error at start."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable

from raftq.transport.network import Address

BACKLOG = 128


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
    """Accepts on bound sockets until ``stop``."""

    def __init__(
        self,
        sockets: list[socket.socket],
        *,
        create: Callable[[], asyncio.Protocol],
        failed: Callable[[BaseException], None],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._sockets = sockets
        self._create, self._failed, self._tls = create, failed, tls
        self._servers: list[asyncio.Server] = []
        self.task = asyncio.get_running_loop().create_task(self._serve(), name="raftq listens")
        self.task.add_done_callback(self._ended)

    def stop(self) -> None:
        """Accept no more; connections that exist are not touched, and the sockets are not ours."""
        self.task.cancel()
        for server in self._servers:
            server.close()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        for plug in self._sockets:
            self._servers.append(await loop.create_server(self._create, sock=plug, ssl=self._tls))

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed(error)


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
