"""Random histories: the machine against a plain model, and against itself.

Two machines are given the same log. One applies it in rounds of random length and
now and then is restarted from its store. The other begins every entry as a new
machine over its store, so that nothing it knows can come from a cache, and ends
every round after one entry. Both must answer alike, and whenever both have ended a
round their stores must hold the same bytes.

``make test`` plays a fixed draw of them; ``RAFTQ_HISTORIES=1000`` plays so many others.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memory_kv import MemoryKV
from queue_model import HookNames, Message, Model, Place, Queue, meets
from statemachine import commands as c
from statemachine import (
    fresh,
    histories,
    hooks,
    keyring,
    keys,
    lanes,
    looking,
    queries,
    records,
    returned,
    standing,
    state,
    walks,
)
from statemachine.commands import Batch, Command, Entry
from statemachine.digest import digest
from statemachine.filters import ANY
from statemachine.machine import BatchResult, Machine
from statemachine.outcomes import Outcome, Reason, Refused, SessionOpened, Swept
from statemachine.prospects import Prospects
from statemachine.sessions import IDLE_MAX_MS
from told import about, seen, told

MORE = int(os.environ.get("RAFTQ_HISTORIES", "0"))

Names = tuple[str, str]
ACCOUNTS = st.sampled_from(["a", "a", "b\x00"])
NAMES = st.sampled_from([("a", "q")] * 5 + [("a", "q\x00"), ("a", "p"), ("b\x00", "q")])
STATES = st.sampled_from(["ready", "delayed", "claimed", "blocked"])
ZONES = st.sampled_from(["", "z1", "z1", "z2", "z3"])
MODES = st.sampled_from([None, None, "any", "only", "prefer", "prefer"])
DURATIONS = st.sampled_from([1, 5, 20, 60, 500])
OPTIONAL = st.none() | DURATIONS
INDEX = st.integers(0, 10**6)
SETTINGS = st.builds(
    c.QueueSettings,
    ttl_ms=st.none() | st.just(0) | DURATIONS,
    delay_ms=st.none() | st.just(0) | DURATIONS,
    lease_ms=OPTIONAL,
    metadata=st.none() | st.just(b"{}"),
    max_deliveries=st.none() | st.integers(0, 3),
    dead_letter_queue=st.sampled_from([None, "", "p", "q"]),
    retry_delay_ms=OPTIONAL,
    retry_delay_max_ms=OPTIONAL,
    dedup_window_ms=st.none() | st.just(0) | DURATIONS,
    zone_mode=MODES,
    locality_wait_ms=OPTIONAL,
    history_ms=st.sampled_from([None, None, 0, 40, 2000]),
    history_bytes=st.sampled_from([None, None, 0, 300, 2000]),
)
FIELDS = st.lists(st.sampled_from([*c.QueueSettings.__struct_fields__, "later"])).map(tuple)
BYTES = st.binary(max_size=3)
MESSAGES = st.builds(
    c.NewMessage,
    body=BYTES,
    content_type=st.sampled_from(["text/plain", "x/y"]),
    headers=st.sampled_from([(), (), (("k", "v"),), (("K", "vw"), ("l", "v"))]),
    ttl_ms=st.none() | st.just(0) | DURATIONS,
    delay_ms=st.sampled_from([None, None, 0, 0, 5, 60]),
    zone=ZONES,
    priority=st.sampled_from([0, 0, 0, 4, 9]),
    group=st.sampled_from(["", "", "", "g", "h", "g\x00"]),
    dedup_id=st.sampled_from(["", "", "", "x", "y", "\x00"]),
    not_before_ms=st.sampled_from([None] * 7 + [0, 30, 100]),
)
MATCHES = st.lists(
    st.builds(
        c.HeaderMatch,
        st.sampled_from(["k", "L"]),
        st.lists(st.sampled_from(["v", "w"]), max_size=2).map(tuple),
        st.sampled_from([(), (), ("",), ("w", "v")]),
    ),
    max_size=2,
).map(tuple)
FILTERS = st.builds(
    c.Filter,
    headers=st.just(()) | MATCHES,
    any_of=st.booleans(),
    group=st.sampled_from([None, None, "", "g"]),
    priority=st.sampled_from([None, None, 0, 4]),
    zone=st.sampled_from([None, None, "", "z1"]),
    min_age_ms=OPTIONAL,
    max_age_ms=st.sampled_from([None, None, 0, 20, 500]),
    min_deliveries=st.sampled_from([0, 0, 1, 2]),
    state=st.none() | STATES,
)
TARGETS = st.sampled_from(["q", "q\x00", "p", "r"])
SCHEDULES = st.sampled_from([("a", "s"), ("a", "s"), ("a", "s\x00"), ("b\x00", "s")])
TIMINGS = st.builds(c.Timing, cron=st.sampled_from(["", "* * * * *"]))
CONFIGURING = st.one_of(
    st.builds(lambda names, *rest: c.PutQueue(*names, *rest), NAMES, SETTINGS),
    st.builds(lambda names, *rest: c.PatchQueue(*names, *rest), NAMES, SETTINGS, FIELDS),
    st.builds(c.PutAccount, ACCOUNTS, SETTINGS),
    st.builds(c.PatchAccount, ACCOUNTS, SETTINGS, FIELDS),
    st.builds(c.DeleteAccount, ACCOUNTS),
)
NO_QUOTAS = c.Quotas()
QUOTAS = st.just(NO_QUOTAS) | st.builds(
    c.Quotas,
    queues=st.sampled_from([0, 0, 1, 2, 4]),
    messages=st.sampled_from([0, 0, 1, 3, 8]),
    bytes=st.sampled_from([0, 0, 2, 9]),
    in_flight=st.sampled_from([0, 0, 1, 3]),
    subscriptions=st.sampled_from([0, 0, 1]),
    schedules=st.sampled_from([0, 0, 1]),
    bindings=st.sampled_from([0, 0, 1, 2]),
    history_bytes=st.sampled_from([0, 0, 200, 1000]),
)
KINDS = st.lists(st.sampled_from([*c.Quotas.__struct_fields__, "later"])).map(tuple)
HOOKS = st.sampled_from([("a", "q", "h"), ("a", "q", "i\x00"), ("b\x00", "q", "h")])
HOOK_SETTINGS = st.builds(
    lambda url: c.SubscriptionSettings(url, (("k", "v"),), 1, 2, 3, 4, 5, 6),
    st.sampled_from(["http://x", "http://y"]),
)
NODES = st.sampled_from(["n1", "n2"])
KEYS = st.sampled_from(["k", "l", "l\x00"])
KEY_ACCOUNTS = st.sampled_from(["", "a", "b\x00"])
KEY_SETTINGS = st.builds(
    lambda name, expires_ms: c.KeySettings(name, ("consume",), ("*",), expires_ms),
    st.sampled_from(["", "n"]),
    st.sampled_from([None, 0, 50]),
)
BACK = st.none() | st.tuples(
    st.sampled_from([None, None, 0, 0, 5, 60]), st.sampled_from(["", "why"]), st.booleans()
)
"""How messages of a claim are given back, if they are."""

HOW = st.sampled_from(["plain"] * 4 + ["batch"] * 4 + ["once"])

STEPS: list[tuple[str, dict[str, st.SearchStrategy[Any]]]] = []


def step(weight: int, **arguments: st.SearchStrategy[Any]) -> Callable[[Any], Any]:
    """A step of a history, ``weight`` times as likely as one of weight 1.

    Hypothesis would have all rules alike, and leave some out of each history: claims
    that find something would be rare.
    """

    def register(method: Any) -> Any:
        STEPS.extend([(method.__name__, arguments)] * weight)
        return method

    return register


class Histories(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.model = Model()
        self.model.was_made = lambda names: self.twin_kv.get(keys.queue(*names)) is not None
        self.history_bytes: dict[str, int] = {}
        self.now_ms = 0
        self.kv = MemoryKV()
        self.machine = Machine(self.kv)
        self.twin_kv = MemoryKV()
        self.index = 0
        self.round_is_open = False
        self.sessions: dict[int, int] = {}  # To log time of the last use.
        self.seq = 0
        self.floor = 0
        self.once: c.Once | None = None
        self.sent: dict[tuple[int, int], list[tuple[Command, Outcome]]] = {}

    # The log.

    def log(self, entry: Entry | None) -> list[BatchResult]:
        """Apply an entry everywhere."""
        self.index = self.index + 1 if self.index else 7
        if entry is not None:
            entry = c.decode_entry(c.encode(entry))
        twin = Machine(self.twin_kv)
        twin_results = twin.apply(self.index, 3, entry)
        self.now_ms = max(self.now_ms, entry.stamp_ms if entry else 0)
        self.model.now_ms = self.now_ms
        twin.end_round()
        self.twin = twin
        self.round_is_open = True
        results = self.machine.apply(self.index, 3, entry)
        assert results == twin_results
        return results

    def entry(self, session: int, seq: int, *commands: Command) -> tuple[Outcome, ...]:
        """Log one batch at the present log time."""
        batch = Batch(session, seq, min(self.floor, seq), commands)
        (result,) = self.log(Entry(c.ENTRY_VERSION, self.now_ms, (batch,)))
        assert (result.session, result.seq) == (session, seq)
        return result.outcomes

    def do(self, how: str, command: Command) -> None:
        """Have a command done, and check what it answers and whom it wakes."""
        note(f"{self.now_ms}: {command}")
        if how == "once":
            assert isinstance(command, c.QueueCommand)
            self.once = c.Once("a", "key", c.encode(Batch(0, 0, 0, (command,))), 40, command)
            command = self.once
        if how == "plain":
            (outcome,) = self.entry(0, 0, command)
        else:
            outcome = self.in_session(command)
        self.model.check(command, outcome)
        self.learn()
        self.check_woken()

    def in_session(self, command: Command) -> Outcome:
        session = self.open_session()
        self.seq += 1
        (outcome,) = self.entry(session, self.seq, command)
        self.sessions[session] = self.now_ms
        self.sent[session, self.seq] = [(command, outcome)]
        return outcome

    def open_session(self) -> int:
        if not self.sessions:
            (opened,) = self.entry(0, 0, c.OpenSession("n1"))
            assert isinstance(opened, SessionOpened)
            self.sessions[opened.session] = self.now_ms
            self.seq, self.floor = 0, 1
            self.sent.clear()
        return next(iter(self.sessions))

    def check_woken(self) -> None:
        assert self.twin.take_woken() == +self.model.woken
        self.model.woken.clear()

    def a_claim(self, index: int) -> tuple[Names, int]:
        known = self.model.all_claims
        # Mostly late ones, since the early ones are over.
        return known[-1 - index % min(len(known), 4)] if known else (("a", "q"), index)

    @rule(data=st.data())
    def something_happens(self, data: Any) -> None:
        name, arguments = data.draw(st.sampled_from(STEPS))
        getattr(self, name)(**{key: data.draw(kind) for key, kind in arguments.items()})

    # Steps.

    @step(12, how=HOW, names=NAMES, new=st.lists(MESSAGES, min_size=1, max_size=5))
    def enqueue(self, how: str, names: Names, new: list[c.NewMessage]) -> None:
        self.do(how, c.Enqueue(*names, tuple(map(self.from_now_on, new))))

    def from_now_on(self, new: c.NewMessage) -> c.NewMessage:
        """Drawn are times that begin a moment ago."""
        if new.not_before_ms is None:
            return new
        at_ms = max(self.now_ms + new.not_before_ms - 20, 0)
        return msgspec.structs.replace(new, not_before_ms=at_ms)

    @step(12, how=HOW, names=NAMES, limit=st.integers(1, 6), lease=OPTIONAL, zone=ZONES, mode=MODES)
    def claim(
        self,
        how: str,
        names: Names,
        limit: int,
        lease: int | None,
        zone: str,
        mode: str | None,
    ) -> None:
        self.do(how, c.Claim(*names, limit, lease, zone, mode, consumer="w" * (limit % 2)))

    @step(4, how=HOW, names=NAMES, limit=st.integers(1, 6), zone=ZONES, mode=MODES)
    def take(self, how: str, names: Names, limit: int, zone: str, mode: str | None) -> None:
        self.do(how, c.Take(*names, limit, zone, mode, consumer="w" * (limit % 2)))

    @step(2, how=HOW, which=INDEX, lease=OPTIONAL)
    def extend(self, how: str, which: int, lease: int | None) -> None:
        names, claim = self.a_claim(which)
        self.do(how, c.Extend(*names, claim, lease))

    @step(2, how=HOW, which=INDEX, picked=st.lists(INDEX, max_size=3), lease=OPTIONAL)
    def extend_some(self, how: str, which: int, picked: list[int], lease: int | None) -> None:
        names, claim = self.a_claim(which)
        self.do(how, c.Extend(*names, claim, lease, self.some_held(names, claim, picked)))

    @step(2, how=HOW, names=NAMES, which=st.lists(INDEX, max_size=4), lease=OPTIONAL)
    def extend_many(self, how: str, names: Names, which: list[int], lease: int | None) -> None:
        claims = tuple(self.a_claim(one)[1] for one in which)
        self.do(how, c.ExtendMany(*names, claims, lease))

    def some_held(self, names: Names, claim: int, picked: list[int]) -> tuple[bytes, ...]:
        """Of what the claim holds, and of what it does not."""
        known = self.model_messages(names)
        held = [one.id for one in known if one.claim == claim and one.state == "claimed"]
        held += [b"none", *[one.id for one in known if one.claim != claim][:1]]
        return tuple(held[one % len(held)] for one in picked)

    @step(
        4,
        how=HOW,
        parts=st.lists(st.tuples(INDEX, st.none() | st.lists(INDEX, max_size=2), BACK), max_size=3),
        puts=st.lists(st.tuples(NAMES, MESSAGES), max_size=2),
        then=st.sampled_from([None, None, c.Claim, c.Take]),
        names=NAMES,
        limit=st.integers(1, 6),
    )
    def transact(
        self,
        how: str,
        parts: list[Any],
        puts: list[Any],
        then: type[c.Claim | c.Take] | None,
        names: Names,
        limit: int,
    ) -> None:
        acks, releases = [], []
        for which, picked, back in parts:
            whose, claim = self.a_claim(which)
            ids = None if picked is None else self.some_held(whose, claim, picked)
            if back is None:
                acks.append(c.PartAck(whose[1], claim, ids))
            else:
                releases.append(c.PartRelease(whose[1], claim, ids, *back))
        new = tuple(c.PartPut(queue, (self.from_now_on(one),)) for (_, queue), one in puts)
        transaction = c.Transact("a", tuple(acks), new, tuple(releases))
        if then is None:
            self.do(how, transaction)
        else:
            self.do(how, c.TransactAndClaim(transaction, then("a", names[1], limit)))

    @step(
        4,
        how=HOW,
        names=NAMES,
        dead=st.sampled_from(["", ".dead"]),
        to=st.sampled_from(["", "", "p", "q"]),
        act=st.sampled_from(["redrive", "redrive", "move", "delete", "release"]),
        wanted=st.just(ANY) | FILTERS,
        dry_run=st.sampled_from([False, False, True]),
    )
    def start_job(
        self,
        how: str,
        names: Names,
        dead: str,
        to: str,
        act: c.Act,
        wanted: c.Filter,
        dry_run: bool,
    ) -> None:
        where = (names[0], names[1] + dead)
        self.do(how, c.StartJob(*where, to, act=act, filter=wanted, dry_run=dry_run))

    @step(1, how=HOW, names=NAMES)
    def cancel_job(self, how: str, names: Names) -> None:
        self.do(how, c.CancelJob(*names))

    @step(5, how=HOW, which=INDEX, back=BACK)
    def settle(self, how: str, which: int, back: tuple[Any, ...] | None) -> None:
        names, claim = self.a_claim(which)
        if back is None:
            self.do(how, c.Ack(*names, claim))
        else:
            self.do(how, c.Release(*names, claim, None, *back))

    @step(4, how=HOW, which=INDEX, picked=st.lists(INDEX, max_size=3), back=BACK)
    def settle_some(
        self, how: str, which: int, picked: list[int], back: tuple[Any, ...] | None
    ) -> None:
        names, claim = self.a_claim(which)
        held = [one.id for one in self.model_messages(names) if one.claim == claim]
        held.append(b"none")
        ids = tuple(held[one % len(held)] for one in picked)
        if back is None:
            self.do(how, c.Ack(*names, claim, ids))
        else:
            self.do(how, c.Release(*names, claim, ids, *back))

    @step(1, which=INDEX, names=NAMES)
    def settle_where_it_is_not(self, which: int, names: Names) -> None:
        self.do("plain", c.Ack(*names, self.a_claim(which)[1]))

    def model_messages(self, names: Names) -> list[Message]:
        found = self.model.queues.get(names)
        return list(found.messages.values()) if found else []

    @step(4, how=HOW, names=NAMES, state=STATES, which=INDEX, count=st.integers(1, 3))
    def delete_messages(self, how: str, names: Names, state: str, which: int, count: int) -> None:
        known = [one.id for one in self.model_messages(names) if one.state == state]
        start = which % len(known) if known else 0
        ids = known[start : start + count]
        self.do(how, c.DeleteMessages(*names, (*ids, *ids[:1], b"nothing like an id")))

    @step(1, how=HOW, which=INDEX)
    def delete_any_message(self, how: str, which: int) -> None:
        if self.model.all_ids:
            names, message_id = self.model.all_ids[which % len(self.model.all_ids)]
            self.do(how, c.DeleteMessages(*names, (message_id,)))

    @step(3, how=HOW, command=CONFIGURING)
    def configure(self, how: str, command: Command) -> None:
        self.do(how, command)

    @step(6, how=HOW, account=ACCOUNTS, quotas=QUOTAS, fields=st.none() | st.none() | KINDS)
    def set_quotas(
        self, how: str, account: str, quotas: c.Quotas, fields: tuple[str, ...] | None
    ) -> None:
        self.do(how, c.SetQuotas(account, quotas, fields))

    @step(3, how=HOW, names=NAMES, target=TARGETS, match=MATCHES, any_of=st.booleans())
    def bind(
        self, how: str, names: Names, target: str, match: tuple[c.HeaderMatch, ...], any_of: bool
    ) -> None:
        self.do(how, c.PutBinding(*names, target, match, any_of))

    @step(1, how=HOW, names=NAMES, target=TARGETS)
    def unbind(self, how: str, names: Names, target: str) -> None:
        self.do(how, c.DeleteBinding(*names, target))

    @step(2, how=HOW, names=SCHEDULES, queue=TARGETS, new=MESSAGES, timing=TIMINGS, first=OPTIONAL)
    def schedule(
        self,
        how: str,
        names: Names,
        queue: str,
        new: c.NewMessage,
        timing: c.Timing,
        first: int | None,
    ) -> None:
        next_ms = None if first is None else self.now_ms + first
        self.do(how, c.PutSchedule(*names, queue, new, timing, next_ms))

    @step(1, how=HOW, names=SCHEDULES)
    def unschedule(self, how: str, names: Names) -> None:
        self.do(how, c.DeleteSchedule(*names))

    @step(6, after=OPTIONAL, skip=st.sampled_from([False, False, True]), again=st.booleans())
    def schedules_tick(self, after: int | None, skip: bool, again: bool) -> None:
        """All that are due, by one leader or by two that do not know of each other."""
        for account, name, record in self.twin.due_schedules(self.now_ms, 100):
            assert record.next_ms is not None
            next_ms = None if after is None else record.next_ms + after
            tick = c.Tick(account, name, record.version, record.next_ms, next_ms, skip)
            self.do("plain", tick)
            assert self.model.schedules[account, name].next_ms == next_ms
            after_it = standing.schedule(self.twin_kv, account, name)
            assert after_it is not None
            assert after_it.refused == self.model.schedules[account, name].refused
            if again:
                before = len(self.model.schedules[account, name].ticks)
                self.do("plain", tick)
                assert len(self.model.schedules[account, name].ticks) == before

    @step(1, names=SCHEDULES, version=INDEX, due=OPTIONAL)
    def a_tick_comes_out_of_turn(self, names: Names, version: int, due: int | None) -> None:
        self.do("plain", c.Tick(*names, version, self.now_ms + (due or 0), None))

    @step(3, how=HOW, names=NAMES, delete=st.sampled_from([False, False, True]))
    def empty_a_queue(self, how: str, names: Names, delete: bool) -> None:
        self.do(how, c.DeleteQueue(*names) if delete else c.Purge(*names))

    @step(2, how=HOW, names=HOOKS, new=HOOK_SETTINGS, secret=BYTES, made=st.booleans())
    def put_subscription(
        self, how: str, names: HookNames, new: c.SubscriptionSettings, secret: bytes, made: bool
    ) -> None:
        self.do(how, c.PutSubscription(*names, new, secret, made))
        view = hooks.subscription(self.twin_kv, *names)
        if view is not None:  # A request that came again changes nothing.
            self.model.revisions.setdefault(names, []).append(view.revision)

    @step(1, how=HOW, names=HOOKS)
    def delete_subscription(self, how: str, names: HookNames) -> None:
        self.do(how, c.DeleteSubscription(*names))

    @step(1, how=HOW, names=HOOKS, which=st.integers(0, 2), reason=st.sampled_from(["", "why"]))
    def disable_subscription(self, how: str, names: HookNames, which: int, reason: str) -> None:
        known = [0, *self.model.revisions.get(names, [])]
        self.do(how, c.DisableSubscription(*names, known[-1 - which % len(known)], reason))

    @step(
        3,
        how=HOW,
        node=NODES,
        lease=st.sampled_from([0, 1, 20, 60]),
        take=st.lists(HOOKS, max_size=3),
        drop=st.lists(HOOKS, max_size=2),
    )
    def take_subscriptions(
        self, how: str, node: str, lease: int, take: list[HookNames], drop: list[HookNames]
    ) -> None:
        self.do(how, c.TakeSubscriptions(node, lease, tuple(take), tuple(drop)))

    @step(
        2,
        how=HOW,
        account=KEY_ACCOUNTS,
        key=KEYS,
        new=KEY_SETTINGS,
        secret=BYTES,
        first=st.booleans(),
    )
    def put_key(
        self, how: str, account: str, key: str, new: c.KeySettings, secret: bytes, first: bool
    ) -> None:
        self.do(how, c.PutKey(account, key, new, secret, first))

    @step(1, how=HOW, account=KEY_ACCOUNTS, key=KEYS, secret=BYTES, grace=st.sampled_from([0, 20]))
    def rotate_key(self, how: str, account: str, key: str, secret: bytes, grace: int) -> None:
        self.do(how, c.RotateKey(account, key, secret, grace))

    @step(1, how=HOW, account=KEY_ACCOUNTS, key=KEYS)
    def revoke_key(self, how: str, account: str, key: str) -> None:
        self.do(how, c.RevokeKey(account, key))

    @step(1, how=HOW, keys=st.lists(KEYS, max_size=2))
    def use_keys(self, how: str, keys: list[str]) -> None:
        self.do(how, c.UseKeys(tuple(keys)))

    @step(6, by=st.sampled_from([0, 1, 4, 5, 15, 20, 60, 1000]))
    def time_passes(self, by: int) -> None:
        self.now_ms += by
        self.model.now_ms = self.now_ms

    @step(2, by=st.integers(1, 50), limit=st.integers(1, 2))
    def a_leaders_clock_is_behind(self, by: int, limit: int) -> None:
        command = c.Claim("a", "q", limit, 20)
        entry = Entry(c.ENTRY_VERSION, max(0, self.now_ms - by), (Batch(0, 0, 0, (command,)),))
        self.log(Entry(c.ENTRY_VERSION, self.now_ms, ()))
        (result,) = self.log(entry)
        self.model.check(command, result.outcomes[0])
        self.check_woken()

    @step(6, limit=st.integers(1, 4) | st.just(1000))
    def sweep(self, limit: int) -> None:
        note(f"{self.now_ms}: sweep {limit}")
        more = True
        woken = dict[Place, int]()
        while more:
            (swept,) = self.entry(0, 0, c.Sweep(limit))
            assert isinstance(swept, Swept)
            assert swept.count <= limit
            assert swept.count == limit or not swept.more
            more = swept.more
            for place, count in self.twin.take_woken().items():
                woken[place] = woken.get(place, 0) + count
        self.model.sweep()
        self.learn()
        assert woken == +self.model.woken
        self.model.woken.clear()
        for session, used_ms in list(self.sessions.items()):
            if used_ms + IDLE_MAX_MS <= self.now_ms:
                del self.sessions[session]
        self.check_next_due()

    def check_next_due(self) -> None:
        """Never too late, and nothing is due after a whole sweep."""
        due_ms = self.twin.next_due_ms()
        assert due_ms == self.machine.next_due_ms()
        assert due_ms is None or due_ms > self.now_ms
        expected = self.model.next_due_ms()
        if expected is not None:
            assert due_ms is not None
            assert due_ms <= expected

    @step(2, by=st.sampled_from([IDLE_MAX_MS // 2, IDLE_MAX_MS]))
    def an_idle_hour_passes(self, by: int) -> None:
        self.time_passes(by)
        self.sweep(1000)
        for session, seq in self.sent:
            if session not in self.sessions:
                outcomes = self.entry(session, seq, c.Barrier(), c.Barrier())
                assert [one.reason for one in outcomes if isinstance(one, Refused)] == [
                    Reason.SESSION_EXPIRED
                ] * 2

    @step(3, which=INDEX)
    def a_batch_comes_again(self, which: int) -> None:
        if not self.sent:
            return
        (session, seq), done = list(self.sent.items())[-1 - which % min(len(self.sent), 4)]
        if session not in self.sessions:
            return
        outcomes = self.entry(session, seq, *(command for command, _ in done))
        if seq < self.floor:
            assert all(isinstance(one, Refused) for one in outcomes)
            assert all(one.reason is Reason.STALE_BATCH for one in outcomes)  # type: ignore[union-attr]  # Just asserted.
        else:
            self.sessions[session] = self.now_ms
            assert outcomes == tuple(self.model.again(*one) for one in done)
        self.check_woken()

    @step(1)
    def a_request_comes_again(self) -> None:
        if self.once is not None:
            self.do("plain", self.once)

    @step(2, kept=st.integers(0, 3))
    def the_floor_rises(self, kept: int) -> None:
        self.floor = max(self.floor, self.seq - kept)
        self.do("batch", c.Claim("nobody", "nothing", 1))

    @step(1, command=st.sampled_from([c.Barrier(), c.TakeDigest(), c.ReportDigest(1, b"d")]))
    def nothing_happens(self, command: Command) -> None:
        before = self.twin_kv.rows()
        self.entry(0, 0, command)
        assert {**self.twin_kv.rows(), b"p": b""} == {**before, b"p": b""}

    @step(1)
    def an_entry_of_the_logs_own(self) -> None:
        assert self.log(None) == []

    @step(4)
    def a_round_ends(self) -> None:
        self.machine.end_round()
        self.round_is_open = False
        assert self.kv.rows() == self.twin_kv.rows()
        assert digest(self.kv) == digest(self.twin_kv)

    @step(2)
    def a_restart(self) -> None:
        self.a_round_ends()
        self.machine = Machine(self.kv)
        assert self.machine.applied_index == self.index
        assert self.machine.stamp_ms == self.twin.stamp_ms if self.index else True

    @initialize(small=st.sampled_from(["nothing", "all caches", "queues", "windows"]))
    def begin(self, small: str) -> None:
        """Now and then with caches that are always too small."""
        if small == "all caches":
            self.patch.setattr(state, "HANDLES_MAX", 0)
        if small == "queues":
            self.patch.setattr(state, "HANDLES_MAX", 2)  # There are two accounts.
        if small != "nothing":
            self.patch.setattr(state, "CLAIMED_MESSAGES_MAX", 2)
            self.patch.setattr(state, "WINDOW_BYTES_MAX", 60)
            self.patch.setattr(fresh, "WINDOW_MESSAGES_MAX", 3)
            self.patch.setattr(fresh, "FILL_MESSAGES", 1)
            self.patch.setattr(fresh, "FILL_BYTES", 60)
            self.patch.setattr(returned, "AT_HAND_MAX", 2)
            self.patch.setattr(returned, "FILL_MESSAGES", 1)
            self.patch.setattr(lanes, "ZONES_MAX", 2)
            self.patch.setattr(records, "PLAIN_META_MAX", 1)
            self.patch.setattr(queries, "SCANNED_MAX", 4)
            self.patch.setattr(looking, "HELD_MAX", 4)
            self.patch.setattr(walks, "LOOK_AHEAD", 1)
            self.patch.setattr(histories, "SCANNED_MAX", 3)
        self.entry(0, 0, c.Barrier())

    # What can be asked.

    @invariant()
    def ticks_agree(self) -> None:
        """Exactly those are due that the model says, and the first is known."""
        if not self.index:
            return
        waiting = {
            names: one.next_ms
            for names, one in self.model.schedules.items()
            if one.next_ms is not None
        }
        assert self.twin.next_tick_ms() == min(waiting.values(), default=None)
        for now_ms in (self.now_ms, self.now_ms + 20):
            due = self.twin.due_schedules(now_ms, 100)
            assert [(one.account, one.schedule) for one in due] == [
                names
                for next_ms, names in sorted((at, names) for names, at in waiting.items())
                if next_ms <= now_ms
            ]

    @invariant()
    def reads_agree(self) -> None:
        if not self.index:
            return
        kv, model = self.twin_kv, self.model
        applied_ms = self.twin.stamp_ms
        assert queries.applied(kv) == (self.index, 3, applied_ms)
        listed = queries.accounts(kv, limit=10)
        assert [one.name for one in listed.items] == sorted(model.accounts)
        assert [one.defaults for one in listed.items] == [
            model.accounts[name] for name in sorted(model.accounts)
        ]
        totals = queries.totals(kv)
        assert (totals.accounts, totals.queues) == (len(model.accounts), len(model.queues))
        sums = [0, 0, 0, 0, 0]
        for (account, name), queue in model.queues.items():
            states = ("ready", "delayed", "claimed", "blocked")
            counts = [len(queue.of(state)) for state in states]
            counts.append(sum(len(one.new.body) for one in queue.messages.values()))
            sums = [before + more for before, more in zip(sums, counts, strict=True)]
            view = queries.queue(kv, account, name)
            assert view is not None
            shown = [view.ready, view.delayed, view.claimed, view.blocked, view.bytes]
            assert shown == counts
            in_force = model.in_force((account, name))
            for member, value in in_force._asdict().items():
                assert getattr(view.effective, member) == value
            stats = queries.stats(kv, account, name)
            assert stats is not None
            assert stats.claims == len(queue.claims)
            oldest = queue.of("ready")
            assert stats.oldest_ready_ms == (oldest[0].arrived_ms if oldest else None)
            assert (stats.dead, stats.leases_ended) == (queue.dead, queue.leases_ended)
            assert +Counter(stats.recent) == +queue.recent(applied_ms)
            self.job_agrees((account, name))
            self.prospects_agree((account, name))
            self.browse_agrees((account, name), applied_ms, c.Filter())
            for claim in queue.claims:
                self.claim_agrees((account, name), claim, applied_ms)
        shown = [totals.ready, totals.delayed, totals.claimed, totals.blocked, totals.bytes]
        assert shown == sums

    @invariant()
    def usage_agrees(self) -> None:
        """Exactly, and it does not grow beyond a limit."""
        if not self.index:
            return
        for account in self.model.accounts:
            found, limits = queries.usage(self.twin_kv, account), self.model.quotas.get(account)
            assert found is not None
            size, before = self.history_size(account), self.history_bytes.get(account, 0)
            shown = {name: getattr(found.usage, name) for name in c.Quotas.__struct_fields__}
            assert shown == {**self.model.usage(account), "history_bytes": size}
            assert found.limits == (limits or NO_QUOTAS)
            if limits is not None and limits.history_bytes:
                assert size <= max(limits.history_bytes, before), "the history outgrew its quota"
            self.history_bytes[account] = size

    def history_size(self, account: str) -> int:
        """Of all rows of the account's histories, keys included."""
        kv = self.twin_kv
        data = kv.get(keys.account(account))
        assert data is not None
        numbers = [records.decode_account(data).history.number]
        for owner, name in self.model.queues:
            data = kv.get(keys.queue(owner, name)) if owner == account else None
            numbers += [records.decode_queue(data).history.number] if data else []
        return sum(
            len(key) + len(row)
            for number in numbers
            for key, row in kv.scan(keys.events(number, 0), keys.events(number + 1, 0))
        )

    def job_agrees(self, names: Names) -> None:
        job, known = queries.job(self.twin_kv, *names), self.model.queues[names].job
        if job is None or known is None:
            return  # What it has done is not kept for ever.
        assert (job.done, bool(job.ended_ms)) == (known.done, known.is_over)
        if not job.cancelled:
            assert {one.id: one.reason for one in job.failures} == known.troubles
            assert job.failed == len(known.troubles)
        assert job.done + job.failed + job.skipped <= job.looked <= job.total

    def prospects_agree(self, names: Names) -> None:
        ready = self.model.queues[names].of("ready")
        is_near = [one.zone in ("", "z1") for one in ready]
        for mode, far in (("only", False), ("prefer", not all(is_near)), ("any", False)):
            claim = c.Claim(*names, 1, zone="z1", zone_mode=mode)
            near = bool(ready) if mode == "any" else any(is_near)
            seen = Prospects(mode, near, far)
            assert self.twin.prospects(claim) == self.machine.prospects(claim) == seen
            assert seen.is_empty == (not (near or far))

    def learn(self) -> None:
        """Show the model the ids that it could not know."""
        for names, queue in self.model.queues.items():
            if all(one.is_known for one in queue.messages.values()):
                continue
            data = self.twin_kv.get(keys.queue(*names))
            assert data is not None
            number = records.decode_queue(data).number
            low, high = keys.of_queue(b"m", number), keys.of_queue(b"m", number + 1)
            rows = sorted(self.twin_kv.scan(low, high), key=lambda row: row[0][-8:])
            for key, record in rows:
                self.model.learn(names, key[-keys.ID_BYTES :], record)

    @step(3)
    def histories_are_read(self) -> None:
        for names in self.model.queues:
            self.history_agrees(names)

    def history_agrees(self, names: Names) -> None:
        """What is held is the end of what happened, for the queue and for each message."""
        model, known = self.model.queues[names], histories.known(self.twin_kv, *names)
        assert known is not None
        held = list(histories.between(self.twin_kv, known.number, names[1], known.gone, self.index))
        shown = Counter(one for event in held for one in seen(event))
        expected = [
            told(one) for one in model.events if one.kind != "purged" or one.message is None
        ]
        assert not shown - Counter(expected)
        if known.gone == (0, 0):
            assert shown == Counter(expected)
        elif held:
            later = [one for one in expected if one[1] > held[0].time_ms]
            assert not Counter(later) - shown
        subjects = dict.fromkeys(id(one.message) for one in model.events)
        messages = {id(one.message): one.message for one in model.events}
        for one in list(subjects)[-6:]:
            message = messages[one]
            if message is not None and message.is_known:
                self.message_history_agrees(model, names, message)

    def message_history_agrees(self, model: Queue, names: Names, message: Message) -> None:
        steps: list[histories.Step] = []
        marker = None
        while True:
            page = histories.of_message(self.twin_kv, *names, message.id, limit=2, marker=marker)
            assert page is not None
            steps.extend(page.items)
            marker = page.marker
            if marker is None:
                break
        expected = [told(one) for one in model.events if one.message is message]
        shown = [about(step.event, message.id) for step in steps]
        if page.is_whole:
            assert shown == expected
        elif shown:
            assert shown == expected[len(expected) - len(shown) :]

    @invariant()
    def subscriptions_agree(self) -> None:
        if not self.index:
            return
        kv, model = self.twin_kv, self.model
        model_ms, model.now_ms = model.now_ms, self.twin.stamp_ms
        running = {node: one.number for node, one in model.running().items()}
        expected = {
            names: (hook.settings, hook.secret, hook.disabled, model.node_of(hook))
            for names, hook in model.hooks.items()
        }
        model.now_ms = model_ms
        assert hooks.runners(kv) == running
        found = list(hooks.all_subscriptions(kv))
        assert {
            view.names: (view.settings, view.secret, view.disabled_reason, view.node)
            for view in found
        } == expected
        for view in found:
            assert hooks.subscription(kv, *view.names) == view
        for account, queue in model.queues:
            of_queue = [view for view in found if view.names[:2] == (account, queue)]
            first = hooks.subscriptions(kv, account, queue, limit=1)
            assert first is not None
            rest = hooks.subscriptions(kv, account, queue, limit=9, marker=first.marker or "~")
            assert rest is not None
            assert [*first.items, *rest.items] == of_queue

    @invariant()
    def keys_agree(self) -> None:
        if not self.index:
            return
        kv, model = self.twin_kv, self.model
        for account in ("", "a", "b\x00"):
            expected = [(key_id, model.keys[key_id]) for key_id in model.keys_of(account)]
            assert keyring.of_account(kv, account) == expected
        for key_id in ("k", "l", "l\x00"):
            assert keyring.key(kv, key_id) == model.keys.get(key_id)

    @step(3, meant=FILTERS, later_ms=st.sampled_from([0, 20]))
    def messages_are_searched(self, meant: c.Filter, later_ms: int) -> None:
        for names in self.model.queues:
            self.browse_agrees(names, self.twin.stamp_ms, meant, later_ms)

    def browse_agrees(self, names: Names, now_ms: int, meant: c.Filter, later_ms: int = 0) -> None:
        stored = sorted(self.model.queues[names].messages.values(), key=Message.age)
        shown = [one for one in stored if one.state == "claimed" or not one.expired(now_ms)]
        if meant.min_deliveries and looking.HELD_MAX < 5:
            return  # Of a claimed message it may not be known, in a queue with many.
        for include_claimed in (True, False):
            wanted = [
                one
                for one in shown
                if (include_claimed or one.state != "claimed")
                and meets(one, meant, now_ms + later_ms)
            ]
            found: list[queries.MessageView] = []
            marker = None
            for _ in range(2 * len(stored) + 1):
                page = queries.browse(
                    self.twin_kv,
                    *names,
                    limit=3,
                    marker=marker,
                    include_claimed=include_claimed,
                    wanted=meant,
                    now_ms=now_ms + later_ms,
                )
                assert page is not None
                assert page.looked <= queries.SCANNED_MAX
                found.extend(page.items)
                marker = page.marker
                if marker is None:
                    break
            assert marker is None
            assert [(one.id, one.state) for one in found] == [(one.id, one.state) for one in wanted]
            for view, one in zip(found, wanted, strict=True):
                # Of a claimed message it may not be known, in a queue with many.
                unknown = one.state == "claimed" and looking.HELD_MAX < 5
                assert view.deliveries in ({one.deliveries, 0} if unknown else {one.deliveries})
                assert view.error in ({one.error, ""} if unknown else {one.error})
            for view, one in zip(found, wanted, strict=True):
                self.model.same(one, view.record)
        for one in stored:
            alone = queries.message(self.twin_kv, *names, one.id)
            assert (alone is not None) == (one in shown)

    def claim_agrees(self, names: Names, claim: int, now_ms: int) -> None:
        queue = self.model.queues[names]
        view = queries.claim(self.twin_kv, *names, claim)
        if queue.claims[claim] <= now_ms:
            assert view is None
            return
        assert view is not None
        assert view.until_ms == queue.claims[claim]
        assert sorted((one.id, one.deliveries, one.error) for one in view.messages) == sorted(
            (one.id, one.deliveries, one.error) for one in queue.held(claim)
        )

    def teardown(self) -> None:
        try:
            # A history that broke off has a failure of its own, which another would hide.
            if self.index and sys.exc_info()[0] is None:
                self.nothing_is_left_behind()
        finally:
            self.patch.undo()

    def nothing_is_left_behind(self) -> None:
        """By messages, claims, keys and sessions that are gone."""
        for account, schedule in list(self.model.schedules):
            self.do("plain", c.DeleteSchedule(account, schedule))
        assert self.machine.next_tick_ms() is None
        for (account, name), bound in list(self.model.bindings.items()):
            for target in list(bound):
                self.do("plain", c.DeleteBinding(account, name, target))
        for (account, name), queue in list(self.model.queues.items()):
            for claim in list(queue.claims):
                self.do("plain", c.Ack(account, name, claim))
            ids = tuple(queue.messages)
            self.do("plain", c.DeleteMessages(account, name, ids))
        for hook in list(self.model.hooks):
            self.do("plain", c.DeleteSubscription(*hook))
        for key_id, key in list(self.model.keys.items()):
            self.do("plain", c.RevokeKey(key.account, key_id))
        for _ in range(2):  # What jobs have done can be seen for a while longer.
            self.time_passes(10**9)
            self.sweep(1000)
        for names, queue in self.model.queues.items():
            assert not queue.messages, names
        self.a_round_ends()
        assert {key[:1] for key in self.kv.rows()} <= {b"a", b"l", b"p", b"q"}
        assert self.machine.next_due_ms() is None


def test_dead_letters_come_in_the_order_of_their_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the zones of the first are kept, when there are more than a queue keeps apart."""
    monkeypatch.setattr(sys.modules[__name__], "note", print)
    history = Histories()
    history.begin("windows")
    zones = [("z1", 0), ("z3", 0), ("z2", 9)]
    new = [c.NewMessage(b"", "x/y", zone=zone, priority=priority) for zone, priority in zones]
    history.enqueue("plain", ("a", "q"), new)
    history.claim("plain", ("a", "q"), 3, None, "", None)
    history.settle("plain", 0, (0, "why", True))
    dead = history.model.queues["a", "q.dead"].messages.values()
    assert [message.zone for message in dead] == ["z2", "z1", ""]
    history.teardown()


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=MORE or 120,
    derandomize=not MORE,
    # Without shrinking, which takes minutes for little: what failed is printed step by step with
    # the blob that reproduces it, comes first in the next run, and is shrunk where one asks for it.
    phases=[phase for phase in Phase if phase is not Phase.shrink],
    print_blob=True,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
