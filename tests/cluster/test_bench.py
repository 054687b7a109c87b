"""The benchmark still runs, its smallest plan, to the end; and what it tells is so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster import ROOT
from loadtests.bench import versus
from loadtests.bench.calls import KINDS
from loadtests.bench.client import BadAnswer, Load, Measured
from loadtests.bench.exchanges import InTurn, Lifecycles, LineFraming, Puts, Rounds, Streams
from loadtests.bench.open_loop import OpenLoop, Outcomes, Stage, peak_per_s
from loadtests.bench.parts import PARTS
from loadtests.bench.plan import ALL, FOLLOWER, LEADER, LIFECYCLE, NULL, PLANS, PUT, Cell
from loadtests.bench.records import FIGURES, interval, medians
from lone_page import assert_stands_alone


def run(out: Path, *arguments: str, module: str = "loadtests.bench") -> list[dict[str, Any]]:
    """The records of a benchmark that has done all it should."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == out.read_text().splitlines()
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_the_smallest_plan_measures_everything_and_nothing_fails(tmp_path: Path) -> None:
    out = tmp_path / "bench.jsonl"
    records = run(out, "--slice")
    kinds = {record["kind"] for record in records}
    assert kinds == {
        "run",
        "idle",
        "sync_loop",
        "cell",
        "open",
        "median",
        "backlog_fill",
        "backlog_drain",
        "restart",
        "claim_latency",
        "parked",
        "wake",
        "failover",
        "failovers",
        "neighbour",
        "overload",
        "part",
        "end",
    }
    assert [one["part"] for one in records if one["kind"] == "part"] == [
        part.name for part in PARTS if part.usual
    ]
    page = out.with_suffix(".html").read_text()
    assert_stands_alone(page)
    for record in records:
        if record["kind"] == "overload":
            assert max(record["goodput"]) > 0
        if record["kind"] == "median":
            low, high = record["interval"]["messages_per_s"]
            assert 0 < low <= record["messages_per_s"] <= high
            assert record["p50_ms"] > 0
            baseline = record["scenario"] in ("null", "endpoint", "bare")
            assert ("ratio_to_null" in record) != baseline
        if record["kind"] == "open":
            assert record["served"] > 0
        if record["kind"] == "failovers":
            assert 0 < record["median_s"] <= record["max_s"] < 20
    states = [one["state"] for one in records if one["kind"] == "claim_latency"]
    assert states == ["empty", *["backlog"] * 3, "settled", "after_deletes"]
    assert [one["how"] for one in records if one["kind"] == "restart"] == ["stopped", "killed"]
    asked = {one["target"] for one in records if one["kind"] == "cell" and one["scenario"] == "put"}
    assert asked == {"follower", "leader", "all"}


def test_what_is_measured_only_by_its_name_is_told_of_as_well(tmp_path: Path) -> None:
    out = tmp_path / "named.jsonl"
    records = run(out, "--slice", "--only", "costs", "--only", "churn", "--churn", "1")
    told = [record for record in records if record["kind"] == "cost"]
    assert [record["of"] for record in told[::3]] == ["keys", "TLS", "encryption at rest"]
    assert all(record["ratio"] > 0 and record["server_cpu_ratio"] >= 0 for record in told)
    assert not any(record.get("errors") for record in records)
    samples = [record for record in records if record["kind"] == "churn"]
    assert len(samples) > 1
    for sample in samples:
        assert sample["messages_per_s"] > 0
        assert all(mib > 1 for name in ("rss_mib", "disk_mib") for mib in sample[name].values())
    assert samples[-1]["at_s"] <= 1 + samples[-1]["seconds"]
    assert "Churn" in out.with_suffix(".html").read_text()


def test_a_version_is_compared_with_another_one_turn_by_turn(tmp_path: Path) -> None:
    turns = ("--turns", "2", "--seconds", "0.1", "--cell", "put:2:1")
    records = run(tmp_path / "v.jsonl", str(ROOT), *turns, module="loadtests.bench.versus")
    measured = [record for record in records if record["kind"] == "turn"]
    assert sorted((one["turn"], one["version"]) for one in measured) == [
        (0, "other"),
        (0, "this"),
        (1, "other"),
        (1, "this"),
    ]
    assert all(one["messages_per_s"] > 0 and one["errors"] == 0 for one in measured)
    told = {one["figure"]: one for one in records if one["kind"] == "versus"}
    assert told.keys() == {"messages_per_s", "server_cpu_s_per_10k", "p50_ms"}
    assert all(0 <= one["low"] <= one["ratio"] <= one["high"] for one in told.values())


