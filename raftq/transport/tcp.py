"""``Network`` over TCP: one connection per pair of nodes, on the running loop.

The node with the smaller name dials. Should there be two connections of one peer (the
old one half-open, say), the one that was proven last stays. An exception in the handler,
or in here, goes to ``fatal`` and nothing is called back any more.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping
from typing import Protocol

from raftq.crossings import Traffic
from raftq.runtime import Runtime
from raftq.transport.complaints import Complaints
from raftq.transport.connection import Connection
from raftq.transport.dialling import Dialling
from raftq.transport.handshake import NONCE_BYTES, Acceptor, Dialler, Identity
from raftq.transport.listening import Listening, Patience, Tls, anybody, bind, in_words
from raftq.transport.network import Address, Handler
from raftq.transport.settings import Counts, Meter, Settings


class Log(Protocol):
    """As structlog's loggers are."""

    def info(self, event: str, **fields: object) -> object:
        """A peer came or went."""
        ...

    def warning(self, event: str, **fields: object) -> object:
        """Somebody was refused, or cannot be reached."""
        ...


class TcpNetwork:
    """See ``network.Network``. With ``tls`` nobody is spoken to but under it."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        identity: Identity,
        listen: Address,
        fatal: Callable[[BaseException], None],
        log: Log,
        meter: Meter | None = None,
        settings: Settings | None = None,
        tls: Tls | None = None,
    ) -> None:
        self.protocol_errors = 0  # A proven peer sent what is no frame.
        self._runtime, self._identity, self._listen = runtime, identity, listen
        self._fatal, self._log = fatal, log
        self._meter = meter or Counts()
        self._settings = settings or Settings()
        self._tls = tls
        self._complaints = Complaints(self._settings.log_again_s)
        self._handler: Handler | None = None
        self._closed = False
        self._sockets: list[socket.socket] = []
        self._listening: Listening | None = None
        self._addresses: dict[str, Address] = {}
        self._traffic: dict[str, Traffic] = {}
        self._diallings: dict[str, Dialling] = {}
        self._stopped: list[asyncio.Task[None]] = []
        self._connections: dict[Connection, None] = {}
        self._strangers: dict[Connection, None] = {}  # Inbound and unproven, oldest first.
        self._links: dict[str, Connection] = {}  # What the handler believes to be connected.

    @property
    def address(self) -> Address:
        """Where it listens: the port is known when it was asked for as 0."""
        return Address(*self._sockets[0].getsockname()[:2])

    def listen(self) -> None:
        """Take the address; OSError if it cannot be had. Who calls has to wait for ``start``."""
        self._sockets = self._sockets or bind(self._listen)

    def start(self, handler: Handler) -> None:
        """See ``Network``; on the running loop."""
        assert self._handler is None, "started twice"
        self.listen()
        self._listening = Listening(
            self._sockets,
            create=self._accept,
            tls=self._tls,
            patience=Patience(
                self._settings.handshake_timeout_s,
                self._settings.handshakes_max,
                self._settings.goodbye_s,
            ),
            may_open=anybody,
            refused=self._unheard,
        )
        self._handler = handler
        self._dial()

    def send(self, peer: str, frame: bytes) -> bool:
        """See ``Network``."""
        link = self._links.get(peer)
        if link is not None and link.send(frame):
            traffic = self._traffic[peer]
            traffic.frames_sent += 1
            traffic.frame_bytes_sent += len(frame)
            return True
        self._meter.frames_dropped += 1
        return False

    def flush(self) -> None:
        """See ``Network``."""
        for link in self._links.values():
            link.flush()

    def buffered(self, peer: str) -> int:
        """See ``Network``."""
        link = self._links.get(peer)
        return 0 if link is None else link.buffered()

    def connected(self) -> tuple[str, ...]:
        """See ``Network``."""
        return tuple(sorted(peer for peer, link in self._links.items() if link.open))

    def set_peers(self, addresses: Mapping[str, Address]) -> None:
        """See ``Network``. At a new address a peer is dialled anew; that connection wins."""
        own = self._identity.name
        self._addresses = {peer: at for peer, at in addresses.items() if peer != own}
        for peer in self._addresses:
            self._traffic[peer] = self._meter.of_peer(peer)
        if self._addresses and not self._identity.secret:
            raise ValueError("peers need a secret")
        for connection in list(self._connections):
            if connection.peer and connection.peer not in self._addresses:
                connection.drop("no longer a peer")
        if self._handler is not None and not self._closed:
            self._dial()

    def disconnect(self, peer: str) -> None:
        """See ``Network``."""
        link = self._links.get(peer)
        if link is not None:
            link.drop("disconnected by this node")

    def close(self) -> None:
        """See ``Network``. What is buffered is still sent while the loop runs: ``wait_closed``."""
        self._stop()
        for connection in list(self._connections):
            connection.finish("this node is stopping")

    async def wait_closed(self, grace_s: float = 1.0) -> None:
        """After ``close``: return when all is gone, dropping after ``grace_s`` what lingers."""
        assert self._closed
        try:
            async with asyncio.timeout(grace_s):
                await self._gone()
        except TimeoutError:
            for connection in list(self._connections):
                connection.drop("")
            await self._gone()

    # What the connections tell: ``connection.Owner``.

    def opened(self, connection: Connection) -> None:
        """See ``Owner``."""
        self._connections[connection] = None
        if self._closed:
            connection.drop("this node is stopping")
        elif connection.inbound:
            self._strangers[connection] = None
            if len(self._strangers) > self._settings.handshakes_max:
                next(iter(self._strangers)).drop("too many handshakes at once")

    def proven(self, connection: Connection) -> None:
        """See ``Owner``."""
        self._strangers.pop(connection, None)
        peer, handler = connection.peer, self._handler
        assert handler is not None
        old = self._links.pop(peer, None)
        if old is not None:
            old.drop("there is a newer one")
            handler.disconnected(peer)
        # Whoever was told may have closed the network; the peers may be others since it called.
        if self._closed or not connection.open or peer not in self._addresses:
            connection.drop("no longer a peer")
            return
        self._links[peer] = connection
        self._log.info("peer connected", peer=peer, address=connection.address)
        handler.connected(peer)

    def received(self, connection: Connection, frames: list[bytes]) -> None:
        """See ``Owner``."""
        handler, peer, meter = self._handler, connection.peer, self._meter
        traffic = self._traffic[peer]
        assert handler is not None
        for frame in frames:
            if not connection.open:
                return
            if frame:
                meter.frames_received += 1
                meter.frame_bytes_received += len(frame)
                traffic.frames_received += 1
                traffic.frame_bytes_received += len(frame)
                handler.received(peer, frame)

    def lost(self, connection: Connection) -> None:
        """See ``Owner``."""
        self._connections.pop(connection, None)
        self._strangers.pop(connection, None)
        if self._closed:
            return
        if connection.proven_at is None:
            self._refused(connection)
        elif self._links.get(connection.peer) is connection:
            assert self._handler is not None
            self.protocol_errors += connection.malformed
            del self._links[connection.peer]
            self._log.info("peer lost", peer=connection.peer, reason=connection.reason)
            self._handler.disconnected(connection.peer)

    def failed(self, error: BaseException) -> None:
        """See ``Owner``."""
        if not self._closed:
            self._stop()
            for connection in list(self._connections):
                connection.drop("this node has failed")
            self._fatal(error)

    # Its own business.

    def _accept(self) -> Connection:
        nonce = self._runtime.token(NONCE_BYTES)
        return self._connection(Acceptor(self._identity, self._addresses, nonce))

    def _call(self, peer: str) -> Connection:
        nonce = self._runtime.token(NONCE_BYTES)
        return self._connection(Dialler(self._identity, peer, nonce))

    def _connection(self, handshake: Dialler | Acceptor) -> Connection:
        return Connection(self, handshake, self._runtime, self._settings, self._meter)

    def _dial(self) -> None:
        """Dial whom we should and do not yet; stop dialling the others."""
        wanted = {peer: at for peer, at in self._addresses.items() if self._identity.name < peer}
        for peer, dialling in list(self._diallings.items()):
            if wanted.get(peer) != dialling.address:
                self._forget(peer)
        for peer in sorted(wanted.keys() - self._diallings.keys()):
            self._diallings[peer] = Dialling(
                peer,
                wanted[peer],
                create=functools.partial(self._call, peer),
                unreachable=functools.partial(self._unreachable, peer),
                failed=self.failed,
                runtime=self._runtime,
                settings=self._settings,
                tls=self._tls,
            )

    def _forget(self, peer: str) -> None:
        dialling = self._diallings.pop(peer)
        dialling.stop()
        self._stopped = [task for task in self._stopped if not task.done()]
        self._stopped.append(dialling.task)

    def _stop(self) -> None:
        self._closed = True
        if self._listening is not None:
            self._listening.stop()
        for plug in self._sockets:
            plug.close()
        for peer in list(self._diallings):
            self._forget(peer)

    async def _gone(self) -> None:
        tasks = [*self._stopped]
        ends: list[Coroutine[object, object, object]] = [c.closed.wait() for c in self._connections]
        if self._listening is not None:
            ends.append(self._listening.wait_stopped())
        if tasks:
            ends.append(asyncio.wait(tasks))
        await asyncio.gather(*ends)
        await asyncio.sleep(0)  # The loop lets go of a socket one turn after saying so.

    def _refused(self, connection: Connection) -> None:
        self._meter.peers_refused += 1
        refusal = connection.refusal
        claimed = connection.peer if refusal is None else refusal.claimed
        self._complain(
            "peer refused" if refusal else "handshake broken off",
            peer=claimed if claimed in self._addresses else "",
            reason=connection.reason,
            claimed=claimed,
            address=connection.address,
        )

    def _unheard(self, address: str, reason: str) -> None:
        """Somebody called, and it came to no connection."""
        self._meter.peers_refused += 1
        self._complain("peer refused", peer="", reason=reason, address=address)

    def _unreachable(self, peer: str, error: Exception) -> None:
        refused = isinstance(error, ssl.SSLError)
        self._meter.peers_refused += refused
        event = "peer refused" if refused else "peer unreachable"
        self._complain(event, peer=peer, reason=in_words(error))

    def _complain(self, event: str, *, peer: str, reason: str, **details: str) -> None:
        left_out = self._complaints.admit((event, peer, reason), self._runtime.monotonic())
        if left_out is not None:
            self._log.warning(event, peer=peer, reason=reason, left_out=left_out, **details)
