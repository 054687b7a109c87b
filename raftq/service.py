"""The queue service that front ends see (``api.ports.Service``), over one replica."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TypeVar

from api.access.bearer import BearerKeys
from api.access.gate import Gate, Way
from api.access.signed_urls import SignedUrls
from api.audit import ACTS
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
    OutcomeUnknown,
    Status,
    Unavailable,
    Unreadable,
    WebhookPolicy,
    ZoneMessages,
    Zones,
    ZoneTraffic,
)
from api.watching import EventWatch
from raftq.access_log import AccessLog
from raftq.config import Config, masters
from raftq.metrics import Metrics
from raftq.replica import ticks
from raftq.replica.claiming import Claiming
from raftq.replica.replica import Replica
from raftq.replica.submitter import Accepted, Answer, Done, NotSubmitted, Unknown
from raftq.replica.weights import weight
from raftq.runtime import Runtime
from raftq.sealing.bodies import Bodies, State
from raftq.sealing.masters import Masters
from statemachine import queries
from statemachine.commands import (
    Barrier,
    Claim,
    Once,
    QueueCommand,
    SubscriptionName,
    Take,
    Timing,
    WrappedKey,
)
from statemachine.kv import Reader
from statemachine.outcomes import Outcome, Reason, Refused
from statemachine.sealed import SealingKey
from statemachine.settings import Effective

ACCESS_LOG_FROM = {"off": 1_000, "errors": 400, "all": 0}
REACH_TIMEOUT_S = 5.0
SEALED_AGAIN_MAX = 5
"""How often a command is sealed again, because the keys have changed meanwhile."""

STALE_FOR_EVER_S = 1e9

T = TypeVar("T")

REASONS = {
    "no_leader": "no leader is known here, or it did not take the request; nothing was done",
    "overloaded": "too many requests are waiting on this node; nothing was done",
    "stopping": "this node is stopping; nothing was done",
}


class NodeService:
    """See ``api.ports.Service``."""

    def __init__(
        self, replica: Replica, config: Config, metrics: Metrics, runtime: Runtime
    ) -> None:
        self.limits: Limits = config.limits
        self.fairness: Fairness = config.fairness
        self.webhooks: WebhookPolicy = config.webhooks
        self.audit: AuditPolicy = config.audit
        self.access_log_from = ACCESS_LOG_FROM[config.log.access]
        self._access_log = AccessLog(config.log.access_lines_max, runtime.monotonic)
        self.access: AccessPolicy = config.auth.policy(config.cluster.secret)
        self.activity: dict[SubscriptionName, Activity] = {}
        self._replica = replica
        self._config = config
        self._metrics = metrics
        self._runtime = runtime
        self._bodies = Bodies(
            Masters(masters.parsed(config.encryption.keys)),
            State(
                lambda account: replica.machine.sealing(account),
                replica.reader,
                # Another machine, after a snapshot, counts from nothing.
                lambda: (replica.machine, replica.machine.sealing_changes),
            ),
        )
        loop = self._loop = asyncio.get_running_loop()
        self._claiming = Claiming(replica.waiters, lambda: replica.machine, loop.call_later)
        # As they are: asked for with every request.
        self.prospects = self._claiming.prospects
        self.monotonic = runtime.monotonic
        self.observe_request = metrics.observe_request
        self._status_of: tuple[int, float] | None = None
        self._status: Status
        self._used_keys = set[str]()
        gate = Gate(self, [BearerKeys(self), SignedUrls(self), *_issuer(self, config)])
        self.authenticate = gate.authenticate
        metrics.before_render(self._measure)

    def key_changes(self) -> int:
        """See ``api.ports.Service``."""
        return self._replica.waiters.key_changes

    def key_used(self, key_id: str) -> None:
        """See ``api.ports.Service``."""
        self._used_keys.add(key_id)

    def take_used_keys(self) -> set[str]:
        """See ``api.ports.Service``."""
        used, self._used_keys = self._used_keys, set()
        return used

    async def propose(
        self, command: QueueCommand | Once | Barrier, *, account: str | None = None
    ) -> Outcome:
        """See ``api.ports.Service``."""
        return _known(await self._commit(command, account, early=False))

    async def propose_all(self, commands: Sequence[QueueCommand]) -> list[Outcome]:
        """See ``api.ports.Service``."""
        answered = [self._answer() for _ in commands]
        self._replica.submit_all(
            [
                (self._bodies.sealed(command), weight(command), done)
                for command, (_, done) in zip(commands, answered, strict=True)
            ]
        )
        return [_known(self._outcome(await future)) for future, _ in answered]

    async def accept(self, command: QueueCommand | Once) -> Outcome | None:
        """See ``api.ports.Service``."""
        return await self._commit(command, None, early=True)

    async def _commit(
        self, command: QueueCommand | Once | Barrier, account: str | None, *, early: bool
    ) -> Outcome | None:
        """With bodies sealed as the log asks; again, if that has changed meanwhile."""
        bare = command.command if isinstance(command, Once) else command
        assert type(bare) not in ACTS, "an administrative act goes into the log with its record"
        for _ in range(SEALED_AGAIN_MAX):
            outcome = self._outcome(
                await self._submit(self._bodies.sealed(command), account, early=early)
            )
            if not isinstance(outcome, Refused) or outcome.reason is not Reason.STALE_SEAL:
                break
        return outcome

    def _outcome(self, answer: Answer) -> Outcome | None:
        match answer:
            case NotSubmitted(reason):
                self._metrics.requests_refused += 1
                raise Unavailable(reason, REASONS[reason])
            case Unknown(detail):
                raise OutcomeUnknown(detail)
            case Accepted():
                return None
            case outcome:
                return outcome

    def _submit(
        self, command: QueueCommand | Once | Barrier, account: str | None, *, early: bool
    ) -> asyncio.Future[Answer]:
        future, done = self._answer()
        if isinstance(command, Claim | Take):
            done = self._claiming.begins(command, done)
        self._replica.submit(command, weight(command), done, account=account, early=early)
        return future

    def _answer(self) -> tuple[asyncio.Future[Answer], Done]:
        """An answer that is to come, and who is to be told it."""
        future: asyncio.Future[Answer] = self._loop.create_future()

        def done(answer: Answer) -> None:
            if not future.done():
                future.set_result(answer)

        return future, done

    def opened(self, account: str, message: M) -> M:
        """See ``api.ports.Service``."""
        try:
            return self._bodies.opened(account, message)
        except Unreadable as error:
            if error.reason == "body_damaged":
                self._metrics.bodies_damaged += 1
            raise

    def wrapped_key(self, account: str, key: SealingKey | None = None) -> WrappedKey:
        """See ``api.ports.Service``."""
        return self._bodies.wrapped(account, key)

    def accounts_without_keys(self) -> tuple[str, ...]:
        """See ``api.ports.Service``."""
        return self._bodies.without_keys()

    def in_force(self, account: str, queue: str) -> Effective:
        """See ``api.ports.Service``."""
        return self._replica.machine.in_force(account, queue)

    def reader(self) -> Reader:
        """See ``api.ports.Service``."""
        return self._replica.reader()

    def now_ms(self) -> int:
        """See ``api.ports.Service``."""
        return max(self._replica.stamps.now_ms(), self._replica.machine.stamp_ms)

    def next_tick(self, timing: Timing, after_ms: int) -> int | None:
        """See ``api.ports.Service``."""
        try:
            return ticks.next_tick(timing, after_ms)
        except ticks.BadTiming as error:
            raise InvalidTiming(error.field, str(error)) from None

    async def reach(self, index: int) -> None:
        """See ``api.ports.Service``."""
        if index <= self._replica.machine.applied_index:
            return
        reached = asyncio.Event()
        forget = self._replica.waiters.when_applied(index, reached.set)
        try:
            async with asyncio.timeout(REACH_TIMEOUT_S):
                await reached.wait()
        except TimeoutError:
            applied = self._replica.machine.applied_index
            raise Unavailable(
                "behind", f"this replica has applied {applied}, not yet {index}"
            ) from None
        finally:
            forget()

    async def wait_ready(
        self,
        account: str,
        queue: str,
        timeout_s: float,
        *,
        zone: str | None = None,
        others: bool = False,
    ) -> bool:
        """See ``api.ports.Service``."""
        woken: asyncio.Future[str | None] = self._loop.create_future()
        forget = self._replica.waiters.when_ready(
            (account, queue), lambda where: _set(woken, where), zone=zone, others=others
        )
        timer = self._loop.call_later(timeout_s, _set, woken, None)
        try:
            return await woken is not None
        except asyncio.CancelledError:
            if woken.done() and not woken.cancelled() and (where := woken.result()) is not None:
                # Woken and gone in the same turn: the message is still there for the next.
                self._replica.waiters.wake({(account, queue, where): 1}, 0)
            raise
        finally:
            timer.cancel()
            forget()

    def wake_next(self, account: str, queue: str) -> None:
        """See ``api.ports.Service``."""
        self._replica.waiters.wake({(account, queue, ""): 1}, 0)

    def watch_events(self, account: str, queue: str | None) -> EventWatch:
        """See ``api.ports.Service``."""
        watch = EventWatch()
        watch.forget = self._replica.waiters.watch(account, queue, watch)
        return watch

    def is_stopping(self) -> bool:
        """See ``api.ports.Service``."""
        return self._replica.stopping

    def when_stopping(self, callback: Callable[[], object]) -> Callable[[], None]:
        """See ``api.ports.Service``."""
        return self._replica.waiters.when_stopping(callback)

    async def subscriptions_changed(self, seen: int, timeout_s: float) -> int:
        """See ``api.ports.Service``."""
        waiters = self._replica.waiters
        if waiters.subscription_changes == seen:
            changed: asyncio.Future[bool] = self._loop.create_future()
            forget = waiters.when_subscriptions_change(lambda: _set(changed, True))
            timer = self._loop.call_later(timeout_s, _set, changed, False)
            try:
                await changed
            finally:
                timer.cancel()
                forget()
        return waiters.subscription_changes

    def observe_limited(self, limit: enum.StrEnum) -> None:
        """See ``api.ports.Service``."""
        self._metrics.observe_limited(limit)

    def observe_delivery(self, how: Delivery, seconds: float) -> None:
        """See ``api.ports.Service``."""
        self._metrics.observe_delivery(how, seconds)

    def status(self) -> Status:
        """See ``api.ports.Service``. One look per turn of the loop serves all its requests."""
        applied_index, turn = self._replica.machine.applied_index, self._loop.time()
        if self._status_of != (applied_index, turn):
            self._status_of = (applied_index, turn)
            staleness_s = self._replica.consensus.staleness_s()
            self._status = Status(
                node=self._replica.name,
                zone=self._config.node.zone,
                role=self._replica.role,
                applied_index=applied_index,
                # A node that has heard no leader yet does not know how stale it is.
                staleness_ms=int(min(staleness_s, STALE_FOR_EVER_S) * 1000),
            )
        return self._status

    def cluster(self) -> Cluster:
        """See ``api.ports.Service``."""
        replica = self._replica
        commit = replica.consensus.commit_index
        seen = [p.state.applied_index for p in replica.links.peers.by_name.values() if p.state]
        highest = max([commit, *seen])
        return Cluster(
            cluster_id=replica.cluster_id,
            leader=replica.leader,
            term=replica.consensus.term,
            commit_index=commit,
            members=tuple(self._members(highest)),
        )

    def _members(self, highest: int) -> list[Member]:
        replica = self._replica
        members = []
        for configured in self._config.cluster.members:
            zone, url, rtt_ms = configured.zone, configured.api_url, None
            if configured.name == replica.name:
                role, term = replica.role, replica.consensus.term
                applied = replica.machine.applied_index
            else:
                peer = replica.links.peers.by_name[configured.name]
                state = peer.state
                role = state.role if state else "unknown" if peer.hello else "unreachable"
                term, applied = (state.term, state.applied_index) if state else (0, 0)
                if role == "leader" and configured.name != replica.leader:
                    role = "follower"  # Its gossip is older than what the log has told us.
                if configured.name == replica.leader and role == "follower":
                    role = "leader"
                if peer.hello is not None:
                    zone, url = peer.hello.zone, peer.hello.api_url
                rtt_ms = None if peer.rtt_us is None else peer.rtt_us / 1000
            members.append(
                Member(
                    node=configured.name,
                    zone=zone,
                    api_url=url,
                    role=role,
                    term=term,
                    applied_index=applied,
                    lag=max(0, highest - applied),
                    rtt_ms=rtt_ms,
                )
            )
        return members

    def nearest(self, zone: str) -> str | None:
        """See ``api.ports.Service``. Always the same one, so that its clients stay with it."""
        if zone == self._config.node.zone:
            return self._config.node.api_url
        for peer in self._replica.links.peers.by_name.values():
            hello, state = peer.hello, peer.state
            if hello and state and hello.zone == zone and state.role in ("leader", "follower"):
                return hello.api_url
        return None

    def zones(self) -> Zones:
        """See ``api.ports.Service``."""
        crossings = self._metrics.crossings
        return Zones(
            node=self._replica.name,
            zone=self._config.node.zone,
            traffic=tuple(
                ZoneTraffic(zone=zone, **asdict(traffic))
                for zone, traffic in crossings.traffic.items()
            ),
            messages=tuple(
                ZoneMessages(
                    message_zone=pair[0],
                    client_zone=pair[1],
                    put=crossings.put[pair],
                    claimed=crossings.claimed[pair],
                )
                for pair in sorted(crossings.put.keys() | crossings.claimed.keys())
            ),
        )

    def observe_put(self, message_zones: Sequence[str], client_zone: str) -> None:
        """See ``api.ports.Service``."""
        self._metrics.crossings.count_put(message_zones, client_zone)

    def observe_claimed(self, message_zones: Sequence[str], client_zone: str) -> None:
        """See ``api.ports.Service``."""
        self._metrics.crossings.count_claimed(message_zones, client_zone)

    def ready(self) -> str | None:
        """See ``api.ports.Service``."""
        replica = self._replica
        if replica.stopping:
            return "stopping"
        if not replica.formed:
            return "not yet a member of a cluster"
        if replica.leader is None:
            return "no leader"
        if not replica.submitter.has_session:
            return "no session with the leader yet"
        return None

    def metrics(self) -> bytes:
        """See ``api.ports.Service``."""
        return self._metrics.render()

    def log_request(self, line: AccessLine) -> None:
        """See ``api.ports.Service``."""
        self._access_log.write(line)

    def _measure(self) -> None:
        """Bring the gauges up to date; called at each scrape."""
        replica, metrics = self._replica, self._metrics
        consensus, journal = replica.consensus, replica.journal
        metrics.term = consensus.term
        metrics.is_leader = int(consensus.is_leader)
        metrics.elections_started = consensus.elections.stood
        metrics.pre_votes = consensus.elections.asked
        metrics.durable_index = journal.durable_index
        metrics.commit_index = consensus.commit_index
        metrics.applied_index = replica.machine.applied_index
        metrics.journal_bytes = journal.size_bytes
        metrics.journal_segments = len(journal.segments())
        metrics.peers_connected = sum(
            p.hello is not None for p in replica.links.peers.by_name.values()
        )
        metrics.snapshots_installed = replica.snapshots_installed
        metrics.snapshots_sent = replica.snapshots_sent
        metrics.leader_moves = replica.handover.moves
        metrics.leader_moves_failed = replica.handover.moves_failed
        metrics.parked_polls = replica.waiters.parked
        metrics.event_readers = replica.waiters.watching
        metrics.pending_requests = replica.submitter.pending
        metrics.webhook_subscriptions = len(self.activity)
        metrics.webhook_requests = sum(one.in_flight for one in self.activity.values())
        totals = queries.totals(replica.reader())
        metrics.accounts, metrics.queues = totals.accounts, totals.queues
        metrics.message_bytes = totals.bytes
        metrics.messages_by_state = {
            "ready": totals.ready,
            "delayed": totals.delayed,
            "claimed": totals.claimed,
            "blocked": totals.blocked,
        }


def _issuer(service: NodeService, config: Config) -> list[Way]:
    policy = config.oidc
    if not policy.issuer:
        return []
    # Late: no other node needs what reads tokens and fetches their keys.
    from api.access.oidc import Oidc
    from raftq.fetching import Fetcher

    return [Oidc(service, policy, Fetcher(policy.ca_file).fetch)]


def _known(outcome: Outcome | None) -> Outcome:
    assert outcome is not None, "only who asks for it hears that a command was taken"
    return outcome


def _set(future: asyncio.Future[T], value: T) -> bool:
    """Whether somebody was still waiting for it."""
    waiting = not future.done()
    if waiting:
        future.set_result(value)
    return waiting
