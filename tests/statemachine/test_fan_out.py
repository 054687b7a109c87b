"""Bounds and costs of bindings and schedules; what they do is in ``histories``."""

from __future__ import annotations

import msgspec
import pytest

from memory_kv import CountingKV
from statemachine import bindings, schedules
from statemachine import commands as c
from statemachine.commands import Batch, Command, Entry, NewMessage
from statemachine.machine import Machine
from statemachine.outcomes import Claimed, Enqueued, Outcome, Reason, Refused, Stored, Transacted

NEW = NewMessage(b"x", "text/plain")


class Bench:
    def __init__(self) -> None:
        self.kv = CountingKV()
        self.machine = Machine(self.kv)

    def entry(self, *commands: Command, now_ms: int = 1_000) -> tuple[Outcome, ...]:
        entry = Entry(c.ENTRY_VERSION, now_ms, (Batch(0, 0, 0, commands),))
        (result,) = self.machine.apply(self.machine.applied_index + 1, 1, entry)
        self.machine.end_round()
        return result.outcomes

    def bind(self, targets: int, queue: str = "q") -> None:
        for number in range(targets):
            self.entry(c.PutBinding("a", queue, f"t{number}", ()))

    def cost(self, *commands: Command, now_ms: int = 1_000) -> dict[str, int]:
        before = self.kv.calls.copy()
        self.entry(*commands, now_ms=now_ms)
        return dict(self.kv.calls - before)


def reason(outcome: Outcome) -> Reason:
    assert isinstance(outcome, Refused)
    return outcome.reason


def test_a_queue_is_bound_to_so_many_and_no_more() -> None:
    bench = Bench()
    bench.bind(bindings.BINDINGS_MAX)
    (refused,) = bench.entry(c.PutBinding("a", "q", "one more", ()))
    assert reason(refused) is Reason.TOO_MANY_BINDINGS
    (changed,) = bench.entry(c.PutBinding("a", "q", "t1", (), any_of=True))
    assert changed == Stored(created=False)


def test_an_account_has_so_many_schedules_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "SCHEDULES_MAX", 2)
    bench = Bench()
    timing = c.Timing(every_ms=5)
    for number in range(2):
        bench.entry(c.PutSchedule("a", f"s{number}", "q", NEW, timing, 2_000))
    (refused,) = bench.entry(c.PutSchedule("a", "one more", "q", NEW, timing, 2_000))
    assert reason(refused) is Reason.TOO_MANY_SCHEDULES
    outcomes = bench.entry(
        c.PutSchedule("b", "one more", "q", NEW, timing, 2_000),
        c.PutSchedule("a", "s1", "other", NEW, timing, 2_000),
        c.DeleteSchedule("a", "s0"),
        c.PutSchedule("a", "one more", "q", NEW, timing, 2_000),
    )
    assert not any(isinstance(one, Refused) for one in outcomes)


def test_more_copies_than_an_entry_may_make_are_refused_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bindings, "COPIES_MAX", 10)
    bench = Bench()
    bench.bind(4)
    put = c.Enqueue("a", "q", (NEW,))
    first, second, third = bench.entry(put, put, c.Enqueue("a", "other", (NEW,) * 20))
    assert isinstance(first, Enqueued)
    assert reason(second) is Reason.FAN_OUT_BUSY
    assert isinstance(third, Enqueued), "what is not bound has no part in it"
    (alone,) = bench.entry(put)
    assert isinstance(alone, Enqueued), "the next entry has its own"
    (large,) = bench.entry(c.Enqueue("a", "q", (NEW, NEW)))
    assert reason(large) is Reason.FAN_OUT_TOO_LARGE


