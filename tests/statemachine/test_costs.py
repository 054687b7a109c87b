"""What a command costs, in calls of the store: it must not depend on what is stored.

The store counts steps over tombstones, as a log-structured engine has them. A claim
may read some messages ahead (``fresh``): a bound, but the same for any backlog.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from memory_kv import CountingKV
from statemachine import acts, claims, fresh, hooks, keys, lanes, queries, state
from statemachine import commands as c
from statemachine.commands import Batch, Command, Entry, NewMessage
from statemachine.digest import digest
from statemachine.machine import Machine
from statemachine.outcomes import Claimed, Enqueued, Outcome, Swept, Transacted
from statemachine.records import Held

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

    def put(self, count: int, ttl_ms: int | None = None, **kind: Any) -> list[bytes]:
        ids: list[bytes] = []
        message = NewMessage(b"x", "text/plain", ttl_ms=ttl_ms, **kind)
        for start in range(0, count, 1_000):
            messages = (message,) * min(1_000, count - start)
            outcome = self.do(c.Enqueue("a", "q", messages))
            assert isinstance(outcome, Enqueued)
            ids.extend(outcome.ids)
        return ids

    def claim(
        self,
        limit: int = 1,
        *,
        queue: str = "q",
        restart: bool = False,
        lease_ms: int = 100,
        **where: Any,
    ) -> Claimed:
        outcome = self.do(c.Claim("a", queue, limit, lease_ms, **where), restart=restart)
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


@pytest.mark.parametrize("count", [1, 100])
def test_what_is_taken_costs_a_delete_for_each_message_and_no_claim(count: int) -> None:
    bench = Bench()
    bench.put(2 * count)
    bench.do(c.Take("a", "q", count))
    taken = bench.cost
    assert taken["delete"] == count
    claimed = bench.claim(count)
    claim = bench.cost
    bench.do(c.Ack("a", "q", claimed.claim))
    # Neither is there a claim to write and delete, nor a second row of the history.
    assert taken["put"] <= (claim + bench.cost)["put"] / 2
    assert (taken["scan"], taken["step"]) == (claim["scan"], claim["step"])


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


def test_a_claim_costs_the_same_whatever_was_deleted_behind_its_queue() -> None:
    """Also of the last messages of a queue: behind them are those of the next one."""
    bench = Bench()
    bench.do(c.Enqueue("a", "before", (NewMessage(b"x", "text/plain"),) * 3))
    bench.put(1_000)
    bench.do(c.Release("a", "before", bench.claim(queue="before").claim))
    bench.drain()
    for _ in range(3):
        assert bench.claim(queue="before", restart=True).messages
        assert cheap(bench), bench.cost


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
    assert bench.cost["step"] <= 3, bench.cost
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
    assert bench.cost["delete_range"] == len(keys.OF_QUEUE)
    assert bench.cost.total() < 20, bench.cost
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


def test_replicas_stop_at_the_same_expired_message_whatever_they_have_at_hand() -> None:
    """One claims what it has at hand, another begins with nothing and reads ahead."""
    digests = []
    for restart in (False, True):
        bench = Bench()
        bench.put(2_000, ttl_ms=10)
        bench.now_ms += 10
        assert not bench.claim(1_000, restart=restart).messages
        digests.append(digest(bench.kv))
    assert digests[0] == digests[1]


# Priorities, zones and groups. Each lane that a claim looks at may be read ahead once.

LOW = {"priority": 1, "zone": "y"}
SKEWED: list[dict[str, Any]] = [
    {"priority": 9, "zone": "y"},
    {"priority": 9, "zone": "z"},
    {"priority": 5},
    LOW,
]


@pytest.mark.parametrize("restart", [False, True], ids=["warm", "restarted"])
@pytest.mark.parametrize("mode", ["any", "only", "prefer"])
@pytest.mark.parametrize("crowded", range(len(SKEWED)))
def test_a_claim_costs_the_same_wherever_the_backlog_is(
    crowded: int, mode: str, restart: bool
) -> None:
    bench = Bench()
    for number, kind in enumerate(SKEWED):
        bench.put(20_000 if number == crowded else 1, **kind)
    where = {"zone": "z", "zone_mode": mode}
    assert len(bench.claim(restart=restart, **where).messages) == 1
    lanes_read = len(SKEWED)
    assert bench.cost["scan"] <= lanes_read + 1, bench.cost
    assert bench.cost["step"] <= lanes_read * STEPS_MAX, bench.cost
    assert len(bench.claim(**where).messages) == 1
    assert bench.cost["scan"] <= 1, bench.cost
    assert bench.cost.total() <= STEPS_MAX + 30, bench.cost


def test_a_claim_that_must_wait_for_others_messages_looks_at_one_of_each_zone() -> None:
    bench = Bench()
    for zone in range(40):
        bench.put(300, zone=f"z{zone}")
    claimed = bench.claim(zone="elsewhere", zone_mode="prefer", restart=True)
    assert len(claimed.messages) == 1, "what came from one zone too many is of none"
    while bench.claim(1_000, zone="elsewhere", zone_mode="prefer").messages:
        pass
    bench.claim(zone="elsewhere", zone_mode="prefer", restart=True)
    assert bench.cost["scan"] == lanes.ZONES_MAX + 1, bench.cost
    bench.claim(zone="elsewhere", zone_mode="prefer")
    assert bench.cost["scan"] == 0, bench.cost


@pytest.mark.parametrize("restart", [False, True], ids=["warm", "restarted"])
def test_a_claim_costs_the_same_however_much_of_a_higher_priority_is_gone(restart: bool) -> None:
    bench = Bench()
    bench.put(20_000, priority=9, zone="z")
    bench.drain()
    ids = bench.put(3_000, priority=9, zone="z")
    for start in range(0, 3_000, 500):
        bench.do(c.DeleteMessages("a", "q", tuple(ids[start : start + 500])))
    bench.put(2, **LOW)
    claimed = bench.claim(restart=restart)
    assert cheap(bench), bench.cost
    bench.do(c.Release("a", "q", claimed.claim), restart=restart)
    assert cheap(bench), bench.cost
    assert len(bench.claim(2, restart=restart).messages) == 2
    assert bench.cost["step"] <= 2 * STEPS_MAX, bench.cost


@pytest.mark.parametrize("restart", [False, True], ids=["warm", "restarted"])
def test_one_of_many_groups_costs_what_one_of_few_does(restart: bool) -> None:
    bench = Bench()
    for start in range(0, MANY, 1_000):
        messages = tuple(
            NewMessage(b"x", "text/plain", group=f"g{one}") for one in range(start, start + 1_000)
        )
        bench.do(c.Enqueue("a", "q", messages))
    bench.put(1, group="g0")
    assert bench.cost["scan"] == 0, bench.cost
    claimed = bench.claim(restart=restart)
    assert cheap(bench), bench.cost
    bench.do(c.Ack("a", "q", claimed.claim), restart=restart)
    assert bench.cost["step"] <= 1, bench.cost
    assert bench.cost.total() < 30, bench.cost
    claimed = bench.claim(1_000)
    assert len({one.id for one in claimed.messages}) == 1_000
    bench.do(c.Release("a", "q", claimed.claim))
    assert bench.cost["scan"] == 0, bench.cost


@pytest.mark.parametrize("restart", [False, True], ids=["warm", "restarted"])
def test_a_groups_next_message_is_found_however_many_are_gone(restart: bool) -> None:
    bench = Bench()
    bench.put(3_000, group="g")
    for _ in range(2_000):
        claimed = bench.claim(5)
        assert len(claimed.messages) == 1
        bench.do(c.Ack("a", "q", claimed.claim))
        assert bench.cost["step"] <= 1, bench.cost
    claimed = bench.claim(restart=restart)
    assert cheap(bench), bench.cost
    bench.do(c.Ack("a", "q", claimed.claim), restart=restart)
    assert cheap(bench), bench.cost


def test_a_queue_of_many_lanes_writes_only_those_that_changed() -> None:
    bench = Bench()
    for priority in range(10):
        for zone in range(20):
            bench.put(1, priority=priority, zone=f"z{zone}")
    bench.put(1, priority=3, zone="z3")
    # The message, its lane, queue and event; the account, for its sums, and the machine.
    assert bench.cost["put"] <= 6, bench.cost
    bench.claim(zone="z7", zone_mode="only")
    assert bench.cost["put"] <= 7, bench.cost


def test_a_duplicate_costs_one_look_and_a_new_id_two_writes_more() -> None:
    bench = Bench()
    new = NewMessage(b"x", "t")
    bench.do(c.Enqueue("a", "q", (new,)))
    bench.do(c.Enqueue("a", "q", (new,)))
    plain = bench.cost
    for number in range(2_000):
        bench.do(c.Enqueue("a", "q", (NewMessage(b"x", "t", dedup_id=str(number)),)))
    assert bench.cost - plain == {"get": 1, "put": 2}
    bench.do(c.Enqueue("a", "q", (NewMessage(b"x", "t", dedup_id="7"),)), restart=True)
    assert bench.cost["put"] <= 2, bench.cost  # The queue's record and the position.
    assert bench.cost["scan"] == 0, bench.cost


def test_a_transaction_costs_what_its_parts_do() -> None:
    bench = Bench()
    bench.put(3_000)
    opened = [bench.claim(100) for _ in range(20)]
    parts = tuple(c.PartAck("q", one.claim) for one in opened)
    bench.do(c.Transact("a", parts, (c.PartPut("q", (NewMessage(b"x", "t"),)),)))
    assert bench.cost["get"] + bench.cost["scan"] == 0, bench.cost
    assert bench.cost["delete"] <= 20 * 101, bench.cost
    assert bench.cost["put"] < 10 + 20, bench.cost  # And an event for each claim.


class Walked(list[Held]):
    """What a claim holds, and how often somebody has gone through it."""

    times = 0

    def __iter__(self) -> Iterator[Held]:
        self.times += 1
        return super().__iter__()


@pytest.mark.parametrize("lost", [False, True])
def test_a_claim_is_gone_through_once_however_many_parts_name_it(
    monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    bench = Bench()
    bench.put(100)
    claimed = bench.claim(100)
    held: list[Walked] = []

    def walked(*asked: Any) -> Walked:
        held.append(Walked(found(*asked) or []))
        return held[-1]

    found = claims.held
    monkeypatch.setattr(claims, "held", walked)
    parts = tuple(c.PartAck("q", claimed.claim, (one.id,)) for one in claimed.messages)
    outcome = bench.do(c.Transact("a", parts * 2 if lost else parts))
    assert isinstance(outcome, Transacted)
    assert len(outcome.stale) == 100 * lost
    assert [one.times for one in held] == [1]


def test_extending_many_claims_costs_two_writes_and_an_event_for_each() -> None:
    bench = Bench()
    bench.put(3_000)
    claims = tuple(bench.claim(10).claim for _ in range(100))
    bench.do(c.ExtendMany("a", "q", claims, 1_000))
    assert bench.cost["get"] + bench.cost["scan"] == 0, bench.cost
    assert bench.cost["put"] <= 3 * 100 + 3, bench.cost


def test_a_redrive_does_not_walk_over_what_it_has_moved() -> None:
    bench = Bench()
    bench.do(c.PutQueue("a", "q", c.QueueSettings(max_deliveries=1)))
    bench.put(5_000)
    for _ in range(5):
        bench.do(c.Release("a", "q", bench.claim(1_000).claim))
    bench.do(c.StartJob("a", "q.dead"))
    while (swept := bench.do(c.Sweep(500), restart=True)) != Swept(0, more=False):
        assert isinstance(swept, Swept)
        # Once for moving them, and once for the head to follow.
        assert bench.cost["step"] < 2 * 500 + 2 * STEPS_MAX, bench.cost
    assert len(bench.claim(1_000).messages) == 1_000


WANTED = c.Filter(headers=(c.HeaderMatch("k", ("v",)),))


@pytest.mark.parametrize("act", ["move", "delete", "release"])
def test_a_step_of_a_job_costs_the_same_however_much_there_is(act: c.Act) -> None:
    """One message in a thousand is meant, and what was done is not walked over again."""
    bench, limit = Bench(), 500
    for _ in range(MANY // 1_000):
        bench.put(999)
        bench.put(1, headers=(("k", "v"),))
    if act == "release":
        while bench.claim(1_000, lease_ms=10**6).messages:
            pass
    bench.do(c.StartJob("a", "q", "p", act=act, filter=WANTED))
    for step in range(1_000):
        swept = bench.do(c.Sweep(limit), restart=step % 2 == 1)
        # Each row once; and once more for a head that follows.
        assert bench.cost["step"] <= 2 * limit + STEPS_MAX, bench.cost
        assert bench.cost["get"] <= limit + 20, bench.cost
        assert bench.cost["put"] + bench.cost["delete"] <= 20, bench.cost
        if swept == Swept(0, more=False):
            break
    job = queries.job(bench.kv, "a", "q")
    assert job is not None
    assert (job.looked, job.done, job.total) == (MANY, MANY // 1_000, MANY)
    assert job.ended_ms


def test_a_job_names_the_first_messages_with_which_it_could_do_nothing() -> None:
    bench = Bench()
    ids = bench.put(acts.FAILURES_MAX + 50)
    bench.do(c.StartJob("a", "q"))
    bench.do(c.Sweep(500))
    job = queries.job(bench.kv, "a", "q")
    assert job is not None
    assert job.failed == len(ids)
    assert [one.id for one in job.failures] == ids[: acts.FAILURES_MAX]


def test_a_job_does_not_hold_up_what_is_due() -> None:
    """Leases end while a job has much to do."""
    bench = Bench()
    bench.put(5_000)
    bench.claim(10, lease_ms=50)
    bench.do(c.StartJob("a", "q", act="delete", filter=WANTED))
    bench.do(c.Sweep(500))
    bench.now_ms += 50
    bench.do(c.Sweep(500))
    stats = queries.stats(bench.kv, "a", "q")
    assert stats is not None
    assert stats.leases_ended == 1
    job = queries.job(bench.kv, "a", "q")
    assert job is not None
    assert not job.ended_ms


def test_a_search_looks_at_so_much_and_not_at_what_can_not_be_meant() -> None:
    bench = Bench()
    bench.put(MANY)
    wanted = bench.put(1, priority=9)
    before = bench.kv.calls.copy()
    page = queries.browse(bench.kv, "a", "q", limit=10, wanted=WANTED)
    assert page is not None
    assert page.marker, "an empty page that is not the last"
    assert (page.items, page.looked) == ((), queries.SCANNED_MAX)
    assert (bench.kv.calls - before)["step"] <= queries.SCANNED_MAX + 10
    page = queries.browse(bench.kv, "a", "q", limit=10, wanted=c.Filter(priority=9))
    assert page is not None
    assert [one.id for one in page.items] == wanted
    assert (page.marker, page.looked) == (None, 1)


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
    assert bench.cost.total() <= 14, bench.cost
    assert next(hooks.all_subscriptions(bench.kv)).node == ""


def test_of_a_few_more_queues_than_are_kept_at_hand_most_need_not_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state, "HANDLES_MAX", 100)
    bench = Bench()
    turns, queues = 20, 120
    reads = 0
    for number in random.Random(7).choices(range(queues), k=turns * queues):
        bench.do(c.Enqueue("a", f"q{number}", (NewMessage(b"x", "text/plain"),)))
        reads += bench.cost["get"]
    assert queues < reads < turns * queues / 3
