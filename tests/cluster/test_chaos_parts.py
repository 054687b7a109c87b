"""What a chaos run is made of, as far as it needs no cluster: the plan, the relay, the numbers."""

from __future__ import annotations

import asyncio
import math
import os
from collections import Counter
from pathlib import Path

import pytest

from chaos import CANNOT_RUN, Run, facts, main
from chaos_faults import FAULTS
from chaos_numbers import Injected, Outage, latencies_ms, outages, percentile, seconds
from chaos_plan import Kind, plan
from chaos_report import page
from history import Delivery, Fault, History, Put, Result, recoveries
from lone_page import assert_stands_alone
from relay import Delay, Delays, Line, Relay
from stepped_clock import LOOK_S, FileOffset, step

DEADLINE_S = 30.0

# The plan.


def test_a_plan_is_its_seed() -> None:
    assert plan(7, 600) == plan(7, 600)
    assert plan(7, 600) != plan(8, 600)


def test_every_kind_comes_once_in_each_round() -> None:
    steps = plan(3, 1200)
    for first in range(0, len(steps), len(Kind)):
        assert {step.kind for step in steps[first : first + len(Kind)]} == set(Kind)


def test_a_plan_fills_its_time() -> None:
    assert sum(step.hold_s + step.calm_s for step in plan(5, 900)) >= 900


def test_a_plan_keeps_to_the_kinds_asked_for() -> None:
    wanted = (Kind.LOSS, Kind.KILL_ALL)
    assert Counter(step.kind for step in plan(1, 60, wanted)).keys() == set(wanted)


def test_every_kind_can_be_done() -> None:
    assert set(FAULTS) == set(Kind)


# The relay.


def test_a_line_keeps_the_order_whatever_the_jitter() -> None:
    jitter = iter([1.0, 0.0, 0.5])
    line = Line(lambda: next(jitter))
    for n, chunk in enumerate([b"a", b"b", b"c"]):
        line.enter(float(n), chunk, Delay(0.0, 10.0))
    assert line.leave(9.9) == []
    assert line.due_s == 10.0
    assert line.leave(10.0) == [b"a", b"b", b"c"]
    assert line.due_s is None


def test_a_line_without_delay_lets_pass_at_once_but_nobody_overtake() -> None:
    line = Line(lambda: 0.0)
    line.enter(1.0, b"now", Delay())
    assert line.leave(1.0) == [b"now"]
    line.enter(2.0, b"slow", Delay(5.0))
    line.enter(3.0, b"after a heal", Delay())
    assert line.leave(6.9) == []
    assert line.held_bytes == len(b"slowafter a heal")
    assert line.leave(7.0) == [b"slow", b"after a heal"]
    assert line.held_bytes == 0


def test_delays_are_of_one_direction_and_replaced_as_a_whole() -> None:
    delays = Delays()
    delays.tell('[["a", "b", 0.1, 0.01]]')
    assert delays.of("a", "b") == Delay(0.1, 0.01)
    assert delays.of("b", "a") == Delay()
    delays.tell("[]")
    assert delays.of("a", "b") == Delay()


