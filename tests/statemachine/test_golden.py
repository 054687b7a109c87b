"""Bytes that are already in somebody's log or store. Add lines; never change one.

A field that is added at the end with a default changes the bytes that are written,
but not how these are read.
"""

from __future__ import annotations

from random import Random
from typing import Any, get_args

import msgspec
import pytest

from memory_kv import MemoryKV
from statemachine import audit, sealed
from statemachine import commands as c
from statemachine import outcomes as o
from statemachine import records as r
from statemachine.audit import AuditMarkRecord, AuditRecord
from statemachine.commands import Batch, Entry, NewMessage, QueueSettings
from statemachine.digest import digest
from statemachine.machine import BatchResult, Machine
from statemachine.sealed import SealingKey, SealingRecord
from steps import claim_of

ID = bytes(9) + b"\x07"
SETTINGS = QueueSettings(1, 2, 3, b"{}", 4, "dlq", 5, 6, 7, "only", 8, 9, 10)
HISTORY = r.History(1, 2, 3, 4, [r.Stretch(5, 6, 7, 8, 9, 10)], 11)
DEAD = c.DeadLetter("rejected", "why", "q", ID, 2, 3)
TIMING = c.Timing("* * * * *", 6, "UTC", 1, 2, "skip")
MESSAGE = NewMessage(b"body", "t/p", (("k", "v"),), 1, 2, "z", 3, "g", "d", 4, DEAD)
PLACED = QueueSettings(zone_mode="only", locality_wait_ms=4)
LANE = r.LaneRecord(1, "z", *range(2, 10))
KEY = c.KeySettings("n", ("consume",), ("q*",), 9)
HOOK = c.SubscriptionSettings("http://x", (("k", "v"),), 1, 2, 3, 4, 5, 6)

FILTER = c.Filter((c.HeaderMatch("K", ("v",)),), True, "g", 4, "z", 1, 2, 3, "ready")

