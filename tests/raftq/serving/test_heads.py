"""Heads that come again are not parsed again, and nobody can tell that from the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from raftq.serving.heads import KNOWN_BYTES_MAX, KNOWN_FIELDS_MAX, KNOWN_MAX, KnownHeads, Said
from raftq.serving.protocol import Intake
from wires import Wire, ask, server_of

POST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
SAID: Said = {"method": "POST", "headers": []}
TURNS = 6  # Of the loop: until a whole request and those behind it are answered.


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Tells all that it was told, and changes its scope, as routers do."""
    body = await Request(scope, receive).body()
    told = {name: scope[name] for name in scope if name not in ("extensions", "asgi")}
    scope["path_params"] = {"a": "b"}
    await PlainTextResponse(f"{told} {body!r}")(scope, receive, send)


def parsed(intake: Intake) -> list[bytes]:
    """What its parser is fed from now on."""
    http = cast(Any, intake)._received.__self__
    parser, fed = http.parser, list[bytes]()

    class Parser:
        def feed_data(self, data: bytes) -> None:
            fed.append(data)
            parser.feed_data(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(parser, name)

    http.parser = Parser()
    return fed


def test_a_head_that_came_before_is_not_parsed_again() -> None:
    async def scenario() -> None:
        connect = server_of(app)
        first, second = Wire(), Wire({"peername": ("127.0.0.9", 7)})
        one, two = connect(first), connect(second)
        await ask(one, POST + b"ab", TURNS)
        fed = parsed(one), parsed(two)
        await ask(one, POST + b"cd", TURNS)
        await ask(two, POST + b"ef", TURNS)
        assert fed == ([], [])
        said = [b"".join(wire.written) for wire in (first, second)]
        assert [b"b'ab'" in said[0], b"b'cd'" in said[0], b"b'ef'" in said[1]] == [True] * 3
        assert [b"('127.0.0.1', 5)" in said[0], b"('127.0.0.9', 7)" in said[1]] == [True] * 2
        assert [b"path_params" in one for one in said] == [False, False]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked") + b"2\r\nab\r\n0\r\n\r\n",
        POST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + b"ab",
        POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"),
        POST.replace(b"1.1", b"1.0") + b"ab",
        POST.replace(b"\r\n\r\n", b"\r\nX: " + b"a" * KNOWN_BYTES_MAX + b"\r\n\r\n") + b"ab",
        POST.replace(b"\r\n\r\n", b"\r\n" + b"x:\r\n" * KNOWN_FIELDS_MAX + b"\r\n") + b"ab",
        POST + b"a",
        POST + b"ab" + POST,
    ],
    ids=["chunks", "last", "continue", "old", "large", "many", "half", "two"],
)
def test_what_is_not_one_usual_request_is_parsed_each_time(request_bytes: bytes) -> None:
    async def scenario() -> None:
        connect = server_of(app)
        await ask(connect(Wire()), request_bytes, TURNS)
        again = connect(Wire())
        fed = parsed(again)
        await ask(again, request_bytes, TURNS)
        assert fed == [request_bytes]

    asyncio.run(scenario())


def test_a_head_that_is_known_is_parsed_where_more_or_less_than_its_body_comes() -> None:
    async def scenario() -> None:
        connect = server_of(app)
        await ask(connect(Wire()), POST + b"ab", TURNS)
        for pieces in ((POST, b"ab"), (POST + b"a", b"b"), (POST + b"ab" + POST, b"cd")):
            wire = Wire()
            intake = connect(wire)
            fed = parsed(intake)
            for piece in pieces:
                await ask(intake, piece, TURNS)
            assert fed == list(pieces)
            assert b"".join(wire.written).count(b"200 OK") == b"".join(pieces).count(b"POST")

    asyncio.run(scenario())


def test_who_is_not_known_is_heard_by_the_parser() -> None:
    """Under TLS what such a connection may cost is bound together with what it has parsed."""

    async def scenario() -> None:
        connect = server_of(app)
        await ask(connect(Wire()), POST + b"ab", TURNS)
        intake = connect(Wire({"sslcontext": object()}))
        fed = parsed(intake)
        await ask(intake, POST + b"ab", TURNS)
        assert fed == [POST + b"ab"]

    asyncio.run(scenario())


