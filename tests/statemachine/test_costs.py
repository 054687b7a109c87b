"""What a command costs, in calls of the store: it must not depend on what is stored.

The store counts steps over tombstones, as a log-structured engine has them. A claim
may read some messages ahead (``fresh``): a bound, but the same for any backlog.
"""

from __future__ import annotations

from collections import Counter

import pytest

from memory_kv import CountingKV
from statemachine import commands as c
from statemachine import fresh, hooks, queries
from statemachine.commands import Batch, Command, Entry, NewMessage
from statemachine.machine import Machine
from statemachine.outcomes import Claimed, Enqueued, Outcome, Swept

MANY = 100_000
STEPS_MAX = fresh.FILL_MESSAGES + 20


class Bench:
    def __init__(self) -> None:
        self.kv = CountingKV()
        self.machine = Machine(self.kv)
        self.now_ms = 1_000
        self.cost: Counter[str] = Counter()

    def do(self, command: Command, *, restart: bool = False) -> Outcome:
        """Apply one command in its own round; ``cost`` is then what it took."""
        if restart:
            self.machine = Machine(self.kv)
        before = self.kv.calls.copy()
        batch = Batch(0, 0, 0, (command,))
        entry = Entry(c.ENTRY_VERSION, self.now_ms, (batch,))
        (result,) = self.machine.apply(self.machine.applied_index + 1, 1, entry)
        self.machine.end_round()
        self.cost = self.kv.calls - before
        return result.outcomes[0]

    def put(self, count: int, ttl_ms: int | None = None) -> list[bytes]:
        ids: list[bytes] = []
        for start in range(0, count, 1_000):
            messages = (NewMessage(b"x", "text/plain", ttl_ms=ttl_ms),) * min(1_000, count - start)
            outcome = self.do(c.Enqueue("a", "q", messages))
            assert isinstance(outcome, Enqueued)
            ids.extend(outcome.ids)
        return ids

    def claim(self, limit: int = 1, *, restart: bool = False, lease_ms: int = 100) -> Claimed:
        outcome = self.do(c.Claim("a", "q", limit, lease_ms), restart=restart)
        assert isinstance(outcome, Claimed)
        return outcome

    def drain(self) -> None:
        while (claimed := self.claim(1_000)).messages:
            self.do(c.Ack("a", "q", claimed.claim))


@pytest.fixture(scope="module")
def drained() -> Bench:
    bench = Bench()
    bench.put(MANY)
    bench.drain()
    return bench


def cheap(bench: Bench) -> bool:
    return bench.cost["step"] <= STEPS_MAX and bench.cost.total() <= STEPS_MAX + 30


@pytest.mark.parametrize("restart", [False, True], ids=["warm", "restarted"])
@pytest.mark.parametrize("backlog", [0, MANY])
def test_a_claim_costs_the_same_whatever_the_backlog(backlog: int, restart: bool) -> None:
    bench = Bench()
    bench.put(backlog + 1)
    assert len(bench.claim(restart=restart).messages) == 1
    assert cheap(bench), bench.cost
    claimed = bench.claim()
    assert bench.cost["scan"] == 0, "the next ones are at hand"
    if backlog:
        bench.do(c.Ack("a", "q", claimed.claim), restart=restart)
        assert cheap(bench), bench.cost


@pytest.mark.parametrize("restart", [False, True], ids=["warm", "restarted"])
def test_a_claim_costs_the_same_however_much_was_deleted(drained: Bench, restart: bool) -> None:
    drained.do(c.Claim("a", "q", 1), restart=restart)
    assert drained.cost["scan"] == 0, "nothing is ready: nothing is looked for"
    drained.put(1)
    claimed = drained.claim(restart=restart)
    assert cheap(drained), drained.cost
    drained.do(c.Release("a", "q", claimed.claim), restart=restart)
    assert cheap(drained), drained.cost
    claimed = drained.claim(restart=restart)
    assert cheap(drained), drained.cost
    drained.do(c.Ack("a", "q", claimed.claim), restart=restart)
    assert cheap(drained), drained.cost


@pytest.mark.parametrize("restart", [False, True], ids=["warm", "restarted"])
def test_reads_cost_the_same_however_much_was_deleted(drained: Bench, restart: bool) -> None:
    (message_id,) = drained.put(1)
    for include_claimed in (False, True):
        before = drained.kv.calls.copy()
        page = queries.browse(drained.kv, "a", "q", limit=10, include_claimed=include_claimed)
        assert page is not None
        assert [one.id for one in page.items] == [message_id]
        queries.stats(drained.kv, "a", "q")
        assert (drained.kv.calls - before)["step"] < STEPS_MAX
    drained.drain()


def test_a_window_that_reaches_the_end_takes_in_what_comes() -> None:
    bench = Bench()
    bench.put(2)
    bench.claim(restart=True)
    bench.put(1)
    for _ in range(2):
        assert len(bench.claim().messages) == 1
        assert bench.cost["scan"] == 0, bench.cost


