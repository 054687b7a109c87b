"""What the connections say: put, or put, claim and ack, by ones, in batches or in lines."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable

from loadtests.bench.client import BadAnswer, Dialect, Exchange, connect

ACCOUNT = "bench"
QUIET, NOISY, LIMITED = "quiet", "noisy", "limited"
"""Neighbours: the last one has limits."""
LEASE_S = 600
OK, CREATED, FAILED = 200, 201, 500

NO_CLAIM = "0" * 16
"""Where the name of a claim is to be."""
STARTED = b"HTTP/1.1 200 "

_CLAIM = re.compile(rb'"claim":\s*"([0-9a-f]+)"')
_ACKED = re.compile(rb'"acked":\s*(\d+)')
_ACKED_EACH = re.compile(rb'"acked":\s*\[\s*(\d+)\s*\]')
"""A transaction tells of each of its acks."""
_PUT = re.compile(rb'"put":\s*(\d+)')


def request(method: str, path: str, body: bytes = b"", *, key: str = "") -> bytes:
    """The bytes of a request; ``key``: who asks."""
    lines = [f"{method} {path} HTTP/1.1", "Host: raftq", f"Content-Length: {len(body)}"]
    if body:
        lines.append("Content-Type: application/json")
    if key:
        lines.append(f"Authorization: Bearer {key}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def queue_path(queue: str, account: str = ACCOUNT) -> str:
    """Where a queue lives."""
    return f"/v1/{account}/queues/{queue}"


def _message(body_bytes: int) -> dict[str, object]:
    return {"body": {"padding": "x" * max(0, body_bytes - len('{"padding":""}'))}}


def _text(value: object) -> bytes:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":")).encode()


def put_request(
    queue: str,
    batch: int,
    body_bytes: int,
    *,
    persistent: bool = True,
    key: str = "",
    account: str = ACCOUNT,
) -> bytes:
    """``batch`` messages of JSON; one goes as a bare message."""
    message = _message(body_bytes)
    if not persistent:
        message["persistent"] = False
    sent = message if batch == 1 else {"messages": [message] * batch}
    return request("POST", f"{queue_path(queue, account)}/messages", _text(sent), key=key)


def claim_request(queue: str, limit: int, wait_s: float = 0, *, key: str = "") -> bytes:
    """Up to ``limit`` messages, under a lease that no run outlives."""
    body = json.dumps({"limit": limit, "lease": LEASE_S, "wait": wait_s}).encode()
    return request("POST", f"{queue_path(queue)}/claims", body, key=key)


def ack_request(queue: str, claimed: bytes, *, then: int = 0, key: str = "") -> bytes:
    """Everything that the claim in this answer holds; and claim up to so many others."""
    found = _CLAIM.search(claimed)
    if found is None:
        raise BadAnswer
    claim = found.group(1).decode()
    body = json.dumps({"next": {"limit": then, "lease": LEASE_S}}).encode() if then else b""
    return request("POST", f"{queue_path(queue)}/claims/{claim}/ack", body, key=key)


def stream_head(queue: str, target: str, *, key: str = "") -> bytes:
    """What a request for a stream begins with; its body comes in chunks."""
    lines = [
        f"POST {queue_path(queue)}/{target} HTTP/1.1",
        "Host: raftq",
        "Content-Type: application/x-ndjson",
        "Transfer-Encoding: chunked",
        *([f"Authorization: Bearer {key}"] if key else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def chunk(lines: bytes) -> bytes:
    """A piece of such a body."""
    return b"%x\r\n%b\r\n" % (len(lines), lines)


def _acked(answer: bytes, expected: int, told: re.Pattern[bytes] = _ACKED) -> int:
    found = told.search(answer)
    if found is None or int(found.group(1)) != expected:
        raise BadAnswer
    return expected


class Puts:
    """Puts, for ever or ``operations`` times."""

    def __init__(
        self,
        queue: str,
        batch: int,
        body_bytes: int,
        operations: float = float("inf"),
        *,
        persistent: bool = True,
        key: str = "",
        account: str = ACCOUNT,
    ) -> None:
        self.finished = self._batch = batch
        self._put = put_request(
            queue, batch, body_bytes, persistent=persistent, key=key, account=account
        )
        self._status = 201 if persistent else 202
        self._left = operations

    def first(self) -> bytes:
        """See ``Exchange``."""
        return self._put

    def next(self, status: int, body: bytes) -> bytes | None:
        """See ``Exchange``."""
        if status != self._status:
            raise BadAnswer
        self._left -= 1
        return self._put if self._left > 0 else None


class Lifecycles:
    """Put, claim as many, ack them.

    All connections share a queue. As each claims only after it has put, there is always
    enough for everybody.
    """

    def __init__(self, queue: str, batch: int, body_bytes: int, *, key: str = "") -> None:
        self.finished = 0
        self._queue, self._key = queue, key
        self._batch = batch
        self._put = put_request(queue, batch, body_bytes, key=key)
        self._claim = claim_request(queue, batch, key=key)
        self._ack = b""
        self._stage = 0

    def first(self) -> bytes:
        """See ``Exchange``."""
        self._stage = 0
        self.finished = 0
        return self._put

    def next(self, status: int, body: bytes) -> bytes | None:
        """See ``Exchange``."""
        stage, self._stage = self._stage, (self._stage + 1) % 3
        self.finished = 0
        if status != (201, 201, 200)[stage]:
            raise BadAnswer
        if stage == 0:
            return self._claim
        if stage == 1:
            return ack_request(self._queue, body, key=self._key)
        self.finished = _acked(body, self._batch)
        return self._put


class Rounds:
    """Put, and ack what was claimed before by the request that claims what is next.

    It begins with a put and a claim. There is enough for everybody, as in ``Lifecycles``.
    """

    def __init__(self, queue: str, batch: int, body_bytes: int, *, key: str = "") -> None:
        self.finished = 0
        self._queue, self._key = queue, key
        self._batch = batch
        self._put = put_request(queue, batch, body_bytes, key=key)
        self._held = b""  # The answer that has what is to be acked.
        self._has_put = False

    def first(self) -> bytes:
        """See ``Exchange``."""
        self._held, self._has_put, self.finished = b"", False, 0
        return self._put

    def next(self, status: int, body: bytes) -> bytes | None:
        """See ``Exchange``."""
        self.finished = 0
        self._has_put = not self._has_put
        if self._has_put:
            if status != CREATED:
                raise BadAnswer
            if not self._held:
                return claim_request(self._queue, self._batch, key=self._key)
            return ack_request(self._queue, self._held, then=self._batch, key=self._key)
        if status != (OK if self._held else CREATED):
            raise BadAnswer
        if self._held:
            self.finished = _acked(body, self._batch)
        self._held = body
        return self._put


class Transactions:
    """Ack what was claimed before, put, and claim what is next: all by one request.

    It begins with a put and a claim. There is enough for everybody, as in ``Lifecycles``.
    """

    def __init__(self, queue: str, batch: int, body_bytes: int, *, key: str = "") -> None:
        self.finished = 0
        self._batch, self._has_claimed = batch, False
        puts = [{"queue": queue, "messages": [_message(body_bytes)] * batch}]
        whole = {
            "puts": puts,
            "next": {"queue": queue, "limit": batch, "lease": LEASE_S},
            "acks": [{"queue": queue, "claim": NO_CLAIM}],
        }
        path = f"/v1/{ACCOUNT}/transactions"
        self._first = request("POST", path, _text(whole | {"acks": []}), key=key)
        # Names of claims are of one length: that of the whole is known.
        parts = request("POST", path, _text(whole), key=key).partition(NO_CLAIM.encode())
        self._before, _, self._behind = parts

    def first(self) -> bytes:
        """See ``Exchange``."""
        self._has_claimed, self.finished = False, 0
        return self._first

    def next(self, status: int, body: bytes) -> bytes | None:
        """See ``Exchange``."""
        claimed = _CLAIM.search(body)
        if status != OK or claimed is None:
            raise BadAnswer
        self.finished = _acked(body, self._batch, _ACKED_EACH) if self._has_claimed else 0
        self._has_claimed = True
        return self._before + claimed[1] + self._behind


class Streams:
    """Lines, as many as a batch has at first, and one for each that is confirmed."""

    def __init__(self, queue: str, batch: int, body_bytes: int, *, key: str = "") -> None:
        self.finished = self._put = 0
        self._batch = batch
        self._line = _text(_message(body_bytes)) + b"\n"
        self._head = stream_head(queue, "messages", key=key)

    def first(self) -> bytes:
        """See ``Exchange``."""
        self.finished = self._put = 0
        return self._head + self._chunk(self._batch)

    def next(self, status: int, body: bytes) -> bytes | None:
        """See ``Exchange``: ``body`` is what was put so far, as the newest line says."""
        if status != OK:
            raise BadAnswer
        put = int(body)
        self.finished, self._put = put - self._put, put
        return self._chunk(self.finished) if self.finished else b""

    def _chunk(self, count: int) -> bytes:
        return chunk(self._line * count)


class LineFraming:
    """The newest confirmation of a stream, or the answer that it has instead."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> tuple[int, bytes] | None:
        """See ``Framing``."""
        data = self._buffer + data
        if not data.endswith(b"\n"):
            self._buffer = data
            return None
        self._buffer = b""
        found = _PUT.findall(data)
        if b'"problem"' in data or (data.startswith(b"HTTP") and not data.startswith(STARTED)):
            return FAILED, data
        return (OK, found[-1]) if found else None


