"""A backlog: claims must not become slower with it, or with what was ever deleted.

And all nodes must come back with it, whether they were stopped or killed.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterator

import plots
from loadtests.bench import exchanges, machine
from loadtests.bench.client import Load, Measured, saying
from loadtests.bench.exchanges import Drains, Puts
from loadtests.bench.plan import Plan
from loadtests.bench.records import Record, of_kind
from loadtests.bench.report import Plot, Section, Table
from loadtests.bench.service import Service, run_out
from plots import Series

FILL_CONNECTIONS = 8
FILL_BATCH = 1_000
QUEUE = "deep"
BODY_BYTES = 32
TIMEOUT_S = 30
RESTART_S = 1_800.0
STEPS = (100, 10, 1)
"""The claims are timed with such parts of the whole in the queue."""
SETTLED_PERCENT = 5.0
SETTLED_WITHIN_S = 120.0


def records(service: Service, plan: Plan) -> Iterator[Record]:
    """Claim latency as the queue grows, restarts with it, and claims when all of it is gone."""
    yield _claims("empty", 0, service, plan.claims)
    filled = 0
    for part in STEPS:
        measured = _fill(service, plan.backlog // part - filled)
        filled += measured.messages
        yield {"kind": "backlog_fill", **_rate(measured)}
        yield _claims("backlog", filled, service, plan.claims)
    _settle(service)
    yield _claims("settled", filled, service, plan.claims)
    for how, end in (("stopped", service.cluster.stop), ("killed", service.cluster.kill)):
        yield {"kind": "restart", "how": how, "messages": filled, **_restarted(service, end)}
    port = service.follower_port
    drained = run_out(
        lambda: Load([port], FILL_CONNECTIONS, saying(lambda: Drains(QUEUE, FILL_BATCH)))
    )
    yield {"kind": "backlog_drain", **_rate(drained)}
    yield _claims("after_deletes", filled, service, plan.claims)


def section(records: list[Record]) -> Section:
    """See ``records``."""
    claims = of_kind(records, "claim_latency")
    rates = [*of_kind(records, "backlog_fill"), *of_kind(records, "backlog_drain")]
    figures = ("p50_ms", "p99_ms")
    return Section(
        "Backlog",
        "Claims on one connection from a queue that is empty, long (right after it was filled and, "
        "as settled, when the nodes have come to rest), and empty again; how fast it "
        f"is filled and emptied, in batches of {FILL_BATCH:,}; and how long all nodes take from "
        "their start until they can serve with it.",
        [
            Table(
                ("queue", "messages", "p50 ms", "p99 ms"),
                [
                    (
                        one["state"],
                        f"{one['messages']:,}",
                        *(f"{one[name]:.2f}" for name in figures),
                    )
                    for one in claims
                ],
            ),
            Table(
                ("", "messages", "messages/s"),
                [
                    (
                        one["kind"].removeprefix("backlog_"),
                        f"{one['messages']:,}",
                        f"{one['messages_per_s']:,}",
                    )
                    for one in rates
                ],
            ),
            Table(
                ("restart of nodes that were", "messages", "seconds", "RSS MiB"),
                [
                    (
                        one["how"],
                        f"{one['messages']:,}",
                        f"{one['seconds']:.1f}",
                        f"{max(one['rss_mib'].values()):.0f}",
                    )
                    for one in of_kind(records, "restart")
                ],
            ),
        ],
        [Plot("time to claim one message, over messages in the queue", _over_messages(claims))],
    )


def _over_messages(claims: list[Record]) -> str:
    growing = [one for one in claims if one["state"] in ("empty", "backlog")]
    # 0 is nowhere on such an axis; 1 is as good.
    sizes = [max(one["messages"], 1) for one in growing]
    values = [one[name] for one in growing for name in ("p50_ms", "p99_ms")]
    lines = [
        Series(colour, name, list(zip(sizes, [one[f"{name}_ms"] for one in growing], strict=True)))
        for name, colour in (("p50", "green"), ("p99", "orange"))
    ]
    x = plots.stops(sizes, [f"{one['messages']:,}" for one in growing])
    return plots.plot(x, plots.linear(max(values), " ms"), lines)


def _settle(service: Service) -> None:
    """Wait until the stores have done what the filling has left them to do, within reason."""
    end_s = time.monotonic() + SETTLED_WITHIN_S
    while max(machine.cpu_percents(service.pids, 1.0)) > SETTLED_PERCENT:
        if time.monotonic() > end_s:
            break


def _restarted(service: Service, end: Callable[[], None]) -> Record:
    """From the start of all processes until all of them can serve."""
    end()
    began_s = time.perf_counter()
    service.cluster.start().wait_ready(deadline_s=RESTART_S)
    seconds = time.perf_counter() - began_s
    return {"seconds": round(seconds, 2), "rss_mib": service.rss_mib()}


def _fill(service: Service, messages: int) -> Measured:
    """At least so many; ``messages`` of what is returned says how many."""
    port, each = service.follower_port, max(math.ceil(messages / FILL_CONNECTIONS), 1)
    batch = min(each, FILL_BATCH)
    return run_out(
        lambda: Load(
            [port],
            FILL_CONNECTIONS,
            saying(lambda: Puts(QUEUE, batch, BODY_BYTES, math.ceil(each / batch))),
        )
    )


def _rate(measured: Measured) -> Record:
    return {
        "messages": measured.messages,
        "seconds": round(measured.seconds, 2),
        "messages_per_s": round(measured.messages / measured.seconds),
        "errors": len(measured.errors),
    }


def _claims(state: str, messages: int, service: Service, count: int) -> Record:
    """Put one, claim one, ack it, on one connection; only the claim is timed."""
    put = exchanges.put_request(QUEUE, 1, BODY_BYTES)
    claim = exchanges.claim_request(QUEUE, 1)
    latencies_s = []
    with socket.create_connection(("127.0.0.1", service.follower_port), TIMEOUT_S) as connection:
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
        **machine.percentiles(latencies_s),
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
