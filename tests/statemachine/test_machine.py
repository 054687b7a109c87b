"""The edges of the machine: where it begins, what it refuses to guess, what it forgets."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from memory_kv import MemoryKV
from statemachine import commands as c
from statemachine import keys, records
from statemachine.commands import Batch, Command, DeadLetter, Entry, NewMessage
from statemachine.machine import BatchResult, Machine, UnknownVersion
from statemachine.outcomes import (
    Claimed,
    Done,
    Enqueued,
    Outcome,
    Reason,
    Refused,
    SessionOpened,
    Settled,
)
from statemachine.sessions import IDLE_MAX_MS

MESSAGE = NewMessage(b"body", "text/plain")
PUT = c.Enqueue("a", "q", (MESSAGE,))


def entry(*batches: Batch, stamp_ms: int = 100) -> Entry:
    return Entry(c.ENTRY_VERSION, stamp_ms, batches)


def plain(*commands: Command) -> Batch:
    return Batch(0, 0, 0, commands)


def run(machine: Machine, *commands: Command, stamp_ms: int = 100) -> tuple[Outcome, ...]:
    index = machine.applied_index + 1
    (result,) = machine.apply(index, 1, entry(plain(*commands), stamp_ms=stamp_ms))
    machine.end_round()
    return result.outcomes


def test_an_empty_state_begins_at_any_index_and_goes_on_without_gaps() -> None:
    kv = MemoryKV()
    machine = Machine(kv)
    assert (machine.applied_index, machine.applied_term, machine.stamp_ms) == (0, 0, 0)
    machine.end_round()
    assert kv.rows() == {}, "nothing was applied, nothing is written"
    machine.apply(41, 7, entry(stamp_ms=5))
    machine.end_round()
    assert (machine.applied_index, machine.applied_term, machine.stamp_ms) == (41, 7, 5)
    for index in (40, 41, 43):
        with pytest.raises(AssertionError):
            Machine(kv).apply(index, 7, entry())
    assert Machine(kv).apply(42, 8, None) == []


def test_an_entry_of_a_later_version_stops_the_machine_before_it_writes() -> None:
    kv = MemoryKV()
    machine = Machine(kv)
    with pytest.raises(UnknownVersion, match="entry 1 is of version 2"):
        machine.apply(1, 1, Entry(c.ENTRY_VERSION + 1, 100, ()))
    machine.end_round()
    assert kv.rows() == {}


@pytest.mark.parametrize("layout", [records.LAYOUT - 1, records.LAYOUT + 1])
def test_a_store_of_another_layout_is_not_opened(layout: int) -> None:
    other = records.MachineRecord(layout=layout)
    with pytest.raises(UnknownVersion, match=f"layout {layout}, and this program reads"):
        Machine(MemoryKV({keys.POSITION: records.encode(other)}))


def test_an_unknown_tag_can_not_be_decoded() -> None:
    data = msgspec.msgpack.encode([c.ENTRY_VERSION, 0, [[0, 0, 0, [[99, "a"]]]]])
    with pytest.raises(msgspec.ValidationError):
        c.decode_entry(data)
    with pytest.raises(msgspec.ValidationError):
        c.decode_batch(msgspec.msgpack.encode([0, 0, 0, [[99]]]))
    assert c.decode_batch(c.encode(plain(PUT))) == plain(PUT)


def test_batches_of_several_nodes_share_an_entry() -> None:
    machine = Machine(MemoryKV())
    (opened,) = run(machine, c.OpenSession("n1"))
    assert isinstance(opened, SessionOpened)
    batches = (
        Batch(opened.session, 1, 1, (PUT, c.Claim("a", "q", 1))),
        plain(PUT),
        Batch(opened.session, 1, 1, (PUT, c.Claim("a", "q", 1))),
        Batch(opened.session + 1, 1, 1, (PUT, PUT)),
    )
    results = machine.apply(2, 1, entry(*batches))
    assert [(one.session, one.seq) for one in results] == [
        (batch.session, batch.seq) for batch in batches
    ]
    assert results[0] == results[2]
    assert isinstance(results[1], BatchResult)
    assert [type(one) for one in results[0].outcomes] == [Enqueued, Claimed]
    refusals = [one.reason for one in results[3].outcomes if isinstance(one, Refused)]
    assert refusals == [Reason.SESSION_EXPIRED] * 2


def test_a_session_whose_batch_sweeps_is_in_use_and_answers_again_what_it_did() -> None:
    machine = Machine(MemoryKV())
    (opened,) = run(machine, c.OpenSession("n1"))
    assert isinstance(opened, SessionOpened)
    first, later_ms = Batch(opened.session, 1, 1, (PUT,)), 2 * IDLE_MAX_MS
    done = machine.apply(2, 1, entry(first))
    machine.apply(3, 1, entry(Batch(opened.session, 2, 1, (c.Sweep(100),)), stamp_ms=later_ms))
    assert machine.apply(4, 1, entry(first, stamp_ms=later_ms)) == done
    machine.end_round()
    assert machine.ready("a", "q") == 1


def test_commands_of_one_batch_take_effect_in_order() -> None:
    machine = Machine(MemoryKV())
    outcomes = run(machine, PUT, c.Claim("a", "q", 5), c.Purge("a", "q"), c.Barrier())
    claimed = outcomes[1]
    assert isinstance(claimed, Claimed)
    assert len(claimed.messages) == 1
    assert outcomes[3] == Done()
    assert machine.take_woken() == {("a", "q", ""): 1}
    assert machine.take_woken() == {}


def test_what_is_remembered_has_no_bodies() -> None:
    kv = MemoryKV()
    machine = Machine(kv)
    (opened,) = run(machine, c.OpenSession("n1"))
    assert isinstance(opened, SessionOpened)
    big = c.Enqueue("a", "q", (NewMessage(b"x" * 10_000, "text/plain"),))
    once = c.Once("a", "k", b"", 1_000, c.Claim("a", "q", 1))
    batch = Batch(opened.session, 1, 1, (big, c.Claim("a", "q", 1), big, once))
    machine.apply(2, 1, entry(batch))
    machine.end_round()
    sizes = [len(value) for key, value in kv.rows().items() if key[:1] != b"m"]
    assert max(sizes) < 200


def test_times_that_can_not_be_written_are_never() -> None:
    machine = Machine(MemoryKV())
    huge = 2**64 - 1
    message = NewMessage(b"", "", ttl_ms=huge, delay_ms=-1)
    delayed = NewMessage(b"", "", ttl_ms=0, delay_ms=huge)
    run(machine, c.PutAccount("a", c.QueueSettings(history_ms=huge)))
    run(machine, c.Enqueue("a", "q", (message, delayed)), stamp_ms=2**62)
    (claimed,) = run(machine, c.Claim("a", "q", 5, lease_ms=huge))
    assert isinstance(claimed, Claimed)
    assert len(claimed.messages) == 1
    assert machine.next_due_ms() is None
    run(machine, c.Extend("a", "q", claimed.claim, huge), c.Sweep(10))
    assert run(machine, c.Ack("a", "q", claimed.claim)) == (Settled(1),)
    (past,) = run(machine, c.Enqueue("a", "q", (NewMessage(b"", "", ttl_ms=-5),)))
    assert isinstance(past, Enqueued)
    assert run(machine, c.Claim("a", "q", 1)) == (Claimed(0, 0, ()),)


@pytest.mark.parametrize("limit", [0, -1, -1000])
def test_a_claim_of_nothing_takes_nothing(limit: int) -> None:
    machine = Machine(MemoryKV())
    run(machine, PUT, PUT, c.Claim("a", "q", 1, lease_ms=1))
    run(machine, c.Sweep(10), stamp_ms=101)
    assert run(machine, c.Claim("a", "q", limit)) == (Claimed(0, 0, ()),)
    (claimed,) = run(machine, c.Claim("a", "q", 9))
    assert isinstance(claimed, Claimed)
    assert [one.deliveries for one in claimed.messages] == [2, 1]


@pytest.mark.parametrize("claim", [-1, 0, 5, 2**64, 2**80])
def test_numbers_that_are_no_claims_are_refused(claim: int) -> None:
    machine = Machine(MemoryKV())
    run(machine, PUT)
    commands = (c.Ack("a", "q", claim), c.Release("a", "q", claim), c.Extend("a", "q", claim))
    for outcome in run(machine, *commands):
        assert isinstance(outcome, Refused)
        assert outcome.reason is Reason.NO_CLAIM


def test_an_entry_with_more_ids_than_there_are_stops_the_machine() -> None:
    machine = Machine(MemoryKV())
    machine.apply(1, 1, entry())
    machine._state.take_id = lambda: 3 << 20  # type: ignore[method-assign]  # As if so many were taken.
    machine._state.begin = lambda *_: setattr(machine._state, "next_id", 3 << 20)  # type: ignore[method-assign]  # The same.
    with pytest.raises(AssertionError, match="too many"):
        machine.apply(2, 1, entry())


def test_replaying_over_a_copy_of_the_store_gives_the_same_bytes() -> None:
    """A replica that crashed after any entry, and one that installed a snapshot there."""
    log = [
        entry(plain(c.OpenSession("n1"))),
        entry(plain(PUT, PUT, c.Enqueue("a", "q", (NewMessage(b"", "", delay_ms=5),)))),
        entry(plain(c.Claim("a", "q", 1, 10), c.Claim("a", "q", 1, 5))),
        None,
        entry(plain(c.Once("a", "k", b"", 50, PUT), c.Sweep(100)), stamp_ms=107),
        entry(plain(c.Sweep(100), c.DeleteMessages("a", "q", (b"?",))), stamp_ms=111),
        entry(plain(c.Claim("a", "q", 10), c.PutQueue("a", "p", c.QueueSettings())), stamp_ms=112),
    ]
    whole = MemoryKV()
    machine = Machine(whole)
    copies = [MemoryKV()]
    for index, one in enumerate(log, start=1):
        machine.apply(index, 1, one)
        machine.end_round()
        copies.append(MemoryKV(whole.rows()))
    for start, copy in enumerate(copies):
        replayed = Machine(copy)
        for index in range(start + 1, len(log) + 1):
            replayed.apply(index, 1, log[index - 1])
        replayed.end_round()
        assert copy.rows() == whole.rows()


def test_every_command_is_answered() -> None:
    """A command without a case is a type error; this is for those who do not run mypy."""
    machine = Machine(MemoryKV())
    settings = c.QueueSettings()
    samples: list[Command] = [
        PUT,
        c.Claim("a", "q", 1),
        c.Take("a", "q", 1),
        c.Extend("a", "q", 1),
        c.Ack("a", "q", 1),
        c.Release("a", "q", 1),
        c.DeleteMessages("a", "q", ()),
        c.Purge("a", "q"),
        c.PutQueue("a", "q", settings),
        c.PatchQueue("a", "q", settings, ()),
        c.DeleteQueue("a", "q"),
        c.PutAccount("a", settings),
        c.PatchAccount("a", settings, ()),
        c.DeleteAccount("a"),
        c.Sweep(1),
        c.OpenSession("n"),
        c.Barrier(),
        c.ReportDigest(1, b""),
        c.Once("a", "k", b"", 1, PUT),
        c.TakeDigest(),
        c.Transact("a"),
        c.TransactAndClaim(c.Transact("a"), c.Claim("a", "q", 1)),
        c.ExtendMany("a", "q", (1,)),
        c.StartJob("a", "q"),
        c.CancelJob("a", "q"),
        c.PutBinding("a", "q", "t", ()),
        c.DeleteBinding("a", "q", "t"),
        c.PutSchedule("a", "s", "q", NewMessage(b"", ""), c.Timing(), 5),
        c.DeleteSchedule("a", "s"),
        c.Tick("a", "s", 1, 5, None),
        c.PutSubscription(
            "a", "q", "s", c.SubscriptionSettings("u", (), 1, 1, 1, 1, 1, 1), b"", made=False
        ),
        c.DeleteSubscription("a", "q", "s"),
        c.DisableSubscription("a", "q", "s", 1, "why"),
        c.TakeSubscriptions("n", 1),
        c.SetQuotas("a", c.Quotas()),
        c.PutKey("a", "k", c.KeySettings("n", (), ()), b""),
        c.RotateKey("a", "k", b"", 1),
        c.RevokeKey("a", "k"),
        c.UseKeys(("k",)),
        c.PutSealingKeys("a", (c.WrappedKey(0, "m", b""),)),
        c.DropSealingKeys("a"),
        c.Audited("a", "", "key:k", "", "", 1, 1, c.Purge("a", "q")),
    ]
    assert {type(one) for one in samples} == set(get_args(c.Command))
    with pytest.raises(AssertionError):
        run(machine, "something else")  # type: ignore[arg-type]  # That is the point.
    machine = Machine(MemoryKV())
    outcomes = run(machine, *samples)
    assert {type(one) for one in outcomes} <= set(get_args(Outcome))


OTHERS = {
    "content_type": "text/html",
    "headers": (("a", "b"),),
    "dead": DeadLetter("rejected", "", "q", bytes(10), 1, 7),
    "content_encoding": "gzip",
    "zone": "z2",
    "priority": 3,
    "ttl_ms": 5,
    "body": b"other",
}


@pytest.mark.parametrize(("field", "value"), OTHERS.items(), ids=OTHERS)
def test_messages_of_a_batch_are_stored_as_each_of_them_would_be(field: str, value: object) -> None:
    other = msgspec.structs.replace(MESSAGE, **{field: value})
    batch = (MESSAGE, other, other, MESSAGE)
    together, alone = Machine(kv := MemoryKV()), Machine(kv_alone := MemoryKV())
    run(together, c.Enqueue("a", "q", batch))
    for message in batch:
        run(alone, c.Enqueue("a", "q", (message,)))
    stored, expected = [
        [value for key, value in each.rows().items() if key.startswith(b"m")]
        for each in (kv, kv_alone)
    ]
    assert stored == expected
    assert len(stored) == len(batch)
