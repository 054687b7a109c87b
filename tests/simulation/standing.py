"""What stands until it is taken away: bindings, schedules and subscriptions, made at random.

One client makes and removes them, beside those that put and claim. What it makes is mostly
about queues of its own, so that the other clients find their messages. Jobs that go through
a whole queue are its as well, and limits of what the account may have: with these the others
have to live. So are access keys, and what is done to them is in the audit log.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from msgspec.structs import replace

from raftq.replica.ticks import next_tick
from simulation.making import ACCOUNT, Maker
from simulation.plan import Workload
from statemachine import commands as c

COPIES, TICKS, HOOKED = "copies", "ticks", "hooked"
URL = "http://receiver.example/"
NAMES = 3  # Of schedules, and of a queue's subscriptions.
KEEP = 1 << 40  # Milliseconds or bytes of the audit log: all of it.
PERIODS_MS = {"* * * * * *": 1_000, "*/2 * * * * *": 2_000}
"""Cron expressions, and how far apart their ticks are; the first is at a multiple of that."""

MATCHES: tuple[tuple[c.HeaderMatch, ...], ...] = (
    (c.HeaderMatch("kind", ("a",)),),
    (c.HeaderMatch("KIND", (), ("a",)),),
    (c.HeaderMatch("kind", ("b", "c")), c.HeaderMatch("size", ("10",))),
    (c.HeaderMatch("size", (), ("1", "2")),),
    (),
)

FILTERS: dict[str, tuple[object, ...]] = {
    "headers": MATCHES,
    "group": ("", "g1"),
    "priority": (0, 9),
    "zone": ("", "z1"),
    "min_age_ms": (300,),
    "max_age_ms": (1_500,),
    "min_deliveries": (1,),
}
LIMITS: dict[str, tuple[int, ...]] = {
    "queues": (1,),
    "messages": (2, 6, 25),
    "bytes": (40, 400, 5_000),
    "in_flight": (1, 3, 12),
    "subscriptions": (1,),
    "schedules": (1,),
    "bindings": (1,),
    "history_bytes": (400, 3_000),
}
"""Of queues only so few that none can come while there is one: in which order a sweep would
make several is up to the machine."""

STANDS = {"subscriptions": "subscribe", "schedules": "schedule", "bindings": "bind"}
"""What of that this client makes itself, and by which operation."""

STATES: dict[c.Act, tuple[c.MessageState | None, ...]] = {
    "redrive": (None, None, "ready", "delayed"),
    "move": (None, None, "ready", "delayed"),
    "delete": (None, None, "ready", "delayed", "blocked", "claimed"),
    "release": (None, None, "claimed"),
}
"""To the states that a job's filter may name."""


