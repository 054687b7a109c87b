"""What the bench says to others than raftq, byte by byte, and a slice of each that is there."""

from __future__ import annotations

import json
import signal
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import until
from loadtests.bench.client import BadAnswer, Framing, HttpFraming
from loadtests.bench.peers import (
    amqp_wire,
    comparison,
    nats,
    nats_wire,
    postgresql,
    postgresql_wire,
)
from loadtests.bench.peers.amqp_wire import AmqpFraming, Method
from loadtests.bench.peers.comparison import (
    AT_ONCE,
    IN_ONE,
    LEADING,
    PEERS,
    STREAMED,
    TURNS,
    cells,
    compared,
)
from loadtests.bench.peers.nats_wire import NatsFraming
from loadtests.bench.peers.peer import Peer
from loadtests.bench.peers.postgresql_wire import PostgresFraming
from loadtests.bench.peers.processes import Processes
from loadtests.bench.peers.rabbitmq import Publishing
from loadtests.bench.peers.session import OK
from loadtests.bench.plan import LIFECYCLE, PLANS, PUT
from loadtests.bench.service import Service

READY = b"Z\0\0\0\5I"
BURN = """
import subprocess, sys, time
burn = "import time\\nwhile time.process_time() < 0.3: pass"
subprocess.run([sys.executable, "-c", burn], check=True)
print("burnt", flush=True)
time.sleep(60)
"""
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


def complete(tag: bytes) -> bytes:
    return postgresql_wire.message(b"C", tag + b"\0")


def row(*columns: bytes) -> bytes:
    sized = (struct.pack("!i", len(column)) + column for column in columns)
    return postgresql_wire.message(b"D", struct.pack("!h", len(columns)), *sized)


def method(number: int, arguments: bytes) -> bytes:
    return amqp_wire.frame(amqp_wire.METHOD, number.to_bytes(4, "big") + arguments)


def confirmed(tag: int, *, multiple: bool = False) -> bytes:
    return method(Method.ACK, struct.pack("!QB", tag, multiple))


def delivery(tag: int) -> bytes:
    delivered = method(Method.DELIVER, b"\3ctg" + struct.pack("!QB", tag, 0) + b"\0\5queue")
    return delivered + amqp_wire.frame(amqp_wire.HEADER, bytes(14)) + amqp_wire.frame(3, b"body")


def told(subject: str, payload: bytes, *, reply: str = "") -> bytes:
    words = ["MSG", subject, "2", *([reply] if reply else []), f"{len(payload)}"]
    return " ".join(words).encode() + b"\r\n" + payload + b"\r\n"