COMMANDS: list[tuple[str, c.Command]] = [
    (
        "9301079194050302919401a161a171929cc404626f6479a3742f709192a16ba1760102a17a03a167a1640496a872656a6563746564a3776879a171c40a000000000000000000070203a09cc400a17490c0c0a000a0a0c0c0a0",
        c.Enqueue("a", "q", (MESSAGE, NewMessage(b"", "t"))),
    ),
    (
        "9301079194050302919902a161a1710506a17aa670726566657207a177",
        c.Claim("a", "q", 5, 6, "z", "prefer", 7, "w"),
    ),
    (
        "9301079194050302919818a161a17105a17aa670726566657207a177",
        c.Take("a", "q", 5, "z", "prefer", 7, "w"),
    ),
    (
        "9301079194050302919408a161a1719ec0c0c0c0c0c0c0c0c0a46f6e6c7904c0c0c0",
        c.PutQueue("a", "q", PLACED),
    ),
    (
        "9301079194050302919603a161a171050691c40a00000000000000000007",
        c.Extend("a", "q", 5, 6, (ID,)),
    ),
    ("9301079194050302919504a161a1710591c40a00000000000000000007", c.Ack("a", "q", 5, (ID,))),
    (
        "9301079194050302919805a161a17105c006a3776879c3",
        c.Release("a", "q", 5, None, 6, "why", True),
    ),
    ("9301079194050302919406a161a17191c40a00000000000000000007", c.DeleteMessages("a", "q", (ID,))),
    ("9301079194050302919307a161a171", c.Purge("a", "q")),
    (
        "9301079194050302919408a161a1719e010203c4027b7d04a3646c71050607a46f6e6c7908090ac0",
        c.PutQueue("a", "q", SETTINGS),
    ),
    (
        "9301079194050302919509a161a1719e010203c4027b7d04a3646c71050607a46f6e6c7908090ac091a674746c5f6d73",
        c.PatchQueue("a", "q", SETTINGS, ("ttl_ms",)),
    ),
    ("930107919405030291930aa161a171", c.DeleteQueue("a", "q")),
    (
        "930107919405030291930ba1619e010203c4027b7d04a3646c71050607a46f6e6c7908090ac0",
        c.PutAccount("a", SETTINGS),
    ),
    (
        "930107919405030291940ca1619e010203c4027b7d04a3646c71050607a46f6e6c7908090ac091a674746c5f6d73",
        c.PatchAccount("a", SETTINGS, ("ttl_ms",)),
    ),
    ("930107919405030291920da161", c.DeleteAccount("a")),
    ("930107919405030291920e09", c.Sweep(9)),
    ("930107919405030291920fa26e31", c.OpenSession("n1")),
    ("9301079194050302919110", c.Barrier()),
    ("930107919405030291931109c40164", c.ReportDigest(9, b"d")),
    (
        "9301079194050302919612a161a16bc40166099307a161a171",
        c.Once("a", "k", b"f", 9, c.Purge("a", "q")),
    ),
    ("9301079194050302919113", c.TakeDigest()),
    (
        "9301079194050302919514a1619193a1710591c40a000000000000000000079192a170919cc400a17490c0c0a000a0a0c0c0a09196a17206c007a3776879c3",
        c.Transact(
            "a",
            (c.PartAck("q", 5, (ID,)),),
            (c.PartPut("p", (NewMessage(b"", "t"),)),),
            (c.PartRelease("r", 6, None, 7, "why", True),),
        ),
    ),
    (
        "93010791940503029193199514a1619193a17105c090909902a161a1710506a0c0c0a0",
        c.TransactAndClaim(c.Transact("a", (c.PartAck("q", 5),)), c.Claim("a", "q", 5, 6)),
    ),
    (
        "9301079194050302919915a161a171a1700506a46d6f7665999193a14b91a17690c3a16704a17a010203a57265616479c3",
        c.StartJob("a", "q", "p", 5, 6, "move", FILTER, True),
    ),
    ("9301079194050302919516a161a17192050607", c.ExtendMany("a", "q", (5, 6), 7)),
    ("9301079194050302919317a161a171", c.CancelJob("a", "q")),
    (
        "930107919405030291961ea161a171a1749193a14b91a17691a170c3",
        c.PutBinding("a", "q", "t", (c.HeaderMatch("K", ("v",), ("p",)),), any_of=True),
    ),
    ("930107919405030291941fa161a171a174", c.DeleteBinding("a", "q", "t")),
    (
        "9301079194050302919720a161a173a1719cc404626f6479a3742f709192a16ba1760102a17a03a167a1640496a872656a6563746564a3776879a171c40a000000000000000000070203a096a92a202a202a202a202a06a35554430102a4736b697005",
        c.PutSchedule("a", "s", "q", MESSAGE, TIMING, 5),
    ),
    ("9301079194050302919321a161a173", c.DeleteSchedule("a", "s")),
    ("9301079194050302919722a161a173010203c3", c.Tick("a", "s", 1, 2, 3, skip=True)),
    (
        "9301079194050302919728a161a171a17398a8687474703a2f2f789192a16ba176010203040506c4036b6579c3",
        c.PutSubscription("a", "q", "s", HOOK, b"key", True),
    ),
    ("9301079194050302919429a161a171a173", c.DeleteSubscription("a", "q", "s")),
    (
        "930107919405030291962aa161a171a17309a3776879",
        c.DisableSubscription("a", "q", "s", 9, "why"),
    ),
    (
        "930107919405030291952ba26e31099193a161a171a1739193a161a171a174",
        c.TakeSubscriptions("n1", 9, (("a", "q", "s"),), (("a", "q", "t"),)),
    ),
    (
        "9301079194050302919632a161a16b94a16e91a7636f6e73756d6591a2712a09c40468617368c3",
        c.PutKey("a", "k", KEY, b"hash", True),
    ),
    (
        "9301079194050302919533a161a16bc4046861736809",
        c.RotateKey("a", "k", b"hash", 9),
    ),
    (
        "9301079194050302919334a161a16b",
        c.RevokeKey("a", "k"),
    ),
    (
        "930107919405030291923592a16ba16c",
        c.UseKeys(("k", "l")),
    ),
    (
        "9301079194050302919438a16198010203040506070891a6717565756573",
        c.SetQuotas("a", c.Quotas(*range(1, 9)), ("queues",)),
    ),
    (
        "930107919405030291943aa161919305a16dc40177c3",
        c.PutSealingKeys("a", (c.WrappedKey(5, "m", b"w"),), enabled=True),
    ),
    ("930107919405030291923ba161", c.DropSealingKeys("a")),
    (
        "9301079194050302919a36a161a16fa56b65793a6ba831302e302e302e31a17201029307a161a171a16b",
        c.Audited("a", "o", "key:k", "10.0.0.1", "r", 1, 2, c.Purge("a", "q"), "k"),
    ),
]

