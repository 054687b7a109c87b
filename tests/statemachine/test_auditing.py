"""The audit log: what is written down, what never is, and how much of it is kept."""

from __future__ import annotations

from typing import get_args

import pytest

from memory_kv import MemoryKV
from statemachine import audit, keys, records
from statemachine import commands as c
from statemachine import outcomes as o
from statemachine.auditing import ACTS, DROPPED_MAX
from statemachine.commands import Batch, Entry, NewMessage, QueueSettings
from statemachine.machine import Machine

DATA = {
    c.Enqueue,
    c.Claim,
    c.Take,
    c.Extend,
    c.Ack,
    c.Release,
    c.DeleteMessages,
    c.Transact,
    c.TransactAndClaim,
    c.ExtendMany,
    c.DisableSubscription,
    c.TakeSubscriptions,
    c.UseKeys,
    c.Audited,
}
"""What is no administrative act: work with messages, and what nodes do of themselves."""

SECRET = b"never-to-be-shown"
TEXT = SECRET.decode()
HOOK = c.SubscriptionSettings(f"https://x/{TEXT}", (("authorization", TEXT),), 1, 1, 1, 1, 1, 1)
KEY = c.KeySettings("worker", ("consume", "produce"), ("orders*",))
SET = QueueSettings(metadata=SECRET, ttl_ms=5)
WRAPPED = c.WrappedKey(0, "m1", SECRET)
PURGE = c.Purge("a", "q")

SHOWN: list[tuple[c.AdministrativeCommand, tuple[str, str, str]]] = [
    (c.Purge("a", "q"), ("purge_queue", "q", "")),
    (c.PutQueue("a", "q", SET), ("put_queue", "q", "")),
    (
        c.PatchQueue("a", "q", SET, ("ttl_ms", "metadata")),
        ("patch_queue", "q", "fields=ttl_ms,metadata"),
    ),
    (c.DeleteQueue("a", "q"), ("delete_queue", "q", "")),
    (c.PutAccount("a", SET), ("put_account", "", "")),
    (c.PatchAccount("a", SET, ("ttl_ms",)), ("patch_account", "", "fields=ttl_ms")),
    (c.DeleteAccount("a"), ("delete_account", "", "")),
    (
        c.StartJob("a", "q", "p", act="move"),
        ("start_job", "q", "act=move to=p dry_run=False"),
    ),
    (c.CancelJob("a", "q"), ("cancel_job", "q", "")),
    (c.PutBinding("a", "q", "t", ()), ("put_binding", "q/t", "")),
    (c.DeleteBinding("a", "q", "t"), ("delete_binding", "q/t", "")),
    (
        c.PutSchedule("a", "s", "q", NewMessage(SECRET, "t"), c.Timing(every_ms=1), 5),
        ("put_schedule", "s", "queue=q"),
    ),
    (c.DeleteSchedule("a", "s"), ("delete_schedule", "s", "")),
    (c.PutSubscription("a", "q", "h", HOOK, SECRET, made=False), ("put_subscription", "q/h", "")),
    (c.DeleteSubscription("a", "q", "h"), ("delete_subscription", "q/h", "")),
    (
        c.PutKey("a", "k", KEY, SECRET),
        ("put_key", "k", "roles=consume,produce queues=orders*"),
    ),
    (c.RotateKey("a", "k", SECRET, 60_000), ("rotate_key", "k", "grace_ms=60000")),
    (c.RevokeKey("a", "k"), ("revoke_key", "k", "")),
    (c.PutSealingKeys("a", (WRAPPED,), enabled=True), ("put_encryption_keys", "", "enabled=True")),
    (c.DropSealingKeys("a"), ("destroy_encryption_keys", "", "")),
    (c.SetQuotas("a", c.Quotas(), ("queues",)), ("set_quotas", "", "fields=queues")),
]


class Bench:
    """A machine that is asked by somebody."""

    def __init__(self) -> None:
        self.kv = MemoryKV()
        self.machine = Machine(self.kv)
        self.index = 0

    def entry(self, *batches: Batch, at_ms: int = 1_000) -> list[tuple[o.Outcome, ...]]:
        self.index += 1
        results = self.machine.apply(self.index, 1, Entry(1, at_ms, batches))
        self.machine.end_round()
        return [result.outcomes for result in results]

    def do(self, command: c.Command, at_ms: int = 1_000) -> o.Outcome:
        [[outcome]] = self.entry(Batch(0, 0, 0, (command,)), at_ms=at_ms)
        return outcome

    def acts(self) -> list[audit.AuditRecord]:
        return [record for _, record in audit.page(self.kv, limit=10_000).items]


def audited(
    command: c.AdministrativeCommand,
    keep_ms: int = 10**12,
    keep_bytes: int = 10**9,
    owner: str = "a",
) -> c.Audited:
    return c.Audited("a", owner, "key:k1", "192.0.2.7", "r1", keep_ms, keep_bytes, command)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_every_command_is_either_an_act_or_work() -> None:
    acts = set(get_args(c.AdministrativeCommand))
    assert acts.isdisjoint(DATA)
    assert set(get_args(c.QueueCommand)) == acts | DATA
    assert set(ACTS) == acts == {type(command) for command, _ in SHOWN}


@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=lambda one: type(one).__name__)
def test_an_act_is_told_in_words_and_without_secrets(
    bench: Bench, command: c.AdministrativeCommand, shown: tuple[str, str, str]
) -> None:
    bench.do(audited(command))
    [record] = bench.acts()
    assert (record.act, record.subject, record.detail) == shown
    assert (record.actor, record.source, record.request) == ("key:k1", "192.0.2.7", "r1")
    assert (record.account, record.time_ms) == ("a", 1_000)
    assert SECRET not in records.encode(record)