async def echoed(sent: list[bytes], delays: str) -> tuple[bytes, float]:
    """What comes back of all that was sent through a relay to an echo, and how long it took."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
        hung_up.set()

    hung_up = asyncio.Event()
    loop = asyncio.get_running_loop()
    told = Delays()
    told.tell(delays)
    target = await asyncio.start_server(echo, "127.0.0.1", 0)
    relay = Relay("here", target.sockets[0].getsockname(), told)
    listener = await loop.create_server(relay.accept, "127.0.0.1", 0)
    async with target, listener:
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        started_s = loop.time()
        for chunk in sent:
            writer.write(chunk)
        received = await reader.readexactly(sum(map(len, sent)))
        took_s = loop.time() - started_s
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(hung_up.wait(), DEADLINE_S)
    return received, took_s


@pytest.mark.parametrize("delays", ["[]", '[["127.0.0.1", "here", 0.0, 0.02]]'])
def test_a_relay_changes_no_byte_and_no_order(delays: str) -> None:
    # More than any buffer on the way holds.
    sent = [os.urandom(100_000) for _ in range(120)]
    received, _ = asyncio.run(echoed(sent, delays))
    assert received == b"".join(sent)


def test_a_relay_delays_each_direction_by_its_own() -> None:
    both = '[["127.0.0.1", "here", 0.15, 0.0], ["here", "127.0.0.1", 0.1, 0.0]]'
    _, took_s = asyncio.run(echoed([b"x"], both))
    assert took_s >= 0.25


# The clock.


def test_a_clock_follows_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("stepped_clock.time.monotonic", lambda: now_s)
    path = tmp_path / "clock"
    step(path, 0)
    offset = FileOffset(path)
    assert offset.ms == 0
    step(path, -300_000)
    os.utime(path, ns=(1, 1))
    assert offset.ms == 0, "it looks at most every 50 ms"
    now_s += 2 * LOOK_S
    assert offset.ms == -300_000


# The numbers.


def put(started_s: float, ended_s: float, result: Result = Result.DONE) -> Put:
    number = round(started_s * 1000)
    return Put(number, started_s, ended_s, result, f"m{number}" if result is Result.DONE else "")


def test_a_percentile_is_a_value_that_was_there() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert percentile([7.0], 0.5) == 7.0
    assert math.isnan(percentile([], 0.5))


def test_latencies_are_of_acknowledged_puts() -> None:
    puts = [put(0.0, 0.5), put(1.0, 1.25), put(2.0, 9.0, Result.UNKNOWN)]
    assert latencies_ms(puts) == [250.0, 500.0]


def test_puts_count_in_the_second_in_which_they_end() -> None:
    history = History(
        puts=[put(9.0, 10.0), put(10.0, 10.5), put(10.0, 12.5, Result.REFUSED), put(5.0, 9.9)]
    )
    found = seconds(history, 10.0, 12.6)
    assert [(one.acknowledged, one.failed) for one in found] == [(2, 0), (0, 0), (0, 1)]
    assert found[0].p50_ms == 500.0
    assert found[0].p99_ms == 1000.0
    assert math.isnan(found[1].p50_ms)


def injected(kind: Kind, from_s: float) -> Injected:
    return Injected(kind, "n1", from_s, from_s + 1)


def test_an_outage_ends_with_a_put_that_began_in_it() -> None:
    history = History(
        puts=[put(9.9, 10.1), put(10.2, 13.0), put(10.3, 11.0), put(14.0, 14.1)],
        faults=[Fault("a", 10.0), Fault("b", 13.5), Fault("c", 20.0)],
    )
    faults = [injected(Kind.LOSS, 10.0), injected(Kind.DELAY, 13.5), injected(Kind.RESET, 20.0)]
    found = outages(history, faults, 22.0)
    assert [one.until_next_s for one in found] == [took_s for _, took_s in recoveries(history)]
    assert found[0] == Outage(1.0, 2.0)  # 10.1 and 11.0 and 13.0, then the next fault.
    assert found[1].silence_s == pytest.approx(5.9)
    assert found[2] == Outage(math.inf, 2.0)


# The page and the verdict.


def finished(**changes: object) -> Run:
    """A run that lost nothing."""
    run = Run(print, from_s=10.0, until_s=14.0, drained=True)
    run.history.puts += [put(10.5, 10.6), put(13.0, 13.5)]
    run.history.remaining += [(one.number, one.message_id) for one in run.history.puts]
    run.faults.append(Injected(Kind.CUT_LEADER, "n1 <&>", 11.0, 12.5))
    for name, value in changes.items():
        setattr(run, name, value)
    return run


def test_a_sound_run_is_good_and_its_page_is_well_formed_and_alone() -> None:
    told = facts(finished(), "make chaos ARGS='--seed 1'", "today")
    assert told.good
    text = page(told)
    assert_stands_alone(text)
    assert "n1 &lt;&amp;&gt;" in text
    assert "make chaos ARGS=&#x27;--seed 1&#x27;" in text


def lost(run: Run) -> None:
    run.history.remaining.pop()


def held_twice(run: Run) -> None:
    number, message_id = run.history.remaining[0]
    for claim in ("a", "b"):
        run.history.deliveries.append(Delivery(number, message_id, claim, 11.0, 11.1, 0, 9_000))


def undrained(run: Run) -> None:
    run.drained = False


def misbehaved(run: Run) -> None:
    run.complain("n1 goes on")


@pytest.mark.parametrize("spoil", [lost, held_twice, undrained, misbehaved])
def test_whatever_is_wrong_spoils_the_verdict(spoil: object) -> None:
    run = finished()
    assert callable(spoil)
    spoil(run)
    told = facts(run, "", "")
    assert not told.good
    assert told.complaints
    assert "nothing is wrong" not in page(told)


def test_without_root_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("chaos.os.geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == CANNOT_RUN
    assert "needs root" in capsys.readouterr().err
