"""HTTP on one connection, with a bound on everything that its peer decides.

uvicorn's protocol sets no limits to heads, to pipelined requests, to slowness or to what a
client leaves unread. Here each connection is in one of four phases, and one watch over all of
them, not a timer for each, looks whether it has been in it for too long.

What a peer may cost before anybody has asked who it is: a head of ``head_bytes_max``, as the
bytes that it is, plus what is read at once and came with its end. No more of the body is read
until the application asks for it. Of a request that was answered nothing is kept.
"""

from __future__ import annotations

import asyncio
import enum
import socket
from collections import deque
from typing import Any

import httptools
from uvicorn import Config as UvicornConfig
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from api.fairness.admission import Admission
from api.rest.requests import ABORT, KNOWN, STREAMED
from raftq.config import ApiConfig
from raftq.serving import shedding
from raftq.serving.exchange import Exchange
from raftq.serving.gate import End, Gate
from raftq.serving.heads import KIND, KnownHeads, Said, Unfinished, said
from raftq.serving.refusals import Refusal, Refusals

READ_BYTES = 16_384
PIPELINED_MAX = 8
LEFT_UNREAD_BYTES_MAX = 65_536
"""How much of a body is still taken, and thrown away, when its request is answered already."""
BODY_BYTES_PER_S_MIN = 1_024
TLS_GOODBYE_S = 1.0
"""Until who was refused is gone, whether he says that he has heard it or not."""
TLS_KNOWN_RECEIVE_BYTES = 32 * 1024
"""The kernel's buffer, and so what comes in a round trip, of who has shown who it is."""
FRAMING_BYTES_MAX = 16_384
"""How much larger the framing of a body may be than the body."""


class Phase(enum.Enum):
    """What a connection waits for."""

    IDLE = enum.auto()  # A request.
    HEAD = enum.auto()  # The rest of its head.
    BODY = enum.auto()  # The rest of its body.
    ANSWER = enum.auto()  # Us.


class Refuse(Exception):
    """Out of the parser's callbacks: no further."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.why)
        self.refusal = refusal


class Shared:
    """What all connections of a server have in common."""

    def __init__(
        self, limits: ApiConfig, gate: Gate[GuardedHttp], admission: Admission, *, body_bytes: int
    ) -> None:
        """``body_bytes``: how many of a body are read at most."""
        self.limits = limits
        self.body_bytes = body_bytes
        self.gate = gate
        self.admission = admission
        self.refusals = Refusals(limits)
        self.heads = KnownHeads()
        # Reads are synchronous: nobody else gets the buffer before its bytes are copied out.
        self.buffer = memoryview(bytearray(READ_BYTES))


class Intake(asyncio.BufferedProtocol):
    """What the loop talks to: hands on what arrives in pieces that are never large.

    Left to itself, the loop would hand over a quarter of a megabyte at once.
    """

    def __init__(
        self,
        shared: Shared,
        config: UvicornConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        http = GuardedHttp(shared, config, server_state, app_state, _loop)
        self._buffer = shared.buffer
        self._received = http.data_received
        self._made = http.connection_made
        # Nothing is to be done about these, so they go there without a detour.
        for name in ("connection_lost", "eof_received", "pause_writing", "resume_writing"):
            setattr(self, name, getattr(http, name))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._made(transport)  # type: ignore[arg-type] # uvicorn

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio."""
        self._received(bytes(self._buffer[:nbytes]))


