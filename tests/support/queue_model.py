"""What raftq promises, as plainly as it can be said: lists, dictionaries, no indexes.

The model is shown each command with the outcome it had. It takes new ids from the
outcome, and asserts everything else. Dead letters get ids of which no outcome tells: they
go by made-up ones until they are seen (``learn``). Nothing happens in it by itself: leases, delays
and lifetimes end when ``sweep`` is called, except that a claim never gives out what
has expired, and that nothing can be done under a lease that has ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from statemachine import commands as c
from statemachine import lanes
from statemachine import outcomes as o
from statemachine.outcomes import Outcome, Reason, Refused
from statemachine.records import decode_message

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


@dataclass
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
    zone: str = ""  # Empty also for what came from one zone too many.
    error: str = ""
    moment: int = 0  # What came earlier has a smaller one.
    is_known: bool = True  # By its id.

    def expired(self, now_ms: int) -> bool:
        return self.expires_ms is not None and self.expires_ms <= now_ms

    def age(self) -> tuple[int, bytes]:
        return self.moment, self.id[2:] if self.is_known else b"\xff" * 8


@dataclass
class Queue:
    settings: c.QueueSettings
    messages: dict[bytes, Message] = field(default_factory=dict)
    claims: dict[int, int] = field(default_factory=dict)  # To the end of the lease.
    dedup: dict[str, tuple[bytes, int]] = field(default_factory=dict)  # To id and end of window.
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
        self.accounts: dict[str, c.QueueSettings] = {}
        self.queues: dict[Names, Queue] = {}
        self.once: dict[tuple[str, str], tuple[bytes, int, Outcome]] = {}
        self.hooks: dict[HookNames, Hook] = {}
        self.runners: dict[str, Runner] = {}
        self.revisions: dict[HookNames, list[int]] = {}  # As the caller has seen them.
        self.woken: Counter[Place] = Counter()
        self.all_ids: list[tuple[Names, bytes]] = []
        self.all_claims: list[tuple[Names, int]] = []
        self.moment = 0
        self.made_up = 0

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
            c.Once: self._once,
            c.PutSubscription: self._put_subscription,
            c.DeleteSubscription: self._delete_subscription,
            c.DisableSubscription: self._disable_subscription,
            c.TakeSubscriptions: self._take_subscriptions,
        }
        self.moment += 1
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
            o.Delivered(one.id, held[one.id].deliveries, records[one.id], held[one.id].error)
            for one in outcome.messages
            if one.id in held
        )
        return o.Claimed(outcome.claim, queue.claims[outcome.claim], given) if given else nothing

    def sweep(self) -> None:
        """Let everything happen that is due."""
        self.moment += 1
        for names, queue in list(self.queues.items()):
            for claim, until_ms in list(queue.claims.items()):
                if until_ms <= self.now_ms:
                    for message in queue.held(claim):
                        self._give_back(names, queue, message, RUN_OUT)
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
            queue.dedup = {key: kept for key, kept in queue.dedup.items() if kept[1] > self.now_ms}
        self.once = {key: kept for key, kept in self.once.items() if kept[1] > self.now_ms}
        self.runners = self.running()

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
        """The settings that hold for the queue."""
        own, defaults = self.queues[names].settings, self.accounts[names[0]]
        found: dict[str, Any] = {}
        for member, built_in in BUILT_IN._asdict().items():
            given = [
                value
                for value in (getattr(own, member), getattr(defaults, member))
                if value is not None
            ]
            found[member] = given[0] if given else built_in
        return InForce(**found)

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
        assert len(outcome.ids) == len(command.messages)
        names = (command.account, command.queue)
        queue = self._open(names)
        duplicates = list(outcome.duplicates)
        for at, (message_id, new) in enumerate(zip(outcome.ids, command.messages, strict=True)):
            earlier, until_ms = queue.dedup.get(new.dedup_id, (b"", 0))
            if until_ms > self.now_ms:
                assert duplicates.pop(0) == at
                assert message_id == earlier
                continue
            assert len(message_id) == 10
            seen = [known[2:] for known_names, known in self.all_ids if known_names == names]
            assert all(earlier < message_id[2:] for earlier in seen), "ids grow"
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
            self._turn(names, queue, queue.messages[message_id])
            self.all_ids.append((names, message_id))
        assert not duplicates

    def _claim(self, command: c.Claim, outcome: Outcome) -> None:
        assert isinstance(outcome, o.Claimed)
        names = (command.account, command.queue)
        queue = self.queues.get(names, Queue(c.QueueSettings()))
        taken: list[Message] = []
        for given in outcome.messages:
            self.learn(names, given.id, given.record)
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
        lease_ms = self.in_force(names).lease_ms if command.lease_ms is None else command.lease_ms
        queue.claims[outcome.claim] = outcome.until_ms
        self.all_claims.append((names, outcome.claim))
        assert outcome.until_ms == self.now_ms + lease_ms
        assert [given.id for given in outcome.messages] == [message.id for message in taken]
        for message, given in zip(taken, outcome.messages, strict=True):
            message.state, message.claim = "claimed", outcome.claim
            message.deliveries += 1
            assert given.deliveries == message.deliveries
            assert given.error == message.error
            self.same(message, given.record)

    def _for_claim(self, command: c.Claim, queue: Queue) -> list[tuple[Message, int]]:
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
        found = min((one for one in unknown if is_stored(one, record)), key=Message.age)
        assert (names, message_id) not in self.all_ids
        del queue.messages[found.id]
        found.id, found.is_known = message_id, True
        queue.messages[message_id] = found
        self.all_ids.append((names, message_id))
        found.zone, found.state = queue.zone(found.new.zone), "blocked"
        self._turn(names, queue, found)

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
            lease_ms = self.in_force((command.account, command.queue)).lease_ms
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
                self._give_back(names, queue, message, command)

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
            self._leaves(names, queue, message)
        elif may_die and (how.dead or too_often):
            reason = "rejected" if how.dead else "max_deliveries"
            self._leaves(names, queue, message)
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
        queue = self._open(names)
        ttl_ms = self.in_force(names).ttl_ms
        self.made_up += 1
        message_id = b"made up %d" % self.made_up
        queue.messages[message_id] = Message(
            message_id,
            msgspec.structs.replace(message.new, dead=dead),
            enqueued_ms=message.enqueued_ms,
            arrived_ms=self.now_ms,
            expires_ms=self.now_ms + ttl_ms if ttl_ms else None,
            state="blocked" if message.new.group else "ready",
            moment=self.moment,
            is_known=False,
        )

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
            queue.dedup.clear()

    def _queue_or_refused(
        self, command: c.DeleteMessages | c.Purge | c.PatchQueue | c.DeleteQueue, outcome: Outcome
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
            names = (command.account, command.queue)
            del self.queues[names]
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
        if any(account == command.account for account, _ in self.queues):
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.ACCOUNT_IN_USE
        else:
            assert outcome == o.Done()
            del self.accounts[command.account]

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
        if hook is None:
            if sum(other[:2] == names for other in self.hooks) >= 16:
                assert isinstance(outcome, Refused)
                assert outcome.reason is Reason.TOO_MANY_SUBSCRIPTIONS
                return
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
        new.dead,
        message.enqueued_ms,
        message.expires_ms,
    )


def _patched(
    current: c.QueueSettings, change: c.QueueSettings, fields: tuple[str, ...]
) -> c.QueueSettings:
    members = (*InForce._fields, "metadata")
    return c.QueueSettings(
        **{name: getattr(change if name in fields else current, name) for name in members}
    )
