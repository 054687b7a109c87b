"""What hostile clients send, and the statuses that are an answer to it; 0 is hanging up.

``{MINE_KEY}`` is the key of the tenant who sends it, ``THEIR_ID`` and ``THEIR_CLAIM`` stand for a
message and a claim of somebody else: see ``target``.
"""

from __future__ import annotations

import gzip
import json
from typing import NamedTuple

MINE, THEIRS = "/v1/mine/queues/q", "/v1/theirs/queues/q"
# As long as what they stand for: some are within bodies whose length was counted.
MY_CLAIM, THEIR_CLAIM = "{my-claim------}", "{their-claim---}"
THEIR_ID = "{their-message-----}"
AUTH = "Authorization: Bearer {MINE_KEY}"
JSON = "Content-Type: application/json"
NDJSON = "Content-Type: application/x-ndjson"
CHUNKED = "Transfer-Encoding: chunked"


class Attack(NamedTuple):
    """What is sent, piece by piece, and what may come back."""

    parts: list[bytes]
    statuses: tuple[int, ...]


def request(
    method: str, target: str, body: bytes = b"", *headers: str, key: str = AUTH, length: bool = True
) -> bytes:
    """One request, as well-formed as its parts are."""
    lines = [f"{method} {target} HTTP/1.1", "Host: raftq", *([key] if key else []), *headers]
    lines += [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


def get(target: str, *headers: str, key: str = AUTH) -> bytes:
    return request("GET", target, b"", *headers, key=key, length=False)


def sent(method: str, target: str, value: object, *headers: str) -> bytes:
    """JSON, or bytes that pass for it."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return request(method, target, body, JSON, *headers)


def chunked(*chunks: bytes, headers: tuple[str, ...] = ()) -> bytes:
    head = request(
        "POST", f"{MINE}/messages", b"", JSON, "Transfer-Encoding: chunked", *headers, length=False
    )
    return head + b"".join(chunks)


PUT = f"{MINE}/messages"
BODY = b'{"messages": [{"body": 1}]}'
GOOD = sent("POST", PUT, BODY)
SMUGGLED = get("/v1/theirs/queues")
KIB = b"x" * 1_024

SMUGGLING = {
    "two lengths": Attack([request("POST", PUT, BODY, JSON, "Content-Length: 3")], (400,)),
    "two equal lengths": Attack(
        [request("POST", PUT, BODY, JSON, f"Content-Length: {len(BODY)}")], (400,)
    ),
    "two lengths in one": Attack(
        [request("POST", PUT, BODY, JSON, "Content-Length: 27, 27", length=False)], (400,)
    ),
    "length and chunks": Attack(
        [request("POST", PUT, b"0\r\n\r\n" + SMUGGLED, JSON, "Transfer-Encoding: chunked")], (400,)
    ),
    "chunks and length": Attack([chunked(b"0\r\n\r\n", headers=("Content-Length: 5",))], (400,)),
    "chunks that are not last": Attack(
        [GOOD.replace(b"Content-Length: 27", b"Transfer-Encoding: chunked, identity")], (400,)
    ),
    "chunks twice": Attack(
        [GOOD.replace(b"Content-Length: 27", b"Transfer-Encoding: chunked, chunked")], (400,)
    ),
    "a coding unheard of": Attack(
        [GOOD.replace(b"Content-Length: 27", b"Transfer-Encoding: xchunked")], (400,)
    ),
    "gzip and chunked": Attack(
        [GOOD.replace(b"Content-Length: 27", b"Transfer-Encoding: gzip, chunked")], (400, 415)
    ),
    "a coding with a tab": Attack(
        [GOOD.replace(b"Content-Length: 27", b"Transfer-Encoding:\x0bchunked")], (400,)
    ),
    "a space before the colon": Attack(
        [GOOD.replace(b"Content-Length:", b"Content-Length :")], (400,)
    ),
    "a negative length": Attack([GOOD.replace(b": 27", b": -27")], (400,)),
    "a length with a sign": Attack([GOOD.replace(b": 27", b": +27")], (400,)),
    "a length in hexadecimal": Attack([GOOD.replace(b": 27", b": 0x1b")], (400,)),
    "an empty length": Attack([GOOD.replace(b": 27", b": ")], (400,)),
    "a length beyond numbers": Attack([GOOD.replace(b": 27", b": " + b"9" * 40)], (400, 413)),
    "a length of four thousand digits": Attack(
        [GOOD.replace(b": 27", b": " + b"9" * 4_400)], (400, 413)
    ),
    "a folded header": Attack([GOOD.replace(b"Host: raftq", b"Host: raftq\r\n folded")], (400,)),
    "a folded coding": Attack(
        [GOOD.replace(b"Content-Length: 27", b"X: y\r\n Transfer-Encoding: chunked")], (400,)
    ),
    "bare LF": Attack([GOOD.replace(b"\r\n", b"\n")], (400,)),
    "bare LF after one header": Attack([GOOD.replace(b"raftq\r\n", b"raftq\n")], (400,)),
    "bare CR in a header": Attack([GOOD.replace(b"raftq", b"ra\rftq")], (400,)),
    "NUL in a header": Attack([GOOD.replace(b"raftq", b"ra\x00ftq")], (400,)),
    "a control character in a name": Attack([GOOD.replace(b"Host", b"Ho\x01st")], (400,)),
    "a header without a name": Attack([GOOD.replace(b"Host:", b":")], (400,)),
    "a header without a colon": Attack([GOOD.replace(b"Host: raftq", b"Host raftq")], (400,)),
    "a space before the first header": Attack([GOOD.replace(b"Host:", b" Host:")], (400,)),
    "two hosts": Attack([GOOD.replace(b"Host: raftq", b"Host: raftq\r\nHost: other")], (400,)),
    "no host": Attack([GOOD.replace(b"Host: raftq\r\n", b"")], (400,)),
    "two keys": Attack([get(MINE, "Authorization: Bearer {FORGED_KEY}")], (400, 401)),
    "two content types": Attack([sent("POST", PUT, BODY, "Content-Type: text/plain")], (400,)),
    "two idempotency keys": Attack(
        [sent("POST", PUT, BODY, "Idempotency-Key: a", "Idempotency-Key: b")], (400,)
    ),
    "HTTP/0.9": Attack([b"GET /v1\r\n"], (400, 408)),
    "HTTP/1.0 with chunks": Attack([chunked(b"0\r\n\r\n").replace(b"/1.1", b"/1.0")], (400,)),
    "HTTP/1.2": Attack([GOOD.replace(b"/1.1", b"/1.2")], (400,)),
    "HTTP/2.0": Attack([GOOD.replace(b"/1.1", b"/2.0")], (400,)),
    "HTTP/11": Attack([GOOD.replace(b"/1.1", b"/11")], (400,)),
    "the preface of HTTP/2": Attack([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], (400,)),
    "TLS to a plain port": Attack([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], (400,)),
    "no method": Attack([b" / HTTP/1.1\r\nHost: x\r\n\r\n"], (400,)),
    "a method of lower case": Attack([GOOD.replace(b"POST", b"post")], (400, 405)),
    "an unknown method": Attack([GOOD.replace(b"POST", b"BREW")], (400, 405)),
    "a tab for a space": Attack([GOOD.replace(b"POST ", b"POST\t")], (400,)),
    "CONNECT": Attack([b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n"], (400, 401, 404, 405)),
    "TRACE": Attack([request("TRACE", "/v1")], (401, 404, 405)),
    "rubbish behind a request": Attack([get("/nowhere") + b"\x00\x01\r\n\r\n"], (404, 400)),
}

CHUNKS = {
    "no size": Attack([chunked(b"\r\n")], (400,)),
    "a size that is none": Attack([chunked(b"zz\r\n")], (400,)),
    "a negative size": Attack([chunked(b"-1\r\n")], (400,)),
    "a size with 0x": Attack([chunked(b"0x1\r\nx\r\n0\r\n\r\n")], (400,)),
    "a size beyond numbers": Attack([chunked(b"f" * 17 + b"\r\n")], (400, 413)),
    "a size with a space": Attack([chunked(b"1 \r\nx\r\n0\r\n\r\n")], (400,)),
    "a chunk longer than its size": Attack([chunked(b"1\r\nxyz\r\n0\r\n\r\n")], (400,)),
    "a chunk ended by LF": Attack([chunked(b"1\r\nx\n0\r\n\r\n")], (400,)),
    "a size ended by LF": Attack([chunked(b"1\nx\r\n0\r\n\r\n")], (400,)),
    "an endless extension": Attack([chunked(b"1;"), *[KIB * 8] * 100], (400, 0)),
    "many extensions": Attack([chunked(b"1" + b";a=b" * 20_000 + b"\r\n")], (400, 0)),
    "tiny chunks": Attack([chunked(), *[b"1\r\nx\r\n" * 1_000] * 40], (400, 0)),
    "endless trailers": Attack([chunked(b"0\r\n"), *[b"a: b\r\n" * 1_000] * 40], (400, 0)),
    "more than a request may have": Attack(
        [chunked(), *[b"2000\r\n" + b" " * 8_192 + b"\r\n"] * 20], (413, 0)
    ),
}

HEADS = {
    "a header of a megabyte": Attack([get("/v1")[:-2] + b"X: ", *[KIB] * 1_024], (431, 0)),
    "headers without end": Attack([get("/v1")[:-2], *[b"X: y\r\n" * 500] * 40], (431, 0)),
    "a thousand headers": Attack([get("/v1")[:-2] + b"X: y\r\n" * 1_000 + b"\r\n"], (431,)),
    "a thousand empty headers": Attack([get("/v1")[:-2] + b"a:\r\n" * 1_000 + b"\r\n"], (431,)),
    "a request line of a megabyte": Attack([b"GET /", *[KIB] * 1_024], (414, 0)),
    "a path of 20 KB": Attack([get("/" + "a" * 20_000)], (414,)),
    "a query of 20 KB": Attack([get("/v1?prefix=" + "a" * 20_000)], (414,)),
    "a method without end": Attack([b"P" * 70_000], (400, 431, 0)),
    "lines without end": Attack([b"\r\n" * 10_000], (0,)),
    "half a head": Attack([get("/v1")[:40]], (408,)),
    "half a body": Attack([request("POST", PUT, BODY, JSON)[:-5]], (408,)),
    "a body that never comes": Attack(
        [request("POST", PUT, b"", JSON, "Content-Length: 100", length=False)], (408,)
    ),
    "half a chunk": Attack([chunked(b"5\r\nab")], (408,)),
    "nothing": Attack([], (0,)),
    "a body that is announced too large": Attack(
        [request("POST", PUT, b"", JSON, "Content-Length: 100001", length=False)], (413,)
    ),
    "a body that is announced and expected": Attack(
        [
            request(
                *("POST", PUT, b"", JSON, "Expect: 100-continue", "Content-Length: 999999999"),
                length=False,
            )
        ],
        (413,),
    ),
    "a body for nobody": Attack(
        [request("POST", "/nowhere", b"", "Content-Length: 99999999", length=False), *[KIB] * 500],
        (404, 0),
    ),
}

PATHS = {
    name: Attack([get(path)], statuses)
    for name, path, statuses in [
        ("dots", "/v1/mine/queues/..", (400,)),
        ("dots to another account", "/v1/mine/../theirs/queues/q", (404, 401)),
        ("encoded dots", "/v1/mine/%2e%2e/theirs/queues/q", (404, 401)),
        ("an encoded slash", "/v1/mine%2Fqueues%2Fq", (400, 404)),
        ("an encoded slash in a name", "/v1/mine/queues/a%2fb", (400, 404)),
        ("an encoded slash to another account", "/v1/mine%2f..%2ftheirs/queues", (400, 404)),
        ("a backslash", "/v1/mine/queues/a\\b", (400,)),
        ("an encoded backslash", "/v1/mine/queues/a%5cb", (400,)),
        ("encoded twice", "/v1/mine/queues/%252e%252e", (400,)),
        ("NUL", "/v1/mine/queues/q%00", (400,)),
        ("CR and LF", "/v1/mine/queues/q%0d%0aX:%20y", (400,)),
        ("no UTF-8", "/v1/mine/queues/%ff%fe", (400,)),
        ("overlong UTF-8", "/v1/mine/queues/%c0%ae%c0%ae", (400,)),
        ("a surrogate", "/v1/mine/queues/%ed%a0%80", (400,)),
        ("a letter that looks like ours", "/v1/mine/queues/%d0%b0", (400,)),
        ("digits of another script", "/v1/mine/queues/%d9%a1", (400,)),
        ("a full-width letter", "/v1/mine/queues/%ef%bd%91", (400,)),
        ("a space of no width", "/v1/mine/queues/q%e2%80%8b", (400,)),
        ("a mark that turns text around", "/v1/mine/queues/%e2%80%aeq", (400,)),
        ("half an encoding", "/v1/mine/queues/%", (400,)),
        ("an encoding that is none", "/v1/mine/queues/%zz", (400,)),
        ("a name that is too long", "/v1/mine/queues/" + "q" * 129, (400,)),
        ("a name that begins with a dot", "/v1/mine/queues/.q", (400,)),
        ("two slashes", "/v1//queues", (404,)),
        ("a slash at the end", "/v1/mine/queues/q/", (404,)),
        ("a slash at the beginning", "//v1/mine", (404, 400)),
        ("another case", "/V1/mine", (404,)),
        ("a parameter of the path", "/v1/mine;x=y/queues", (400, 401)),
        ("a file", "/../../../../etc/passwd", (404,)),
        ("an encoded file", "/%2e%2e/%2e%2e/etc/passwd", (404,)),
        ("a URL", "/http://127.0.0.1:22/", (404,)),
        ("another host's", "http://127.0.0.1:22/v1/theirs", (401,)),
        ("an asterisk", "*", (400, 404)),
        ("no slash", "v1/mine", (400, 404)),
        ("a fragment", "/v1/mine#x", (400, 200)),
        ("a user", "http://user@127.0.0.1/nowhere", (404, 400)),
    ]
} | {
    "a format": Attack(
        [get("/%25s%25n{0}{node}", "User-Agent: %s%n{0.__class__}", "traceparent: %s{0}")], (404,)
    ),
    "raw UTF-8": Attack([get("/v1/mine/queues/\u00e9")], (400,)),
    "raw bytes": Attack([get("/v1/mine/queues/X").replace(b"/X", b"/\xff")], (400,)),
    "a raw NUL": Attack([get("/v1/mine/queues/X").replace(b"/X", b"/\x00")], (400,)),
    "a raw space": Attack([get("/v1/mine/queues/a b")], (400,)),
}

QUERIES = {
    name: Attack([get(f"{MINE}/messages?{query}")], (400,))
    for name, query in {
        "a parameter unheard of": "x=1",
        "a parameter twice": "limit=1&limit=2",
        "a hundred parameters": "&".join(f"header.a{n}=1" for n in range(100)),
        "a parameter with brackets": "limit[]=1",
        "no number": "limit=x",
        "a negative number": "limit=-1",
        "nought": "limit=0",
        "above the limit": "limit=51",
        "a huge number": "limit=" + "9" * 5_000,
        "a number with an underscore": "limit=1_0",
        "digits of another script": "limit=%D9%A1",
        "a full-width digit": "limit=%EF%BC%91",
        "NaN": "min_age=nan",
        "infinity": "min_age=inf",
        "a float beyond floats": "min_age=1e400",
        "null": "limit=null",
        "no UTF-8": "group=%FF",
        "no boolean": "include_claimed=maybe",
        "a marker that was never given": "marker=..%2F..%2Fetc",
        "a semicolon": "limit=1;limit=2",
    }.items()
}

DEEP = 100_000
BODIES = {
    name: Attack([sent("POST", PUT, body)], statuses)
    for name, body, statuses in [
        ("no JSON", b"{", (400,)),
        ("nothing", b"", (400,)),
        ("no object", b"[]", (400,)),
        ("null", b"null", (400,)),
        ("two values", b'{"messages": []} {}', (400,)),
        ("no UTF-8", b'{"messages": [{"body": "\xff"}]}', (400,)),
        ("overlong UTF-8", b'{"messages": [{"body": "\xc0\xaf"}]}', (400,)),
        ("UTF-8 that is cut off", b'{"messages": [{"body": "\xe2\x82"}]}', (400,)),
        ("UTF-16", BODY.decode().encode("utf-16"), (400,)),
        ("a byte order mark", b"\xef\xbb\xbf" + BODY, (400,)),
        ("half a surrogate", b'{"messages": [{"body": 1, "group": "\\ud800"}]}', (400,)),
        ("an array too deep", b"[" * 90_000, (400,)),
        ("objects too deep", b'{"a":' * 18_000, (400,)),
        (
            "a body too deep",
            b'{"messages": [{"body": ' + b"[" * 9_000 + b"]" * 9_000 + b"}]}",
            (400,),
        ),
        ("a closed array too deep", b"[" * 45_000 + b"]" * 45_000, (400,)),
        ("a field unheard of", {"messages": [{"body": 1, "colour": "red"}]}, (400,)),
        ("a field twice", b'{"messages": [], "messages": [{"body": 1}], "x": 1}', (400,)),
        ("no messages", {"messages": []}, (400,)),
        ("too many messages", {"messages": [{"body": 1}] * 21}, (400,)),
        ("a message too large", {"messages": [{"body": "x" * 20_001}]}, (413,)),
        ("too large in all", {"messages": [{"body": "x" * 19_000}] * 6}, (413, 0)),
        ("NaN", b'{"messages": [{"body": NaN}]}', (400,)),
        ("infinity", b'{"messages": [{"body": 1, "ttl": Infinity}]}', (400,)),
        ("a time beyond floats", b'{"messages": [{"body": 1, "ttl": 1e400}]}', (400,)),
        (
            "a time of a thousand digits",
            b'{"messages": [{"body": 1, "ttl": %s}]}' % (b"9" * 1_000),
            (400,),
        ),
        ("a negative time", {"messages": [{"body": 1, "delay": -1}]}, (400,)),
        (
            "a priority beyond numbers",
            b'{"messages": [{"body": 1, "priority": %s}]}' % (b"9" * 5_000),
            (400,),
        ),
        ("a priority of 2^63", {"messages": [{"body": 1, "priority": 2**63}]}, (400,)),
        ("a boolean for a number", {"messages": [{"body": 1, "priority": True}]}, (400,)),
        (
            "too many headers",
            {"messages": [{"body": 1, "headers": {f"h{n}": "v" for n in range(5)}}]},
            (431,),
        ),
        ("headers too large", {"messages": [{"body": 1, "headers": {"h": "v" * 600}}]}, (431,)),
        (
            "a header with a line's end",
            {"messages": [{"body": 1, "headers": {"h": "a\r\nb"}}]},
            (400,),
        ),
        ("a header with NUL", {"messages": [{"body": 1, "headers": {"h": "a\x00"}}]}, (400,)),
        (
            "a header's name with a line's end",
            {"messages": [{"body": 1, "headers": {"a\nb": "v"}}]},
            (400,),
        ),
        ("a zone that is a path", {"messages": [{"body": 1, "zone": "../a"}]}, (400,)),
        ("a group that is too long", {"messages": [{"body": 1, "group": "g" * 129}]}, (400,)),
        ("an empty group", {"messages": [{"body": 1, "group": ""}]}, (400,)),
        (
            "a date beyond dates",
            {"messages": [{"body": 1, "not_before": "99999-01-01T00:00:00Z"}]},
            (400,),
        ),
        (
            "a date without a zone",
            {"messages": [{"body": 1, "not_before": "2026-01-01T00:00:00"}]},
            (400,),
        ),
    ]
} | {
    "a compressed bomb for us to read": Attack(
        [sent("POST", PUT, gzip.compress(bytes(5_000_000)), "Content-Encoding: gzip")], (415,)
    ),
    "JSON that is said to be XML": Attack(
        [request("POST", f"{MINE}/claims", b"<a/>", "Content-Type: application/xml")], (415,)
    ),
    "JSON of another charset": Attack(
        [request("POST", f"{MINE}/claims", b"{}", "Content-Type: application/json; charset=utf-7")],
        (415,),
    ),
    "an idempotency key that is too long": Attack(
        [sent("POST", PUT, BODY, "Idempotency-Key: " + "k" * 256)], (400,)
    ),
    "an idempotency key with a tab": Attack(
        [sent("POST", PUT, BODY, "Idempotency-Key: a\tb")], (400,)
    ),
    "an empty idempotency key": Attack([sent("POST", PUT, BODY, "Idempotency-Key:")], (400,)),
    "a zone that is none": Attack([get("/livez", "Raftq-Zone: {zone}\u00e9")], (400,)),
    "an index beyond numbers": Attack([get(MINE, "Raftq-Min-Index: " + "9" * 30)], (400,)),
    "an index in another script": Attack([get(MINE, "Raftq-Min-Index: \u0661")], (400,)),
    "a consistency unheard of": Attack([get(MINE, "Raftq-Consistency: none")], (400,)),
    "an event id that is none": Attack([get(f"{MINE}/events", "Last-Event-ID: ../..")], (400,)),
    "a claim of too many": Attack([sent("POST", f"{MINE}/claims", {"limit": 21})], (400,)),
    "a claim of none": Attack([sent("POST", f"{MINE}/claims", {"limit": 0})], (400,)),
    "a wait that is too long": Attack([sent("POST", f"{MINE}/claims", {"wait": 2})], (400,)),
    "a lease for ever": Attack([sent("POST", f"{MINE}/claims", {"lease": 1e18})], (400,)),
    "metadata that is too large": Attack(
        [sent("PUT", MINE, {"metadata": {"x": "y" * 17_000}})], (400, 413)
    ),
    "metadata that is too deep": Attack(
        [sent("PUT", MINE, b'{"metadata": {"x": ' + b"[" * 8_000 + b"]" * 8_000 + b"}}")], (400,)
    ),
    "a cron expression without end": Attack(
        [
            sent(
                *("PUT", "/v1/mine/schedules/s"),
                {"queue": "q", "message": {"body": 1}, "cron": "*/1," * 5_000 + "* * * * *"},
            )
        ],
        (400,),
    ),
    "a cron expression that never ticks": Attack(
        [
            sent(
                *("PUT", "/v1/mine/schedules/s"),
                {"queue": "q", "message": {"body": 1}, "cron": "0 0 30 2 *"},
            )
        ],
        (400,),
    ),
    "a time zone that is a file": Attack(
        [
            sent(
                *("PUT", "/v1/mine/schedules/s"),
                {
                    "queue": "q",
                    "message": {"body": 1},
                    "cron": "* * * * *",
                    "timezone": "../../../../etc/passwd",
                },
            )
        ],
        (400,),
    ),
}


def streamed(
    *pieces: bytes, target: str = PUT, headers: tuple[str, ...] = (), cut: bool = False
) -> list[bytes]:
    """A stream of lines in chunks; ``cut``: its end never comes."""
    head = request("POST", target, b"", NDJSON, CHUNKED, *headers, length=False)
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    return [head, *chunks, *([] if cut else [b"0\r\n\r\n"])]


CONSUME = f"{MINE}/consume"
STREAMS = {
    "a line without end": Attack(streamed(*[KIB * 8] * 100, cut=True), (413, 0)),
    "a line that is cut off": Attack(streamed(b'{"body"', cut=True), (408,)),
    "nothing": Attack(streamed(cut=True), (408,)),
    "nothing but ends of lines": Attack(streamed(*[b"\n" * 8_192] * 50, cut=True), (408, 0)),
    "a byte in each chunk": Attack(
        [streamed(cut=True)[0], *[b"1\r\n \r\n" * 1_000] * 40], (400, 0)
    ),
    "no UTF-8": Attack(streamed(b'{"body": "\xff"}\n'), (400,)),
    "UTF-8 that is cut off": Attack(streamed(b'{"body": "\xe2\x82"}\n'), (400,)),
    "a byte order mark": Attack(streamed(b'\xef\xbb\xbf{"body": 1}\n'), (400,)),
    "NUL": Attack(streamed(b"\x00\n"), (400,)),
    "no JSON": Attack(streamed(b"{\n"), (400,)),
    "two values in a line": Attack(streamed(b'{"body": 1}{"body": 2}\n'), (400,)),
    "a batch in a line": Attack(streamed(b'{"messages": [{"body": 1}]}\n'), (400,)),
    "an array too deep": Attack(streamed(b"[" * 90_000 + b"\n"), (400, 0)),
    "a message too large": Attack(streamed(b'{"body": "%s"}\n' % (KIB * 20)), (413, 0)),
    "a length beyond numbers": Attack(
        [
            request("POST", PUT, b"{\n", NDJSON, "Content-Length: " + "9" * 18, length=False),
        ],
        (400,),
    ),
    "a parameter of messages": Attack(streamed(b'{"body": 1}\n', target=f"{PUT}?ttl=1"), (400,)),
    "a key to repeat it": Attack(streamed(headers=("Idempotency-Key: k",)), (400,)),
    "compressed": Attack(streamed(headers=("Content-Encoding: gzip",)), (415,)),
    "somebody else's queue": Attack(
        streamed(b'{"body": 1}\n', target=f"{THEIRS}/messages"), (401, 0)
    ),
    "consuming somebody else's queue": Attack(
        streamed(b'{"credit": 1}\n', target=f"{THEIRS}/consume"), (401, 0)
    ),
    "somebody else's claim": Attack(
        streamed(b'{"ack": "%s"}\n' % THEIR_CLAIM.encode(), target=CONSUME), (200,)
    ),
    "consuming without lines": Attack([sent("POST", CONSUME, {"credit": 1})], (415,)),
    "consuming in batches of nothing": Attack(streamed(target=f"{CONSUME}?batch=0"), (400,)),
    "consuming by a line without end": Attack(
        streamed(*[KIB * 8] * 100, target=CONSUME, cut=True), (200, 0)
    ),
    "consuming by a line that is cut off": Attack(
        streamed(b'{"credit": 1', target=CONSUME, cut=True), (200,)
    ),
}

POSTED = {
    name: Attack([sent("PUT", f"{MINE}/subscriptions/s", {"url": url})], (400,))
    for name, url in {
        "this host": "https://127.0.0.1:9001/",
        "this host in v6": "https://[::1]/",
        "this host, v4 in v6": "https://[::ffff:127.0.0.1]/",
        "any address": "https://0.0.0.0/",
        "a private network": "https://10.0.0.1/",
        "another private network": "https://192.168.1.1/",
        "a cloud's metadata": "https://169.254.169.254/latest/meta-data/",
        "a cloud's metadata in v6": "https://[fd00:ec2::254]/",
        "an unencrypted URL": "http://example.com/",
        "a file": "file:///etc/passwd",
        "gopher": "gopher://127.0.0.1:6379/_FLUSHALL",
        "a port below": "https://example.com:22/",
        "a password": "https://user:password@example.com/",
        "a line's end": "https://example.com/\r\nX: y",
        "no host": "https:///path",
    }.items()
}

FOREIGN = {
    name: Attack([part], statuses)
    for name, part, statuses in [
        ("the account", get("/v1/theirs"), (401,)),
        ("the queues", get("/v1/theirs/queues"), (401,)),
        ("the queue", get(THEIRS), (401,)),
        ("a queue that is not there", get("/v1/theirs/queues/none"), (401,)),
        ("an account that is not there", get("/v1/nobody/queues/q"), (401,)),
        ("all accounts", get("/v1"), (401, 403)),
        ("messages", get(f"{THEIRS}/messages"), (401,)),
        ("a message", get(f"{THEIRS}/messages/" + THEIR_ID), (401,)),
        ("events", get("/v1/theirs/events"), (401,)),
        ("keys", get("/v1/theirs/keys"), (401,)),
        ("the operator's keys", get("/cluster/keys"), (401, 403)),
        ("a key for another", sent("POST", "/v1/theirs/keys", {"roles": ["consume"]}), (401,)),
        (
            "a key with more than one's own",
            sent("POST", "/v1/mine/keys", {"roles": ["admin"]}),
            (400, 403),
        ),
        ("putting", sent("POST", f"{THEIRS}/messages", BODY), (401,)),
        ("claiming", sent("POST", f"{THEIRS}/claims", {}), (401,)),
        ("acking", sent("POST", f"{THEIRS}/claims/" + f"{THEIR_CLAIM}/ack", {}), (401,)),
        ("deleting", request("DELETE", THEIRS), (401,)),
        (
            "their claim in one's own queue",
            sent("POST", f"{MINE}/claims/" + f"{THEIR_CLAIM}/ack", {}),
            (404, 409),
        ),
        (
            "their claim, extended",
            sent("PATCH", f"{MINE}/claims/" + THEIR_CLAIM, {"lease": 9}),
            (404, 409),
        ),
        (
            "their claim, released",
            request("DELETE", f"{MINE}/claims/" + THEIR_CLAIM),
            (404, 409),
        ),
        ("their message in one's own queue", get(f"{MINE}/messages/" + THEIR_ID), (404,)),
        ("their message, deleted", request("DELETE", f"{MINE}/messages/" + THEIR_ID), (404,)),
        (
            "their message under one's own claim",
            sent("POST", f"{MINE}/claims/" + f"{MY_CLAIM}/ack", {"ids": [THEIR_ID]}),
            (409,),
        ),
        ("a claim never given", sent("POST", f"{MINE}/claims/ffffffffffffffff/ack", {}), (404,)),
        ("a claim that is none", sent("POST", f"{MINE}/claims/..%2f/ack", {}), (400, 404)),
        ("a message that is none", get(f"{MINE}/messages/xyz"), (404, 400)),
        (
            "their claim in a transaction",
            sent(
                "POST",
                "/v1/mine/transactions",
                {"acks": [{"queue": "q", "claim": THEIR_CLAIM}]},
            ),
            (404, 409),
        ),
        ("no key", get(MINE, key=""), (401,)),
        ("a key that was forged", get(MINE, key="Authorization: Bearer {FORGED_KEY}"), (401,)),
        ("a key that is cut off", get(MINE, key="Authorization: Bearer {CUT_KEY}"), (401,)),
        ("a key and more", get(MINE, key=AUTH + "x"), (401,)),
        ("another scheme", get(MINE, key="Authorization: Basic {MINE_KEY}"), (401,)),
        (
            "a token that signs nothing",
            get(MINE, key="Authorization: Bearer eyJhbGciOiJub25lIn0.e30."),
            (401,),
        ),
        ("a key of 30 KB", get(MINE, key="Authorization: Bearer " + "k" * 30_000), (401, 431)),
        ("a key with NUL", get(MINE, key="Authorization: Bearer \x00"), (400, 401)),
    ]
}

MESSAGES = f"{MINE}/messages"
SIGNED = {
    name: Attack([request(method, f"{path}?{query}", BODY, JSON, key="")], (401,))
    for name, method, path, query in [
        ("another method", "DELETE", MESSAGES, "{SIGNED}"),
        ("another path", "GET", f"{MINE}/stats", "{SIGNED}"),
        ("another queue", "GET", "/v1/mine/queues/other/messages", "{SIGNED}"),
        ("another account", "GET", f"{THEIRS}/messages", "{SIGNED}"),
        ("all queues", "GET", "/v1/mine/queues", "{SIGNED}"),
        ("the keys", "GET", "/v1/mine/keys", "{SIGNED}"),
        ("a signature cut off by one", "GET", MESSAGES, "{CUT}"),
        ("a signature cut in half", "GET", MESSAGES, "{HALVED}"),
        ("no signature", "GET", MESSAGES, "{UNSIGNED}"),
        ("another signature", "GET", MESSAGES, "{CHANGED}"),
        ("a later end", "GET", MESSAGES, "{PROLONGED}"),
        ("more methods", "DELETE", MESSAGES, "{WIDENED}"),
        ("more paths", "GET", f"{MINE}/stats", "{ELSEWHERE}"),
        ("somebody else's key", "GET", MESSAGES, "{ANOTHERS_KEY}"),
        ("somebody else's signature", "GET", MESSAGES, "{ANOTHERS_SIGNATURE}"),
        ("somebody else's query", "GET", MESSAGES, "{THEIR_SIGNED}"),
        ("what has run out", "GET", MESSAGES, "{EXPIRED}"),
    ]
} | {"a signature twice": Attack([get(f"{MESSAGES}?" + "{TWICE}", key="")], (400, 401))}

ATTACKS: dict[str, Attack] = {
    f"{kind}: {name}": attack
    for kind, attacks in {
        "smuggling": SMUGGLING,
        "chunks": CHUNKS,
        "streams": STREAMS,
        "heads": HEADS,
        "paths": PATHS,
        "queries": QUERIES,
        "bodies": BODIES,
        "posted": POSTED,
        "foreign": FOREIGN,
        "signed": SIGNED,
    }.items()
    for name, attack in attacks.items()
}