OUTCOMES: list[tuple[str, o.Outcome]] = [
    (
        "9600a86e6f5f7175657565a377687991c40a0000000000000000000791ab6e616d65645f747769636593a67175657565730102",
        o.Refused(o.Reason.NO_QUEUE, "why", (ID,), (o.Why.TWICE,), o.Over("queues", 1, 2)),
    ),
    (
        "940191c40a000000000000000000079100919192a171c40a00000000000000000007",
        o.Enqueued((ID,), (0,), ((o.Place("q", ID),),)),
    ),
    (
        "940205069194c40a0000000000000000000701c40172a3776879",
        o.Claimed(5, 6, (o.Delivered(ID, 1, b"r", "why"),)),
    ),
    (
        "9503060591c40a0000000000000000000791b568656c645f62795f616e6f746865725f636c61696d",
        o.Extended(6, 5, (ID,), (o.Why.HELD,)),
    ),
    ("94040191c40a0000000000000000000791a777616974696e67", o.Settled(1, (ID,), (o.Why.WAITING,))),
    ("920503", o.Deleted(3)),
    ("9206c3", o.Stored(created=True)),
    ("930703c3", o.Swept(3, more=True)),
    ("920805", o.SessionOpened(5)),
    ("9109", o.Done()),
    ("930a06919205c3", o.ManyExtended(6, ((5, True),))),
    (
        "950b9101910291940191c40a000000000000000000079090919401c391c40a0000000000000000000791a4676f6e65",
        o.Transacted(
            (1,), (2,), (o.Enqueued((ID,)),), (o.StalePart(1, True, (ID,), (o.Why.GONE,)),)
        ),
    ),
    (
        "930c950b91019090909402000090",
        o.TransactedAndClaimed(o.Transacted((1,)), o.Claimed(0, 0, ())),
    ),
    ("930c950b90909090c0", o.TransactedAndClaimed(o.Transacted(), None)),
    ("9319c3c4036b6579", o.SubscriptionStored(True, b"key")),
    ("931a0506", o.SubscriptionsTaken(5, 6)),
    ("941ba16bc40468617368c3", o.KeyStored("k", b"hash", True)),
]

