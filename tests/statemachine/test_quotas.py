"""Quotas are exact: whatever comes together, however it is cut into entries and rounds.

``test_histories_agree.py`` holds them against the plain model; ``histories/quotas.txt`` is
for reading.
"""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from memory_kv import CountingKV, MemoryKV
from statemachine import commands as c
from statemachine import queries
from statemachine.commands import Batch, Command, Entry, NewMessage
from statemachine.machine import Machine
from statemachine.outcomes import (
    Claimed,
    Enqueued,
    Outcome,
    Over,
    Reason,
    Refused,
    Settled,
    Transacted,
)

SMALL = NewMessage(b"xx", "t")


class Bench:
    def __init__(self, kv: MemoryKV | None = None) -> None:
        self.kv = kv or MemoryKV()
        self.machine = Machine(self.kv)
        self.now_ms = 1_000

    def entry(self, *commands: Command) -> tuple[Outcome, ...]:
        """All of them in one entry; the round goes on."""
        entry = Entry(c.ENTRY_VERSION, self.now_ms, (Batch(0, 0, 0, commands),))
        (result,) = self.machine.apply(self.machine.applied_index + 1, 1, entry)
        return result.outcomes

    def round(self, *commands: Command) -> tuple[Outcome, ...]:
        outcomes = self.entry(*commands)
        self.machine.end_round()
        return outcomes

    def usage(self, account: str = "a") -> dict[str, int]:
        self.machine.end_round()
        found = queries.usage(self.kv, account)
        assert found is not None
        return msgspec.structs.asdict(found.usage)


def put(queue: str = "q", count: int = 1, **kind: str) -> c.Enqueue:
    return c.Enqueue("a", queue, (msgspec.structs.replace(SMALL, **kind),) * count)


def limits(**quotas: int) -> c.SetQuotas:
    return c.SetQuotas("a", c.Quotas(**quotas))


def over(outcome: Outcome) -> Over | None:
    return outcome.over if isinstance(outcome, Refused) else None


def test_puts_of_one_entry_can_not_overstep_together() -> None:
    bench = Bench()
    outcomes = bench.entry(limits(messages=5), *[put(f"q{at % 3}", 2) for at in range(4)])
    assert [over(one) for one in outcomes[1:]] == [None, None, *[Over("messages", 5, 4)] * 2]
    assert bench.usage()["messages"] == 4


def test_puts_of_one_round_can_not_overstep_together() -> None:
    bench = Bench()
    bench.entry(limits(bytes=5))
    first, second = bench.entry(put(count=2)), bench.entry(put(count=1))
    assert (over(first[0]), over(second[0])) == (None, Over("bytes", 5, 4))


def test_claims_of_one_entry_share_what_room_there_is() -> None:
    bench = Bench()
    bench.entry(put("q", 4), put("p", 4), limits(in_flight=5))
    claims = [c.Claim("a", queue, 3) for queue in ("q", "p", "q")]
    first, second, third = bench.entry(*claims)
    assert isinstance(first, Claimed)
    assert isinstance(second, Claimed)
    assert (len(first.messages), len(second.messages)) == (3, 2)
    assert over(third) == Over("in_flight", 5, 5)
    settled, again = bench.entry(c.Ack("a", "q", first.claim), c.Claim("a", "p", 9))
    assert isinstance(settled, Settled)
    assert isinstance(again, Claimed)
    assert len(again.messages) == 2, "what is acknowledged makes room at once"


def test_an_account_does_not_pay_for_another() -> None:
    bench = Bench()
    bench.entry(limits(messages=1), c.Enqueue("b", "q", (SMALL,) * 9), put())
    assert bench.usage() == {**bench.usage(), "messages": 1, "bytes": 2, "queues": 1}
    assert bench.usage("b")["messages"] == 9


def test_dead_letters_of_a_transaction_do_not_take_the_room_of_what_it_puts() -> None:
    bench = Bench()
    _, claimed = bench.entry(put(), c.Claim("a", "q", 1))
    assert isinstance(claimed, Claimed)
    bench.entry(limits(queues=2))
    release = c.PartRelease("q", claimed.claim, None, None, "bad", True)
    (done,) = bench.entry(c.Transact("a", (), (c.PartPut("p", (SMALL,)),), (release,)))
    assert isinstance(done, Transacted)
    assert bench.usage()["queues"] == 2, "q and p; the dead letter stays for now"
    assert bench.usage()["messages"] == 2


def test_a_refused_transaction_does_nothing() -> None:
    bench = Bench()
    _, claimed, _ = bench.entry(put(count=2), c.Claim("a", "q", 1), limits(queues=1))
    assert isinstance(claimed, Claimed)
    before = bench.usage()
    ack = c.PartAck("q", claimed.claim)
    (refused,) = bench.entry(c.Transact("a", (ack,), (c.PartPut("p", (SMALL,)),)))
    assert over(refused) == Over("queues", 1, 1)
    assert bench.usage() == before


def test_the_history_keeps_to_its_quota_and_refuses_nothing() -> None:
    bench = Bench()
    bench.round(limits(history_bytes=2_000))
    for at in range(300):
        bench.now_ms += 1
        (done,) = bench.round(put(f"q{at % 7}"))
        assert isinstance(done, Enqueued)
        assert bench.usage()["history_bytes"] <= 2_000
    assert bench.usage()["history_bytes"] > 1_000, "and it is used"
    bench.round(limits(history_bytes=10))
    bench.round(put())
    bench.round(*[c.DeleteQueue("a", f"q{at}") for at in range(7)])
    bench.round(c.DeleteQueue("a", "q"))
    assert bench.usage()["history_bytes"] <= 10
    assert bench.usage()["messages"] == 0


