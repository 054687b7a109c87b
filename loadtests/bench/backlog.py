"""Claims must not become slower with what lies in the queue, or with what was ever deleted."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator

from loadtests.bench import exchanges
from loadtests.bench.client import Load, Measured
from loadtests.bench.exchanges import Drains, Puts
from loadtests.bench.machine import percentiles
from loadtests.bench.plan import Plan
from loadtests.bench.service import Service, run_out

FILL_CONNECTIONS = 8
FILL_BATCH = 1_000
QUEUE = "deep"
BODY_BYTES = 32
TIMEOUT_S = 30


def records(service: Service, plan: Plan) -> Iterator[dict[str, object]]:
    """Claim latency on an empty queue, on a long one, and on one that was long."""
    port = service.follower_port
    yield _claims("empty", 0, port, plan.claims)
    filled = _fill(port, plan.backlog)
    yield {"kind": "backlog_fill", **_rate(filled)}
    yield _claims("backlog", plan.backlog, port, plan.claims)
    drained = run_out(lambda: Load([port], FILL_CONNECTIONS, lambda: Drains(QUEUE, FILL_BATCH)))
    yield {"kind": "backlog_drain", **_rate(drained)}
    yield _claims("after_deletes", plan.backlog, port, plan.claims)


def _fill(port: int, messages: int) -> Measured:
    operations = math.ceil(messages / FILL_BATCH / FILL_CONNECTIONS)
    return run_out(
        lambda: Load(
            [port], FILL_CONNECTIONS, lambda: Puts(QUEUE, FILL_BATCH, BODY_BYTES, operations)
        )
    )


def _rate(measured: Measured) -> dict[str, object]:
    return {
        "messages": measured.messages,
        "seconds": round(measured.seconds, 2),
        "messages_per_s": round(measured.messages / measured.seconds),
        "errors": len(measured.errors),
    }


def _claims(state: str, messages: int, port: int, count: int) -> dict[str, object]:
    """Put one, claim one, ack it, on one connection; only the claim is timed."""
    put = exchanges.put_request(QUEUE, 1, BODY_BYTES)
    claim = exchanges.claim_request(QUEUE, 1)
    latencies_s = []
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            _ask(connection, put, 201)
            started_s = time.perf_counter()
            claimed = _ask(connection, claim, 201)
            latencies_s.append(time.perf_counter() - started_s)
            _ask(connection, exchanges.ack_request(QUEUE, claimed), 200)
    return {
        "kind": "claim_latency",
        "state": state,
        "messages": messages,
        "claims": count,
        **percentiles(latencies_s),
    }


def _ask(connection: socket.socket, request: bytes, status: int) -> bytes:
    connection.sendall(request)
    data = b""
    while True:
        received = connection.recv(1 << 20)
        assert received, "the node hung up"
        data += received
        head, separator, body = data.partition(b"\r\n\r\n")
        if separator and len(body) >= int(head.lower().partition(b"content-length:")[2].split()[0]):
            assert int(data[9:12]) == status, data[:500]
            return body
