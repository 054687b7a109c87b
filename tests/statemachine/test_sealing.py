"""What the log sees to of sealed bodies: who may put what, and when keys come and go."""

from __future__ import annotations

import pytest

from memory_kv import MemoryKV
from statemachine import commands as c
from statemachine import keys, sealed
from statemachine import outcomes as o
from statemachine.commands import Batch, Entry, NewMessage, WrappedKey
from statemachine.machine import Machine
from statemachine.outcomes import Reason, Refused
from statemachine.records import decode_message
from statemachine.sealed import SealingKey, SealingRecord

NEW = WrappedKey(0, "m1", b"wrapped")
PLAIN = NewMessage(b"body", "t")


class Bench:
    """A machine, and one entry for each command."""

    def __init__(self) -> None:
        self.kv = MemoryKV()
        self.machine = Machine(self.kv)
        self.index = 0
        self.do(c.PutAccount("a", c.QueueSettings()))

    def do(self, command: c.Command, at_ms: int = 1_000) -> o.Outcome:
        self.index += 1
        entry = Entry(1, at_ms, (Batch(0, 0, 0, (command,)),))
        [result] = self.machine.apply(self.index, 1, entry)
        self.machine.end_round()
        return result.outcomes[0]

    def switch_on(self) -> int:
        """The number of the new current key."""
        self.do(c.PutSealingKeys("a", (NEW,), enabled=True))
        return self.record().keys[-1].number

    def record(self) -> SealingRecord:
        found = sealed.of(self.kv, "a")
        assert found is not None
        return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


def sealed_by(number: int, body: bytes = b"ciphertext") -> NewMessage:
    return NewMessage(keys.u64(number) + body, "t", content_encoding=sealed.CODING)


def puts(message: NewMessage) -> list[c.QueueCommand]:
    """The ways in which a message gets into the log."""
    return [
        c.Enqueue("a", "q", (message,)),
        c.Transact("a", puts=(c.PartPut("q", (message,)),)),
        c.PutSchedule("a", "s", "q", message, c.Timing(every_ms=1_000), 5_000),
        c.Once("a", "k", b"f", 60_000, c.Enqueue("a", "q", (message,))),
        c.TransactAndClaim(
            c.Transact("a", puts=(c.PartPut("q", (message,)),)), c.Claim("a", "q", 1)
        ),
    ]


def stale(outcome: o.Outcome) -> bool:
    return isinstance(outcome, Refused) and outcome.reason is Reason.STALE_SEAL


@pytest.mark.parametrize("way", range(5))
def test_no_plain_body_gets_in_once_bodies_are_to_be_sealed(bench: Bench, way: int) -> None:
    number = bench.switch_on()
    assert stale(bench.do(puts(PLAIN)[way]))
    assert [key for key in bench.kv.rows() if key[:1] in b"qmek"] == []
    assert not stale(bench.do(puts(sealed_by(number))[way]))
    assert [key for key in bench.kv.rows() if key[:1] in b"qmek"] != []


@pytest.mark.parametrize("way", range(5))
def test_no_body_gets_in_that_nobody_could_open(bench: Bench, way: int) -> None:
    assert stale(bench.do(puts(sealed_by(7))[way]))  # There is no key at all.
    number = bench.switch_on()
    assert stale(bench.do(puts(sealed_by(number + 1))[way]))
    bench.do(c.DropSealingKeys("a"))
    assert stale(bench.do(puts(sealed_by(number))[way]))
    assert stale(bench.do(puts(PLAIN)[way]))  # Nor does a plain one, until there is a new key.
    assert not stale(bench.do(puts(sealed_by(bench.switch_on()))[way]))


@pytest.mark.parametrize("way", range(5))
def test_it_is_the_same_with_a_queue_that_is_there(bench: Bench, way: int) -> None:
    bench.do(puts(PLAIN)[0])
    assert stale(bench.do(puts(sealed_by(7))[way]))
    number = bench.switch_on()
    assert stale(bench.do(puts(PLAIN)[way]))
    assert stale(bench.do(puts(sealed_by(number + 1))[way]))
    assert not stale(bench.do(puts(sealed_by(number))[way]))