@pytest.mark.parametrize(
    ("make", "answer", "status"),
    [
        (HttpFraming, b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\na\r\n", 201),
        (PostgresFraming, row(b"1", READY) + complete(b"SELECT 1") + READY, postgresql_wire.OK),
        (PostgresFraming, postgresql_wire.message(b"E", b"\0") + READY, postgresql_wire.FAILED),
        (AmqpFraming, method(Method.SELECT_OK, b""), OK),
        (NatsFraming, told("inbox", b"a\r\nMSG x 1 9\r\n"), OK),
        (NatsFraming, b"HMSG inbox 2 12 12\r\nNATS/1.0\r\n\r\n\r\n", OK),
    ],
)
def test_an_answer_is_recognised_wherever_it_is_cut(
    make: Callable[[], Framing], answer: bytes, status: int
) -> None:
    for cut in range(1, len(answer)):
        framing = make()
        assert framing.feed(answer[:cut]) is None
        first = framing.feed(answer[cut:])
        assert first is not None
        assert first[0] == status
        assert framing.feed(answer) == (status, first[1]), "nothing is left of the first one"


@pytest.mark.parametrize(
    ("make", "one"),
    [(AmqpFraming, confirmed(1)), (NatsFraming, told("inbox", b"{}"))],
)
def test_what_is_whole_of_many_comes_at_once_and_the_rest_later(
    make: Callable[[], Framing], one: bytes
) -> None:
    framing = make()
    assert framing.feed(one + one + one[:5]) == (0, one + one)
    assert framing.feed(one[5:]) == (0, one)


def test_postgresql_is_told_of_a_statement_in_binary() -> None:
    assert postgresql_wire.startup() == (
        b"\0\0\0\x29\0\3\0\0user\0postgres\0database\0postgres\0\0"
    )
    assert postgresql_wire.execute("ack", b"ab") == (
        b"B\0\0\0\x19\0ack\0\0\1\0\1\0\1\0\0\0\2ab\0\1\0\1"
        + b"E\0\0\0\x09\0\0\0\0\0"
        + b"S\0\0\0\4"
    )
    assert postgresql_wire.array(postgresql_wire.INT8, [postgresql_wire.integer(7)]) == (
        b"\0\0\0\1\0\0\0\0\0\0\0\x14\0\0\0\1\0\0\0\1" + b"\0\0\0\x08" + bytes(7) + b"\7"
    )


def test_a_take_that_found_too_little_is_followed_by_one_of_the_rest() -> None:
    one = postgresql.Lifecycles(2, b"x")
    assert one.first() == postgresql.Puts(2, b"x").first()
    answers = [
        complete(b"INSERT 0 2"),
        row(postgresql_wire.integer(5), b"x") + complete(b"UPDATE 1"),
        row(postgresql_wire.integer(9), b"x") + complete(b"UPDATE 1"),
    ]
    said = [one.next(postgresql_wire.OK, answer) for answer in answers]
    ids = [postgresql_wire.integer(number) for number in (5, 9)]
    assert said == [
        postgresql_wire.execute("take", postgresql_wire.integer(2)),
        postgresql_wire.execute("take", postgresql_wire.integer(1)),
        postgresql_wire.execute("ack", postgresql_wire.array(postgresql_wire.INT8, ids)),
    ]
    assert one.finished == 0
    assert one.next(postgresql_wire.OK, complete(b"DELETE 2")) == one.first()
    one.next(postgresql_wire.OK, complete(b"INSERT 0 2"))
    with pytest.raises(BadAnswer):
        one.next(postgresql_wire.FAILED, b"")


def test_an_insert_of_fewer_rows_is_no_put() -> None:
    with pytest.raises(BadAnswer):
        postgresql.Puts(2, b"x").next(postgresql_wire.OK, complete(b"INSERT 0 1"))


def test_rabbitmq_is_told_to_keep_a_message() -> None:
    assert amqp_wire.publish("q", b"hi") == (
        b"\1\0\1\0\0\0\x0a\0\x3c\0\x28\0\0\0\1q\0\xce"
        b"\2\0\1\0\0\0\x0f\0\x3c\0\0" + bytes(7) + b"\2\x10\0\2\xce"
        b"\3\0\1\0\0\0\2hi\xce"
    )
    assert amqp_wire.ack(3) == b"\1\0\1\0\0\0\x0d\0\x3c\0\x50" + bytes(7) + b"\3\1\xce"


def test_all_confirms_are_waited_for_in_whatever_order_they_come() -> None:
    one = Publishing("q", 4, b"x", taking=0)
    put = one.first()
    assert put == amqp_wire.publish("q", b"x") * 4
    assert one.next(0, confirmed(3)) == b""
    assert one.next(0, confirmed(2, multiple=True)) == b""
    assert one.finished == 0
    assert one.next(0, confirmed(4)) == put
    assert one.finished == 4
    assert one.next(0, confirmed(8, multiple=True)) == put
    with pytest.raises(BadAnswer):
        one.next(0, method(Method.NACK, struct.pack("!QB", 9, 0)))


def test_what_is_delivered_before_the_confirm_is_acked_after_it() -> None:
    one = Publishing("q", 2, b"x", taking=2)
    put = one.first()
    assert one.next(0, delivery(1) + delivery(2)) == b""
    assert one.next(0, confirmed(2, multiple=True)) == amqp_wire.ack(2) + put
    assert one.finished == 2
    assert one.next(0, confirmed(4, multiple=True) + delivery(3)) == b""
    assert one.next(0, delivery(4)) == amqp_wire.ack(4) + put


def test_nats_answers_each_put_and_each_ack() -> None:
    one = nats.Lifecycles("q", 2, b"hi")
    subscribed, put = one.first().split(b"\r\n", 1)
    words, number = subscribed.rsplit(b" ", 1)
    inbox = words.removeprefix(b"SUB ").decode()
    assert int(number) == nats_wire.LOAD
    assert put == f"PUB q {inbox} 2\r\nhi\r\n".encode() * 2
    stored = told(inbox, b'{"stream":"q","seq":1}')
    assert one.next(0, stored) == b""
    fetch = one.next(0, b"PING\r\n" + stored).decode()
    asked = json.loads(fetch.split("\r\n")[1])
    assert fetch.startswith(f"PUB $JS.API.CONSUMER.MSG.NEXT.q.workers {inbox} ")
    assert asked == {"batch": 2, "expires": nats.FETCH_S * nats.NS}
    assert one.next(0, told("q", b"hi", reply="$JS.ACK.1")) == b""
    acks = one.next(0, told("q", b"hi", reply="$JS.ACK.2"))
    assert acks.decode() == "".join(f"PUB $JS.ACK.{n} {inbox} 4\r\n+ACK\r\n" for n in (1, 2))
    assert one.finished == 0
    assert one.next(0, told(inbox, b"") * 2) == put
    assert one.finished == 2


@pytest.mark.parametrize(
    "answer",
    [
        told("inbox", b'{"error":{"code":503}}'),
        b"HMSG inbox 2 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
        b"-ERR 'Stale Connection'\r\n",
    ],
)
def test_nats_may_refuse(answer: bytes) -> None:
    one = nats.Puts("q", 1, b"x")
    one.first()
    with pytest.raises(BadAnswer):
        one.next(0, answer)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    own = Processes(tmp_path / "own", None, None)
    yield own
    own.stop(signal.SIGKILL)


def start(processes: Processes, script: str, said: str) -> None:
    processes.start("one", [sys.executable, "-c", script])
    until(lambda: said in processes.logs(), f"it is {said}")


def test_a_child_that_has_ended_still_has_used_what_it_has(processes: Processes) -> None:
    start(processes, BURN, "burnt")
    assert 0.29 <= processes.cpu_s() < 5


def test_who_does_not_listen_is_ended(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadtests.bench.peers.processes.STOP_S", 0.1)
    start(processes, DEAF, "deaf")
    processes.all_run()
    processes.stop(signal.SIGTERM)
    with pytest.raises(AssertionError, match="one has ended with -9"):
        processes.all_run()


def turn(subject: str, repetition: int, rate: float) -> dict[str, Any]:
    (cell, *_) = cells(TURNS["slice"])
    rest = dict.fromkeys(("requests_per_s", "p50_ms", "p99_ms", "server_cpu_s_per_10k"), 1.0)
    rest |= dict.fromkeys(("client_cpu_s_per_10k", "client_cpu_share"), 0.1)
    named = {"subject": subject, "repetition": repetition, "messages_per_s": rate}
    return cell._asdict() | rest | named


def test_turns_of_the_same_repetition_are_compared() -> None:
    rates = [("nats", 0, 50.0), ("raftq", 0, 100.0), ("raftq", 1, 300.0), ("nats", 1, 150.0)]
    ours, theirs = compared([turn(*one) for one in rates])
    assert (ours["subject"], ours["messages_per_s"], ours["ratio"]) == ("raftq", 200, 1)
    assert (theirs["subject"], theirs["messages_per_s"]) == ("nats", 100)
    assert theirs["low"] == theirs["ratio"] == theirs["high"] == 2


def test_what_is_asked_of_the_leader_is_compared_too() -> None:
    rates = [("postgresql", 0, 50.0), ("raftq", 0, 100.0), (LEADING, 0, 200.0)]
    ours, leading, theirs = compared([turn(*one) for one in rates])
    assert (ours["leader_ratio"], leading["ratio"]) == (2, 0.5)
    assert (theirs["ratio"], theirs["leader_ratio"]) == (2, 4)


def test_lifecycles_are_compared_also_where_the_ack_claims_what_is_next() -> None:
    rates = [("nats", 0, 50.0), ("raftq", 0, 100.0), (AT_ONCE, 0, 200.0)]
    rates += [(IN_ONE, 0, 300.0), (STREAMED, 0, 400.0)]
    ours, at_once, in_one, streamed, theirs = compared([turn(*one) for one in rates])
    assert (ours["ratio"], ours["at_once_ratio"]) == (1, 2)
    assert (at_once["ratio"], at_once["at_once_ratio"]) == (0.5, 1)
    assert (in_one["in_one_ratio"], theirs["in_one_ratio"]) == (1, 6)
    assert (streamed["ratio"], streamed["streamed_ratio"]) == (0.25, 1)
    assert (theirs["ratio"], theirs["at_once_ratio"], theirs["streamed_ratio"]) == (2, 4, 8)


def test_a_peer_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in PEERS:
        monkeypatch.setattr(kind, "missing", staticmethod(lambda: "apt-get install it"))
    with Service(tmp_path / "raftq") as service:
        found = list(comparison.records(service, PLANS["slice"]))
    missing = [record for record in found if record["kind"] == "peer_missing"]
    assert [(one["subject"], one["remedy"]) for one in missing] == [
        (kind.name, "apt-get install it") for kind in PEERS
    ]
    measured = [record for record in found if record["kind"] == "turn"]
    asked = {(record["scenario"], record["subject"]) for record in measured}
    assert asked == {
        (PUT, "raftq"),
        (PUT, LEADING),
        *((LIFECYCLE, name) for name in ("raftq", LEADING, AT_ONCE, IN_ONE, STREAMED)),
    }
    assert sum(record["errors"] for record in measured) == 0
    told = comparison.section(found)
    assert "rabbitmq is not measured; run: apt-get install it." in told.about
    rows = {(row[0], row[1]) for row in told.tables[0].rows}
    assert (rows, len(told.tables[0].rows)) == (asked, len(measured))


@pytest.mark.parametrize("kind", PEERS, ids=lambda kind: kind.name)
def test_a_slice_of_each_peer_that_is_there(kind: type[Peer]) -> None:
    if remedy := kind.missing():
        pytest.skip(f"{kind.name} is not there; {remedy}")
    turns = TURNS["slice"]
    plan = PLANS["slice"]._replace(warmup_s=turns.warmup_s, measure_s=turns.measure_s)
    # Not in pytest's own directory, into which nobody else may look.
    with tempfile.TemporaryDirectory() as directory, kind(Path(directory) / kind.name) as peer:
        assert peer.version()
        before_s = peer.cpu_s()
        for cell in cells(turns):
            record = peer.measure(cell, plan, 0)
            assert record["errors"] == 0, record
            assert record["messages_per_s"] > 0, record
        assert peer.cpu_s() > before_s
    assert peer.processes.memory_mib() == {}, "none is left"