def test_each_part_inside_a_node_costs_something(tmp_path: Path) -> None:
    records = run(tmp_path / "in.jsonl", "--rounds", "1", module="loadtests.bench.inside")
    told = {record["part"]: record["us"] for record in records if record["kind"] == "inside"}
    assert len(told) == 2 + 2 + 3 + 3 * 4
    assert all(us > 0 for us in told.values())
    called = [record for record in records if record["kind"] == "calls"]
    assert len(called) == 2 + 3
    assert all(one[kind] > 0 for one in called for kind in KINDS)


def turns(version: str, *rates: float) -> list[dict[str, Any]]:
    """The same cell, again and again."""
    figures = {"server_cpu_s_per_10k": 1.0, "p50_ms": 1.0}
    cell = {"scenario": "put", "target": "all", "connections": 1, "batch": 1}
    common = {"kind": "turn", "version": version, **cell, **figures}
    return [common | {"turn": turn, "messages_per_s": rate} for turn, rate in enumerate(rates)]


def test_a_machine_that_is_slow_for_a_while_decides_nothing() -> None:
    other, this = turns("other", 100, 50, 200, 80), turns("this", 120, 60, 240, 96)
    by_figure = {one["figure"]: one for one in versus.compared([*other, *this])}
    rates = by_figure["messages_per_s"]
    assert (rates["other"], rates["this"]) == (90, 108)
    assert rates["low"] == rates["ratio"] == rates["high"] == 1.2
    assert by_figure["p50_ms"]["ratio"] == 1


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("put:16:64", Cell(PUT, ALL, 16, 64)),
        ("put:1:1:leader", Cell(PUT, LEADER, 1, 1)),
        ("put:16:1:100", Cell(PUT, ALL, 16, 1, queues=100)),
        ("put:16:1:100:follower", Cell(PUT, FOLLOWER, 16, 1, queues=100)),
    ],
)
def test_a_cell_can_be_asked_for(text: str, cell: Cell) -> None:
    assert versus.cell_from(text) == cell


@pytest.mark.parametrize("text", ["put", "get:1:1", "put:1:1:leader:100", "put:1:1:nobody"])
def test_what_is_no_cell_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        versus.cell_from(text)


def test_what_differs_from_turn_to_turn_has_a_wide_interval() -> None:
    low, high = interval([0.8, 0.9, 1.0, 1.1, 1.2])
    assert low <= 0.9
    assert high >= 1.1
    assert interval([1.0] * 5) == (1.0, 1.0)


def cell(scenario: str, repetition: int, rate: float, part: str = "connections") -> dict[str, Any]:
    """A measurement that was as fast as this."""
    target = NULL if scenario == NULL else ALL
    figures = dict.fromkeys(FIGURES, 1.0) | {"messages_per_s": rate, "requests_per_s": rate}
    sizes = Cell(scenario, target, 16, 1)._asdict()
    return {"kind": "cell", "part": part, **sizes, "repetition": repetition, **figures}


def test_medians_have_intervals_and_compare_with_the_baseline_of_their_turn_and_part() -> None:
    rates = {NULL: (100, 200, 400), PUT: (10, 30, 40)}
    records = [cell(name, turn, rate) for name, of in rates.items() for turn, rate in enumerate(of)]
    other = [cell(NULL, 0, 1, "batches"), cell(PUT, 0, 1, "batches")]
    null, put, _, alone = medians([*records, *other])
    assert (null["part"], null["messages_per_s"]) == ("connections", 200)
    assert null["interval"]["messages_per_s"] == [100, 400]
    assert put["ratio_to_null"] == 0.1
    assert "ratio_to_null" not in null
    assert (alone["part"], alone["ratio_to_null"]) == ("batches", 1)


def test_a_turn_in_which_nothing_was_finished_has_a_rate_and_no_latency() -> None:
    stuck = cell(PUT, 0, 0) | {"p50_ms": 0.0, "server_cpu_s_per_10k": 9_000.0}
    (put,) = medians([stuck, cell(PUT, 1, 20)])
    assert (put["messages_per_s"], put["p50_ms"], put["server_cpu_s_per_10k"]) == (10, 1, 1)
    assert put["interval"]["messages_per_s"] == [0, 20]
    assert put["interval"]["p50_ms"] == [1, 1]


def test_every_queue_has_its_turn_until_nobody_has_more_to_say() -> None:
    one, other = Puts("one", 1, 10, 2), Puts("other", 1, 10, 1)
    turns = InTurn([one, other])
    said = [turns.first(), turns.next(201, b""), turns.next(201, b"")]
    assert said == [one.first(), other.first(), one.first()]
    assert turns.next(201, b"") is None
    assert turns.finished == 1


def test_an_operation_of_several_requests_stays_with_its_queue() -> None:
    one, other = Lifecycles("one", 1, 10), Lifecycles("other", 1, 10)
    turns = InTurn([one, other])
    turns.first()
    turns.next(201, b"")
    assert turns.finished == 0
    turns.next(201, b'{"claim":"ab"}')
    assert turns.next(200, b'{"acked":1}') == other.first()
    assert turns.finished == 1
    with pytest.raises(BadAnswer):
        turns.next(503, b"")
    assert turns.first() == other.first()


