"""What raftq promises, as plainly as it can be said: lists, dictionaries, no indexes.

The model is shown each command with the outcome it had. It takes new ids from the
outcome, and asserts everything else. Dead letters get ids of which no outcome tells: they
go by made-up ones until they are seen (``learn``). Nothing happens in it by itself: leases, delays
and lifetimes end when ``sweep`` is called, except that a claim never gives out what
has expired, and that nothing can be done under a lease that has ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from dataclasses import replace as altered
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from statemachine import commands as c
from statemachine import lanes
from statemachine import outcomes as o
from statemachine.outcomes import Outcome, Reason, Refused
from statemachine.records import KeyRecord, decode_message
from steps import steps

Names = tuple[str, str]
HookNames = tuple[str, str, str]
Place = tuple[str, str, str]  # Account, queue and zone.


class InForce(NamedTuple):
    """Settings, and what is built in."""

    ttl_ms: int = 4 * 24 * 3600 * 1000
    delay_ms: int = 0
    lease_ms: int = 30_000
    max_deliveries: int = 0
    dead_letter_queue: str = ""
    retry_delay_ms: int = 0
    retry_delay_max_ms: int = 3_600_000
    dedup_window_ms: int = 300_000
    zone_mode: str = "any"
    locality_wait_ms: int = 3_000


BUILT_IN = InForce()
BINDINGS_MAX, SCHEDULES_MAX = 64, 1_000
TROUBLES = ("claimed", "delayed", "no_source", "own_queue", "no_room")


@dataclass(eq=False)  # Two are never the same, and there may be thousands to look through.
class Message:
    id: bytes
    new: c.NewMessage
    enqueued_ms: int
    arrived_ms: int  # In the queue where it is.
    expires_ms: int | None
    state: str
    due_ms: int = 0
    deliveries: int = 0
    claim: int = 0
    place: int = 0  # In the claim.
    zone: str = ""  # Empty also for what came from one zone too many.
    error: str = ""
    moment: int = 0  # What came earlier has a smaller one.
    is_known: bool = True  # By its id.

    def expired(self, now_ms: int) -> bool:
        return self.expires_ms is not None and self.expires_ms <= now_ms

    def age(self) -> tuple[int, bytes]:
        return self.moment, self.id[2:] if self.is_known else b"\xff" * 8


class Event(NamedTuple):
    """What happened to a message, or without one to the queue."""

    kind: str
    time_ms: int
    message: Message | None = None
    claim: int = 0
    consumer: str = ""
    reason: str = ""


@dataclass
class Job:
    asked: c.StartJob
    moment: int
    started_ms: int
    mark: int = 0  # Of the stored one, once it was seen.
    done: int = 0
    troubles: dict[bytes, str] = field(default_factory=dict)
    is_over: bool = False


@dataclass
class Queue:
    settings: c.QueueSettings
    messages: dict[bytes, Message] = field(default_factory=dict)
    claims: dict[int, int] = field(default_factory=dict)  # To the end of the lease.
    consumers: dict[int, str] = field(default_factory=dict)
    claimed_at: dict[int, int] = field(default_factory=dict)  # To the moment.
    events: list[Event] = field(default_factory=list)  # Of its whole life, forgotten or not.
    dedup: dict[str, tuple[bytes, int]] = field(default_factory=dict)  # To id and end of window.
    job: Job | None = None
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)  # By kind and time.
    dead: int = 0
    leases_ended: int = 0

    def recent(self, now_ms: int) -> Counter[str]:
        """What has happened in this slot of ten seconds and the five before it."""
        found: Counter[str] = Counter()
        for (kind, at_ms), count in self.counts.items():
            if at_ms // 10_000 > now_ms // 10_000 - 6:
                found[kind] += count
        return found

    zones: dict[str, None] = field(default_factory=dict)  # Seen since it was empty by command.

    def zone(self, named: str) -> str:
        """Where a message of this zone counts as being."""
        if named and named not in self.zones and len(self.zones) < lanes.ZONES_MAX:
            self.zones[named] = None
        return named if named in self.zones else ""

    def is_first(self, message: Message) -> bool:
        """Whether no other message of its group came before it and is still there."""
        group = message.new.group
        others = [one.age() for one in self.messages.values() if one.new.group == group]
        return not group or message.age() == min(others)

    def of(self, state: str) -> list[Message]:
        found = [message for message in self.messages.values() if message.state == state]
        return sorted(found, key=Message.age)

    def held(self, claim: int) -> list[Message]:
        """What a claim holds, as it was given out or named."""
        found = [message for message in self.of("claimed") if message.claim == claim]
        return sorted(found, key=lambda message: message.place)


@dataclass
class Schedule:
    put: c.PutSchedule
    next_ms: int | None
    ticks: list[int] = field(default_factory=list)
    refused: int = 0  # Ticks that found no room.


@dataclass
class Hook:
    """A subscription."""

    settings: c.SubscriptionSettings
    secret: bytes
    puts: int = 1
    runner: int = 0
    disabled: str = ""


@dataclass
class Runner:
    number: int
    until_ms: int


class Model:
    def __init__(self) -> None:
        self.now_ms = 0
        self.bindings: dict[Names, dict[str, c.PutBinding]] = {}
        self.schedules: dict[Names, Schedule] = {}
        self.accounts: dict[str, c.QueueSettings] = {}
        self.quotas: dict[str, c.Quotas] = {}
        self.queues: dict[Names, Queue] = {}
        self.was_made: Callable[[Names], bool] = self._may_make
        """Whether a queue that was to be made for a message from another one was made.

        Of several in one sweep the model does not know which comes first.
        """
        self._not_made: list[str] = []  # Accounts of those that were not.
        self.once: dict[tuple[str, str], tuple[bytes, int, Outcome]] = {}
        self.hooks: dict[HookNames, Hook] = {}
        self.runners: dict[str, Runner] = {}
        self.keys: dict[str, KeyRecord] = {}
        self.acts: list[tuple[int, str, str, str]] = []
        """Of the audit log: when, who, by which request, and how it ended."""
        self.revisions: dict[HookNames, list[int]] = {}  # As the caller has seen them.
        self.woken: Counter[Place] = Counter()
        self.all_ids: list[tuple[Names, bytes]] = []
        self.newest: dict[Names, bytes] = {}  # What tells the ids of a queue apart, of the last.
        self.all_claims: list[tuple[Names, int]] = []
        self.moment = 0
        self.made_up = 0

    def check(self, command: c.Command, outcome: Outcome) -> None:
        """Take the command in, and assert that this is what it answers."""
        checks: dict[type, Callable[..., None]] = {
            c.Enqueue: self._enqueue,
            c.Claim: self._claim,
            c.Take: self._take,
            c.Extend: self._extend,
            c.Ack: self._ack,
            c.Release: self._release,
            c.DeleteMessages: self._delete_messages,
            c.Purge: self._purge,
            c.PutQueue: self._put_queue,
            c.PatchQueue: self._patch_queue,
            c.DeleteQueue: self._delete_queue,
            c.PutAccount: self._put_account,
            c.PatchAccount: self._patch_account,
            c.DeleteAccount: self._delete_account,
            c.PutBinding: self._put_binding,
            c.DeleteBinding: self._delete_binding,
            c.PutSchedule: self._put_schedule,
            c.DeleteSchedule: self._delete_schedule,
            c.Tick: self._tick,
            c.Once: self._once,
            c.Audited: self._audited,
            c.Transact: self._transact,
            c.TransactAndClaim: self._transact_and_claim,
            c.ExtendMany: self._extend_many,
            c.StartJob: self._start_job,
            c.CancelJob: self._cancel_job,
            c.PutSubscription: self._put_subscription,
            c.DeleteSubscription: self._delete_subscription,
            c.DisableSubscription: self._disable_subscription,
            c.TakeSubscriptions: self._take_subscriptions,
            c.SetQuotas: self._set_quotas,
            c.PutKey: self._put_key,
            c.RotateKey: self._rotate_key,
            c.RevokeKey: self._revoke_key,
            c.UseKeys: self._use_keys,
        }
        self.moment += 1
        checks[type(command)](command, outcome)
        self._was_full()

    def again(self, command: c.Command, outcome: Outcome) -> Outcome:
        """What a command that was answered so is answered when it comes again."""
        if isinstance(command, c.Once):
            command = command.command
        if isinstance(command, c.TransactAndClaim) and isinstance(outcome, o.TransactedAndClaimed):
            if outcome.claimed is None:
                return outcome
            claimed = self.again(command.claim, outcome.claimed)
            assert isinstance(claimed, o.Claimed | Refused)
            return o.TransactedAndClaimed(outcome.transacted, claimed)
        if not isinstance(command, c.Claim | c.Take) or not isinstance(outcome, o.Claimed):
            return outcome
        if not outcome.claim:
            return outcome
        queue = self.queues.get((command.account, command.queue))
        nothing = o.Claimed(0, 0, ())
        if isinstance(command, c.Take):
            return nothing  # It was given out, and is gone.
        if queue is None or queue.claims.get(outcome.claim, 0) <= self.now_ms:
            return nothing
        records = {given.id: given.record for given in outcome.messages}
        held = {message.id: message for message in queue.held(outcome.claim)}
        given = tuple(
            o.Delivered(one.id, held[one.id].deliveries, records[one.id], held[one.id].error)
            for one in outcome.messages
            if one.id in held
        )
        return o.Claimed(outcome.claim, queue.claims[outcome.claim], given) if given else nothing

    def sweep(self, take_time: Callable[[Names, Job], None] = lambda _, __: None) -> None:
        """Let everything happen that is due, and then the jobs; ``take_time`` those with a rate."""
        self.moment += 1
        for names, queue in list(self.queues.items()):
            self._end_leases(names, queue)
            for message in queue.of("delayed"):
                if message.expired(self.now_ms):
                    self._expires(names, queue, message)
                elif message.due_ms <= self.now_ms:
                    message.state = "blocked"
                    self._turn(names, queue, message)
            for message in queue.of("blocked") + queue.of("ready"):
                if message.expired(self.now_ms):
                    self._expires(names, queue, message)
            queue.dedup = {key: kept for key, kept in queue.dedup.items() if kept[1] > self.now_ms}
        for names, queue in list(self.queues.items()):
            if queue.job is not None and not queue.job.is_over:
                (take_time if queue.job.asked.rate else self._work)(names, queue.job)
        self.once = {key: kept for key, kept in self.once.items() if kept[1] > self.now_ms}
        self.runners = self.running()
        self._was_full()

    # Quotas.

    def usage(self, account: str) -> dict[str, int]:
        """What an account has; how many bytes its history has is not known here."""
        queues = [queue for names, queue in self.queues.items() if names[0] == account]
        messages = [one for queue in queues for one in queue.messages.values()]
        bound = [one for names, one in self.bindings.items() if names[0] == account]
        return {
            "queues": len(queues),
            "messages": len(messages),
            "bytes": sum(len(one.new.body) for one in messages),
            "in_flight": sum(one.state == "claimed" for one in messages),
            "subscriptions": sum(names[0] == account for names in self.hooks),
            "schedules": sum(names[0] == account for names in self.schedules),
            "bindings": sum(map(len, bound)),
        }

    def _limit(self, account: str, quota: str) -> int:
        return int(getattr(self.quotas.get(account, c.Quotas()), quota))

    def _is_over(self, account: str, outcome: Outcome, **more: int) -> bool:
        """Whether there is no room for so much more; then the outcome must say so."""
        usage = self.usage(account)
        for quota, count in more.items():
            limit = self._limit(account, quota)
            if limit and count > 0 and usage[quota] + count > limit:
                assert isinstance(outcome, Refused)
                assert outcome.reason is Reason.QUOTA_EXCEEDED
                assert outcome.over == o.Over(quota, limit, usage[quota])
                return True
        assert not isinstance(outcome, Refused) or outcome.over is None, outcome
        return False

    def _added(self, account: str, puts: Iterable[c.PartPut]) -> dict[str, int]:
        """How much puts would add, wherever bindings send it."""
        made, count, size = set[str](), 0, 0
        known = {
            (queue, key)
            for (owner, queue), one in self.queues.items()
            for key, (_, until_ms) in one.dedup.items()
            if owner == account and until_ms > self.now_ms
        }
        for put in puts:
            bound = self.bindings.get((account, put.queue))
            made |= set() if bound else {put.queue}
            for new in put.messages:
                wanted = [target for target, one in (bound or {}).items() if _matches(one, new)]
                for target in wanted or [put.queue]:
                    made.add(target)
                    if new.dedup_id and (target, new.dedup_id) in known:
                        continue
                    if new.dedup_id and self.in_force((account, target)).dedup_window_ms:
                        known.add((target, new.dedup_id))
                    count, size = count + 1, size + len(new.body)
        queues = sum((account, name) not in self.queues for name in made)
        return {"queues": queues, "messages": count, "bytes": size}

    def _may_make(self, names: Names) -> bool:
        limit = self._limit(names[0], "queues")
        return not limit or self.usage(names[0])["queues"] < limit

    def _may_open(self, names: Names) -> bool:
        """Whether a message may go to this queue from another one."""
        if names in self.queues or not self._limit(names[0], "queues") or self.was_made(names):
            return True
        self._not_made.append(names[0])
        return False

    def _was_full(self) -> None:
        """No queue is not made without a reason."""
        for account in self._not_made:
            limit = self._limit(account, "queues")
            assert 0 < limit <= self.usage(account)["queues"], "there was room for a queue"
        self._not_made.clear()

    def _set_quotas(self, command: c.SetQuotas, outcome: Outcome) -> None:
        account, fields = command.account, command.fields
        if fields is not None and account not in self.accounts:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.NO_ACCOUNT
            return
        assert outcome == o.Stored(created=account not in self.accounts)
        self.accounts.setdefault(account, c.QueueSettings())
        before = self.quotas.get(account, c.Quotas())
        self.quotas[account] = c.Quotas(
            *[
                getattr(command.quotas if fields is None or quota in fields else before, quota)
                for quota in (*self.usage(account), "history_bytes")
            ]
        )

    def _end_leases(self, names: Names, queue: Queue) -> None:
        for claim, until_ms in list(queue.claims.items()):
            if until_ms <= self.now_ms:
                for message in queue.held(claim):
                    self._note(queue, "lease_ended", message, claim)
                    self._give_back(names, queue, message, RUN_OUT)
                del queue.claims[claim]
                queue.leases_ended += 1

    def next_due_ms(self) -> int | None:
        """When the next thing happens in the queues or to a key."""
        times = [until_ms for _, until_ms, _ in self.once.values()]
        times += [runner.until_ms for runner in self.runners.values()]
        for queue in self.queues.values():
            times += queue.claims.values()
            times += [until_ms for _, until_ms in queue.dedup.values()]
            times += [message.due_ms for message in queue.of("delayed")]
            waiting = queue.of("delayed") + queue.of("ready") + queue.of("blocked")
            times += [one.expires_ms for one in waiting if one.expires_ms is not None]
        return min(times, default=None)

    def in_force(self, names: Names) -> InForce:
        """The settings that hold for the queue, or would."""
        nothing = c.QueueSettings()
        own = self.queues[names].settings if names in self.queues else nothing
        defaults = self.accounts.get(names[0], nothing)
        found: list[Any] = []
        for member, built_in in zip(InForce._fields, BUILT_IN, strict=True):
            value = getattr(own, member)
            if value is None:
                value = getattr(defaults, member)
            found.append(built_in if value is None else value)
        return InForce(*found)

    def _turn(self, names: Names, queue: Queue, message: Message) -> None:
        """A message whose turn it may be: it is ready unless others of its group are ahead."""
        # One that is not known yet has its turn when it is, for its place is not known either.
        if message.is_known and message.state == "blocked" and queue.is_first(message):
            message.state = "ready"
            # What has expired is no reason to get up.
            self.woken[*names, message.zone] += not message.expired(self.now_ms)

    def _expires(self, names: Names, queue: Queue, message: Message) -> None:
        queue.counts["expired", self.now_ms] += 1
        self._leaves(names, queue, message)

    def _leaves(
        self,
        names: Names,
        queue: Queue,
        message: Message,
        kind: str = "expired",
        claim: int = 0,
        reason: str = "",
    ) -> None:
        """The message is gone; the next one of its group may have its turn."""
        del queue.messages[message.id]
        self._note(queue, kind, message, claim, reason)
        for other in queue.of("blocked"):
            if other.new.group == message.new.group:
                self._turn(names, queue, other)

    def _open(self, names: Names) -> Queue:
        self.accounts.setdefault(names[0], c.QueueSettings())
        if names not in self.queues:
            self.queues[names] = Queue(c.QueueSettings())
            self._note(self.queues[names], "queue_created")
        return self.queues[names]

    def _note(
        self,
        queue: Queue,
        kind: str,
        message: Message | None = None,
        claim: int = 0,
        reason: str = "",
    ) -> None:
        consumer = queue.consumers.get(claim, "")
        queue.events.append(Event(kind, self.now_ms, message, claim, consumer, reason))

    def _note_extended(self, queue: Queue, claim: int) -> None:
        for message in queue.held(claim):
            self._note(queue, "extended", message, claim)

    def _enqueue(self, command: c.Enqueue, outcome: Outcome) -> None:
        added = self._added(command.account, [c.PartPut(command.queue, command.messages)])
        if not self._is_over(command.account, outcome, **added):
            self._goes_in(command, outcome)

    def _goes_in(self, command: c.Enqueue, outcome: Outcome) -> None:
        assert isinstance(outcome, o.Enqueued)
        names = (command.account, command.queue)
        self._open(names)
        duplicates = list(outcome.duplicates)
        bound = self.bindings.get(names)
        if not bound:
            assert not outcome.routed
            for at, (message_id, new) in enumerate(zip(outcome.ids, command.messages, strict=True)):
                if not self._put(names, message_id, new):
                    assert duplicates.pop(0) == at
            assert not duplicates
            return
        assert outcome.ids == tuple(places[0].id for places in outcome.routed)
        for at, (places, new) in enumerate(zip(outcome.routed, command.messages, strict=True)):
            wanted = sorted(target for target, one in bound.items() if _matches(one, new))
            assert [place.queue for place in places] == (wanted or [command.queue])
            for place in places:
                self._open((command.account, place.queue))
            if not any([self._put((command.account, one.queue), one.id, new) for one in places]):
                assert duplicates.pop(0) == at
        assert not duplicates

    def _put(self, names: Names, message_id: bytes, new: c.NewMessage) -> bool:
        """Whether the message is new to the queue."""
        queue = self.queues[names]
        earlier, until_ms = queue.dedup.get(new.dedup_id, (b"", 0))
        if until_ms > self.now_ms:
            assert message_id == earlier
            return False
        queue.dedup.pop(new.dedup_id, None)
        assert len(message_id) == 10
        assert self.newest.get(names, b"") < message_id[2:], "ids grow"
        in_force = self.in_force(names)
        ttl_ms = in_force.ttl_ms if new.ttl_ms is None else new.ttl_ms
        delay_ms = in_force.delay_ms if new.delay_ms is None else new.delay_ms
        if new.delay_ms is None and new.not_before_ms is not None:
            delay_ms = max(new.not_before_ms - self.now_ms, 0)
        if new.dedup_id and in_force.dedup_window_ms:
            queue.dedup[new.dedup_id] = message_id, self.now_ms + in_force.dedup_window_ms
        queue.messages[message_id] = Message(
            message_id,
            new,
            enqueued_ms=self.now_ms,
            arrived_ms=self.now_ms,
            expires_ms=self.now_ms + ttl_ms if ttl_ms else None,
            state="delayed" if delay_ms else "blocked",
            due_ms=self.now_ms + delay_ms,
            zone=queue.zone(new.zone),
            moment=self.moment,
        )
        self._note(queue, "enqueued", queue.messages[message_id])
        self._turn(names, queue, queue.messages[message_id])
        self._known(names, message_id)
        queue.counts["enqueued", self.now_ms] += 1
        return True

    def _put_binding(self, command: c.PutBinding, outcome: Outcome) -> None:
        names = (command.account, command.queue)
        bound = self.bindings.setdefault(names, {})
        if command.target not in bound and len(bound) >= BINDINGS_MAX:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.TOO_MANY_BINDINGS
            return
        more = {"queues": names not in self.queues, "bindings": command.target not in bound}
        if self._is_over(command.account, outcome, **more):
            return
        self._open(names)
        assert outcome == o.Stored(created=command.target not in bound)
        bound[command.target] = command

    def _delete_binding(self, command: c.DeleteBinding, outcome: Outcome) -> None:
        if self._queue_or_refused(command, outcome) is None:
            return
        bound = self.bindings.get((command.account, command.queue), {})
        if bound.pop(command.target, None):
            assert outcome == o.Done()
        else:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.NO_BINDING

    def _put_schedule(self, command: c.PutSchedule, outcome: Outcome) -> None:
        names = (command.account, command.schedule)
        before = self.schedules.get(names)
        if before is None and sum(one[0] == names[0] for one in self.schedules) >= SCHEDULES_MAX:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.TOO_MANY_SCHEDULES
            return
        if self._is_over(command.account, outcome, schedules=before is None):
            return
        assert outcome == o.Stored(created=before is None)
        self.accounts.setdefault(command.account, c.QueueSettings())
        if before is not None and before.next_ms is not None:
            known = (before.put.queue, before.put.message, before.put.timing)
            if known == (command.queue, command.message, command.timing):
                return
        again = (before.ticks, before.refused) if before else ([], 0)
        self.schedules[names] = Schedule(command, command.next_ms, *again)

    def _delete_schedule(self, command: c.DeleteSchedule, outcome: Outcome) -> None:
        if self.schedules.pop((command.account, command.schedule), None):
            assert outcome == o.Done()
        else:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.NO_SCHEDULE

    def _tick(self, command: c.Tick, outcome: Outcome) -> None:
        """The version is not known here: whoever proposes takes it from the state."""
        schedule = self.schedules.get((command.account, command.schedule))
        due_ms = command.due_ms
        if isinstance(outcome, Refused):
            assert outcome.reason is Reason.STALE_TICK
            return
        assert schedule is not None, "a tick of what is not there"
        assert schedule.next_ms == due_ms, "a tick out of turn"
        assert due_ms <= self.now_ms, "a tick too early"
        schedule.next_ms = command.next_ms
        if command.skip:
            assert outcome == o.Enqueued(())
            return
        new = schedule.put.message
        more = (("raftq-schedule", command.schedule), ("raftq-tick", f"{due_ms}"))
        new = replace(new, headers=new.headers + more)
        put = c.Enqueue(command.account, schedule.put.queue, (new,))
        if outcome == o.Enqueued(()):
            added = self._added(put.account, [c.PartPut(put.queue, put.messages)])
            usage = self.usage(put.account)
            assert any(
                0 < self._limit(put.account, quota) < usage[quota] + count
                for quota, count in added.items()
                if count
            ), "a tick put nothing, and there was room"
            schedule.refused += 1
            return
        schedule.ticks.append(due_ms)
        self._enqueue(put, outcome)

    def _claim(self, command: c.Claim, outcome: Outcome) -> None:
        names = (command.account, command.queue)
        queue = self.queues.get(names) or Queue(c.QueueSettings())
        in_flight = self._limit(command.account, "in_flight")
        if in_flight and queue.of("ready"):
            if self._is_over(command.account, outcome, in_flight=1):
                return
            room = in_flight - self.usage(command.account)["in_flight"]
            command = replace(command, limit=min(command.limit, room))
        taken = self._taken(command, queue, outcome)
        if taken:
            assert isinstance(outcome, o.Claimed)
            queue.claims[outcome.claim] = outcome.until_ms
            queue.claimed_at[outcome.claim] = self.moment
            assert outcome.until_ms == self._until_ms(names, command.lease_ms)

    def _take(self, command: c.Take, outcome: Outcome) -> None:
        names = (command.account, command.queue)
        queue = self.queues.get(names) or Queue(c.QueueSettings())
        taken = self._taken(command, queue, outcome)
        if taken:
            assert isinstance(outcome, o.Claimed)
            assert outcome.until_ms == 0
            for message in taken:
                self._leaves(names, queue, message, "acked", outcome.claim)
            queue.counts["acked", self.now_ms] += len(taken)

    def _taken(self, command: c.Claim | c.Take, queue: Queue, outcome: Outcome) -> list[Message]:
        """The messages that a claim gives out, which it has then."""
        names = (command.account, command.queue)
        assert isinstance(outcome, o.Claimed)
        taken: list[Message] = []
        for given in outcome.messages:
            self.learn(names, given.id, given.record)
        due = self._due(command, queue)
        while due and len(taken) < command.limit:
            message = due.pop(0)
            if message.expired(self.now_ms):
                # Its group may have another one for this claim then.
                self._expires(names, queue, message)
                due = [one for one in self._due(command, queue) if one not in taken]
            else:
                taken.append(message)
        if not taken:
            until_ms = min([due_ms for _, due_ms in self._for_claim(command, queue)], default=0)
            assert outcome == o.Claimed(0, until_ms, ())
            return []
        assert outcome.claim not in [claim for _, claim in self.all_claims]
        queue.consumers[outcome.claim] = command.consumer
        self.all_claims.append((names, outcome.claim))
        assert [given.id for given in outcome.messages] == [message.id for message in taken]
        for place, (message, given) in enumerate(zip(taken, outcome.messages, strict=True)):
            message.state, message.claim, message.place = "claimed", outcome.claim, place
            queue.counts["claimed", self.now_ms] += 1
            self._note(queue, "claimed", message, outcome.claim)
            message.deliveries += 1
            assert given.deliveries == message.deliveries
            assert given.error == message.error
            self.same(message, given.record)
        return taken

    def _due(self, command: c.Claim | c.Take, queue: Queue) -> list[Message]:
        """Those that this claim may have now."""
        waiting = self._for_claim(command, queue)
        return [message for message, due_ms in waiting if due_ms <= self.now_ms]

    def _for_claim(self, command: c.Claim | c.Take, queue: Queue) -> list[tuple[Message, int]]:
        """Ready messages that are for this claim, sooner or later; the first to take first."""
        names = (command.account, command.queue)
        if names not in self.queues:
            return []
        in_force = self.in_force(names)
        mode, wait_ms = in_force.zone_mode, in_force.locality_wait_ms
        mode = mode if command.zone_mode is None else command.zone_mode
        wait_ms = wait_ms if command.locality_wait_ms is None else command.locality_wait_ms
        found = []
        for message in queue.of("ready"):
            is_near = mode not in ("only", "prefer") or message.zone in ("", command.zone)
            if is_near or mode == "prefer":
                due_ms = 0 if is_near else message.arrived_ms + wait_ms
                order = (-message.new.priority, not is_near, message.age())
                found.append((order, message, due_ms))
        return [(message, due_ms) for _, message, due_ms in sorted(found, key=lambda one: one[0])]

    def same(self, message: Message, record: bytes) -> None:
        """The stored record is the message as it was put."""
        assert is_stored(message, record)

    def learn(self, names: Names, message_id: bytes, record: bytes) -> None:
        """A message was seen: it may be one whose id was not known.

        Those of one queue are to be seen in order.
        """
        queue = self.queues.get(names)
        if queue is None or message_id in queue.messages:
            return
        unknown = [one for one in queue.messages.values() if not one.is_known]
        alike = [one for one in unknown if is_stored(one, record)]
        assert alike, "a message that nobody has put"
        found = min(alike, key=Message.age)
        assert (names, message_id) not in self.all_ids
        del queue.messages[found.id]
        found.id, found.is_known = message_id, True
        queue.messages[message_id] = found
        self._known(names, message_id)
        found.zone = queue.zone(found.new.zone)
        if found.state != "delayed":
            found.state = "blocked"
            self._turn(names, queue, found)

    def _known(self, names: Names, message_id: bytes) -> None:
        self.all_ids.append((names, message_id))
        self.newest[names] = max(self.newest.get(names, b""), message_id[2:])

    def _why(self, queue: Queue, ids: Iterable[bytes], ended: int = 0) -> tuple[o.Why, ...]:
        """What became of messages that a claim does not hold, or no more as it has ended."""
        found = []
        for one in ids:
            message = queue.messages.get(one)
            if message is None:
                found.append(o.Why.GONE)
            elif message.state == "claimed":
                found.append(o.Why.WAITING if message.claim == ended else o.Why.HELD)
            else:
                found.append(o.Why.GONE if message.expired(self.now_ms) else o.Why.WAITING)
        return tuple(found)

    def _held(self, command: c.Extend | c.Ack | c.Release, outcome: Outcome) -> Queue | None:
        """The queue if the claim is alive; else the outcome is asserted to say so."""
        queue = self.queues.get((command.account, command.queue))
        if queue is not None and queue.claims.get(command.claim, 0) > self.now_ms:
            return queue
        assert isinstance(outcome, Refused)
        assert outcome.reason is Reason.NO_CLAIM
        ids = command.ids or ()
        assert outcome.stale == ids
        assert outcome.why == self._why(queue or Queue(c.QueueSettings()), ids, command.claim)
        return None

    def _until_ms(self, names: Names, lease_ms: int | None) -> int:
        return self.now_ms + (self.in_force(names).lease_ms if lease_ms is None else lease_ms)

    def _extend(self, command: c.Extend, outcome: Outcome) -> None:
        queue = self._held(command, outcome)
        if queue is None:
            return
        names = (command.account, command.queue)
        until_ms = self._until_ms(names, command.lease_ms)
        if command.ids is None:
            queue.claims[command.claim] = until_ms
            self._note_extended(queue, command.claim)
            assert outcome == o.Extended(until_ms)
            return
        assert isinstance(outcome, o.Extended)
        held = {message.id: message for message in queue.held(command.claim)}
        moved, lost = self._picked(held, command.ids)
        assert (outcome.stale, outcome.why) == (lost, self._why(queue, lost))
        assert outcome.until_ms == (until_ms if moved else 0)
        if moved and not held:
            queue.claims[command.claim] = until_ms
            self._note_extended(queue, command.claim)
        elif moved:
            assert outcome.claim not in [claim for _, claim in self.all_claims]
            queue.claims[outcome.claim] = until_ms
            queue.claimed_at[outcome.claim] = self.moment
            self.all_claims.append((names, outcome.claim))
            queue.consumers[outcome.claim] = queue.consumers.get(command.claim, "")
            for place, message in enumerate(moved):
                message.claim, message.place = outcome.claim, place
            self._note_extended(queue, outcome.claim)
        assert bool(outcome.claim) == bool(moved and held)

    def _extend_many(self, command: c.ExtendMany, outcome: Outcome) -> None:
        names = (command.account, command.queue)
        queue = self.queues.get(names)
        claims = {} if queue is None else queue.claims
        until_ms = 0 if queue is None else self._until_ms(names, command.lease_ms)
        ended = []
        for claim in command.claims:
            if claims.get(claim, 0) <= self.now_ms:
                ended.append((claim, claim in claims))
            else:
                claims[claim] = until_ms
                assert queue is not None
                self._note_extended(queue, claim)
        assert outcome == o.ManyExtended(until_ms, tuple(ended))

    def _picked(
        self, held: dict[bytes, Message], ids: Iterable[bytes]
    ) -> tuple[list[Message], tuple[bytes, ...]]:
        """Take messages out of ``held``; also the ids of those that are not there."""
        picked, lost = [], []
        for one in ids:
            if one in held:
                picked.append(held.pop(one))
            else:
                lost.append(one)
        return picked, tuple(lost)

    def _settled(
        self, queue: Queue, command: c.Ack | c.Release
    ) -> tuple[list[Message], tuple[bytes, ...]]:
        held = {message.id: message for message in queue.held(command.claim)}
        ids = list(held) if command.ids is None else command.ids
        settled, lost = self._picked(held, ids)
        if not held:
            del queue.claims[command.claim]
        return settled, lost

    def _ack(self, command: c.Ack, outcome: Outcome) -> None:
        queue = self._held(command, outcome)
        if queue is not None:
            settled, lost = self._settled(queue, command)
            for message in settled:
                names = (command.account, command.queue)
                self._leaves(names, queue, message, "acked", command.claim)
            queue.counts["acked", self.now_ms] += len(settled)
            assert outcome == o.Settled(len(settled), lost, self._why(queue, lost))

    def _release(self, command: c.Release, outcome: Outcome) -> None:
        queue = self._held(command, outcome)
        if queue is not None:
            settled, lost = self._settled(queue, command)
            for message in settled:
                self._note(queue, "released", message, command.claim, command.reason)
                self._give_back((command.account, command.queue), queue, message, command)
            queue.counts["released", self.now_ms] += len(settled)
            assert outcome == o.Settled(len(settled), lost, self._why(queue, lost))

    def _transact(self, command: c.Transact, outcome: Outcome) -> None:
        account = command.account
        holds: dict[tuple[str, int], dict[bytes, Message]] = {}
        wrong, named = [], []
        parts: tuple[c.PartAck | c.PartRelease, ...] = (*command.acks, *command.releases)
        for number, part in enumerate(parts):
            queue = self.queues.get((account, part.queue), Queue(c.QueueSettings()))
            if queue.claims.get(part.claim, 0) <= self.now_ms:
                ids = part.ids or ()
                why = self._why(queue, ids, part.claim)
                wrong.append(o.StalePart(number, True, ids, why))
                continue
            every = {one.id: one for one in queue.held(part.claim)}
            held = holds.setdefault((part.queue, part.claim), dict(every))
            picked, lost = self._picked(held, list(held) if part.ids is None else part.ids)
            named.append(tuple(one.id for one in picked))
            if lost:
                why = self._why(queue, lost)
                twice = [
                    o.Why.TWICE if one in every else what
                    for one, what in zip(lost, why, strict=True)
                ]
                wrong.append(o.StalePart(number, False, lost, tuple(twice)))
        if wrong:
            assert outcome == o.Transacted(stale=tuple(wrong))
            return
        acked = [
            self.queues[account, part.queue].messages[one]
            for part, ids in zip(command.acks, named, strict=False)
            for one in ids
        ]
        added = self._added(account, command.puts)
        added["messages"] -= len(acked)
        added["bytes"] -= sum(len(one.new.body) for one in acked)
        if self._is_over(account, outcome, **added):
            return
        assert isinstance(outcome, o.Transacted)
        counts = [len(ids) for ids in named]
        assert [*outcome.acked, *outcome.released] == counts
        assert not outcome.stale
        for part, ids in zip(parts, named, strict=True):
            if not ids:
                continue
            if isinstance(part, c.PartAck):
                self._ack(c.Ack(account, part.queue, part.claim, ids), o.Settled(len(ids)))
            else:
                how = (part.delay_ms, part.reason, part.dead)
                release = c.Release(account, part.queue, part.claim, ids, *how)
                self._release(release, o.Settled(len(ids)))
        for put, enqueued in zip(command.puts, outcome.put, strict=True):
            self._goes_in(c.Enqueue(account, put.queue, put.messages), enqueued)

    def _transact_and_claim(self, command: c.TransactAndClaim, outcome: Outcome) -> None:
        checks = {c.Transact: self._transact, c.Claim: self._claim, c.Take: self._take}
        for one, came_of_it in steps(command, outcome):
            checks[type(one)](one, came_of_it)

    def _start_job(self, command: c.StartJob, outcome: Outcome) -> None:
        """Only what has no limit; of one with a rate it has to be told what it moves."""
        queue = self._queue_or_refused(command, outcome)
        if queue is None:
            return
        if queue.job is not None and not queue.job.is_over:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.JOB_RUNNING
        else:
            assert outcome == o.Done()
            queue.job = Job(command, self.moment, self.now_ms)

    def _cancel_job(self, command: c.CancelJob, outcome: Outcome) -> None:
        queue = self._queue_or_refused(command, outcome)
        if queue is None:
            return
        if queue.job is None or queue.job.is_over:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.NO_JOB
        else:
            assert outcome == o.Done()
            queue.job.is_over = True

    def _work(self, names: Names, job: Job) -> None:
        """Let a job do all that it is to do."""
        queue, asked = self.queues[names], job.asked
        job.is_over = True
        if asked.act == "release" or (asked.act == "delete" and asked.filter.state == "claimed"):
            self._work_on_claims(names, queue, job)
        elif asked.act == "delete":
            self._delete_meant(names, queue, job)
        elif asked.dry_run:
            job.done = len(self.movable(names))
        else:
            while movable := self.movable(names):
                for message in movable:
                    self.moves(names, message)
        if asked.act in ("redrive", "move"):
            fates = {one.id: self._fate(names, job, one) for one in queue.messages.values()}
            job.troubles = {one: fate for one, fate in fates.items() if fate in TROUBLES}

    def _work_on_claims(self, names: Names, queue: Queue, job: Job) -> None:
        asked = job.asked
        for claim in sorted(queue.claims):
            if queue.claimed_at[claim] > job.moment:
                continue
            meant = [
                one.id for one in queue.held(claim) if meets(one, asked.filter, job.started_ms)
            ]
            job.done += len(meant)
            if asked.dry_run or not meant:
                continue
            if asked.act == "release":
                ids = tuple(sorted(meant))
                self._release(c.Release(*names, claim, ids, 0), o.Settled(len(ids)))
            else:
                for one in meant:
                    self._leaves(names, queue, queue.messages[one], "deleted")

    def _delete_meant(self, names: Names, queue: Queue, job: Job) -> None:
        for one in sorted(queue.messages.values(), key=lambda one: one.id):
            # By the time: what was blocked has its turn when the others are gone.
            is_claimed = one.state == "claimed"
            if one.moment > job.moment or not meets(
                one, job.asked.filter, job.started_ms, counts=not is_claimed
            ):
                continue
            if is_claimed:
                job.troubles[one.id] = "claimed"
                continue
            job.done += 1
            if not job.asked.dry_run:
                self._leaves(names, queue, one, "deleted")

    def movable(self, names: Names) -> list[Message]:
        """What the queue's job may move now."""
        queue = self.queues[names]
        job = queue.job
        assert job is not None
        return [one for one in queue.messages.values() if self._fate(names, job, one) == "moves"]

    def _fate(self, names: Names, job: Job, message: Message) -> str:
        """What becomes of a message by a job that moves some, as things are."""
        asked, seen = job.asked, message
        if message.state == "blocked":
            seen = altered(message, state="ready")
        is_claimed = message.state == "claimed"
        if message.moment > job.moment or not meets(
            seen, asked.filter, job.started_ms, counts=not is_claimed
        ):
            return "is left alone"
        if is_claimed or (seen.state == "delayed" != asked.filter.state):
            return seen.state
        if not asked.dry_run and not self.queues[names].is_first(message):
            return "waits"
        target = self._target(job, message)
        if target in ("", names[1]):
            return "own_queue" if target else "no_source"
        if not asked.dry_run and not self._may_open((names[0], target)):
            return "no_room"
        return "moves"

    def _target(self, job: Job, message: Message) -> str:
        dead = message.new.dead
        return job.asked.to or (dead.queue if dead else "")

    def moves(self, names: Names, message: Message) -> None:
        """The queue's job moves this one."""
        queue = self.queues[names]
        job = queue.job
        assert job is not None
        target, delay_ms = self._target(job, message), message.due_ms - self.now_ms
        was_delayed = message.state == "delayed"
        self._leaves(names, queue, message, "redriven" if job.asked.act == "redrive" else "moved")
        moved = self._arrives((names[0], target), replace(message.new, dead=None), self.now_ms)
        if was_delayed:
            moved.state, moved.due_ms = "delayed", self.now_ms + delay_ms
        job.done += 1

    def _give_back(self, names: Names, queue: Queue, message: Message, how: c.Release) -> None:
        in_force = self.in_force(names)
        message.claim = 0
        message.error = how.reason or message.error
        delay_ms = how.delay_ms
        if delay_ms is None:
            doubled = in_force.retry_delay_ms * 2 ** (message.deliveries - 1)
            delay_ms = min(doubled, in_force.retry_delay_max_ms)
        graveyard = in_force.dead_letter_queue or f"{names[1]}.dead"
        too_often = 0 < in_force.max_deliveries <= message.deliveries
        may_die = message.new.dead is None and graveyard != names[1]
        if message.expired(self.now_ms):
            self._expires(names, queue, message)
        elif may_die and (how.dead or too_often) and self._may_open((names[0], graveyard)):
            reason = "rejected" if how.dead else "max_deliveries"
            self._leaves(names, queue, message, "dead_lettered", reason=reason)
            self._bury(message, reason, names[1], (names[0], graveyard))
        elif delay_ms:
            message.state, message.due_ms = "delayed", self.now_ms + delay_ms
        else:
            message.state = "ready"
            self.woken[*names, message.zone] += 1

    def _bury(self, message: Message, reason: str, source: str, names: Names) -> None:
        dead = c.DeadLetter(
            reason, message.error, source, message.id, message.deliveries, message.enqueued_ms
        )
        origin = self.queues[names[0], source]
        origin.counts["dead", self.now_ms] += 1
        origin.dead += 1
        new = msgspec.structs.replace(message.new, dead=dead)
        self._arrives(names, new, message.enqueued_ms)

    def _arrives(self, names: Names, new: c.NewMessage, enqueued_ms: int) -> Message:
        """A message comes from another queue, under an id that is not known yet."""
        queue = self._open(names)
        ttl_ms = self.in_force(names).ttl_ms
        self.made_up += 1
        message_id = b"made up %d" % self.made_up
        queue.messages[message_id] = Message(
            message_id,
            new,
            enqueued_ms=enqueued_ms,
            arrived_ms=self.now_ms,
            expires_ms=self.now_ms + ttl_ms if ttl_ms else None,
            state="blocked" if new.group else "ready",
            zone=queue.zone(new.zone),
            moment=self.moment,
            is_known=False,
        )
        queue.counts["enqueued", self.now_ms] += 1
        self._note(queue, "enqueued", queue.messages[message_id])
        return queue.messages[message_id]

    def _delete_messages(self, command: c.DeleteMessages, outcome: Outcome) -> None:
        queue = self._queue_or_refused(command, outcome)
        if queue is not None:
            ids = [one for one in dict.fromkeys(command.ids) if one in queue.messages]
            for one in ids:
                names = (command.account, command.queue)
                self._leaves(names, queue, queue.messages[one], "deleted")
            assert outcome == o.Deleted(len(ids))

    def _purge(self, command: c.Purge, outcome: Outcome) -> None:
        queue = self._queue_or_refused(command, outcome)
        if queue is not None:
            assert outcome == o.Deleted(len(queue.messages))
            # To forget what was put before, or what was moved, is something too.
            if queue.messages or queue.claims or queue.dedup or queue.job:
                queue.zones.clear()
                self._note(queue, "purged")
            for message in queue.messages.values():
                self._note(queue, "purged", message)
            queue.messages.clear()
            queue.claims.clear()
            queue.dedup.clear()
            queue.job = None

    def _queue_or_refused(
        self,
        command: c.DeleteMessages
        | c.Purge
        | c.PatchQueue
        | c.DeleteQueue
        | c.StartJob
        | c.CancelJob
        | c.DeleteBinding,
        outcome: Outcome,
    ) -> Queue | None:
        queue = self.queues.get((command.account, command.queue))
        if queue is None:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.NO_QUEUE
        return queue

    def _put_queue(self, command: c.PutQueue, outcome: Outcome) -> None:
        names = (command.account, command.queue)
        is_new = names not in self.queues
        if self._is_over(command.account, outcome, queues=is_new):
            return
        assert outcome == o.Stored(created=is_new)
        queue = self._open(names)
        queue.settings = command.settings
        if not is_new:
            self._note(queue, "queue_changed")

    def _patch_queue(self, command: c.PatchQueue, outcome: Outcome) -> None:
        queue = self._queue_or_refused(command, outcome)
        if queue is not None:
            assert outcome == o.Stored(created=False)
            queue.settings = _patched(queue.settings, command.settings, command.fields)
            self._note(queue, "queue_changed")

    def _delete_queue(self, command: c.DeleteQueue, outcome: Outcome) -> None:
        if self._queue_or_refused(command, outcome) is not None:
            assert outcome == o.Done()
            names = (command.account, command.queue)
            del self.queues[names]
            self.bindings.pop(names, None)
            self.hooks = {key: hook for key, hook in self.hooks.items() if key[:2] != names}

    def _put_account(self, command: c.PutAccount, outcome: Outcome) -> None:
        assert outcome == o.Stored(created=command.account not in self.accounts)
        self.accounts[command.account] = command.defaults

    def _account_or_refused(
        self, command: c.PatchAccount | c.DeleteAccount, outcome: Outcome
    ) -> bool:
        if command.account in self.accounts:
            return True
        assert isinstance(outcome, Refused)
        assert outcome.reason is Reason.NO_ACCOUNT
        return False

    def _patch_account(self, command: c.PatchAccount, outcome: Outcome) -> None:
        if self._account_or_refused(command, outcome):
            assert outcome == o.Stored(created=False)
            defaults = self.accounts[command.account]
            self.accounts[command.account] = _patched(defaults, command.defaults, command.fields)

    def _delete_account(self, command: c.DeleteAccount, outcome: Outcome) -> None:
        if not self._account_or_refused(command, outcome):
            return
        if any(account == command.account for account, _ in [*self.queues, *self.schedules]):
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.ACCOUNT_IN_USE
        else:
            assert outcome == o.Done()
            del self.accounts[command.account]
            self.quotas.pop(command.account, None)
            for key_id in self.keys_of(command.account):
                del self.keys[key_id]

    def running(self) -> dict[str, Runner]:
        """The runners whose lease has not ended."""
        return {node: one for node, one in self.runners.items() if one.until_ms > self.now_ms}

    def node_of(self, hook: Hook) -> str:
        """Who runs it, if anybody does."""
        found = [node for node, one in self.running().items() if one.number == hook.runner]
        return found[0] if found else ""

    def _put_subscription(self, command: c.PutSubscription, outcome: Outcome) -> None:
        names = (command.account, command.queue)
        key = (*names, command.name)
        hook = self.hooks.get(key)
        if hook is None and sum(other[:2] == names for other in self.hooks) >= 16:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.TOO_MANY_SUBSCRIPTIONS
            return
        more = {"queues": names not in self.queues, "subscriptions": hook is None}
        if self._is_over(command.account, outcome, **more):
            return
        if hook is None:
            self.hooks[key] = Hook(command.settings, command.secret)
            made = command.secret if command.made else b""
            assert outcome == o.SubscriptionStored(True, made)
        else:
            hook.settings, hook.disabled, hook.puts = command.settings, "", hook.puts + 1
            hook.secret = hook.secret if command.made else command.secret
            assert outcome == o.SubscriptionStored(False, b"")
        self._open(names)

    def _hook_or_refused(
        self, command: c.DeleteSubscription | c.DisableSubscription, outcome: Outcome
    ) -> Hook | None:
        hook = self.hooks.get((command.account, command.queue, command.name))
        if hook is None:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.NO_SUBSCRIPTION
        else:
            assert outcome == o.Done()
        return hook

    def _delete_subscription(self, command: c.DeleteSubscription, outcome: Outcome) -> None:
        if self._hook_or_refused(command, outcome):
            del self.hooks[command.account, command.queue, command.name]

    def _disable_subscription(self, command: c.DisableSubscription, outcome: Outcome) -> None:
        hook = self._hook_or_refused(command, outcome)
        key = (command.account, command.queue, command.name)
        if hook and not hook.disabled and command.revision == self.revisions.get(key, [0])[-1]:
            hook.disabled = command.reason or "no reason was given"

    def _take_subscriptions(self, command: c.TakeSubscriptions, outcome: Outcome) -> None:
        assert isinstance(outcome, o.SubscriptionsTaken)
        if command.lease_ms <= 0:
            self.runners.pop(command.node, None)
            assert outcome == o.SubscriptionsTaken(0, 0)
            return
        known = self.running().get(command.node)
        if known is None:
            assert all(hook.runner != outcome.runner for hook in self.hooks.values())
        else:
            assert outcome.runner == known.number
        assert outcome.until_ms == self.now_ms + command.lease_ms
        self.runners[command.node] = Runner(outcome.runner, outcome.until_ms)
        for names in command.drop:
            if names in self.hooks and self.hooks[names].runner == outcome.runner:
                self.hooks[names].runner = 0
        for names in command.take:
            if names in self.hooks and not self.node_of(self.hooks[names]):
                self.hooks[names].runner = outcome.runner

    def keys_of(self, account: str) -> list[str]:
        """The access keys of an account, or of the operator."""
        return sorted(key_id for key_id, key in self.keys.items() if key.account == account)

    def _put_key(self, command: c.PutKey, outcome: Outcome) -> None:
        known, others = self.keys.get(command.id), self.keys_of(command.account)
        if known is not None:
            assert outcome == o.KeyStored(command.id, known.hash, False)
        elif command.first and others:
            assert outcome == o.KeyStored("", b"", False)
        elif len(others) == 100:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.TOO_MANY_KEYS
        else:
            assert outcome == o.KeyStored(command.id, command.hash, True)
            made = KeyRecord(command.account, command.settings, command.hash, self.now_ms)
            self.keys[command.id] = made
            if command.account:
                self.accounts.setdefault(command.account, c.QueueSettings())

    def _key_or_refused(
        self, command: c.RotateKey | c.RevokeKey, outcome: Outcome, done: Outcome
    ) -> KeyRecord | None:
        key = self.keys.get(command.id)
        if key is None or key.account != command.account:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.NO_KEY
            return None
        assert outcome == done
        return key

    def _rotate_key(self, command: c.RotateKey, outcome: Outcome) -> None:
        done = o.KeyStored(command.id, command.hash, False)
        if key := self._key_or_refused(command, outcome, done):
            self.keys[command.id] = replace(
                key,
                hash=command.hash,
                before=key.hash,
                before_until_ms=self.now_ms + command.grace_ms,
            )

    def _revoke_key(self, command: c.RevokeKey, outcome: Outcome) -> None:
        if self._key_or_refused(command, outcome, o.Done()):
            del self.keys[command.id]

    def _use_keys(self, command: c.UseKeys, outcome: Outcome) -> None:
        assert outcome == o.Done()
        for key_id in command.ids:
            if key_id in self.keys:
                self.keys[key_id] = replace(self.keys[key_id], used_ms=self.now_ms)

    def _audited(self, command: c.Audited, outcome: Outcome) -> None:
        if command.key and command.key not in self.keys:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.KEY_ENDED
        else:
            self.check(command.command, outcome)
        ended = outcome.reason.value if isinstance(outcome, Refused) else "done"
        self.acts.append((self.now_ms, command.actor, command.request, ended))

    def _once(self, command: c.Once, outcome: Outcome) -> None:
        key = (command.account, command.key)
        kept = self.once.get(key)
        if kept is None or kept[1] <= self.now_ms:
            self.check(command.command, outcome)
            self.once[key] = (command.fingerprint, self.now_ms + command.window_ms, outcome)
        elif kept[0] != command.fingerprint:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.KEY_REUSED
        else:
            assert outcome == self.again(command, kept[2])


