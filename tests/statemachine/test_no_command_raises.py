"""Whatever can be encoded can be applied: an entry that raised would stop every replica."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from memory_kv import MemoryKV
from statemachine import commands as c
from statemachine.commands import Batch, Entry
from statemachine.machine import Machine
from statemachine.outcomes import Claimed, Enqueued, Outcome, Refused, SessionOpened

INTEGERS = st.sampled_from([-(2**63), -1, 0, 1, 2, 100, 2**63, 2**64 - 1])
TEXTS = st.sampled_from(["", "a", "\x00", "\x00\x01", "\uffff"])
NAMES = st.just("a") | st.just("a") | st.just("a") | TEXTS
BYTES = st.sampled_from([b"", b"\xff" * 10, bytes(10), b"x" * 11])
MODES = st.sampled_from([None, "any", "only", "prefer", ""])
SETTINGS = st.builds(
    c.QueueSettings,
    *[st.none() | INTEGERS] * 3,
    max_deliveries=st.none() | INTEGERS,
    dead_letter_queue=st.none() | TEXTS,
    retry_delay_ms=st.none() | INTEGERS,
    retry_delay_max_ms=st.none() | INTEGERS,
    dedup_window_ms=st.none() | INTEGERS,
    zone_mode=MODES,
    locality_wait_ms=st.none() | INTEGERS,
    history_ms=st.none() | INTEGERS,
    history_bytes=st.none() | INTEGERS,
)
MESSAGE = st.builds(
    c.NewMessage,
    BYTES,
    TEXTS,
    st.lists(st.tuples(TEXTS, TEXTS), max_size=2).map(tuple),
    st.none() | INTEGERS,
    st.none() | INTEGERS,
    TEXTS,
    INTEGERS,
    TEXTS,
    dedup_id=TEXTS,
    not_before_ms=st.none() | INTEGERS,
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "account": NAMES,
    "queue": NAMES,
    "key": NAMES,
    "zone": TEXTS,
    "zone_mode": MODES,
    "locality_wait_ms": st.none() | INTEGERS,
    "consumer": TEXTS,
    "node": TEXTS,
    "name": NAMES,
    "secret": BYTES,
    "made": st.booleans(),
    "reason": TEXTS,
    "fingerprint": BYTES,
    "digest": BYTES,
    "settings": SETTINGS,
    "defaults": SETTINGS,
    "fields": st.lists(TEXTS | st.just("ttl_ms"), max_size=2).map(tuple),
    "target": NAMES,
    "schedule": NAMES,
    "match": st.lists(
        st.builds(c.HeaderMatch, TEXTS, st.lists(TEXTS).map(tuple), st.lists(TEXTS).map(tuple)),
        max_size=2,
    ).map(tuple),
    "any_of": st.booleans(),
    "act": st.sampled_from(get_args(c.Act)),
    "filter": st.builds(
        c.Filter,
        group=st.none() | TEXTS,
        priority=st.none() | INTEGERS,
        zone=st.none() | TEXTS,
        min_age_ms=st.none() | INTEGERS,
        max_age_ms=st.none() | INTEGERS,
        min_deliveries=INTEGERS,
        state=st.none() | st.sampled_from(get_args(c.MessageState)),
    ),
    "dry_run": st.booleans(),
    "quotas": st.builds(c.Quotas, *[INTEGERS] * len(c.Quotas.__struct_fields__)),
    "skip": st.booleans(),
    "message": MESSAGE,
    "timing": st.builds(c.Timing, TEXTS, INTEGERS, TEXTS, st.none() | INTEGERS),
    "next_ms": st.none() | INTEGERS,
    "messages": st.lists(
        MESSAGE,
        max_size=3,
    ).map(tuple),
}
FIELDS["take"] = FIELDS["drop"] = st.lists(st.tuples(NAMES, NAMES, NAMES), max_size=2).map(tuple)
HOOK = st.builds(c.SubscriptionSettings, TEXTS, st.just(()), *[INTEGERS] * 6)
KEY = st.builds(c.KeySettings, TEXTS, st.just(("r",)), st.just(("*",)), st.none() | INTEGERS)
FIELDS |= {"id": TEXTS, "hash": BYTES, "first": st.booleans()}
PARTS = {
    "queue": NAMES,
    "claim": INTEGERS,
    "delay_ms": st.none() | INTEGERS,
    "reason": TEXTS,
    "dead": st.booleans(),
    "messages": FIELDS["messages"],
}


def parts(kind: type, ids: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = getattr(kind, "__struct_fields__")  # noqa: B009  # As below.
    given = {**PARTS, "ids": st.none() | ids}
    return st.lists(st.builds(kind, **{name: given[name] for name in names}), max_size=2).map(tuple)


KNOWN = st.integers(0, 3)


def any_command(kind: type, ids: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A command of this kind with anything in its fields."""
    special = {
        "acks": parts(c.PartAck, ids),
        "puts": parts(c.PartPut, ids),
        "releases": parts(c.PartRelease, ids),
        "transaction": st.deferred(lambda: any_command(c.Transact, ids)),
        "claim": st.deferred(lambda: any_command(c.Claim, ids) | any_command(c.Take, ids))
        if kind is c.TransactAndClaim
        else INTEGERS,
        "claims": st.lists(INTEGERS, max_size=3).map(tuple),
        "to": TEXTS,
        "lease_ms": INTEGERS if kind is c.TakeSubscriptions else st.none() | INTEGERS,
        "settings": {c.PutSubscription: HOOK, c.PutKey: KEY}.get(kind, SETTINGS),
        "ids": {c.DeleteMessages: ids, c.UseKeys: st.lists(TEXTS).map(tuple)}.get(
            kind, st.none() | ids
        ),
        "delay_ms": st.none() | INTEGERS,
        "dead": st.booleans(),
        "keys": st.lists(st.builds(c.WrappedKey, INTEGERS, TEXTS, BYTES), max_size=2).map(tuple),
        "enabled": st.none() | st.booleans(),
        "command": st.deferred(
            lambda: st.one_of(
                [
                    any_command(one, ids)
                    for one in get_args(
                        c.AdministrativeCommand if kind is c.Audited else c.QueueCommand
                    )
                ]
            )
        ),
        **dict.fromkeys(("owner", "actor", "source", "request"), TEXTS),
    }
    names = getattr(kind, "__struct_fields__")  # noqa: B009  # mypy does not know it of a type.
    return st.builds(kind, **{name: {**FIELDS, **special}.get(name, INTEGERS) for name in names})


