"""One connection as asyncio sees it: first the handshake, then frames both ways.

Frames sent within one turn of the loop leave in one write. A connection ends once, with
one reason: ``drop`` (at once), ``finish`` (after what is buffered), or the peer's doing.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol, cast

from raftq.runtime import Runtime, Timer
from raftq.tls.names import uris
from raftq.transport.frames import HEADER_BYTES, PING, FrameDecoder, ProtocolError, header
from raftq.transport.handshake import Acceptor, Dialler, Reason, Refused
from raftq.transport.settings import Meter, Settings

# Measured: smaller pieces (on average) cost less copied together than listed for the kernel.
JOIN_PIECE_BYTES = 64 * 1024


class Owner(Protocol):
    """What a connection tells the network, always on the loop and never out of a call to it."""

    def opened(self, connection: Connection) -> None:
        """There is a socket; nothing is known of the peer."""
        ...

    def proven(self, connection: Connection) -> None:
        """``connection.peer`` is who it says, and frames may be sent."""
        ...

    def received(self, connection: Connection, frames: list[bytes]) -> None:
        """Frames in order, pings (empty) among them; ``connection.open`` may change meanwhile."""
        ...

    def lost(self, connection: Connection) -> None:
        """It is over, for ``connection.reason``."""
        ...

    def failed(self, error: Exception) -> None:
        """Our own code is broken."""
        ...


class Connection(asyncio.Protocol):
    """Either end. ``open``: proven, and not ending."""

    def __init__(
        self,
        owner: Owner,
        handshake: Dialler | Acceptor,
        runtime: Runtime,
        settings: Settings,
        meter: Meter,
    ) -> None:
        self.inbound = isinstance(handshake, Acceptor)
        self.open = False
        self.address = ""  # Where the other end is, for logs.
        self.proven_at: float | None = None
        self.reason = ""
        self.refusal: Refused | None = None
        self.malformed = False  # It was proven, and sent what is no frame.
        self.closed = asyncio.Event()
        self._owner, self._handshake = owner, handshake
        self._runtime, self._settings, self._meter = runtime, settings, meter
        self._transport: asyncio.Transport | None = None
        self._decoder = FrameDecoder(settings.frame_bytes_max)
        self._outbox: list[bytes] = []
        self._outbox_bytes = 0
        self._timer: Timer | None = None
        self._silent_ticks = 0
        self._heard = self._spoke = False

    @property
    def peer(self) -> str:
        """Whom we dialled, or who has proved its name; empty while that is unknown."""
        return self._handshake.peer

    def send(self, frame: bytes) -> bool:
        """See ``Network``."""
        size = len(frame) + HEADER_BYTES
        if not 0 < len(frame) <= self._settings.frame_bytes_max:
            raise ValueError(f"a frame of {len(frame)} bytes")
        if not self.open:
            return False
        buffered = self.buffered()
        if buffered and buffered + size > self._settings.send_buffer_bytes_max:
            return False
        if not self._outbox:
            self._runtime.call_soon(self.flush)
        self._outbox.append(header(frame))
        self._outbox.append(frame)
        self._outbox_bytes += size
        self._meter.frames_sent += 1
        self._meter.frame_bytes_sent += len(frame)
        return True

    def buffered(self) -> int:
        """Bytes that the kernel has not taken."""
        if self._transport is None:
            return 0
        return self._outbox_bytes + self._transport.get_write_buffer_size()

    def drop(self, reason: str) -> None:
        """End it now, with all that is buffered. The first reason counts."""
        self.reason = self.reason or reason
        self.open = False
        self._cancel_timer()
        if self._transport is not None:
            self._transport.abort()

    def finish(self, reason: str) -> None:
        """End it once the buffered bytes are gone."""
        self.reason = self.reason or reason
        self.flush()
        self.open = False
        self._cancel_timer()
        if self._transport is not None:
            self._transport.close()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the socket up and begin the handshake."""
        wire = self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by type.
        name = wire.get_extra_info("peername")
        self.address = f"{name[0]}:{name[1]}" if name else ""
        plug: socket.socket | None = wire.get_extra_info("socket")
        if plug is not None:
            plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._timer = self._runtime.call_later(self._settings.handshake_timeout_s, self._too_slow)
        if self._is_certified(wire) and self._handshake.hello:
            wire.write(self._handshake.hello)
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of the peer. What our own code throws must not end in asyncio's log."""
        self._heard = True
        try:
            if not self._handshake.done and not self.reason:
                data = self._shake(data)
            if self.open and data:
                self._decode(data)
        except Exception as error:
            self._owner.failed(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self.reason = self.reason or (str(exc) if exc else "closed by the peer")
        self.open = False
        self._cancel_timer()
        self.closed.set()
        try:
            self._owner.lost(self)
        except Exception as error:
            self._owner.failed(error)

    # Its own business.

    def _is_certified(self, wire: asyncio.Transport) -> bool:
        """Tell the handshake what a certificate says, if there are any."""
        if wire.get_extra_info("sslcontext") is None:
            return True
        try:
            self._handshake.certified(uris(wire.get_extra_info("peercert") or {}))
        except Refused as refusal:
            self.refusal = refusal
            self.drop(refusal.reason)
            return False
        return True

    def _shake(self, data: bytes) -> bytes:
        """Go on with the handshake; the bytes that came after it."""
        assert self._transport is not None
        try:
            reply = self._handshake.feed(data)
        except Refused as refusal:
            self.refusal = refusal
            self.drop(refusal.reason)
            return b""
        if reply:
            self._transport.write(reply)
        if not self._handshake.done:
            return b""
        self.open = True
        self.proven_at = self._runtime.monotonic()
        self._cancel_timer()
        self._timer = self._runtime.call_later(self._settings.ping_interval_s, self._tick)
        self._owner.proven(self)
        return self._handshake.rest

    def _decode(self, data: bytes) -> None:
        try:
            frames = self._decoder.feed(data)
        except ProtocolError as error:
            self.malformed = True
            self.drop(str(error))
            return
        if frames:
            self._owner.received(self, frames)

    def flush(self) -> None:
        """See ``Network``."""
        if not self._outbox or not self.open:
            return
        assert self._transport is not None
        outbox, size = self._outbox, self._outbox_bytes
        self._outbox, self._outbox_bytes = [], 0
        self._spoke = True
        if size < len(outbox) * JOIN_PIECE_BYTES:
            self._transport.write(b"".join(outbox))
        else:
            self._transport.writelines(outbox)

    def _tick(self) -> None:
        """Once per ping interval: is the peer alive, and does it know that we are?"""
        self._silent_ticks = 0 if self._heard else self._silent_ticks + 1
        if self._silent_ticks >= self._settings.silent_ticks_max:
            self.drop("silent")
            return
        if not self._spoke and not self.buffered():
            assert self._transport is not None
            self._transport.write(PING)
        self._heard = self._spoke = False
        self._timer = self._runtime.call_later(self._settings.ping_interval_s, self._tick)

    def _too_slow(self) -> None:
        self.refusal = Refused(Reason.TOO_SLOW, self.peer)
        self.drop(Reason.TOO_SLOW)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