RECORDS: list[tuple[str, msgspec.Struct]] = [
    ("9d0102030405060708090a0b0cc400", r.MachineRecord(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)),
    (
        "9c9e010203c4027b7d04a3646c71050607a46f6e6c7908090ac0019601020304919605060708090a0b0203040506070809980100000000000000",
        r.AccountRecord(SETTINGS, 1, HISTORY, *range(2, 10), c.Quotas(1)),
    ),
    (
        "dc0017019e010203c4027b7d04a3646c71050607a46f6e6c7908090ac0029601020304919605060708090a0b0304050607089a01a17a0203040506070809090a0b0c0d0e0f10111294010203910400",
        r.QueueRecord(
            1, SETTINGS, 2, HISTORY, *range(3, 9), LANE, *range(9, 19), r.Tally(1, 2, 3, [4])
        ),
    ),
    (
        "dc0017019ec0c0c0c0c0c0c0c0c0c0c0c0c0c00296010000009000000000000000c000000000000000cfffffffffffffffff00cfffffffffffffffff940000ff9000",
        r.QueueRecord(1, QueueSettings(), 2, r.History(1)),
    ),
    (
        "950102c39194c40a000000000000000000070304a3776879a177",
        r.ClaimRecord(1, 2, True, [r.Held(ID, 3, 4, "why")], "w"),
    ),
    ("9a01a17a0203040506070809", LANE),
    ("92c40a0000000000000000000702", r.GroupRecord(ID, 2)),
    (
        "dc0012a46d6f7665a170999193a14b91a17690c3a16704a17a010203a57265616479c30102030405060708099192c40a00000000000000000007a764656c617965640ac3c40163a167",
        r.JobRecord(
            "move",
            "p",
            FILTER,
            True,
            *range(1, 10),
            [r.Failure(ID, "delayed")],
            10,
            True,
            b"c",
            "g",
        ),
    ),
    (
        "9a0304a26e3105a177c4016d06a26e6fa17007",
        r.EventRecord(3, 4, "n1", 5, "w", b"m", 6, "no", "p", 7),
    ),
    (
        "930102919a0304a26e3105a177c4016d06a26e6fa17007",
        r.EventsRecord(1, 2, (r.EventRecord(3, 4, "n1", 5, "w", b"m", 6, "no", "p", 7),)),
    ),
    ("93a26e310102", r.SessionRecord("n1", 1, 2)),
    (
        "919194a1749193a16891a17690c201",
        r.BindingsRecord((r.Binding("t", (c.HeaderMatch("h", ("v",)),), False, 1),)),
    ),
    (
        "9a01a1719cc404626f6479a3742f709192a16ba1760102a17a03a167a1640496a872656a6563746564a3776879a171c40a000000000000000000070203a096a92a202a202a202a202a06a35554430102a4736b6970020304050607",
        r.ScheduleRecord(1, "q", MESSAGE, TIMING, 2, 3, 4, 5, 6, 7),
    ),
    ("93c40166019109", r.OnceRecord(b"f", 1, o.Done())),
    (
        "980198a8687474703a2f2f789192a16ba176010203040506c4036b657902a26e310304a3776879",
        r.SubscriptionRecord(1, HOOK, b"key", 2, "n1", 3, 4, "why"),
    ),
    ("920102", r.RunnerRecord(1, 2)),
    (
        "97a16194a16e91a7636f6e73756d6591a2712a09c404686173680102c4036f6c6403",
        r.KeyRecord("a", KEY, b"hash", 1, 2, b"old", 3),
    ),
    (
        "9a01a56b65793a6ba831302e302e302e31a172a161ab70757267655f7175657565a171a0a4646f6e65a16f",
        AuditRecord(1, "key:k", "10.0.0.1", "r", "a", "purge_queue", "q", "", "done", "o"),
    ),
    ("920102", AuditMarkRecord(1, 2)),
    ("92c3919401a16dc4017702", SealingRecord(enabled=True, keys=(SealingKey(1, "m", b"w", 2),))),
]

APART = (c.PutSealingKeys, c.DropSealingKeys, c.Audited, c.Take, c.TransactAndClaim)
IN_HISTORY = [one for _, one in COMMANDS if not isinstance(one, APART)]
"""Of what the first digest is made. The others change what becomes of all that follows (see
``test_sealing``), or came later."""

ACTS: list[c.Act] = ["move", "delete", "release"]

MESSAGE_HEX = (
    "03000000000000000500000000000000060000002f97a3742f709192a16ba176a17a03a16796a872"
    "656a6563746564a3776879a171c40a000000000000000000070203a0626f6479"
)
PLAIN_HEX = "00ffffffffffffffff00000000000000060000000997a17490a000a0c0a078"

NEAR = [("y", "only", None), ("z", "prefer", 40), ("", "prefer", None)]

STATE_DIGEST = "4195848c69b25666e2591cc1fa8b545f"
STATE_DIGEST_WITH_TAKES = "c4a99d8484824751e2408340e8e3e46f"
STATE_DIGEST_WITH_CLAIMS_AFTER = "4a394028318b7367182864d3ea1fac35"

REASONS = {
    "no_account",
    "no_queue",
    "no_claim",
    "account_in_use",
    "idempotency_key_reused",
    "session_expired",
    "stale_batch",
    "job_running",
    "no_job",
    "no_binding",
    "no_schedule",
    "too_many_bindings",
    "too_many_schedules",
    "fan_out_too_large",
    "fan_out_busy",
    "stale_tick",
    "no_subscription",
    "too_many_subscriptions",
    "no_key",
    "key_ended",
    "too_many_keys",
    "too_many_encryption_keys",
    "stale_seal",
    "quota_exceeded",
}