def test_a_server_that_stops_is_charged_for_all_who_came_meanwhile() -> None:
    stalled_s, rate_per_s = 0.3, 100

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(stalled_s)
        with contextlib.suppress(ConnectionError):
            while await reader.read(1000):
                writer.write(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()
        hung_up.set()

    hung_up = asyncio.Event()

    async def measure() -> OpenLoop:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            loop = OpenLoop([port], 1, b"x", patience_s=math.inf)
            await loop.run([Stage(rate_per_s, stalled_s)])
            await hung_up.wait()
            return loop

    loop = asyncio.run(measure())
    latencies_s = loop.outcomes.latencies_s(201, since_s=0.0, until_s=math.inf)
    assert len(latencies_s) == loop.due == stalled_s * rate_per_s
    # Whoever waits for each answer would have measured one that is slow.
    slow = [latency_s for latency_s in latencies_s if latency_s > stalled_s / 3]
    assert len(slow) >= loop.due / 2


def test_a_service_that_answers_nobody_has_a_peak_that_rates_can_be_made_of() -> None:
    class Silent(Load):
        async def run(self, warmup_s: float, measure_s: float, marked: object) -> Measured:
            self.measured.seconds = measure_s
            return self.measured

    peak = asyncio.run(peak_per_s(Silent([], 0, lambda: Puts("q", 8, 10)), 8, 0.0, 0.5))
    assert peak == 2


def test_the_first_that_is_served_is_one_that_came_afterwards() -> None:
    outcomes = Outcomes()
    for due_s, done_s, status in ((1.0, 2.5, 201), (2.1, 2.6, 503), (2.2, 2.8, 201)):
        outcomes.add(due_s, done_s, status)
    assert outcomes.first_s(201, due_since_s=2.0) == 2.8
    assert outcomes.first_s(201, due_since_s=2.5) is None


@pytest.mark.parametrize(
    ("cell", "factor"),
    [
        (Cell(LIFECYCLE, ALL, 16, 64), 1),
        (Cell(LIFECYCLE, ALL, 1024, 1), 8),
        (Cell(PUT, ALL, 1024, 1), 1),
        (Cell(PUT, ALL, 16, 1, 1 << 20), 4),
        (Cell(PUT, ALL, 16, 1, queues=10_000), 5),
    ],
)
def test_what_is_large_or_crowded_has_more_time(cell: Cell, factor: int) -> None:
    plan = PLANS["full"]
    assert plan.lasting(cell).measure_s == factor * plan.measure_s
    assert plan.lasting(cell).warmup_s == factor * plan.warmup_s


def test_a_round_acks_what_was_claimed_by_the_request_that_claims_what_is_next() -> None:
    rounds = Rounds("q", 2, 10)
    put = rounds.first()
    claim = rounds.next(201, b"{}")
    assert claim is not None
    assert claim.startswith(b"POST /v1/bench/queues/q/claims HTTP")
    assert rounds.next(201, b'{"claim": "0a"}') == put
    ack = rounds.next(201, b"{}")
    assert ack is not None
    assert ack.startswith(b"POST /v1/bench/queues/q/claims/0a/ack HTTP")
    assert ack.endswith(b'{"next": {"limit": 2, "lease": 600}}')
    assert rounds.finished == 0
    assert rounds.next(200, b'{"acked": 2, "claim_ended": false, "next": {"claim": "0b"}}') == put
    assert rounds.finished == 2
    following = rounds.next(201, b"{}")
    assert following is not None
    assert b"/claims/0b/ack" in following
    with pytest.raises(BadAnswer):
        rounds.next(200, b'{"acked": 1, "next": null}')


def test_a_stream_sends_as_much_as_was_confirmed() -> None:
    framing, stream = LineFraming(), Streams("q", 3, 10)
    head, _, body = stream.first().partition(b"\r\n\r\n")
    assert b"\r\nTransfer-Encoding: chunked" in head
    line = b'{"body":{"padding":""}}\n'
    assert body == b"%x\r\n%b\r\n" % (3 * len(line), 3 * line)
    assert framing.feed(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n") is None
    assert framing.feed(b'c\r\n{"pu') is None
    assert framing.feed(b't":1}\n\r\nc\r\n{"put":3}\n\r\n') == (200, b"3")
    assert stream.next(200, b"3") == b"%x\r\n%b\r\n" % (3 * len(line), 3 * line)
    assert stream.finished == 3
    assert framing.feed(b'{"put":3,"problem":{}}\n')[0] == 500
    assert LineFraming().feed(b"HTTP/1.1 403 Forbidden\r\n\r\n")[0] == 500