IDS = st.lists(BYTES, max_size=3).map(tuple)
ANY_BATCH = st.builds(
    Batch,
    session=st.integers(0, 3),
    seq=st.integers(0, 3),
    floor=st.integers(0, 3),
    commands=st.lists(
        st.one_of([any_command(kind, IDS) for kind in get_args(c.Command)]), max_size=4
    ).map(tuple),
)
"""Sessions are numbered from 1 here; see ``real``."""


def own(command: c.Transact, claim: int) -> c.Transact:
    """The transaction, with acks of that claim."""
    acks = tuple(c.PartAck(one.queue, claim, one.ids) for one in command.acks)
    return c.Transact(command.account, acks, command.puts, command.releases)


def real(batch: Batch, outcomes: list[Outcome], sessions: list[int], which: int) -> Batch:
    """The batch with some made-up numbers replaced by ones that mean something."""
    claims = [one.claim for one in outcomes if isinstance(one, Claimed) and one.claim]
    ids = [one for outcome in outcomes if isinstance(outcome, Enqueued) for one in outcome.ids]
    commands: list[Any] = []
    for command in batch.commands:
        if isinstance(command, c.Ack | c.Release | c.Extend) and claims and which:
            kept = {name: getattr(command, name) for name in command.__struct_fields__}
            command = type(command)(**{**kept, "claim": claims[-1]})
        if isinstance(command, c.Transact) and claims and which:
            command = own(command, claims[-1])
        if isinstance(command, c.TransactAndClaim) and claims and which:
            command = c.TransactAndClaim(own(command.transaction, claims[-1]), command.claim)
        if isinstance(command, c.DeleteMessages) and ids and which > 1:
            command = c.DeleteMessages(command.account, command.queue, tuple(ids[-which:]))
        commands.append(command)
    session = sessions[batch.session % len(sessions)] if batch.session else 0
    return Batch(session, batch.seq, batch.floor, tuple(commands))


def ticks(machine: Machine) -> Iterator[c.Tick]:
    """Of all schedules that are due."""
    for due in machine.due_schedules(machine.stamp_ms, 10):
        record = due.record
        assert record.next_ms is not None
        yield c.Tick(due.account, due.schedule, record.version, record.next_ms, 2**64 - 1)


STAMPS = st.sampled_from([0, 100, 101, 10**6, 10**13])


def opened(outcome: Outcome) -> int:
    assert isinstance(outcome, SessionOpened)
    return outcome.session


@settings(max_examples=600, deadline=None)
@given(st.lists(st.tuples(STAMPS, ANY_BATCH, KNOWN), max_size=12))
def test_no_command_raises(history: list[tuple[int, Batch, int]]) -> None:
    kv = MemoryKV()
    machine = Machine(kv)
    opening = Entry(1, 0, (Batch(0, 0, 0, (c.OpenSession("n"),)),))
    sessions = [opened(machine.apply(1, 1, opening)[0].outcomes[0]), 5]
    outcomes: list[Outcome] = []
    seen = dict[tuple[int, int], Batch]()
    for index, (stamp_ms, made_up, which) in enumerate(history, start=1):
        batch = real(made_up, outcomes, sessions, which)
        # A node never gives two batches the same number.
        batch = seen.setdefault((batch.session, batch.seq), batch) if batch.session else batch
        entry = c.decode_entry(c.encode(Entry(1, stamp_ms, (batch,))))
        for result in machine.apply(2 * index, 1, entry):
            outcomes.extend(result.outcomes)
        machine.end_round()
        machine.next_due_ms()
        batch = Batch(0, 0, 0, tuple(ticks(machine)) if which else ())
        (result,) = machine.apply(2 * index + 1, 1, c.decode_entry(c.encode(Entry(1, 0, (batch,)))))
        assert not any(isinstance(one, Refused) for one in result.outcomes)
        machine.end_round()
        if which == 0:
            machine = Machine(kv)