class GuardedHttp(HttpToolsProtocol):
    """One connection."""

    cycle: Exchange  # type: ignore[assignment] # uvicorn's own has what we do without

    def __init__(
        self,
        shared: Shared,
        config: UvicornConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.url, self.headers = b"", []
        self._gate = shared.gate
        self._idle = shared.gate.idle
        self._limits = shared.limits
        self._refusals = shared.refusals
        self._admission = shared.admission
        self._heads = shared.heads
        self._body_bytes_max = shared.body_bytes
        self._phase = Phase.IDLE
        self._since = self.loop.time()  # When the phase began; nought: not yet asked.
        self._patience_s = shared.limits.head_timeout_s  # With whom has not asked for anything.
        self._piece_bytes = 0  # What came last.
        self._received_bytes = 0  # Of the head, or since it.
        self._unfinished: Unfinished | None = None  # The head, if it has come in several pieces.
        self._body_bytes = 0
        self._deaf = self._is_under_tls = False
        self._is_known = True  # Or it is to be kept little for.
        self._is_streamed = False  # The application reads the body as it comes, and times it.
        self._abort: dict[str, object] = {}  # See ``ABORT``.
        self._ends: dict[str, object] = {}  # Of the scope, what the connection says.
        self._fresh: tuple[Exchange, Said] | None = None  # Nothing was done for it yet.
        self._serving: Exchange | None = None
        self._queued: deque[Exchange] = deque()  # Behind it.
        self._unsent_bytes = 0
        self._unsent_since = self._since

    # What the loop calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """See asyncio."""
        super().connection_made(transport)
        self._abort = {"abort": transport.abort}
        self._ends = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "root_path": "",
            "scheme": self.scheme,
            "client": self.client,
            "server": self.server,
        }
        self._is_under_tls = self.scheme == "https"
        self._is_known = not self._is_under_tls
        why = self._gate.admit(self, self.client[0] if self.client else "")
        if why is not None:
            self._deaf = True
            self._tell(self._refusals.at_the_gate[why])

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._gate.release(self)
        self._queued.clear()
        if self._serving is not None:
            self._drop(self._serving)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._deaf:
            return
        self._idle.pop(self, None)
        begins = self._phase is Phase.IDLE and self._is_known
        if begins and (known := self._heads.find(data)) is not None:
            self._begin_known(*known)
            return
        self._piece_bytes = len(data)
        self._received_bytes += len(data)
        refusal = None
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # We speak nothing else; what follows may be of another protocol.
            self.cycle.keep_alive = False
            self._deaf = True
        except httptools.HttpParserError as error:
            cause = error.__context__
            refusal = cause.refusal if isinstance(cause, Refuse) else self._refusals.malformed
        if self._fresh is not None:
            # Not before the piece is read: the body is in it more often than not.
            (fresh, head), self._fresh = self._fresh, None
            if begins and fresh.is_usual:
                self._heads.keep(data, head, len(fresh.body))
            self._serve(fresh)
        if refusal is not None:
            self._refuse(refusal)
        elif self._phase is not Phase.ANSWER:
            self._judge()

    def resume_writing(self) -> None:
        """See asyncio."""
        self._unsent_since = self.loop.time()
        super().resume_writing()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        # Before it there may be another one in the same piece. To who is not known both count.
        is_counted = self._phase is Phase.IDLE or not self._is_known
        self._received_bytes = self._piece_bytes if is_counted else 0
        self._phase, self._since = Phase.HEAD, 0.0
        self.expect_100_continue = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers; trailers go nowhere."""
        if self._phase is Phase.HEAD:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Its head is there; its body may be under way."""
        refusals, parser = self._refusals, self.parser
        if self._unfinished is not None:
            self.headers, self._unfinished = self._unfinished.finished(self.headers), None
        if (excess := self._excess(self._head_bytes(), len(self.headers))) is not None:
            raise Refuse(excess)
        if len(self._queued) >= PIPELINED_MAX:
            raise Refuse(refusals.pipelined)
        version = parser.get_http_version()
        if version != "1.1" and not self._is_old(version):
            raise Refuse(refusals.malformed)
        if (head := said(parser, self.url, self.headers)) is None:
            raise Refuse(refusals.malformed)
        former = self.cycle
        self._begin(
            head,
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            wants_continue=self.expect_100_continue,
        )
        self.url, self.headers = b"", []  # The request has them by now.
        self._phase, self._since = Phase.BODY, 0.0
        self._received_bytes = self._body_bytes = 0
        self._is_streamed = False
        if former is None or former.response_complete:
            self._fresh, self._serving = (self.cycle, head), self.cycle
        else:
            self.flow.pause_reading()
            self._queued.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        """A piece of it."""
        self._body_bytes += len(body)
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.wake()

    def on_message_complete(self) -> None:
        """The whole request is there."""
        self._phase = Phase.ANSWER
        cycle = self.cycle
        if cycle.response_complete:
            self._rest()
        else:
            cycle.read()

    # What the application's side calls.

    def on_response_complete(self) -> None:
        """Go on with the next request, or rest. No timer: the watch looks after those who rest."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self._queued:
            self._serve(self._queued.popleft())
        elif self._phase is Phase.ANSWER:
            self._rest()
        elif self._phase is Phase.BODY:
            # Its own: what is still to come is thrown away, within the limits of a new one.
            self._since, self._is_streamed = self.loop.time(), False
            self._received_bytes = self._body_bytes = 0

    def _begin(self, head: Said, *, keep_alive: bool, wants_continue: bool) -> None:
        extensions: dict[str, object] = {ABORT: self._abort, STREAMED: self._stream}
        if not self._is_known:
            extensions[KNOWN] = self._know
        scope = {**head, **self._ends, "extensions": extensions}
        self.cycle = Exchange(
            scope,  # type: ignore[arg-type] # The parts of a scope are dictionaries of anything.
            self.transport,
            self.flow,
            self.logger,
            self.server_state.default_headers,
            self.on_response_complete,
            keep_alive=keep_alive,
            wants_continue=wants_continue,
        )

    def _begin_known(self, head: Said, body: bytes) -> None:
        """The parser has said all that about such a head before, and hears nothing of this one."""
        self._begin(head, keep_alive=True, wants_continue=False)
        self._phase = Phase.ANSWER
        self.cycle.body, self.cycle.more_body = body, False
        self._serve(self.cycle)

    def _stream(self) -> None:
        # With the whole body there, the next request may have begun already.
        self._is_streamed = self._phase is Phase.BODY and self.cycle is self._serving

    def _serve(self, exchange: Exchange) -> None:
        """Serve a request whose head is there, if the node has room and time for it."""
        self._serving = exchange
        size = shedding.announced(exchange, self._body_bytes_max)
        is_read = not exchange.more_body
        kind, account = exchange.scope[KIND]  # type: ignore[literal-required] # One of ours.
        place = self._admission.ask(kind, account, size, is_read=is_read)
        if place is not None:
            exchange.let_in(place)
            task = self.loop.create_task(exchange.run(self.app))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            return
        is_last = not exchange.keep_alive or size > LEFT_UNREAD_BYTES_MAX
        shedding.answer(exchange, is_last=is_last)
        self.on_response_complete()
        # Who was told to come back later is not heard at once: not even to say no again.
        self.flow.pause_reading()
        self.loop.call_later(shedding.RETRY_AFTER_S, self._listen)

    def _listen(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    # What the watch and the gate call.

    def check(self, now_s: float) -> None:
        """End it if its peer has been slow for too long; cheap, for it is called on all."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent_bytes:
            self._unsent_since = now_s
        self._unsent_bytes = unsent
        if now_s - self._unsent_since > self._limits.write_timeout_s:
            self.hang_up(End.READS_TOO_SLOWLY)
        elif not (self._deaf or self.transport.is_closing()):
            self._check_reading(now_s)

    def hang_up(self, why: End) -> None:
        """End it now."""
        self._gate.count(why)
        self._deaf = True
        # Whoever does not take what is sent would never let a close come to its end; nor would,
        # under TLS, who does not say that he has heard it.
        if self._is_under_tls or self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    # Its own business.

    def _check_reading(self, now_s: float) -> None:
        waited_s = now_s - self._since
        if self._phase is Phase.IDLE:
            if waited_s > self._patience_s:
                self.hang_up(End.IDLE)
        elif self._phase is Phase.HEAD:
            if waited_s > self._limits.head_timeout_s:
                self._refuse(self._refusals.slow_head)
        elif self._phase is Phase.BODY and not (self._is_streamed or self.flow.read_paused):
            allowed_s = self._limits.body_timeout_s + self._body_bytes / BODY_BYTES_PER_S_MIN
            if waited_s > allowed_s:
                self._refuse(self._refusals.slow_body)

    def _judge(self) -> None:
        """After each piece: is the request under way within its limits?"""
        phase = self._phase
        if not self._since:
            self._since = self.loop.time()
            if phase is Phase.BODY:
                self.flow.pause_reading()  # Until the application asks for the body.
        if phase is Phase.HEAD:
            self._judge_head()
        elif phase is Phase.BODY:
            self._judge_body()
        elif self._serving is None or self._serving.response_complete:
            self._idle[self] = None  # Empty lines before a request are none.

    def _judge_head(self) -> None:
        if self._unfinished is None:
            self._unfinished = Unfinished()
        self._unfinished.add(self.headers)
        excess = self._excess(self._received_bytes, self._unfinished.fields)
        if excess is not None:
            self._refuse(excess)

    def _excess(self, head_bytes: int, fields: int) -> Refusal | None:
        """What a head with so many is refused with, or nothing."""
        limits = self._limits
        if len(self.url) > limits.target_bytes_max:
            return self._refusals.target
        if head_bytes > limits.head_bytes_max or fields > limits.header_fields_max:
            return self._refusals.head
        return None

    def _head_bytes(self) -> int:
        """At most so many has a head that is whole; counted if it came with too many to tell."""
        came = max(self._received_bytes, self._piece_bytes)
        if came <= self._limits.head_bytes_max:
            return came
        return len(self.url) + sum([len(name) + len(value) for name, value in self.headers])

    def _judge_body(self) -> None:
        if self._received_bytes - 2 * self._body_bytes > FRAMING_BYTES_MAX:
            self._refuse(self._refusals.framing)
        elif self.cycle.response_complete and self._body_bytes > LEFT_UNREAD_BYTES_MAX:
            self.hang_up(End.TOO_LARGE)

    def _know(self) -> None:
        """Whoever it is has shown that they may ask for what they ask for."""
        self._is_known = True
        if self._phase is Phase.HEAD:  # Of the next request.
            self._received_bytes = 0
        if self.transport.is_closing():
            return
        plug: socket.socket = self.transport.get_extra_info("socket")
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, TLS_KNOWN_RECEIVE_BYTES)

    def _rest(self) -> None:
        self._phase = Phase.IDLE
        self._since = self.loop.time()
        self._patience_s = self._limits.keep_alive_s
        self._idle[self] = None

    def _refuse(self, refusal: Refusal) -> None:
        """Take nothing more; answer, unless an earlier request is still to be answered."""
        self._deaf = True
        self._queued.clear()
        self.url, self.headers, self._unfinished = b"", [], None
        serving = self._serving
        if serving is None or serving.response_complete:
            self._tell(refusal)
        elif serving is self.cycle and self._phase is Phase.BODY:
            # It is this request's own body that is refused.
            started = serving.response_started
            self._drop(serving)
            if started:
                self.hang_up(refusal.why)
            else:
                self._tell(refusal)
        else:
            self._gate.count(refusal.why)
            serving.keep_alive = False

    def _tell(self, refusal: Refusal) -> None:
        self._gate.count(refusal.why)
        self.transport.write(refusal.answer)
        self.transport.close()
        if self._is_under_tls:
            self.loop.call_later(TLS_GOODBYE_S, self.transport.abort)

    def _drop(self, cycle: Exchange) -> None:
        """Let its application know that nobody is there."""
        if not cycle.response_complete:
            cycle.disconnected = True
        cycle.wake()

    def _is_old(self, version: str) -> bool:
        """Whether it is HTTP/1.0, which has no chunks: others would see another body."""
        chunked = any(name == b"transfer-encoding" for name, _ in self.headers)
        return version == "1.0" and not chunked