LINES = Dialect(connect, LineFraming)


class Drains:
    """Claims and acks until the queue is empty."""

    def __init__(self, queue: str, batch: int) -> None:
        self.finished = 0
        self._queue = queue
        self._claim = claim_request(queue, batch)
        self._claiming = True

    def first(self) -> bytes:
        """See ``Exchange``."""
        self._claiming = True
        self.finished = 0
        return self._claim

    def next(self, status: int, body: bytes) -> bytes | None:
        """See ``Exchange``."""
        self.finished = 0
        if not self._claiming:
            acked = _ACKED.search(body)
            if status != 200 or acked is None:
                raise BadAnswer
            self._claiming = True
            self.finished = int(acked.group(1))
            return self._claim
        if status == 204:
            return None
        if status != 201:
            raise BadAnswer
        self._claiming = False
        return ack_request(self._queue, body)


class InTurn:
    """An operation of each of some exchanges, and again, without those that have no more to say."""

    def __init__(self, exchanges: Iterable[Exchange]) -> None:
        self.finished = 0
        self._exchanges = deque(exchanges)

    def first(self) -> bytes:
        """See ``Exchange``."""
        self.finished = 0
        return self._exchanges[0].first()

    def next(self, status: int, body: bytes) -> bytes | None:
        """See ``Exchange``."""
        current = self._exchanges[0]
        request = current.next(status, body)
        self.finished = current.finished
        if request is None:
            self._exchanges.popleft()
        elif self.finished:
            self._exchanges.rotate(-1)
        else:
            return request
        return self._exchanges[0].first() if self._exchanges else None