def encoded(value: Any) -> bytes:
    if isinstance(value, get_args(c.Command)):
        return c.encode(Entry(1, 7, (Batch(5, 3, 2, (value,)),)))
    return r.encode(value)


@pytest.mark.parametrize(("wire", "command"), COMMANDS, ids=lambda one: type(one).__name__)
def test_commands_are_frozen(wire: str, command: c.Command) -> None:
    assert encoded(command).hex() == wire
    entry = Entry(1, 7, (Batch(5, 3, 2, (command,)),))
    assert c.decode_entry(bytes.fromhex(wire)) == entry


@pytest.mark.parametrize(("wire", "outcome"), OUTCOMES, ids=lambda one: type(one).__name__)
def test_outcomes_are_frozen(wire: str, outcome: o.Outcome) -> None:
    assert encoded(outcome).hex() == wire
    decoded = msgspec.msgpack.decode(bytes.fromhex(wire), type=o.Outcome)
    assert decoded == outcome


@pytest.mark.parametrize(("wire", "record"), RECORDS, ids=lambda one: type(one).__name__)
def test_records_are_frozen(wire: str, record: msgspec.Struct) -> None:
    assert encoded(record).hex() == wire
    assert msgspec.msgpack.decode(bytes.fromhex(wire), type=type(record)) == record


def test_every_command_outcome_and_record_has_a_line() -> None:
    assert {type(one) for _, one in COMMANDS} == set(get_args(c.Command))
    assert {type(one) for _, one in OUTCOMES} == set(get_args(o.Outcome))
    stored = {
        one
        for module in (r, sealed, audit)
        for name, one in vars(module).items()
        if name.endswith("Record") and isinstance(one, type) and one.__module__ == module.__name__
    }
    assert {type(one) for _, one in RECORDS} == stored
    assert {reason.value for reason in o.Reason} == REASONS


def test_messages_are_frozen() -> None:
    record = r.encode_message(MESSAGE, r.TIMED, 5, 6)
    assert record.hex() == MESSAGE_HEX
    stored = r.StoredMessage(b"body", "t/p", (("k", "v"),), "z", 3, 5, 3, "g", 6, DEAD)
    assert r.decode_message(record) == stored
    assert r.group_of(record) == "g"
    plain = r.encode_message(NewMessage(b"x", "t"), 0, r.FOR_EVER, 6)
    assert plain.hex() == PLAIN_HEX
    assert r.decode_message(plain) == r.StoredMessage(b"x", "t", (), "", 6, None, 0, "", 6)


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ((), STATE_DIGEST),
        ((c.Take,), STATE_DIGEST_WITH_TAKES),
        ((c.Take, c.TransactAndClaim), STATE_DIGEST_WITH_CLAIMS_AFTER),
    ],
    ids=["first", "takes", "claims after"],
)
def test_a_log_leads_to_the_state_it_always_did(later: tuple[type, ...], expected: str) -> None:
    """Not the encoding alone but every rule, seen through the digest.

    A change here is a change of what logs mean: replicas of both versions would disagree.
    It needs a new entry version, and a path for the old one.
    """
    kv = MemoryKV()
    machine = Machine(kv)
    history = History(later)
    digests: dict[bytes, bytes] = {}
    spaces = set[bytes]()
    for index in range(1, 801):
        batches = (*history.batches(), *history.ticks(machine))
        history.learn(machine.apply(index, 1, Entry(1, history.now_ms, batches)))
        machine.end_round()
        spaces |= {key[:1] for key in kv.rows()}
        digests[b"%d" % index] = digest(kv)
    every = b"abcdefghijklmnopqrstwxyz"
    assert later or b"".join(sorted(spaces)) == every, "every space was in use"
    assert digest(MemoryKV(digests)).hex() == expected


