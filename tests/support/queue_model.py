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

from statemachine import commands as c
from statemachine import outcomes as o
from statemachine.outcomes import Outcome, Reason, Refused
from statemachine.records import decode_message

Names = tuple[str, str]
TTL_MS, DELAY_MS, LEASE_MS = 4 * 24 * 3600 * 1000, 0, 30_000


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

    def expired(self, now_ms: int) -> bool:
        return self.expires_ms is not None and self.expires_ms <= now_ms

    def age(self) -> bytes:
        return self.id[2:]


@dataclass(frozen=True)
class Event:
    """What happened to a message, or without one to the queue."""

    kind: str
    time_ms: int
    message: bytes | None = None
    claim: int = 0
    consumer: str = ""
    reason: str = ""


@dataclass
class Queue:
    settings: c.QueueSettings
    messages: dict[bytes, Message] = field(default_factory=dict)
    claims: dict[int, int] = field(default_factory=dict)  # To the end of the lease.
    consumers: dict[int, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)  # Of its whole life, forgotten or not.

    def of(self, state: str) -> list[Message]:
        found = [message for message in self.messages.values() if message.state == state]
        return sorted(found, key=Message.age)

    def held(self, claim: int) -> list[Message]:
        return [message for message in self.of("claimed") if message.claim == claim]


