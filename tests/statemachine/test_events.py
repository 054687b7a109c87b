"""What is kept of the history, for how long, and what keeping and reading it costs."""

from __future__ import annotations

import pytest

from memory_kv import CountingKV
from statemachine import commands as c
from statemachine import events, histories
from statemachine.commands import Batch, Command, Entry, NewMessage, QueueSettings
from statemachine.histories import BEGINNING, Event
from statemachine.machine import Machine
from statemachine.outcomes import Claimed, Enqueued, Outcome, SessionOpened
from statemachine.records import EventRecord

MESSAGE = NewMessage(b"x", "text/plain")


class Bench:
    """One queue, and what its history says."""

    def __init__(self, **settings: int) -> None:
        self.kv = CountingKV()
        self.machine = Machine(self.kv)
        self.now_ms = 1_000
        self.do(c.PutQueue("a", "q", QueueSettings(**settings)))

    def do(self, *commands: Command) -> tuple[Outcome, ...]:
        entry = Entry(c.ENTRY_VERSION, self.now_ms, (Batch(0, 0, 0, commands),))
        (result,) = self.machine.apply(self.machine.applied_index + 1, 1, entry)
        self.machine.end_round()
        return result.outcomes

    def put(self, count: int = 1) -> tuple[bytes, ...]:
        (outcome,) = self.do(c.Enqueue("a", "q", (MESSAGE,) * count))
        assert isinstance(outcome, Enqueued)
        return outcome.ids

    def claim(self, limit: int = 1) -> Claimed:
        (outcome,) = self.do(c.Claim("a", "q", limit))
        assert isinstance(outcome, Claimed)
        return outcome

    def sweep(self) -> None:
        while (due_ms := self.machine.next_due_ms()) is not None and due_ms <= self.now_ms:
            self.do(c.Sweep(100))

    def held(self, name: str = "q") -> list[Event]:
        known = histories.known(self.kv, "a", name)
        assert known is not None
        index = self.machine.applied_index
        return list(histories.between(self.kv, known.number, name, known.gone, index))

    def rows(self) -> int:
        return sum(key[:1] == b"h" for key in self.kv.present())


@pytest.mark.parametrize("limit", [400, 4_000, 40_000])
def test_between_three_quarters_and_all_of_the_bytes_are_kept(limit: int) -> None:
    bench = Bench(history_bytes=limit)
    for _ in range(limit // 20):
        bench.put()
        rows = [key for key in bench.kv.present() if key[:1] == b"h"]
        sizes = [len(key) + len(bench.kv.get(key) or b"") for key in rows]
        assert sum(sizes) <= limit
    assert sum(sizes) >= limit * 3 // 4 - 4 * max(sizes)
    assert len(bench.held()) == bench.rows(), "what is gone is gone from the store"


def test_an_extension_of_some_messages_is_no_claim() -> None:
    """They go over to another claim, but nobody has taken them anew."""
    bench = Bench()
    bench.put(2)
    claimed = bench.claim(2)
    bench.do(c.Extend("a", "q", claimed.claim, 5_000, (claimed.messages[0].id,)))
    kinds = [one.record.kind for one in bench.held()]
    assert kinds == [events.QUEUE_CREATED, events.ENQUEUED, events.CLAIMED, events.EXTENDED]


def test_events_are_kept_for_their_time_and_not_much_longer() -> None:
    bench = Bench(history_ms=1_000)
    for _ in range(500):
        bench.now_ms += 10
        bench.put()
        bench.sweep()
        oldest_ms = bench.held()[0].time_ms
        assert oldest_ms >= bench.now_ms - 1_250 - 10
        if bench.now_ms > 2_500:
            assert oldest_ms <= bench.now_ms - 1_000 + 10


def test_a_queue_in_which_nothing_happens_loses_its_history_in_time() -> None:
    bench = Bench(history_ms=1_000)
    bench.put(3)
    bench.do(c.DeleteMessages("a", "q", bench.put(1)))
    bench.now_ms += 999
    bench.sweep()
    assert len(bench.held()) == 4
    bench.now_ms += 1
    bench.sweep()
    assert bench.rows() == 0
    known = histories.known(bench.kv, "a", "q")
    assert known is not None
    assert known.gone > BEGINNING
    bench.put()
    assert [one.record.kind for one in bench.held()] == [events.ENQUEUED]


def test_the_deletion_of_a_queue_is_its_accounts_to_keep_and_to_forget() -> None:
    bench = Bench()
    bench.do(c.PutAccount("a", QueueSettings(history_ms=500)))
    bench.put(5)
    bench.do(c.DeleteQueue("a", "q"))
    assert [(one.record.kind, one.queue) for one in bench.held("")] == [(events.QUEUE_DELETED, "q")]
    assert bench.rows() == 1
    bench.do(c.PutQueue("a", "p", QueueSettings(history_ms=0)))
    bench.now_ms += 250
    bench.do(c.DeleteQueue("a", "p"))
    bench.now_ms += 250
    bench.sweep()
    assert [one.queue for one in bench.held("")] == ["p"]
    bench.do(c.DeleteAccount("a"))
    assert bench.rows() == 0
    assert bench.machine.next_due_ms() is None


@pytest.mark.parametrize("settings", [{"history_ms": 0}, {"history_bytes": 0}])
def test_nothing_is_kept_where_nothing_is_to_be_kept(settings: dict[str, int]) -> None:
    bench = Bench()
    bench.put(5)
    bench.do(c.PatchQueue("a", "q", QueueSettings(**settings), tuple(settings)))
    bench.claim(2)
    assert bench.rows() == 0
    bench.do(c.PatchQueue("a", "q", QueueSettings(), tuple(settings)))
    bench.put()
    assert [one.record.kind for one in bench.held()] == [events.QUEUE_CHANGED, events.ENQUEUED]


def test_a_history_outlives_a_purge() -> None:
    bench = Bench()
    ids = bench.put(2)
    bench.do(c.Purge("a", "q"))
    bench.put()
    kinds = [events.KINDS[one.record.kind] for one in bench.held()]
    assert kinds == ["queue_created", "enqueued", "purged", "enqueued"]
    steps = histories.of_message(bench.kv, "a", "q", ids[0], limit=10)
    assert steps is not None
    assert [step.event.record.kind for step in steps.items] == [events.ENQUEUED, events.PURGED]
    bench.now_ms += 3_600_000
    bench.sweep()
    assert bench.rows() == 0, "it has its timer still"


def test_a_command_costs_one_row_whatever_the_history() -> None:
    bench, without = Bench(history_bytes=20_000), Bench(history_ms=0)
    costs = []
    for one in (bench, without):
        for _ in range(1_000):
            one.put()
        before = one.kv.calls.copy()
        claimed = one.claim(100)
        one.do(c.Ack("a", "q", claimed.claim))
        one.put(100)
        costs.append(one.kv.calls - before)
    more = costs[0] - costs[1]
    assert more["put"] == 3
    assert more["get"] + more["scan"] + more["step"] == 0
    assert more["delete_range"] <= 1


def test_puts_of_one_entry_are_one_event() -> None:
    bench = Bench()
    bench.do(*[c.Enqueue("a", "q", (MESSAGE,))] * 50)
    (event,) = bench.held()[1:]
    assert len(list(events.messages_of(event.record))) == 50
    assert len(event.record.messages) == 18, "one run"


def test_a_page_of_a_history_looks_at_so_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "SCANNED_MAX", 50)
    bench = Bench()
    (first,) = bench.put()
    for _ in range(500):
        bench.put()
    before = bench.kv.calls.copy()
    page = histories.of_message(bench.kv, "a", "q", first, limit=10)
    assert page is not None
    assert (len(page.items), page.marker is None) == (1, False)
    assert (bench.kv.calls - before)["step"] <= 52
    # Of what is done the history ends where it ends.
    bench.do(c.DeleteMessages("a", "q", bench.put()))
    (last,) = bench.put()
    before = bench.kv.calls.copy()
    bench.do(c.DeleteMessages("a", "q", (last,)))
    page = histories.of_message(bench.kv, "a", "q", last, limit=10)
    assert page is not None
    assert (len(page.items), page.marker) == (2, None)


