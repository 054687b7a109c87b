"""A queue service in one process: the real state machine, a memory store, a clock of the test's.

It keeps the promises of ``api.ports.Service`` without consensus or disk, fails when
it is told to, and remembers what was proposed and observed.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from api.access.bearer import BearerKeys
from api.access.gate import Gate
from api.access.signed_urls import SignedUrls
from api.ports import (
    AccessLine,
    AccessPolicy,
    Activity,
    AuditPolicy,
    Cluster,
    Delivery,
    Fairness,
    InvalidTiming,
    Limits,
    M,
    Member,
    Status,
    Unavailable,
    WebhookPolicy,
    ZoneMessages,
    Zones,
    ZoneTraffic,
)
from api.watching import EventWatch
from memory_kv import MemoryKV
from raftq.config import masters
from raftq.replica.schedules import tick_of
from raftq.replica.ticks import BadTiming, next_tick
from raftq.replica.waiters import Waiters
from raftq.sealing.bodies import Bodies, State
from raftq.sealing.masters import Masters
from statemachine.commands import (
    Barrier,
    Batch,
    Claim,
    Command,
    Entry,
    Once,
    QueueCommand,
    SubscriptionName,
    Sweep,
    Take,
    Timing,
    TransactAndClaim,
    WrappedKey,
)
from statemachine.kv import Reader
from statemachine.machine import Machine
from statemachine.outcomes import (
    Claimed,
    Delivered,
    Enqueued,
    Outcome,
    Refused,
    Swept,
    Transacted,
    TransactedAndClaimed,
)
from statemachine.prospects import Prospects
from statemachine.records import FOR_EVER, encode_message
from statemachine.sealed import SealingKey
from statemachine.settings import BUILT_IN, Effective

START_MS = 1_767_225_600_000  # The first of January 2026.
SWEEP_LIMIT = 1_000


class LocalService:
    """A cluster of one that never loses its leader unless told so."""

    def __init__(
        self,
        limits: Limits | None = None,
        webhooks: WebhookPolicy | None = None,
        access: AccessPolicy | None = None,
        master_keys: str = "",
        fairness: Fairness | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.fairness = fairness or Fairness()
        self.webhooks = webhooks or WebhookPolicy()
        self.audit = AuditPolicy()
        self.access_log_from = 400
        self.access_log: list[AccessLine] = []
        self.access = access or AccessPolicy()
        self.activity: dict[SubscriptionName, Activity] = {}
        self.deliveries: list[Delivery] = []
        self.limited: Counter[str] = Counter()
        self.clock_ms = START_MS
        self.failures: deque[Exception | None] = deque()
        """What the next proposals raise, in order; None lets one through."""
        self.not_ready: str | None = None
        self.staleness_ms = 0
        self.proposed: list[Command] = []
        self.refused: list[Unavailable] = []
        """Why commands were not even proposed."""
        self.observed: list[tuple[str, str, int]] = []
        self.others = {"south": "http://127.0.0.1:8002"}
        """The API of the replica in each other zone."""
        self.put: Counter[tuple[str, str]] = Counter()
        self.claimed: Counter[tuple[str, str]] = Counter()
        self._kv = MemoryKV()
        self._machine = Machine(self._kv)
        self.use_master_keys(master_keys)
        self._waiters = Waiters()
        self.stopping = False
        self._used_keys = set[str]()
        gate = Gate(self, [BearerKeys(self), SignedUrls(self)])
        self.authenticate = gate.authenticate  # As it is: it is asked for every request.
        self._parked: Counter[tuple[str, str]] = Counter()

    # The test's side.

    def use_master_keys(self, text: str) -> None:
        """Go on as a node that was started with these."""
        machine = self._machine
        state = State(machine.sealing, self.reader, lambda: machine.sealing_changes)
        self.bodies = Bodies(Masters(masters.parsed(text)), state)

    def advance(self, seconds: float) -> None:
        """Let time pass; everything that is due by then happens."""
        self.clock_ms += round(seconds * 1000)
        self._sweep()

    def parked(self, account: str, queue: str) -> int:
        """How many callers wait for the queue."""
        return self._parked[account, queue]

    def stop(self) -> None:
        """Begin to stop, as a node does."""
        self.stopping = True
        self._waiters.wake_everybody(0)
        self._waiters.stopping()

    @property
    def watching(self) -> int:
        """How many readers of events there are."""
        return self._waiters.watching

    # The port.

    def key_changes(self) -> int:
        """See ``Service``."""
        return self._waiters.key_changes

    def key_used(self, key_id: str) -> None:
        """See ``Service``."""
        self._used_keys.add(key_id)

    def take_used_keys(self) -> set[str]:
        """See ``Service``."""
        used, self._used_keys = self._used_keys, set()
        return used

    async def propose(
        self, command: QueueCommand | Once | Barrier, *, account: str | None = None
    ) -> Outcome:
        """See ``Service``."""
        [outcome] = await self._propose((command,))
        return outcome

    async def propose_all(self, commands: Sequence[QueueCommand]) -> list[Outcome]:
        """See ``Service``."""
        return list(await self._propose(commands))

    async def _propose(
        self, commands: Sequence[QueueCommand | Once | Barrier]
    ) -> tuple[Outcome, ...]:
        await asyncio.sleep(0)  # Nothing that goes through a log answers at once.
        if self.failures:
            failure = self.failures.popleft()
            if failure is not None:
                raise failure
        self._sweep()
        try:
            sealed = [self.bodies.sealed(command) for command in commands]
        except Unavailable as error:
            self.refused.append(error)
            raise
        self.proposed.extend(sealed)
        return self._apply(*sealed)

    async def accept(self, command: QueueCommand | Once) -> Outcome | None:
        """See ``Service``: taken here, and applied at once."""
        outcome = await self.propose(command)
        return outcome if isinstance(outcome, Refused) else None

    def opened(self, account: str, message: M) -> M:
        """See ``Service``."""
        return self.bodies.opened(account, message)

    def wrapped_key(self, account: str, key: SealingKey | None = None) -> WrappedKey:
        """See ``Service``."""
        return self.bodies.wrapped(account, key)

    def accounts_without_keys(self) -> tuple[str, ...]:
        """See ``Service``."""
        return self.bodies.without_keys()

    def prospects(self, command: Claim | Take) -> Prospects:
        """See ``Service``."""
        return self._machine.prospects(command)

    def in_force(self, account: str, queue: str) -> Effective:
        """See ``Service``."""
        return self._machine.in_force(account, queue)

    def reader(self) -> Reader:
        """See ``Service``."""
        return self._kv

    def now_ms(self) -> int:
        """See ``Service``."""
        return max(self.clock_ms, self._machine.stamp_ms)

    def next_tick(self, timing: Timing, after_ms: int) -> int | None:
        """See ``Service``."""
        try:
            return next_tick(timing, after_ms)
        except BadTiming as error:
            raise InvalidTiming(error.field, str(error)) from None

    def monotonic(self) -> float:
        """See ``Service``."""
        return time.monotonic()

    async def reach(self, index: int) -> None:
        """See ``Service``."""
        if index > self._machine.applied_index:
            raise Unavailable("behind", f"this replica has not applied {index} yet")

    async def wait_ready(
        self,
        account: str,
        queue: str,
        timeout_s: float,
        *,
        zone: str | None = None,
        others: bool = False,
    ) -> bool:
        """See ``Service``."""
        woken = asyncio.Event()

        def wake(_: str) -> bool:
            woken.set()
            return True

        self._parked[account, queue] += 1
        forget = self._waiters.when_ready((account, queue), wake, zone=zone, others=others)
        try:
            async with asyncio.timeout(timeout_s):
                await woken.wait()
        except TimeoutError:
            return False
        finally:
            self._parked[account, queue] -= 1
            forget()
        return True

    def wake_next(self, account: str, queue: str) -> None:
        """See ``Service``."""
        self._waiters.wake({(account, queue, ""): 1}, 0)

    def watch_events(self, account: str, queue: str | None) -> EventWatch:
        """See ``Service``."""
        watch = EventWatch()
        watch.forget = self._waiters.watch(account, queue, watch)
        return watch

    def is_stopping(self) -> bool:
        """See ``Service``."""
        return self.stopping

    def when_stopping(self, callback: Callable[[], object]) -> Callable[[], None]:
        """See ``Service``."""
        return self._waiters.when_stopping(callback)

    async def subscriptions_changed(self, seen: int, timeout_s: float) -> int:
        """See ``Service``."""
        if self._waiters.subscription_changes == seen:
            changed = asyncio.Event()
            forget = self._waiters.when_subscriptions_change(changed.set)
            try:
                async with asyncio.timeout(timeout_s):
                    await changed.wait()
            except TimeoutError:
                pass
            finally:
                forget()
        return self._waiters.subscription_changes

    def observe_limited(self, limit: enum.StrEnum) -> None:
        """See ``Service``."""
        self.limited[limit.value] += 1

    def observe_delivery(self, how: Delivery, seconds: float) -> None:
        """See ``Service``."""
        assert seconds >= 0
        self.deliveries.append(how)

    def status(self) -> Status:
        """See ``Service``."""
        return Status(
            node="n1",
            zone="north",
            role="leader",
            applied_index=self._machine.applied_index,
            staleness_ms=self.staleness_ms,
        )

    def cluster(self) -> Cluster:
        """See ``Service``."""
        index = self._machine.applied_index
        member = Member(
            node="n1",
            zone="north",
            api_url="http://127.0.0.1:8001",
            role="leader",
            term=1,
            applied_index=index,
            lag=0,
        )
        return Cluster(
            cluster_id="local", leader="n1", term=1, commit_index=index, members=(member,)
        )

    def nearest(self, zone: str) -> str | None:
        """See ``Service``."""
        return "http://127.0.0.1:8001" if zone == "north" else self.others.get(zone)

    def zones(self) -> Zones:
        """See ``Service``."""
        traffic = ZoneTraffic(
            zone="south",
            frames_sent=1,
            frame_bytes_sent=20,
            frames_received=3,
            frame_bytes_received=40,
        )
        messages = tuple(
            ZoneMessages(
                message_zone=pair[0],
                client_zone=pair[1],
                put=self.put[pair],
                claimed=self.claimed[pair],
            )
            for pair in sorted(self.put.keys() | self.claimed.keys())
        )
        return Zones(node="n1", zone="north", traffic=(traffic,), messages=messages)

    def observe_put(self, message_zones: Sequence[str], client_zone: str) -> None:
        """See ``Service``."""
        for zone in message_zones:
            self.put[zone, client_zone] += 1

    def observe_claimed(self, message_zones: Sequence[str], client_zone: str) -> None:
        """See ``Service``."""
        for zone in message_zones:
            self.claimed[zone, client_zone] += 1

    def ready(self) -> str | None:
        """See ``Service``."""
        return self.not_ready

    def metrics(self) -> bytes:
        """See ``Service``."""
        return b"# TYPE raftq_up gauge\nraftq_up 1\n"

    def log_request(self, line: AccessLine) -> None:
        """See ``Service``."""
        self.access_log.append(line)

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """See ``Service``."""
        assert seconds >= 0
        self.observed.append((route, method, status))

    def _sweep(self) -> None:
        due_ms = self._machine.next_due_ms()
        while due_ms is not None and due_ms <= self.clock_ms:
            [swept] = self._apply(Sweep(SWEEP_LIMIT))
            assert isinstance(swept, Swept)
            due_ms = self._machine.next_due_ms()
        while due := self._machine.due_schedules(self.clock_ms, 1):
            self._apply(tick_of(due[0], self.clock_ms))

    def _apply(self, *commands: Command) -> tuple[Outcome, ...]:
        index = self._machine.applied_index + 1
        entry = Entry(1, self.clock_ms, (Batch(0, 0, 0, commands),))
        [result] = self._machine.apply(index, 1, entry)
        self._machine.end_round()
        self._waiters.applied(self._machine)
        return result.outcomes


PUT = Enqueued((b"0123456789",))


class Instant(LocalService):
    """Answers a put, or a transaction with a claim, without a log, and keeps nothing of either."""

    async def propose(
        self, command: QueueCommand | Once | Barrier, *, account: str | None = None
    ) -> Outcome:
        """See ``Service``."""
        if not isinstance(command, TransactAndClaim):
            return PUT
        [part] = command.transaction.puts
        stored = encode_message(part.messages[0], 0, FOR_EVER, START_MS)
        delivered = Delivered(PUT.ids[0], 1, stored)
        done = Transacted((1,) * len(command.transaction.acks), (), (PUT,))
        return TransactedAndClaimed(done, Claimed(5, START_MS, (delivered,)))

    def in_force(self, account: str, queue: str) -> Effective:
        """See ``Service``; of a queue that is there it is at hand."""
        return BUILT_IN

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """See ``Service``."""