class Model:
    def __init__(self) -> None:
        self.now_ms = 0
        self.accounts: dict[str, c.QueueSettings] = {}
        self.queues: dict[Names, Queue] = {}
        self.once: dict[tuple[str, str], tuple[bytes, int, Outcome]] = {}
        self.woken: Counter[Names] = Counter()
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
            c.Once: self._once,
        }
        checks[type(command)](command, outcome)

    def again(self, command: c.Command, outcome: Outcome) -> Outcome:
        """What a command that was answered so is answered when it comes again."""
        if isinstance(command, c.Once):
            command = command.command
        if not isinstance(command, c.Claim) or not isinstance(outcome, o.Claimed):
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
                        self._note(queue, "lease_ended", message, claim)
                        self._give_back(names, queue, message, 0)
                    del queue.claims[claim]
            for message in queue.of("delayed"):
                if message.expired(self.now_ms):
                    self._expire(queue, message)
                elif message.due_ms <= self.now_ms:
                    message.state = "ready"
                    self.woken[names] += 1
            for message in queue.of("ready"):
                if message.expired(self.now_ms):
                    self._expire(queue, message)
        self.once = {key: kept for key, kept in self.once.items() if kept[1] > self.now_ms}

    def next_due_ms(self) -> int | None:
        """When the next thing happens in the queues or to a key."""
        times = [until_ms for _, until_ms, _ in self.once.values()]
        for queue in self.queues.values():
            times += queue.claims.values()
            times += [message.due_ms for message in queue.of("delayed")]
            waiting = queue.of("delayed") + queue.of("ready")
            times += [one.expires_ms for one in waiting if one.expires_ms is not None]
        return min(times, default=None)

    def in_force(self, names: Names) -> tuple[int, int, int]:
        """Time to live, delay and lease for the queue."""
        own, defaults = self.queues[names].settings, self.accounts[names[0]]

        def pick(of_queue: int | None, of_account: int | None, built_in: int) -> int:
            given = [value for value in (of_queue, of_account) if value is not None]
            return given[0] if given else built_in

        return (
            pick(own.ttl_ms, defaults.ttl_ms, TTL_MS),
            pick(own.delay_ms, defaults.delay_ms, DELAY_MS),
            pick(own.lease_ms, defaults.lease_ms, LEASE_MS),
        )

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
        about = None if message is None else message.id
        queue.events.append(Event(kind, self.now_ms, about, claim, consumer, reason))

    def _expire(self, queue: Queue, message: Message) -> None:
        del queue.messages[message.id]
        self._note(queue, "expired", message)

    def _enqueue(self, command: c.Enqueue, outcome: Outcome) -> None:
        assert isinstance(outcome, o.Enqueued)
        assert len(outcome.ids) == len(command.messages)
        names = (command.account, command.queue)
        queue = self._open(names)
        for message_id, new in zip(outcome.ids, command.messages, strict=True):
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
                state="delayed" if delay_ms else "ready",
                due_ms=self.now_ms + delay_ms,
            )
            self._note(queue, "enqueued", queue.messages[message_id])
            self.woken[names] += not delay_ms
            self.all_ids.append((names, message_id))

    def _claim(self, command: c.Claim, outcome: Outcome) -> None:
        assert isinstance(outcome, o.Claimed)
        names = (command.account, command.queue)
        queue = self.queues.get(names, Queue(c.QueueSettings()))
        taken: list[Message] = []
        for message in queue.of("ready"):
            if len(taken) == command.limit:
                break
            if message.expired(self.now_ms):
                self._expire(queue, message)
            else:
                taken.append(message)
        if not taken:
            assert outcome == o.Claimed(0, 0, ())
            return
        assert outcome.claim not in [claim for _, claim in self.all_claims]
        lease_ms = self.in_force(names)[2] if command.lease_ms is None else command.lease_ms
        queue.claims[outcome.claim] = outcome.until_ms
        queue.consumers[outcome.claim] = command.consumer
        self.all_claims.append((names, outcome.claim))
        assert outcome.until_ms == self.now_ms + lease_ms
        assert [given.id for given in outcome.messages] == [message.id for message in taken]
        for message, given in zip(taken, outcome.messages, strict=True):
            message.state, message.claim = "claimed", outcome.claim
            self._note(queue, "claimed", message, outcome.claim)
            message.deliveries += 1
            assert given.deliveries == message.deliveries
            self.same(message, given.record)

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
            for message in queue.held(command.claim):
                self._note(queue, "extended", message, command.claim)
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
                del queue.messages[message.id]
                self._note(queue, "acked", message, command.claim)

    def _release(self, command: c.Release, outcome: Outcome) -> None:
        queue = self._held(command, outcome)
        if queue is not None:
            names = (command.account, command.queue)
            for message in self._settled(queue, command, outcome):
                self._note(queue, "released", message, command.claim, command.reason)
                self._give_back(names, queue, message, command.delay_ms)

    def _give_back(self, names: Names, queue: Queue, message: Message, delay_ms: int) -> None:
        message.claim = 0
        if message.expired(self.now_ms):
            self._expire(queue, message)
        elif delay_ms:
            message.state, message.due_ms = "delayed", self.now_ms + delay_ms
        else:
            message.state = "ready"
            self.woken[names] += 1

    def _delete_messages(self, command: c.DeleteMessages, outcome: Outcome) -> None:
        queue = self._queue_or_refused(command, outcome)
        if queue is not None:
            found = [queue.messages.pop(one, None) for one in command.ids]
            assert outcome == o.Deleted(len([one for one in found if one]))
            for message in found:
                if message:
                    self._note(queue, "deleted", message)

    def _purge(self, command: c.Purge, outcome: Outcome) -> None:
        queue = self._queue_or_refused(command, outcome)
        if queue is not None:
            assert outcome == o.Deleted(len(queue.messages))
            if queue.messages or queue.claims:
                self._note(queue, "purged")
            for message in queue.messages.values():
                self._note(queue, "purged", message)
            queue.messages.clear()
            queue.claims.clear()

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
        is_new = names not in self.queues
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
            del self.queues[command.account, command.queue]

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


def _patched(
    current: c.QueueSettings, change: c.QueueSettings, fields: tuple[str, ...]
) -> c.QueueSettings:
    members = ("ttl_ms", "delay_ms", "lease_ms", "metadata", "history_ms", "history_bytes")
    return c.QueueSettings(
        **{name: getattr(change if name in fields else current, name) for name in members}
    )
