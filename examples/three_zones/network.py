"""The ways between zones, all on loopback: each can be cut, for nodes and for clients.

Nodes reach nodes of other zones through a ``Link``, clients through a ``ZoneTransport``. A zone
that is cut off is alive, and reaches itself; nothing goes in or out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx2

HOST = "127.0.0.1"
PIECE = 1 << 16


class Network:
    """Which zones can reach which."""

    def __init__(self) -> None:
        self.cut_off: str | None = None
        self._links: list[Link] = []

    def reaches(self, one: str, other: str) -> bool:
        """Whether anything gets from one zone to the other."""
        return one == other or self.cut_off not in (one, other)

    def cut(self, zone: str) -> None:
        """Nothing goes into the zone or out of it, from now on."""
        self.cut_off = zone
        for link in self._links:
            link.drop_if_cut()

    def heal(self) -> None:
        """As before."""
        self.cut_off = None

    async def link(self, one: str, other: str, port: int) -> int:
        """The port at which zone ``one`` reaches what listens at ``port`` in the other."""
        link = Link(self, one, other, port)
        self._links.append(link)
        return await link.listen()

    def close(self) -> None:
        """End all links."""
        for link in self._links:
            link.close()


class Link:
    """Accepts connections, and carries their bytes on as long as the way is open."""

    def __init__(self, network: Network, one: str, other: str, port: int) -> None:
        self._network, self._one, self._other, self._port = network, one, other, port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def listen(self) -> int:
        """Begin; the port."""
        self._server = await asyncio.start_server(self._carry, HOST, 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def drop_if_cut(self) -> None:
        """Break what is open."""
        if not self._network.reaches(self._one, self._other):
            for writer in self._writers:
                writer.transport.abort()

    def close(self) -> None:
        """Accept no more, and break what is open."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = {writer}
        try:
            if self._network.reaches(self._one, self._other):
                far_reader, far_writer = await asyncio.open_connection(HOST, self._port)
                ends.add(far_writer)
                self._writers |= ends
                await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        except OSError:
            pass  # The node is not there; whoever dialled tries again.
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
    finally:
        writer.transport.abort()


class ZoneTransport(httpx2.AsyncBaseTransport):
    """A client's way to the nodes, from the zone where it is."""

    def __init__(self, network: Network, zone: str, zones: Mapping[int, str]) -> None:
        self._network, self._zone = network, zone
        self._zones = zones  # By port.
        self._transport = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Ask, if the way is open, and still is when the answer comes."""
        there = self._zones[request.url.port or 0]
        if not self._network.reaches(self._zone, there):
            raise httpx2.ConnectError("network is unreachable", request=request)
        response = await self._transport.handle_async_request(request)
        if not self._network.reaches(self._zone, there):
            await response.aclose()
            raise httpx2.ReadError("connection reset by peer", request=request)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()
