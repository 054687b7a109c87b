"""How answers leave: on a transport that shows each write."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.rest.requests import KNOWN
from raftq.serving.exchange import JOINED_BYTES_MAX
from raftq.serving.protocol import TLS_KNOWN_RECEIVE_BYTES
from raftq.serving.server import TLS_RECEIVE_BYTES
from wires import Wire, ask, connected

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
TURNS = 10
LENGTH = b"content-length"


def start(*headers: tuple[bytes, bytes], status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def saying(*messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def served(app: ASGIApp, *requests: bytes, **more: object) -> Wire:
    """What requests come to, one after the other, on a wire that knows ``more``."""

    async def serve() -> Wire:
        wire = Wire(more)
        intake = connected(app, wire)
        for request in requests:
            await ask(intake, request, TURNS)
        return wire

    return asyncio.run(serve())


def test_an_answer_leaves_in_one_write() -> None:
    wire = served(saying(start((LENGTH, b"2")), body(b"ok")), GET)
    assert wire.written == [b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 2\r\n\r\nok"]
    assert not wire.closed


def test_a_body_that_comes_in_pieces_is_not_kept_back() -> None:
    app = saying(start((LENGTH, b"4")), body(b"ab", more=True), body(b"cd"))
    head, rest = served(app, GET).written
    assert head.endswith(b"\r\n\r\nab")
    assert rest == b"cd"


def test_a_large_body_is_not_copied() -> None:
    large = bytes(JOINED_BYTES_MAX + 1)
    size = str(len(large)).encode()
    head, rest = served(saying(start((LENGTH, size)), body(large)), GET).written
    assert head.endswith(b"\r\n\r\n")
    assert rest == large


def test_the_head_of_a_stream_leaves_before_there_is_anything_in_it() -> None:
    (head,) = served(saying(start()), GET).written[:1]
    assert head.endswith(b"transfer-encoding: chunked\r\n\r\n")
    written = served(saying(start(), body(b"one", more=True), body(b"")), GET).written
    assert written[1:] == [b"3\r\none\r\n", b"0\r\n\r\n"]


def test_who_speaks_http_1_0_is_not_answered_in_chunks() -> None:
    asked = GET.replace(b"1.1", b"1.0").replace(b"x\r\n", b"x\r\nConnection: keep-alive\r\n", 1)
    wire = served(saying(start(), body(b"one", more=True), body(b"two")), asked)
    head, *rest = wire.written
    assert head.endswith(b"date: today\r\nconnection: close\r\n\r\n")
    assert rest == [b"one", b"two"]
    assert wire.closed


@pytest.mark.parametrize(
    ("request_", "status", "headers"),
    [(HEAD, 200, ((LENGTH, b"2"),)), (HEAD, 200, ()), (GET, 204, ()), (GET, 304, ())],
)
def test_what_has_no_body_is_a_head(
    request_: bytes, status: int, headers: tuple[tuple[bytes, bytes], ...]
) -> None:
    data = b"ok" if request_ == HEAD else b""
    (head,) = served(saying(start(*headers, status=status), body(data)), request_).written
    assert head.endswith(b"\r\n\r\n")
    assert b"transfer-encoding" not in head


@pytest.mark.parametrize("asked", [GET, GET.replace(b"x\r\n", b"x\r\nConnection: close\r\n", 1)])
def test_a_connection_that_is_to_close_says_so_once(asked: bytes) -> None:
    close = () if b"close" in asked else ((b"connection", b"close"),)
    wire = served(saying(start((LENGTH, b"0"), *close), body(b"")), asked)
    assert wire.written[0].count(b"connection: close") == 1
    assert wire.closed


@pytest.mark.parametrize(
    "messages",
    [
        (start((b"location", b"/a\r\nset-cookie: b")), body(b"")),
        (start((b"location", b"/a\nset-cookie: b")), body(b"")),
        (start((b"location", b"/a\r")), body(b"")),
        (start((b"location", b"/\0a")), body(b"")),
        (start((b"a\nb", b"c")), body(b"")),
        (body(b""),),
    ],
)
def test_a_header_never_becomes_two(
    messages: tuple[Message, ...], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL):
        (answer,) = served(saying(*messages), GET).written
    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"set-cookie" not in answer


@pytest.mark.parametrize(
    "messages",
    [
        (start((LENGTH, b"1")), body(b"longer")),
        (start((LENGTH, b"9")), body(b"shorter")),
        (start((LENGTH, b"2")), start((LENGTH, b"2"))),
        (start((LENGTH, b"2")),),
    ],
)
def test_an_answer_that_is_none_ends_the_connection(
    messages: tuple[Message, ...], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL):
        assert served(saying(*messages), GET).closed


def test_nothing_is_said_after_the_end_of_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    messages = (start((LENGTH, b"2")), body(b"ok"), body(b"more"))
    with caplog.at_level(logging.CRITICAL):
        (answer,) = served(saying(*messages), GET).written
    assert answer.endswith(b"\r\n\r\nok")


def test_a_body_that_is_there_is_given_whole_and_once() -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append(await receive())
        await send(start((LENGTH, b"0")))
        await send(body(b""))
        heard.append(await receive())

    served(app, POST)
    assert heard == [
        {"type": "http.request", "body": b"body", "more_body": False},
        {"type": "http.disconnect"},
    ]


def test_under_tls_more_is_received_at_once_when_it_is_known_who_asks() -> None:
    asked: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        known = scope["extensions"].get(KNOWN)
        asked.append(known is not None)
        if known is not None and scope["method"] == "POST":
            known()
        await send(start((LENGTH, b"0")))
        await send(body(b""))

    with socket.socket() as plug:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, TLS_RECEIVE_BYTES)
        served(app, GET, POST, GET, sslcontext=object(), socket=plug)
        # The kernel takes it twice.
        known = plug.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert asked == [True, True, False]
    assert known >= TLS_KNOWN_RECEIVE_BYTES > 2 * TLS_RECEIVE_BYTES
    asked.clear()
    served(app, GET)
    assert asked == [False]


def test_it_may_become_known_who_asked_when_he_is_gone() -> None:
    asked: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start((LENGTH, b"0"), (b"connection", b"close")))
        await send(body(b""))
        scope["extensions"][KNOWN]()
        asked.append(scope["path"])

    with socket.socket() as plug:
        before = plug.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert served(app, GET, sslcontext=object(), socket=plug).closed
        assert plug.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == before
    assert asked == ["/"]