def test_an_act_is_done_as_without_its_record_and_its_outcome_is_in_it(bench: Bench) -> None:
    assert bench.do(audited(c.PutQueue("a", "q", SET))) == o.Stored(created=True)
    refused = bench.do(audited(c.DeleteQueue("a", "other")))
    assert isinstance(refused, o.Refused)
    assert [record.outcome for record in bench.acts()] == ["done", "no_queue"]


def test_a_retry_is_no_second_act(bench: Bench) -> None:
    once = c.Once("a", "k", b"f", 60_000, audited(c.PutQueue("a", "q", SET)))
    assert bench.do(once) == bench.do(once)
    [[opened]] = bench.entry(Batch(0, 0, 0, (c.OpenSession("n1"),)))
    assert isinstance(opened, o.SessionOpened)
    batch = Batch(opened.session, 1, 1, (audited(PURGE),))
    assert bench.entry(batch) == bench.entry(batch)
    assert [record.act for record in bench.acts()] == ["put_queue", "purge_queue"]


def test_what_a_node_has_to_send_again_is_no_act_yet(bench: Bench) -> None:
    bench.do(c.PutAccount("a", SET))
    bench.do(c.PutSealingKeys("a", (WRAPPED,), enabled=True))
    plain = c.PutSchedule("a", "s", "q", NewMessage(b"1", "t"), c.Timing(every_ms=1_000), 5_000)
    refused = bench.do(audited(plain))
    assert isinstance(refused, o.Refused)
    assert bench.acts() == []


def test_pages_go_on_where_the_one_before_has_ended(bench: Bench) -> None:
    for _ in range(5):
        bench.do(audited(PURGE))
    numbers, after = [], 0
    while True:
        page = audit.page(bench.kv, limit=2, after=after)
        numbers += [number for number, _ in page.items]
        if page.marker is None:
            break
        after = page.marker
    assert len(numbers) == 5
    assert numbers == sorted(set(numbers))
    assert audit.page(bench.kv, limit=2, after=keys.U64_MAX).items == ()


def test_what_is_too_much_goes_from_the_oldest_on_and_the_newest_stays(bench: Bench) -> None:
    for number in range(50):
        bench.do(audited(c.DeleteQueue("a", f"q{number:02}"), keep_bytes=1_000))
    kept = bench.acts()
    assert [one.subject for one in kept] == [f"q{n:02}" for n in range(50 - len(kept), 50)]
    mark = audit.mark(bench.kv, "a")
    size = sum(len(records.encode(one)) for one in kept)
    assert mark.bytes == size <= 1_000 < size + len(records.encode(kept[0]))
    assert audit.page(bench.kv, limit=1).items[0][0] >= mark.low > 0
    bench.do(audited(PURGE, keep_bytes=1))
    assert [one.act for one in bench.acts()][-1] == "purge_queue"


def test_nobodys_acts_make_those_of_others_be_forgotten(bench: Bench) -> None:
    bench.do(audited(PURGE, owner=""))
    bench.do(audited(PURGE, owner="b"))
    for _ in range(50):
        bench.do(audited(PURGE, keep_bytes=300))
    kept = [one.owner for one in bench.acts()]
    assert kept[:2] == ["", "b"]
    assert 0 < kept.count("a") < 10


def test_nothing_is_left_of_what_was_dropped_and_no_scan_begins_before_what_is_there(
    bench: Bench,
) -> None:
    for _ in range(60):
        bench.do(audited(PURGE, keep_ms=0, owner="b"))
    for at_ms in (2_000, 2_000, 2_000, 2_000, 3_000):
        bench.do(audited(PURGE, keep_ms=500), at_ms=at_ms)
    numbers = [number for number, _ in audit.page(bench.kv, limit=100).items]
    rows = [key for key in bench.kv.rows() if key.startswith(b"u")]
    # Of each act one row and one of its owner's; a mark for the owner, and where the first is.
    assert len(rows) == 2 * len(numbers) + 2
    assert audit.first(bench.kv) == numbers[0]


def test_what_is_too_old_goes_a_few_with_each_act(bench: Bench) -> None:
    for _ in range(40):
        bench.do(audited(PURGE))
    bench.do(audited(PURGE, keep_ms=500), at_ms=2_000)
    assert len(bench.acts()) == 41 - DROPPED_MAX
    for _ in range(3):
        bench.do(audited(PURGE, keep_ms=500), at_ms=2_000)
    assert [one.time_ms for one in bench.acts()] == [2_000] * 4


def test_an_act_that_is_asked_for_with_a_key_that_is_gone_is_refused_and_written_down() -> None:
    bench = Bench()
    bench.do(c.PutKey("a", "k1", KEY, SECRET))

    def ask(act: c.AdministrativeCommand) -> o.Outcome:
        return bench.do(c.Audited("a", "a", "key:k1", "", "", 60_000, 10_000, act, "k1"))

    assert ask(c.PutQueue("a", "q", SET)) == o.Stored(created=True)
    bench.do(c.RevokeKey("a", "k1"))
    for act in (c.DeleteQueue("a", "q"), c.PutKey("a", "k2", KEY, SECRET)):
        refused = ask(act)
        assert isinstance(refused, o.Refused)
        assert refused.reason is o.Reason.KEY_ENDED
    assert bench.do(audited(c.DeleteQueue("a", "q"))) == o.Done()
    assert [one.outcome for one in bench.acts()] == ["done", "key_ended", "key_ended", "done"]
