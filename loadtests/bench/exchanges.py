"""What the connections say: put, or put, claim and ack, by ones or in batches, to many queues."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable

from loadtests.bench.client import BadAnswer, Exchange

ACCOUNT = "bench"
QUIET, NOISY, LIMITED = "quiet", "noisy", "limited"
"""Neighbours: the last one has limits."""
LEASE_S = 600

_CLAIM = re.compile(rb'"claim":\s*"([0-9a-f]+)"')
_ACKED = re.compile(rb'"acked":\s*(\d+)')


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
    message: dict[str, object] = {
        "body": {"padding": "x" * max(0, body_bytes - len('{"padding":""}'))}
    }
    if not persistent:
        message["persistent"] = False
    sent = message if batch == 1 else {"messages": [message] * batch}
    body = json.dumps(sent, separators=(",", ":")).encode()
    return request("POST", f"{queue_path(queue, account)}/messages", body, key=key)


def claim_request(queue: str, limit: int, wait_s: float = 0, *, key: str = "") -> bytes:
    """Up to ``limit`` messages, under a lease that no run outlives."""
    body = json.dumps({"limit": limit, "lease": LEASE_S, "wait": wait_s}).encode()
    return request("POST", f"{queue_path(queue)}/claims", body, key=key)


def ack_request(queue: str, claimed: bytes, *, key: str = "") -> bytes:
    """Everything that the claim in this answer holds."""
    found = _CLAIM.search(claimed)
    if found is None:
        raise BadAnswer
    claim = found.group(1).decode()
    return request("POST", f"{queue_path(queue)}/claims/{claim}/ack", key=key)


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
        acked = _ACKED.search(body)
        if acked is None or int(acked.group(1)) != self._batch:
            raise BadAnswer
        self.finished = self._batch
        return self._put


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