class History:
    """Commands of all kinds, the same ones every time.

    ``later``: of those that are not as old as the rest, these too.
    """

    def __init__(self, later: tuple[type, ...]) -> None:
        self._random = Random(7)
        self._later = later
        self.now_ms = 1_000
        self._session = 0
        self._seq = 0
        self._claims: list[tuple[str, int]] = [("q", 5)]
        self._ids = [ID]

    def batches(self) -> list[Batch]:
        self.now_ms += self._random.choice([0, 0, 1, 5, 30])
        plain = [Batch(0, 0, 0, (self._command(),))]
        if not self._session:
            return [Batch(0, 0, 0, (c.OpenSession("n1"),)), *plain]
        self._seq += 1
        commands = tuple(self._command() for _ in range(3))
        return [*plain, Batch(self._session, self._seq, self._seq - 2, commands)]

    def ticks(self, machine: Machine) -> list[Batch]:
        """Of the schedules that have one; the next comes some time later, or never."""
        due = machine.due_schedules(self.now_ms, 2)
        return [
            Batch(0, 0, 0, (c.Tick(account, name, of.version, of.next_ms or 0, after),))
            for account, name, of in due
            for after in [self._random.choice([None, self.now_ms, self.now_ms + 50])]
        ]

    def learn(self, results: list[BatchResult]) -> None:
        """Take up ids and claims, so that some of the commands to come are not in vain."""
        for result in results:
            for outcome in result.outcomes:
                if isinstance(outcome, o.SessionOpened):
                    self._session = outcome.session
                elif isinstance(outcome, o.Enqueued):
                    self._ids = [*self._ids, *outcome.ids][-20:]
                elif isinstance(claimed := claim_of(outcome), o.Claimed) and claimed.claim:
                    self._claims = [*self._claims, ("q", claimed.claim)][-4:]

    def _command(self) -> c.Command:
        draw = self._random
        queue, claim = draw.choice(self._claims)
        ids = tuple(draw.sample(self._ids, min(2, len(self._ids))))
        lease_ms, delay_ms = draw.choice([None, 20, 90]), draw.choice([None, 0, 40])
        new = tuple(
            NewMessage(
                bytes(draw.randrange(3)),
                "t",
                (("k", "v"),) * draw.randrange(2),
                draw.choice([None, 0, 50, 500]),
                draw.choice([None, None, 0, 25]),
                draw.choice(["", "y", "z"]),
                draw.choice([0, 0, 9]),
                draw.choice(["", "", "g", "h"]),
                dedup_id=draw.choice(["", "", "", "x", "y"]),
                not_before_ms=draw.choice([None, None, None, self.now_ms + 10]),
            )
            for _ in range(draw.randrange(1, 4))
        )
        common: list[c.QueueCommand] = [
            c.Enqueue("a", queue, new),
            c.Enqueue("a", queue, new),
            c.Claim("a", queue, draw.randrange(1, 4), lease_ms),
            c.Claim("a", queue, draw.randrange(1, 4), lease_ms, *draw.choice(NEAR)),
            c.Extend("a", queue, claim, lease_ms),
            c.Ack("a", queue, claim, draw.choice([None, ids])),
            c.Release(
                "a",
                queue,
                claim,
                draw.choice([None, ids]),
                delay_ms,
                draw.choice(["", "why"]),
                draw.choice([False, True]),
            ),
            c.DeleteMessages("a", queue, ids[:1]),
            c.Extend("a", queue, claim, lease_ms, ids),
            c.ExtendMany("a", queue, tuple(one for _, one in self._claims), lease_ms),
            c.Transact("a", (c.PartAck(queue, claim),), (c.PartPut(queue, new),)),
            c.StartJob("a", draw.choice([queue, f"{queue}.dead"]), "", draw.choice([0, 3]), 20),
            c.StartJob(
                "a", queue, "p", act=draw.choice(ACTS), filter=draw.choice([FILTER, c.Filter()])
            ),
        ]
        if c.Take in self._later:
            common.append(c.Take("a", queue, draw.randrange(1, 4), *draw.choice(NEAR)))
        if c.TransactAndClaim in self._later:
            transaction = c.Transact("a", (c.PartAck(queue, claim),), (c.PartPut(queue, new),))
            after = draw.choice([c.Claim, c.Claim, c.Take])("a", "q", draw.randrange(1, 4))
            common.append(c.TransactAndClaim(transaction, after))
        command = draw.choice(common)
        if draw.random() < 0.1:
            return c.Once("a", str(draw.randrange(3)), bytes([draw.randrange(2)]), 60, command)
        if draw.random() < 0.1:
            return draw.choice(IN_HISTORY)
        return c.Sweep(draw.randrange(1, 9)) if draw.random() < 0.2 else command