def test_a_refusal_that_only_the_node_hears_is_not_remembered_under_the_clients_key(
    bench: Bench,
) -> None:
    number = bench.switch_on()
    assert stale(bench.do(puts(PLAIN)[3]))
    again = bench.do(puts(sealed_by(number))[3])
    assert isinstance(again, o.Enqueued)
    assert bench.do(puts(sealed_by(number, b"sealed anew"))[3]) == again
    # And when the window is over nothing of it is left.
    bench.do(c.Sweep(100), at_ms=100_000)
    assert stale(bench.do(puts(PLAIN)[3], at_ms=100_000))
    assert [key for key in bench.kv.rows() if key.startswith(b"k")] == []


def test_a_message_takes_its_seal_along(bench: Bench) -> None:
    number = bench.switch_on()
    bench.do(c.PutBinding("a", "q", "copies", ()))
    bench.do(c.PutBinding("a", "q", "q", ()))
    bench.do(puts(sealed_by(number))[0])
    claimed = bench.do(c.Claim("a", "q", 1))
    assert isinstance(claimed, o.Claimed)
    bench.do(c.Release("a", "q", claimed.claim, dead=True))
    for name in ("copies", "q.dead"):
        found = bench.do(c.Claim("a", name, 1))
        assert isinstance(found, o.Claimed)
        stored = decode_message(found.messages[0].record)
        assert (stored.body, stored.content_encoding) == (
            keys.u64(number) + b"ciphertext",
            sealed.CODING,
        )


def test_a_schedule_ticks_as_it_was_put(bench: Bench) -> None:
    bench.do(puts(PLAIN)[2])
    bench.switch_on()
    [due] = bench.machine.due_schedules(5_000, 1)
    ticked = bench.do(c.Tick("a", "s", due.record.version, 5_000, None), at_ms=5_000)
    assert isinstance(ticked, o.Enqueued)


def test_keys_are_added_wrapped_anew_and_dropped(bench: Bench) -> None:
    first = bench.switch_on()
    bench.do(c.PutSealingKeys("a", (WrappedKey(0, "m2", b"second"),)))
    second = bench.record().keys[-1].number
    rewrapped = (WrappedKey(first, "m3", b"anew"), WrappedKey(999, "m3", b"of nobody"))
    bench.do(c.PutSealingKeys("a", rewrapped), at_ms=2_000)
    assert bench.record() == SealingRecord(
        True,
        (SealingKey(first, "m3", b"anew", 1_000), SealingKey(second, "m2", b"second", 1_000)),
    )
    assert bench.do(c.DropSealingKeys("a")) == o.Deleted(2)
    assert bench.record() == SealingRecord(True, ())
    # A key that was dropped does not come back with a rewrapping that is late.
    bench.do(c.PutSealingKeys("a", rewrapped))
    assert bench.record() == SealingRecord(True, ())
    bench.do(c.PutSealingKeys("a", (), enabled=False))
    assert sealed.of(bench.kv, "a") is None


def test_keys_go_with_their_account(bench: Bench) -> None:
    bench.switch_on()
    assert bench.do(c.DeleteAccount("a")) == o.Done()
    assert list(sealed.accounts(bench.kv)) == []
    assert not stale(bench.do(puts(PLAIN)[0]))


def test_an_account_that_is_not_there_has_no_keys(bench: Bench) -> None:
    for command in (c.PutSealingKeys("b", (NEW,)), c.DropSealingKeys("b")):
        outcome = bench.do(command)
        assert isinstance(outcome, Refused)
        assert outcome.reason is Reason.NO_ACCOUNT


def test_there_is_a_most_of_keys(bench: Bench) -> None:
    assert bench.do(c.PutSealingKeys("a", (NEW,) * 1_000)) == o.Stored(created=True)
    outcome = bench.do(c.PutSealingKeys("a", (NEW,)))
    assert isinstance(outcome, Refused)
    assert outcome.reason is Reason.TOO_MANY_SEALING_KEYS


def test_a_replica_that_begins_anew_knows_the_same(bench: Bench) -> None:
    number = bench.switch_on()
    again = Machine(bench.kv)
    assert again.sealing("a") == bench.record()
    entry = Entry(1, 1_000, (Batch(0, 0, 0, (puts(PLAIN)[0], puts(sealed_by(number))[0])),))
    [result] = again.apply(bench.index + 1, 1, entry)
    assert [stale(outcome) for outcome in result.outcomes] == [True, False]


@pytest.mark.parametrize("before", ["", "gzip", "gzip, br"])
def test_the_coding_of_a_sealed_body_is_the_last_one(before: str) -> None:
    after = sealed.with_coding(before)
    assert sealed.is_sealed(after)
    assert not sealed.is_sealed(before)
    assert sealed.without_coding(after) == before
