"""A transaction and the claim after it, in one command."""

from __future__ import annotations

import pytest

from memory_kv import MemoryKV
from statemachine import commands as c
from statemachine import queries
from statemachine.commands import Batch, Command, Entry, NewMessage
from statemachine.machine import Machine
from statemachine.outcomes import (
    Claimed,
    Enqueued,
    Outcome,
    Reason,
    Refused,
    SessionOpened,
    Transacted,
    TransactedAndClaimed,
)

BIG = NewMessage(b"x" * 10_000, "text/plain")
AFTER: list[c.Claim | c.Take] = [c.Claim("a", "q", 5), c.Take("a", "q", 5)]


class Bench:
    """A machine with a session, to ask it again what it was asked."""

    def __init__(self) -> None:
        self.kv = MemoryKV()
        self.machine = Machine(self.kv)
        self.seq = 1
        [opened] = self.apply(Batch(0, 0, 0, (c.OpenSession("n1"),)))
        assert isinstance(opened, SessionOpened)
        self.session = opened.session

    def apply(self, batch: Batch) -> tuple[Outcome, ...]:
        machine = self.machine
        [result] = machine.apply(machine.applied_index + 1, 1, Entry(1, 100, (batch,)))
        machine.end_round()
        return result.outcomes

    def do(self, *commands: Command) -> tuple[Outcome, ...]:
        """In a batch of its own."""
        self.seq += 1
        return self.again(*commands)

    def again(self, *commands: Command) -> tuple[Outcome, ...]:
        """The batch that was last."""
        return self.apply(Batch(self.session, self.seq, self.seq, commands))

    def put(self, *bodies: bytes) -> None:
        new = tuple([NewMessage(body, "text/plain") for body in bodies])
        assert isinstance(self.do(c.Enqueue("a", "q", new))[0], Enqueued)

    def claim(self) -> int:
        [claimed] = self.do(c.Claim("a", "q", 1))
        assert isinstance(claimed, Claimed)
        assert claimed.claim
        return claimed.claim

    def counts(self) -> tuple[int, int]:
        """Messages ready, and claimed."""
        stats = queries.stats(self.kv, "a", "q")
        assert stats is not None
        return stats.ready, stats.claimed


@pytest.fixture
def bench() -> Bench:
    return Bench()


def acking(claim: int, after: c.Claim | c.Take, *puts: NewMessage) -> c.TransactAndClaim:
    parts = (c.PartPut("q", puts),) if puts else ()
    return c.TransactAndClaim(c.Transact("a", (c.PartAck("q", claim),), parts), after)


def both(outcome: Outcome) -> tuple[Transacted, Claimed]:
    assert isinstance(outcome, TransactedAndClaimed)
    assert isinstance(outcome.claimed, Claimed)
    return outcome.transacted, outcome.claimed


def deliveries(claimed: Claimed) -> list[int]:
    return [one.deliveries for one in claimed.messages]


@pytest.mark.parametrize(("after", "left"), [(AFTER[0], (0, 2)), (AFTER[1], (0, 0))])
def test_what_was_put_with_it_can_be_claimed(
    bench: Bench, after: c.Claim | c.Take, left: tuple[int, int]
) -> None:
    bench.put(b"1", b"2")
    done, claimed = both(bench.do(acking(bench.claim(), after, NewMessage(b"3", "t")))[0])
    assert done.acked == (1,)
    assert deliveries(claimed) == [1, 1]
    assert claimed.messages[1].id == done.put[0].ids[0]
    assert bench.counts() == left


def test_nothing_is_claimed_if_nothing_was_done(bench: Bench) -> None:
    bench.put(b"1")
    [outcome] = bench.do(acking(5_000, AFTER[0], NewMessage(b"2", "t")))
    assert isinstance(outcome, TransactedAndClaimed)
    assert outcome.transacted.stale
    assert outcome.claimed is None
    assert bench.counts() == (1, 0)


def test_a_refused_transaction_claims_nothing(bench: Bench) -> None:
    bench.put(b"1")
    bench.do(c.SetQuotas("a", c.Quotas(messages=1)))
    puts = c.Transact("a", puts=(c.PartPut("q", (NewMessage(b"2", "t"),)),))
    [outcome] = bench.do(c.TransactAndClaim(puts, AFTER[0]))
    assert isinstance(outcome, Refused)
    assert outcome.reason is Reason.QUOTA_EXCEEDED
    assert bench.counts() == (1, 0)


def test_a_claim_that_is_refused_undoes_nothing(bench: Bench) -> None:
    bench.put(b"1", b"2")
    bench.claim()
    bench.do(c.SetQuotas("a", c.Quotas(in_flight=1)))
    puts = c.Transact("a", puts=(c.PartPut("q", (NewMessage(b"3", "t"),)),))
    [outcome] = bench.do(c.TransactAndClaim(puts, AFTER[0]))
    assert isinstance(outcome, TransactedAndClaimed)
    assert len(outcome.transacted.put[0].ids) == 1
    assert isinstance(outcome.claimed, Refused)
    assert bench.counts() == (2, 1)


def test_the_same_again_is_answered_with_what_the_claim_still_holds(bench: Bench) -> None:
    bench.put(b"1", b"2", b"3")
    asked = acking(bench.claim(), AFTER[0])
    done, claimed = both(bench.do(asked)[0])
    assert deliveries(claimed) == [1, 1]
    assert bench.again(asked) == (TransactedAndClaimed(done, claimed),)
    ack = c.Ack("a", "q", claimed.claim, (claimed.messages[0].id,))
    bench.apply(Batch(0, 0, 0, (ack,)))
    left = Claimed(claimed.claim, claimed.until_ms, claimed.messages[1:])
    assert bench.again(asked) == (TransactedAndClaimed(done, left),)
    bench.apply(Batch(0, 0, 0, (c.Ack("a", "q", claimed.claim),)))
    assert bench.again(asked) == (TransactedAndClaimed(done, Claimed(0, 0, ())),)


def test_what_was_taken_is_not_given_again(bench: Bench) -> None:
    bench.put(b"1", b"2")
    once = c.Once("a", "k", b"", 1_000, acking(bench.claim(), AFTER[1]))
    done, claimed = both(bench.do(once)[0])
    assert deliveries(claimed) == [1]
    assert bench.again(once) == (TransactedAndClaimed(done, Claimed(0, 0, ())),)
    assert bench.do(once) == (TransactedAndClaimed(done, Claimed(0, 0, ())),)


def test_what_is_remembered_of_it_has_no_bodies(bench: Bench) -> None:
    bench.do(c.Enqueue("a", "q", (BIG, BIG, BIG)))
    once = c.Once("a", "k", b"", 1_000, acking(bench.claim(), c.Claim("a", "q", 1)))
    both(bench.do(once, acking(5_000, AFTER[0]))[0])
    both(bench.do(c.TransactAndClaim(c.Transact("a"), AFTER[0]))[0])
    sizes = [len(value) for key, value in bench.kv.rows().items() if key[:1] != b"m"]
    assert max(sizes) < 300