def test_a_body_that_is_a_known_request_is_a_body() -> None:
    async def scenario() -> None:
        intake = server_of(app)(wire := Wire())
        await ask(intake, POST + b"ab", TURNS)
        inner = POST + b"ab"
        await ask(intake, POST.replace(b" 2", b" %d" % len(inner)), TURNS)
        await ask(intake, inner, TURNS)
        assert repr(inner).encode() in wire.written[-1]
        assert len(wire.written) == 2

    asyncio.run(scenario())


def test_a_known_request_behind_one_that_is_not_answered_waits() -> None:
    async def scenario() -> None:
        free = asyncio.Event()

        async def parking(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/parked":
                await free.wait()
            await app(scope, receive, send)

        intake = server_of(parking)(wire := Wire())
        await ask(intake, POST + b"ab", TURNS)
        await ask(intake, POST.replace(b"/a", b"/parked") + b"ab", TURNS)
        await ask(intake, POST + b"cd", TURNS)
        assert len(wire.written) == 1
        free.set()
        await ask(intake, b"", TURNS)
        assert [b"parked" in one for one in wire.written] == [False, True, False]
        assert b"b'cd'" in wire.written[-1]

    asyncio.run(scenario())


def test_so_many_bytes_as_there_were_in_chunks_are_no_body() -> None:
    async def scenario() -> None:
        connect = server_of(app)
        chunked = POST.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked")
        await ask(connect(Wire()), chunked + b"2\r\nab\r\n0\r\n\r\n", TURNS)
        await ask(connect(wire := Wire()), chunked + b"2\r", TURNS)
        assert wire.written == []

    asyncio.run(scenario())


def test_so_many_heads_are_kept_and_the_oldest_goes_first() -> None:
    known = KnownHeads()
    each = [POST.replace(b"/a", b"/%d" % number) + b"ab" for number in range(KNOWN_MAX + 1)]
    for data in each:
        known.keep(data, SAID, 2)
    assert known.find(each[0]) is None
    assert [known.find(data) for data in each[1:]] == [(SAID, b"ab")] * KNOWN_MAX


PATHS = st.sampled_from([b"/", b"/a/b", b"/a%20b?c=%2f", b"/a%2fb", b"http://x/y", b"*"])
FIELDS = st.sampled_from(
    [
        b"Host: x",
        b"host:x ",
        b"Content-Length: 3",
        b"Content-Length: 0",
        b"content-length: 03",
        b"Transfer-Encoding: chunked",
        b"Connection: close",
        b"Connection: keep-alive",
        b"Expect: 100-continue",
        b"Upgrade: h2c",
        b"X:",
        b"X: \xe9",
        b" folded",
    ]
)
BODIES = st.sampled_from([b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"\r\n\r\n", b"a\r\n\r\nb"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Mostly good ones."""
    line = b" ".join(
        [
            draw(st.sampled_from([b"GET", b"POST", b"HEAD", b"get"])),
            draw(PATHS),
            draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"])),
        ]
    )
    fields = draw(st.lists(FIELDS, max_size=4))
    end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"]))
    return end.join([line, *fields, b"", b""]) + draw(BODIES)


@settings(max_examples=300)
@given(
    st.lists(requests(), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 400)), min_size=1, max_size=8),
)
def test_answers_are_those_of_the_parser(
    each: Sequence[bytes], order: Sequence[tuple[int, int]]
) -> None:
    """Each request is sent in one piece or two, on one connection, as often as it is drawn."""

    async def answers() -> list[bytes]:
        wire = Wire()
        intake = server_of(app)(wire)
        for number, cut in order:
            request_bytes = each[number % len(each)]
            for piece in (request_bytes[:cut], request_bytes[cut:]):
                if piece and not wire.closed:
                    await ask(intake, piece, TURNS)
        # Whoever is still waited for is told that nobody is there.
        intake.connection_lost(None)
        await asyncio.sleep(0)
        return [b"".join(wire.written), b"closed" if wire.closed else b""]

    with patch.object(KnownHeads, "find", return_value=None):
        parsed_each_time = asyncio.run(answers())
    assert asyncio.run(answers()) == parsed_each_time