class Standing(Maker):
    """One client's commands."""

    def __init__(
        self, chance: random.Random, workload: Workload, number: Callable[[], int]
    ) -> None:
        super().__init__(chance, workload, number)
        self._bound: list[c.PutBinding] = []
        self._scheduled: dict[str, c.PutSchedule] = {}
        self._keys: list[str] = []

    def command(self, kind: str, stamp_ms: int) -> c.Command:
        """See ``Maker``."""
        match kind:
            case "bind":
                return self._bind()
            case "unbind":
                return self._unbind()
            case "schedule":
                return self._schedule(stamp_ms)
            case "unschedule":
                return c.DeleteSchedule(ACCOUNT, self._name("s"))
            case "subscribe" | "unsubscribe" | "unhook" | "feed":
                return self._on_hooks(kind)
            case "bulk":
                return self._bulk()
            case "limit" | "unlimit":
                return self._limit(kind)
            case _:
                return self._on_keys(kind)

    def any_queue(self) -> str:
        """Also those of its own."""
        return self._chance.choice((COPIES, TICKS, HOOKED, self.queue()))

    def _name(self, letter: str) -> str:
        return f"{letter}{self._chance.randrange(NAMES)}"

    def _bind(self) -> c.PutBinding:
        chance, queue = self._chance, self.queue()
        target = chance.choice((COPIES, HOOKED, self.queue(), self.queue(), queue))
        match = chance.choice(MATCHES)
        command = c.PutBinding(ACCOUNT, queue, target, match, any_of=chance.random() < 0.5)
        self._bound.append(command)
        return command

    def _unbind(self) -> c.DeleteBinding:
        if not self._bound:
            return c.DeleteBinding(ACCOUNT, self.queue(), COPIES)
        gone = self._bound.pop(self._chance.randrange(len(self._bound)))
        return c.DeleteBinding(ACCOUNT, gone.queue, gone.target)

    def _schedule(self, stamp_ms: int) -> c.PutSchedule:
        """A new one, another one under the same name, or seldom the very same."""
        chance, name = self._chance, self._name("s")
        known = self._scheduled.get(name)
        if known is not None and chance.random() < 0.4:
            return replace(known, next_ms=next_tick(known.timing, stamp_ms))
        missed = chance.choice(("all", "all", "once", "skip"))
        ends_ms = stamp_ms + 1_500 if chance.random() < 0.2 else None
        if chance.random() < 0.25:
            cron = chance.choice([*PERIODS_MS])
            timing = c.Timing(cron, end_ms=ends_ms, missed=missed)
        else:
            starts_ms = chance.choice((None, stamp_ms - 250, stamp_ms + 700))
            every_ms = chance.choice((250, 600, 600, 1_500))
            timing = c.Timing("", every_ms, "UTC", starts_ms, ends_ms, missed)
        queue = chance.choice((TICKS, TICKS, HOOKED, self.queue()))
        message = replace(self._message(), body=b"%d" % self._number())
        next_ms = next_tick(timing, stamp_ms)
        command = c.PutSchedule(ACCOUNT, name, queue, message, timing, next_ms)
        self._scheduled[name] = command
        return command

    def _on_hooks(self, kind: str) -> c.Command:
        match kind:
            case "subscribe":
                return self._subscribe()
            case "unsubscribe":
                return self._unsubscribe()
            case "unhook":
                return c.DeleteQueue(ACCOUNT, HOOKED)
            case _:
                return replace(self._put("put"), queue=HOOKED)

    def _hooked(self) -> str:
        return HOOKED if self._chance.random() < 0.75 else self.queue()

    def _unsubscribe(self) -> c.Command:
        """Now and then in the name of one that has been replaced, which is not to matter."""
        names = (ACCOUNT, self._hooked(), self._name("h"))
        if self._chance.random() < 0.6:
            return c.DisableSubscription(*names, self._number(), "of another one")
        return c.DeleteSubscription(*names)

    def _subscribe(self) -> c.PutSubscription:
        chance = self._chance
        settings = c.SubscriptionSettings(
            URL,
            (),
            lease_ms=chance.choice((700, 2_000)),
            concurrency=chance.choice((1, 2, 5)),
            timeout_ms=chance.choice((200, 1_000)),
            retry_base_ms=50,
            retry_max_ms=400,
            attempts=chance.choice((2, 5, 20)),
        )
        secret, queue, name = b"secret %d" % self._number(), self._hooked(), self._name("h")
        made = chance.random() < 0.5
        return c.PutSubscription(ACCOUNT, queue, name, settings, secret, made)

    def _limit(self, kind: str) -> c.SetQuotas:
        """A few limits; mostly instead of those before, or else beside them."""
        if kind == "unlimit":
            return c.SetQuotas(ACCOUNT, c.Quotas())
        chance = self._chance
        names = dict.fromkeys(chance.sample([*LIMITS], chance.choice((1, 1, 2, 4))))
        own = [name for name, kind in STANDS.items() if kind in self._workload.operations]
        if own and chance.random() < 0.6:
            names[chance.choice(own)] = None
        quotas = c.Quotas(**{name: chance.choice(LIMITS[name]) for name in names})
        return c.SetQuotas(ACCOUNT, quotas, tuple(names) if chance.random() < 0.3 else None)

    def _key(self) -> str:
        """One that there was, or never."""
        return self._chance.choice(self._keys) if self._keys else "of nobody"

    def _on_keys(self, kind: str) -> c.Command:
        chance, number = self._chance, self._number()
        digest = b"hash %d" % number
        match kind:
            case "use keys":
                return c.UseKeys((self._key(), self._key()))
            case "rotate key":
                grace_ms = chance.choice((0, 500))
                return self._audited(c.RotateKey(ACCOUNT, self._key(), digest, grace_ms))
            case "revoke key":
                return self._audited(c.RevokeKey(ACCOUNT, self._key()))
            case _:
                settings = c.KeySettings(f"{number}", ("produce",), ("q*",))
                key_id = self._key() if chance.random() < 0.2 else f"key{number}"
                self._keys.append(key_id)
                first = chance.random() < 0.2
                return self._audited(c.PutKey(ACCOUNT, key_id, settings, digest, first))

    def _audited(self, command: c.PutKey | c.RotateKey | c.RevokeKey) -> c.Audited:
        """Mostly by the operator, or else with a key that may be gone."""
        key = self._key() if self._chance.random() < 0.4 else ""
        request = f"r{self._number()}"
        return c.Audited(ACCOUNT, "", f"key:{key}", "::1", request, KEEP, KEEP, command, key)

    def _bulk(self) -> c.StartJob:
        """Mostly as fast as it goes; of slow ones only those that move have a model."""
        chance = self._chance
        act = chance.choice(("redrive", *STATES))
        dead = chance.random() < (0.8 if act == "redrive" else 0.3)
        queue = self.queue() + ".dead" if dead else self.any_queue()
        to = self.any_queue() if act == "move" else ""
        dry_run = chance.random() < 0.25
        rate = chance.choice((0, 0, 20)) if to and not dry_run else 0
        return c.StartJob(ACCOUNT, queue, to, 0, rate, act, self._filter(act), dry_run)

    def _filter(self, act: c.Act) -> c.Filter:
        chance = self._chance
        fields = chance.sample([*FILTERS], chance.choice((0, 1, 1, 2)))
        given = {name: chance.choice(FILTERS[name]) for name in fields}
        return c.Filter(**given, state=chance.choice(STATES[act]))  # type: ignore[arg-type]
