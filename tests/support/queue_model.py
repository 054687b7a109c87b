"""What raftq promises, as plainly as it can be said: lists, dictionaries, no indexes.

The model is shown each command with the outcome it had. It takes new ids from the
outcome, and asserts everything else. Nothing happens in it by itself: leases, delays
and lifetimes end when ``sweep`` is called, except that a claim never gives out what
has expired, and that nothing can be done under a lease that has ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from msgspec.structs import replace

from statemachine import commands as c
from statemachine import lanes
from statemachine import outcomes as o
from statemachine.outcomes import Outcome, Reason, Refused
from statemachine.records import decode_message

T = TypeVar("T")
Names = tuple[str, str]
Place = tuple[str, str, str]  # Account, queue and zone.
TTL_MS, DELAY_MS, LEASE_MS = 4 * 24 * 3600 * 1000, 0, 30_000
BINDINGS_MAX, SCHEDULES_MAX = 64, 1_000
LOCALITY_WAIT_MS = 3_000


@dataclass
class Message:
    id: bytes
    new: c.NewMessage
    enqueued_ms: int
    expires_ms: int | None
    state: str
    due_ms: int = 0
    deliveries: int = 0
    claim: int = 0
    zone: str = ""  # Empty also for what came from one zone too many.

    def expired(self, now_ms: int) -> bool:
        return self.expires_ms is not None and self.expires_ms <= now_ms

    def age(self) -> bytes:
        return self.id[2:]


@dataclass
class Queue:
    settings: c.QueueSettings
    messages: dict[bytes, Message] = field(default_factory=dict)
    claims: dict[int, int] = field(default_factory=dict)  # To the end of the lease.
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
        return [message for message in self.of("claimed") if message.claim == claim]


@dataclass
class Schedule:
    put: c.PutSchedule
    next_ms: int | None
    ticks: list[int] = field(default_factory=list)


class Model:
    def __init__(self) -> None:
        self.now_ms = 0
        self.bindings: dict[Names, dict[str, c.PutBinding]] = {}
        self.schedules: dict[Names, Schedule] = {}
        self.accounts: dict[str, c.QueueSettings] = {}
        self.queues: dict[Names, Queue] = {}
        self.once: dict[tuple[str, str], tuple[bytes, int, Outcome]] = {}
        self.woken: Counter[Place] = Counter()
        self.all_ids: list[tuple[Names, bytes]] = []
        self.all_claims: list[tuple[Names, int]] = []

    def check(self, command: c.Command, outcome: Outcome) -> None:
        """Take the command in, and assert that this is what it answers."""
        checks: dict[type, Callable[..., None]] = {
            c.Enqueue: self._enqueue,
            c.Claim: self._claim,
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
        }
        checks[type(command)](command, outcome)

    def again(self, command: c.Command, outcome: Outcome) -> Outcome:
        """What a command that was answered so is answered when it comes again."""
        if isinstance(command, c.Once):
            command = command.command
        if not isinstance(command, c.Claim) or not isinstance(outcome, o.Claimed):
            return outcome
        if not outcome.claim:
            return outcome
        queue = self.queues.get((command.account, command.queue))
        nothing = o.Claimed(0, 0, ())
        if queue is None or queue.claims.get(outcome.claim, 0) <= self.now_ms:
            return nothing
        records = {given.id: given.record for given in outcome.messages}
        held = {message.id: message for message in queue.held(outcome.claim)}
        given = tuple(
            o.Delivered(one.id, held[one.id].deliveries, records[one.id])
            for one in outcome.messages
            if one.id in held
        )
        return o.Claimed(outcome.claim, queue.claims[outcome.claim], given) if given else nothing

    def sweep(self) -> None:
        """Let everything happen that is due."""
        for names, queue in self.queues.items():
            for claim, until_ms in list(queue.claims.items()):
                if until_ms <= self.now_ms:
                    for message in queue.held(claim):
                        self._give_back(names, queue, message, 0)
                    del queue.claims[claim]
            for message in queue.of("delayed"):
                if message.expired(self.now_ms):
                    self._leaves(names, queue, message)
                elif message.due_ms <= self.now_ms:
                    message.state = "blocked"
                    self._turn(names, queue, message)
            for message in queue.of("blocked") + queue.of("ready"):
                if message.expired(self.now_ms):
                    self._leaves(names, queue, message)
        self.once = {key: kept for key, kept in self.once.items() if kept[1] > self.now_ms}

    def next_due_ms(self) -> int | None:
        """When the next thing happens in the queues or to a key."""
        times = [until_ms for _, until_ms, _ in self.once.values()]
        for queue in self.queues.values():
            times += queue.claims.values()
            times += [message.due_ms for message in queue.of("delayed")]
            waiting = queue.of("delayed") + queue.of("ready") + queue.of("blocked")
            times += [one.expires_ms for one in waiting if one.expires_ms is not None]
        return min(times, default=None)

    def in_force(self, names: Names) -> tuple[int, int, int]:
        """Time to live, delay and lease for the queue."""
        own, defaults = self.queues[names].settings, self.accounts[names[0]]
        return (
            pick(own.ttl_ms, defaults.ttl_ms, TTL_MS),
            pick(own.delay_ms, defaults.delay_ms, DELAY_MS),
            pick(own.lease_ms, defaults.lease_ms, LEASE_MS),
        )

    def locality(self, names: Names) -> tuple[str, int]:
        """Zone mode, and how long a message is first for its own zone."""
        own, defaults = self.queues[names].settings, self.accounts[names[0]]
        return (
            pick(own.zone_mode, defaults.zone_mode, "any"),
            pick(own.locality_wait_ms, defaults.locality_wait_ms, LOCALITY_WAIT_MS),
        )

    def _turn(self, names: Names, queue: Queue, message: Message) -> None:
        """A message whose turn it may be: it is ready unless others of its group are ahead."""
        if message.state == "blocked" and queue.is_first(message):
            message.state = "ready"
            # What has expired is no reason to get up.
            self.woken[*names, message.zone] += not message.expired(self.now_ms)

    def _leaves(self, names: Names, queue: Queue, message: Message) -> None:
        """The message is gone; the next one of its group may have its turn."""
        del queue.messages[message.id]
        for other in queue.of("blocked"):
            if other.new.group == message.new.group:
                self._turn(names, queue, other)

    def _open(self, names: Names) -> Queue:
        self.accounts.setdefault(names[0], c.QueueSettings())
        return self.queues.setdefault(names, Queue(c.QueueSettings()))

    def _enqueue(self, command: c.Enqueue, outcome: Outcome) -> None:
        assert isinstance(outcome, o.Enqueued)
        names = (command.account, command.queue)
        self._open(names)
        bound = self.bindings.get(names)
        if not bound:
            assert not outcome.routed
            for message_id, new in zip(outcome.ids, command.messages, strict=True):
                self._arrive(names, message_id, new)
            return
        assert outcome.ids == tuple(places[0].id for places in outcome.routed)
        for places, new in zip(outcome.routed, command.messages, strict=True):
            wanted = sorted(target for target, one in bound.items() if _matches(one, new))
            assert [place.queue for place in places] == (wanted or [command.queue])
            for place in places:
                self._open((command.account, place.queue))
                self._arrive((command.account, place.queue), place.id, new)

    def _arrive(self, names: Names, message_id: bytes, new: c.NewMessage) -> None:
        queue = self.queues[names]
        assert len(message_id) == 10
        seen = [known[2:] for known_names, known in self.all_ids if known_names == names]
        assert all(earlier < message_id[2:] for earlier in seen), "ids grow"
        ttl_ms, delay_ms, _ = self.in_force(names)
        ttl_ms = ttl_ms if new.ttl_ms is None else new.ttl_ms
        delay_ms = delay_ms if new.delay_ms is None else new.delay_ms
        queue.messages[message_id] = Message(
            message_id,
            new,
            enqueued_ms=self.now_ms,
            expires_ms=self.now_ms + ttl_ms if ttl_ms else None,
            state="delayed" if delay_ms else "blocked",
            due_ms=self.now_ms + delay_ms,
            zone=queue.zone(new.zone),
        )
        self._turn(names, queue, queue.messages[message_id])
        self.all_ids.append((names, message_id))

    def _put_binding(self, command: c.PutBinding, outcome: Outcome) -> None:
        names = (command.account, command.queue)
        bound = self.bindings.setdefault(names, {})
        if command.target not in bound and len(bound) >= BINDINGS_MAX:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.TOO_MANY_BINDINGS
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
        assert outcome == o.Stored(created=before is None)
        self.accounts.setdefault(command.account, c.QueueSettings())
        if before is not None and before.next_ms is not None:
            known = (before.put.queue, before.put.message, before.put.timing)
            if known == (command.queue, command.message, command.timing):
                return
        ticks = before.ticks if before else []
        self.schedules[names] = Schedule(command, command.next_ms, ticks)

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
        schedule.ticks.append(due_ms)
        new = schedule.put.message
        more = (("raftq-schedule", command.schedule), ("raftq-tick", f"{due_ms}"))
        new = replace(new, headers=new.headers + more)
        self._enqueue(c.Enqueue(command.account, schedule.put.queue, (new,)), outcome)

    def _claim(self, command: c.Claim, outcome: Outcome) -> None:
        assert isinstance(outcome, o.Claimed)
        names = (command.account, command.queue)
        queue = self.queues.get(names, Queue(c.QueueSettings()))
        taken: list[Message] = []
        while len(taken) < command.limit:
            waiting = self._for_claim(command, queue)
            due = [one for one, due_ms in waiting if due_ms <= self.now_ms and one not in taken]
            if not due:
                break
            if due[0].expired(self.now_ms):
                self._leaves(names, queue, due[0])
            else:
                taken.append(due[0])
        if not taken:
            until_ms = min([due_ms for _, due_ms in self._for_claim(command, queue)], default=0)
            assert outcome == o.Claimed(0, until_ms, ())
            return
        assert outcome.claim not in [claim for _, claim in self.all_claims]
        lease_ms = self.in_force(names)[2] if command.lease_ms is None else command.lease_ms
        queue.claims[outcome.claim] = outcome.until_ms
        self.all_claims.append((names, outcome.claim))
        assert outcome.until_ms == self.now_ms + lease_ms
        assert [given.id for given in outcome.messages] == [message.id for message in taken]
        for message, given in zip(taken, outcome.messages, strict=True):
            message.state, message.claim = "claimed", outcome.claim
            message.deliveries += 1
            assert given.deliveries == message.deliveries
            self.same(message, given.record)

    def _for_claim(self, command: c.Claim, queue: Queue) -> list[tuple[Message, int]]:
        """Ready messages that are for this claim, sooner or later; the first to take first."""
        names = (command.account, command.queue)
        if names not in self.queues:
            return []
        mode, wait_ms = self.locality(names)
        mode = mode if command.zone_mode is None else command.zone_mode
        wait_ms = wait_ms if command.locality_wait_ms is None else command.locality_wait_ms
        found = []
        for message in queue.of("ready"):
            is_near = mode not in ("only", "prefer") or message.zone in ("", command.zone)
            if is_near or mode == "prefer":
                due_ms = 0 if is_near else message.enqueued_ms + wait_ms
                order = (-message.new.priority, not is_near, message.age())
                found.append((order, message, due_ms))
        return [(message, due_ms) for _, message, due_ms in sorted(found, key=lambda one: one[0])]

    def same(self, message: Message, record: bytes) -> None:
        """The stored record is the message as it was put."""
        stored = decode_message(record)
        new = message.new
        assert (stored.body, stored.content_type, stored.headers, stored.zone) == (
            new.body,
            new.content_type,
            new.headers,
            new.zone,
        )
        assert (stored.priority, stored.group) == (new.priority, new.group)
        assert stored.enqueued_ms == message.enqueued_ms
        assert stored.expires_ms == message.expires_ms

    def _held(self, command: c.Extend | c.Ack | c.Release, outcome: Outcome) -> Queue | None:
        """The queue if the claim is alive; else the outcome is asserted to say so."""
        queue = self.queues.get((command.account, command.queue))
        if queue is None or queue.claims.get(command.claim, 0) <= self.now_ms:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.NO_CLAIM
            return None
        return queue

    def _extend(self, command: c.Extend, outcome: Outcome) -> None:
        queue = self._held(command, outcome)
        if queue is not None:
            lease_ms = self.in_force((command.account, command.queue))[2]
            lease_ms = lease_ms if command.lease_ms is None else command.lease_ms
            queue.claims[command.claim] = self.now_ms + lease_ms
            assert outcome == o.Extended(self.now_ms + lease_ms)

    def _settled(self, queue: Queue, command: c.Ack | c.Release, outcome: Outcome) -> list[Message]:
        held = {message.id: message for message in queue.held(command.claim)}
        settled, stale = [], []
        for one in held.copy() if command.ids is None else command.ids:
            if one in held:
                settled.append(held.pop(one))
            else:
                stale.append(one)
        assert outcome == o.Settled(len(settled), tuple(stale))
        if not held:
            del queue.claims[command.claim]
        return settled

    def _ack(self, command: c.Ack, outcome: Outcome) -> None:
        queue = self._held(command, outcome)
        if queue is not None:
            for message in self._settled(queue, command, outcome):
                self._leaves((command.account, command.queue), queue, message)

    def _release(self, command: c.Release, outcome: Outcome) -> None:
        queue = self._held(command, outcome)
        if queue is not None:
            names = (command.account, command.queue)
            for message in self._settled(queue, command, outcome):
                self._give_back(names, queue, message, command.delay_ms)

    def _give_back(self, names: Names, queue: Queue, message: Message, delay_ms: int) -> None:
        message.claim = 0
        if message.expired(self.now_ms):
            self._leaves(names, queue, message)
        elif delay_ms:
            message.state, message.due_ms = "delayed", self.now_ms + delay_ms
        else:
            message.state = "ready"
            self.woken[*names, message.zone] += 1

    def _delete_messages(self, command: c.DeleteMessages, outcome: Outcome) -> None:
        queue = self._queue_or_refused(command, outcome)
        if queue is not None:
            ids = [one for one in dict.fromkeys(command.ids) if one in queue.messages]
            for one in ids:
                self._leaves((command.account, command.queue), queue, queue.messages[one])
            assert outcome == o.Deleted(len(ids))

    def _purge(self, command: c.Purge, outcome: Outcome) -> None:
        queue = self._queue_or_refused(command, outcome)
        if queue is not None:
            assert outcome == o.Deleted(len(queue.messages))
            if queue.messages or queue.claims:
                queue.zones.clear()
            queue.messages.clear()
            queue.claims.clear()

    def _queue_or_refused(
        self,
        command: c.DeleteMessages | c.Purge | c.PatchQueue | c.DeleteQueue | c.DeleteBinding,
        outcome: Outcome,
    ) -> Queue | None:
        queue = self.queues.get((command.account, command.queue))
        if queue is None:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.NO_QUEUE
        return queue

    def _put_queue(self, command: c.PutQueue, outcome: Outcome) -> None:
        names = (command.account, command.queue)
        assert outcome == o.Stored(created=names not in self.queues)
        self._open(names).settings = command.settings

    def _patch_queue(self, command: c.PatchQueue, outcome: Outcome) -> None:
        queue = self._queue_or_refused(command, outcome)
        if queue is not None:
            assert outcome == o.Stored(created=False)
            queue.settings = _patched(queue.settings, command.settings, command.fields)

    def _delete_queue(self, command: c.DeleteQueue, outcome: Outcome) -> None:
        if self._queue_or_refused(command, outcome) is not None:
            assert outcome == o.Done()
            del self.queues[command.account, command.queue]
            self.bindings.pop((command.account, command.queue), None)

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


def _matches(binding: c.PutBinding, message: c.NewMessage) -> bool:
    def holds(match: c.HeaderMatch) -> bool:
        found = [v for name, v in message.headers if name.lower() == match.header.lower()]
        return any(
            one in match.values or any(one[: len(start)] == start for start in match.prefixes)
            for one in found
        )

    wanted = [holds(match) for match in binding.match]
    return True in wanted if binding.any_of else False not in wanted


def pick(of_queue: T | None, of_account: T | None, built_in: T) -> T:
    """The queue's setting, or the account's, or the built-in one."""
    given = [value for value in (of_queue, of_account) if value is not None]
    return given[0] if given else built_in


def _patched(
    current: c.QueueSettings, change: c.QueueSettings, fields: tuple[str, ...]
) -> c.QueueSettings:
    members = ("ttl_ms", "delay_ms", "lease_ms", "metadata", "zone_mode", "locality_wait_ms")
    return c.QueueSettings(
        **{name: getattr(change if name in fields else current, name) for name in members}
    )