def test_a_transaction_without_room_for_its_copies_does_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    bench.entry(c.Enqueue("a", "jobs", (NEW,)))
    (claimed,) = bench.entry(c.Claim("a", "jobs", 1))
    assert isinstance(claimed, Claimed)
    bench.bind(4)
    step = c.Transact("a", (c.PartAck("jobs", claimed.claim),), (c.PartPut("q", (NEW,)),) * 2)
    monkeypatch.setattr(bindings, "COPIES_MAX", 10)
    before = bench.kv.calls.copy()
    (large,) = bench.entry(step)
    assert reason(large) is Reason.FAN_OUT_TOO_LARGE
    done = bench.kv.calls - before
    assert (done["put"], done["delete"]) == (1, 0), "the machine's record alone"
    one = msgspec.structs.replace(step, puts=step.puts[:1])
    _, busy = bench.entry(c.Enqueue("a", "q", (NEW,)), one)
    assert reason(busy) is Reason.FAN_OUT_BUSY
    (answer,) = bench.entry(one)
    assert isinstance(answer, Transacted)
    assert [place.queue for place in answer.put[0].routed[0]] == ["t0", "t1", "t2", "t3"]


def test_a_duplicate_is_what_is_new_in_none_of_its_queues() -> None:
    bench = Bench()
    new = NewMessage(b"x", "text/plain", dedup_id="d")
    bench.bind(1)
    (first,) = bench.entry(c.Enqueue("a", "q", (new, NEW, new)))
    assert isinstance(first, Enqueued)
    assert first.duplicates == (2,)
    assert first.routed[0] == first.routed[2]
    bench.bind(2)
    (second,) = bench.entry(c.Enqueue("a", "q", (new,)))
    assert isinstance(second, Enqueued)
    assert second.duplicates == ()
    assert second.routed[0][0] == first.routed[0][0]


def test_bytes_count_too_but_one_message_always_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "COPIED_BYTES_MAX", 100)
    bench = Bench()
    bench.bind(4)
    new = NewMessage(bytes(30), "text/plain")
    (large,) = bench.entry(c.Enqueue("a", "q", (new, new)))
    assert reason(large) is Reason.FAN_OUT_TOO_LARGE
    done, busy = bench.entry(c.Enqueue("a", "q", (new,)), c.Enqueue("a", "q", (NEW,)))
    assert isinstance(done, Enqueued)
    assert reason(busy) is Reason.FAN_OUT_BUSY


def test_a_tick_that_finds_no_room_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.bind(4)
    bench.entry(c.PutSchedule("a", "s", "q", NEW, c.Timing(every_ms=5), 1_000))
    (due,) = bench.machine.due_schedules(1_000, 10)
    tick = c.Tick("a", "s", due.record.version, 1_000, 1_005)
    monkeypatch.setattr(bindings, "COPIES_MAX", 10)
    _, busy = bench.entry(c.Enqueue("a", "q", (NEW,)), tick)
    assert reason(busy) is Reason.FAN_OUT_BUSY
    assert bench.machine.next_tick_ms() == 1_000
    (done,) = bench.entry(tick)
    assert isinstance(done, Enqueued)


def test_a_queue_that_is_not_bound_pays_nothing() -> None:
    bench = Bench()
    put = c.Enqueue("a", "q", (NEW,))
    bench.entry(put)
    before = bench.cost(put)
    bench.bind(3)
    bench.entry(put)
    assert bench.cost(put)["put"] == 3 * 3 + 2, "messages, queues, events; account, machine"
    assert "get" not in bench.cost(put), "bindings are at hand"
    bench.entry(*(c.DeleteBinding("a", "q", f"t{number}") for number in range(3)))
    assert bench.cost(put) == before


def test_a_tick_costs_the_same_however_many_schedules_there_are() -> None:
    bench = Bench()
    timing = c.Timing(every_ms=5)
    for account in range(20):
        bench.entry(
            *(
                c.PutSchedule(f"a{account}", f"s{number}", "q", NEW, timing, 2_000 + number)
                for number in range(schedules.SCHEDULES_MAX // 2)
            )
        )
    now_ms = 1_000_000
    for _ in range(200):  # Over and over: no scan may walk over what went before.
        due = bench.machine.due_schedules(now_ms, 10)
        ticks = [
            c.Tick(one.account, one.schedule, one.record.version, one.record.next_ms or 0, now_ms)
            for one in due
        ]
        cost = bench.cost(*ticks, now_ms=now_ms)
        assert cost["step"] <= 12 * len(ticks), cost
        assert sum(cost.values()) <= 25 * len(ticks), cost