def test_the_head_follows_when_messages_are_deleted_by_id() -> None:
    bench = Bench()
    ids = bench.put(3_000)
    for start in range(0, 2_999, 500):
        bench.do(c.DeleteMessages("a", "q", tuple(ids[start : min(start + 500, 2_999)])))
    bench.claim(restart=True)
    assert cheap(bench), bench.cost
    # From the end backwards: the head can not follow, until nothing is left.
    ids = bench.put(3_000)
    for start in range(2_500, -1, -500):
        bench.do(c.DeleteMessages("a", "q", tuple(ids[start : start + 500])))
    bench.put(1)
    bench.claim(restart=True)
    assert cheap(bench), bench.cost


def test_what_expires_in_order_takes_no_time_entries() -> None:
    bench = Bench()
    bench.put(500, ttl_ms=50)
    for _ in range(10):
        bench.claim(10)
    assert [key for key in bench.kv.present() if key[:1] == b"d"] == []
    assert len([key for key in bench.kv.present() if key[:1] == b"t"]) == 1
    # What ends before something ahead of it has one; once that is gone, no more.
    bench.claim(lease_ms=99)
    bench.put(1, ttl_ms=49)
    assert len([key for key in bench.kv.present() if key[:1] == b"d"]) == 2
    bench.do(c.Purge("a", "q"))
    bench.put(1, ttl_ms=1_000)
    claimed = bench.claim(lease_ms=200)
    bench.put(1, ttl_ms=10)
    bench.do(c.Ack("a", "q", claimed.claim))
    bench.claim(lease_ms=10)
    assert [key for key in bench.kv.present() if key[:1] == b"d"] == []


def test_a_sweep_with_nothing_due_looks_at_nothing() -> None:
    bench = Bench()
    bench.put(2_000, ttl_ms=50)
    bench.now_ms += 50
    while (swept := bench.do(c.Sweep(500))) != Swept(0, more=False):
        assert isinstance(swept, Swept)
        assert bench.cost["step"] < 700, bench.cost
    bench.do(c.Sweep(500), restart=True)
    assert bench.cost["step"] <= 1, bench.cost
    for _ in range(100):
        bench.do(c.Once("a", str(bench.now_ms), b"", 5, c.Purge("a", "q")))
        bench.now_ms += 5
        bench.do(c.Sweep(500))
    assert bench.cost["step"] < 10, "swept ground is not walked again"


def test_a_timed_claim_is_skipped_once() -> None:
    bench = Bench()
    bench.put(1_000)
    for _ in range(500):
        bench.do(c.Extend("a", "q", bench.claim(lease_ms=10).claim, 10_000))
    bench.now_ms += 20
    bench.do(c.Sweep(1_000))
    bench.claim(lease_ms=10_000)
    bench.do(c.Extend("a", "q", bench.claim(lease_ms=20).claim, 40))
    bench.now_ms += 30
    bench.do(c.Sweep(1_000), restart=True)
    assert bench.cost["step"] < 20 + fresh.FILL_MESSAGES, bench.cost


def test_purging_is_cheap_and_purging_nothing_costs_nothing() -> None:
    bench = Bench()
    bench.put(5_000)
    bench.claim(100)
    bench.do(c.Purge("a", "q"))
    assert bench.cost["delete_range"] == 6
    assert bench.cost.total() < 15, bench.cost
    bench.do(c.Purge("a", "q"))
    assert bench.cost["delete_range"] == 0
    bench.put(1)
    bench.claim(restart=True)
    assert cheap(bench), bench.cost


def test_a_claim_clears_away_what_has_expired_in_bounded_steps() -> None:
    bench = Bench()
    bench.put(1_000, ttl_ms=10)
    bench.put(1, ttl_ms=0)
    bench.now_ms += 10
    claims = 1
    while not bench.claim().messages:
        assert bench.cost["delete"] < 400, bench.cost
        claims += 1
    assert claims > 2


def test_a_whole_claim_is_settled_without_looking_at_its_messages() -> None:
    bench = Bench()
    bench.put(1_000)
    claimed = bench.claim(1_000)
    bench.do(c.Ack("a", "q", claimed.claim))
    assert bench.cost["get"] + bench.cost["scan"] == 0, bench.cost
    assert bench.cost["delete"] <= 1_001 + 1


def test_a_runner_goes_on_at_the_same_cost_however_much_it_runs() -> None:
    bench = Bench()
    settings = c.SubscriptionSettings("https://x", (), 1, 1, 1, 1, 1, 1)
    names = [("a", f"q{number}", "s") for number in range(2_000)]
    for one in names:
        bench.do(c.PutSubscription(*one, settings, b"", made=True))
    bench.do(c.TakeSubscriptions("n1", 100, tuple(names)))
    bench.now_ms += 50
    bench.do(c.TakeSubscriptions("n1", 100), restart=True)
    assert bench.cost.total() <= 8, bench.cost
    bench.now_ms += 200
    bench.do(c.Sweep(1_000))
    assert bench.cost.total() <= 12, bench.cost
    assert next(hooks.all_subscriptions(bench.kv)).node == ""