def test_no_scan_walks_over_what_is_gone() -> None:
    bench = Bench(history_bytes=2_000)
    (first,) = bench.put()
    for _ in range(2_000):
        bench.put()
    before = bench.kv.calls.copy()
    held = bench.held()
    assert (bench.kv.calls - before)["step"] == len(held) + 1, "and the row behind the end"
    page = histories.of_message(bench.kv, "a", "q", first, limit=10)
    assert page is not None
    assert (page.items, page.is_whole) == ((), False)


RUNS = [
    [],
    [(b"\x00" * 9 + b"\x01", 0)],
    [(bytes(8) + b"\x00\xff", 1), (bytes(8) + b"\x01\x00", 1), (bytes(8) + b"\x01\x01", 2)],
    [(b"\x80\x00" + bytes(8), 0), (bytes(10), 0), (bytes(9) + b"\x01", 0)],
]


@pytest.mark.parametrize("messages", RUNS)
def test_runs_give_back_what_went_in(messages: list[events.Message]) -> None:
    singly = [(message_id, 1, deliveries) for message_id, deliveries in messages]
    event = EventRecord(1, 0, messages=events.runs(singly))
    assert list(events.messages_of(event)) == messages
    for message_id, deliveries in messages:
        assert events.deliveries_of(event, message_id) == deliveries
    assert events.deliveries_of(event, b"\xff" * 10) is None


def test_a_queue_that_goes_in_the_entry_of_its_puts_leaves_no_timer() -> None:
    bench = Bench()
    bench.do(c.Enqueue("a", "q", (MESSAGE,)), c.DeleteQueue("a", "q"))
    bench.do(c.Enqueue("a", "q", (MESSAGE,)), c.Purge("a", "q"), c.DeleteQueue("a", "q"))
    bench.now_ms += 3_600_000
    bench.sweep()
    assert bench.rows() == 0
    assert bench.machine.next_due_ms() is None


def test_a_history_may_be_made_shorter_than_it_is_old() -> None:
    bench = Bench()
    bench.put()
    bench.now_ms += 1_800_000
    bench.sweep()
    bench.put()
    bench.do(c.PutQueue("a", "q", QueueSettings(history_ms=40)))
    assert bench.machine.next_due_ms() == bench.now_ms
    bench.sweep()
    assert {event.time_ms for event in bench.held()} == {bench.now_ms}


def test_an_event_names_the_node_that_took_the_request() -> None:
    bench = Bench()
    entry = Entry(c.ENTRY_VERSION, 0, (Batch(0, 0, 0, (c.OpenSession("n7/0123abcd"),)),))
    ((opened,),) = (one.outcomes for one in bench.machine.apply(2, 1, entry))
    assert isinstance(opened, SessionOpened)
    batch = Batch(opened.session, 1, 1, (c.Enqueue("a", "q", (MESSAGE,)),))
    bench.machine.apply(3, 1, Entry(c.ENTRY_VERSION, 0, (batch,)))
    bench.machine.end_round()
    assert bench.held()[-1].record.node == "n7"