RUN_OUT = c.Release("", "", 0)


def is_stored(message: Message, record: bytes) -> bool:
    """Whether the record is the message as it was put."""
    stored, new = decode_message(record), message.new
    return (
        stored.body,
        stored.content_type,
        stored.headers,
        stored.zone,
        stored.priority,
        stored.group,
        stored.content_encoding,
        stored.dead,
        stored.enqueued_ms,
        stored.expires_ms,
    ) == (
        new.body,
        new.content_type,
        new.headers,
        new.zone,
        new.priority,
        new.group,
        new.content_encoding,
        new.dead,
        message.enqueued_ms,
        message.expires_ms,
    )


def meets(message: Message, wanted: c.Filter, now_ms: int, *, counts: bool = True) -> bool:
    """Whether a filter means the message; not ``counts``: however often it was delivered."""
    age_ms, new = now_ms - message.arrived_ms, message.new
    return (
        wanted.state in (None, message.state)
        and wanted.group in (None, new.group)
        and wanted.zone in (None, new.zone)
        and wanted.priority in (None, new.priority)
        and (wanted.min_age_ms is None or age_ms >= wanted.min_age_ms)
        and (wanted.max_age_ms is None or age_ms <= wanted.max_age_ms)
        and (not counts or message.deliveries >= wanted.min_deliveries)
        and (not wanted.headers or _has(wanted.headers, wanted.any_of, new))
    )


def _matches(binding: c.PutBinding, message: c.NewMessage) -> bool:
    return _has(binding.match, binding.any_of, message)


def _has(headers: tuple[c.HeaderMatch, ...], any_of: bool, message: c.NewMessage) -> bool:
    def holds(match: c.HeaderMatch) -> bool:
        found = [v for name, v in message.headers if name.lower() == match.header.lower()]
        return any(
            one in match.values or any(one[: len(start)] == start for start in match.prefixes)
            for one in found
        )

    wanted = [holds(match) for match in headers]
    return True in wanted if any_of else False not in wanted


def _patched(
    current: c.QueueSettings, change: c.QueueSettings, fields: tuple[str, ...]
) -> c.QueueSettings:
    members = (*InForce._fields, "metadata", "history_ms", "history_bytes")
    return c.QueueSettings(
        **{name: getattr(change if name in fields else current, name) for name in members}
    )