@pytest.mark.parametrize("ending", ["delete", "purge", "delete the queue", "expiry", "ack"])
def test_what_is_gone_makes_room_in_the_same_entry(ending: str) -> None:
    bench = Bench()
    (done,) = bench.entry(c.Enqueue("a", "q", (msgspec.structs.replace(SMALL, ttl_ms=5),)))
    assert isinstance(done, Enqueued)
    bench.entry(limits(messages=1, bytes=2, queues=1, in_flight=1))
    assert over(bench.entry(put())[0]) == Over("messages", 1, 1)
    commands: list[Command] = {
        "delete": [c.DeleteMessages("a", "q", done.ids)],
        "purge": [c.Purge("a", "q")],
        "delete the queue": [c.DeleteQueue("a", "q")],
        "expiry": [c.Sweep(9)],
        "ack": [],
    }[ending]
    if ending == "ack":
        (claimed,) = bench.entry(c.Claim("a", "q", 1))
        assert isinstance(claimed, Claimed)
        commands = [c.Ack("a", "q", claimed.claim)]
    bench.now_ms += 10 if ending == "expiry" else 0
    again = bench.entry(*commands, put())[-1]
    assert isinstance(again, Enqueued), again
    assert bench.usage() == {**bench.usage(), "messages": 1, "bytes": 2, "in_flight": 0}


def test_it_makes_no_difference_how_commands_are_cut_into_entries_and_rounds() -> None:
    """All in one entry, or each in a round of its own on a machine that knows nothing."""
    draw = Random(3)
    quotas = limits(queues=3, messages=6, bytes=11, in_flight=3, bindings=1, schedules=1)
    for _ in range(150):
        whole, apart = Bench(), Bench()
        commands = [quotas, *[_any_command(draw) for _ in range(40)]]
        together = [_seen(one) for one in whole.entry(*commands)]
        alone = []
        for command in commands:
            apart.machine = Machine(apart.kv)
            alone += [_seen(one) for one in apart.round(command)]
        assert together == alone
        before, after = whole.usage(), apart.usage()
        assert {**before, "history_bytes": 0} == {**after, "history_bytes": 0}


def _any_command(draw: Random) -> Command:
    queue = draw.choice(["q", "p", "r", "s"])
    dedup_id = draw.choice(["", "", "x", "y"])
    commands: list[Command] = [
        put(queue, draw.randrange(1, 4), dedup_id=dedup_id),
        put(queue, 1),
        c.Claim("a", queue, draw.randrange(1, 5)),
        c.Purge("a", queue),
        c.DeleteQueue("a", queue),
        c.PutQueue("a", queue, c.QueueSettings()),
        c.PutBinding("a", queue, draw.choice(["p", "t"]), ()),
        c.DeleteBinding("a", queue, "p"),
        c.Transact("a", (), (c.PartPut(queue, (SMALL,)), c.PartPut("p", (SMALL,)))),
        c.PutSchedule("a", queue, "q", SMALL, c.Timing(every_ms=5), None),
        limits(messages=draw.randrange(3, 9), in_flight=3),
    ]
    return draw.choice(commands)


def _seen(outcome: Outcome) -> object:
    """What does not depend on the entry's index."""
    match outcome:
        case Refused(reason):
            return reason, outcome.over
        case Enqueued(ids, duplicates):
            return len(ids), duplicates
        case Claimed():
            return [one.deliveries for one in outcome.messages]
        case Transacted():
            return len(outcome.put)
        case _:
            return outcome


def test_usage_reads_one_row_whatever_there_is() -> None:
    kv = CountingKV()
    bench = Bench(kv)
    for queue in range(50):
        bench.round(put(f"q{queue}", 200))
    before = kv.calls.copy()
    found = queries.usage(kv, "a")
    assert found is not None
    assert found.usage.messages == 10_000
    assert dict(kv.calls - before) == {"get": 1}
    assert queries.usage(kv, "nobody") is None


def test_a_put_and_a_claim_under_quotas_ask_the_store_for_nothing() -> None:
    kv = CountingKV()
    bench = Bench(kv)
    everything = c.Quotas(*[10_000] * len(c.Quotas.__struct_fields__))
    bench.round(put("q", 9), c.Claim("a", "q", 1))
    costs = []
    for quotas in (c.Quotas(), everything):
        bench.round(c.SetQuotas("a", quotas))
        before = kv.calls.copy()
        bench.round(put(), c.Claim("a", "q", 1))
        costs.append(kv.calls - before)
    assert costs[0] == costs[1]


def test_limits_below_nought_are_none_and_those_not_known_are_skipped() -> None:
    bench = Bench()
    bench.round(limits(messages=-5, queues=1), c.SetQuotas("a", c.Quotas(9), ("keys", "bytes")))
    found = queries.usage(bench.kv, "a")
    assert found is not None
    assert found.limits == c.Quotas(queues=1)
    (refused,) = bench.round(c.SetQuotas("b", c.Quotas(), ()))
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.NO_ACCOUNT
