"""What front ends are told: a refusal, an unknown end, or the outcome, and where it stands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from api.audit import audited
from api.ports import Activity, Delivery, OutcomeUnknown, Unavailable, Unreadable
from fake_runtime import FakeRuntime
from memory_kv import MemoryKV
from raftq import service as service_module
from raftq.config import Config, MemberConfig
from raftq.config.schema import ClusterConfig, EncryptionConfig, NodeConfig
from raftq.metrics import Metrics
from raftq.replica.peers import Peers
from raftq.replica.submitter import Accepted, Answer, NotSubmitted, Unknown
from raftq.replica.waiters import Waiters
from raftq.replica.weights import COMMAND_BYTES
from raftq.replica.wire import GROUP, Hello, State
from raftq.service import REASONS, NodeService
from statemachine.commands import (
    Ack,
    Barrier,
    Claim,
    Command,
    DeleteQueue,
    Enqueue,
    NewMessage,
    Once,
    PartPut,
    Transact,
    TransactAndClaim,
)
from statemachine.keys import u64
from statemachine.outcomes import Claimed, Done, Enqueued, Reason, Refused
from statemachine.prospects import Prospects
from statemachine.sealed import CODING, SealingKey, SealingRecord, key_of

PUT = Enqueue("a", "q", (NewMessage(b"x" * 10, "t"), NewMessage(b"y" * 20, "t")))
BOTH = Transact("a", puts=(PartPut("p", PUT.messages), PartPut("q", PUT.messages)))
MASTER = "k1 " + "A" * 43 + "="
DEADLINE_S = 5


class FakeReplica:
    """As much of a node as the service asks for."""

    def __init__(self) -> None:
        self.name = "n1"
        self.role = "follower"
        self.leader: str | None = "n2"
        self.cluster_id = "c"
        self.stopping = False
        self.formed = True
        self.snapshots_installed = 3
        self.snapshots_sent = 4
        self.waiters = Waiters()
        self.sealing: SealingRecord | None = None
        self.machine = SimpleNamespace(
            applied_index=90, stamp_ms=1_000, sealing=lambda _: self.sealing, sealing_changes=0
        )
        self.stamps = SimpleNamespace(now_ms=lambda: 2_000)
        self.staleness_s = 0.25
        elections = SimpleNamespace(stood=5, asked=6)
        self.consensus = SimpleNamespace(
            staleness_s=lambda: self.staleness_s,
            term=7,
            commit_index=95,
            is_leader=False,
            elections=elections,
        )
        self.journal = SimpleNamespace(durable_index=96, size_bytes=10, segments=lambda: [1, 2])
        self.submitter = SimpleNamespace(has_session=True, pending=8)
        self.links = SimpleNamespace(peers=Peers(["n2", "n3"]))
        self.handover = SimpleNamespace(moves=9, moves_failed=10)
        self.answers: list[Answer] = []
        self.submitted: list[tuple[Command, int]] = []
        self.last_done: Callable[[Answer], None]
        self.early = False
        self.on_submit: Callable[[], None] = lambda: None
        """What happens to the node meanwhile."""

    def submit(
        self,
        command: Command,
        size: int,
        done: Callable[[Answer], None],
        *,
        account: str | None,
        early: bool,
    ) -> None:
        self.on_submit()
        self.submitted.append((command, size))
        self.account = account
        self.early = early
        self.last_done = done
        for answer in self.answers:
            done(answer)

    def submit_all(self, asked: list[tuple[Command, int, Callable[[Answer], None]]]) -> None:
        self.submitted += [(command, size) for command, size, _ in asked]
        for (_, _, done), answer in zip(asked, self.answers, strict=True):
            done(answer)

    def when_applied(self, index: int, callback: Callable[[], None]) -> None:
        if index <= self.machine.applied_index:
            callback()
        else:
            self.waiters.when_applied(index, callback)

    def reader(self) -> MemoryKV:
        return MemoryKV()


class Bench:
    """A service over a fake replica; made inside the loop."""

    def __init__(self) -> None:
        self.replica = FakeReplica()
        self.metrics = Metrics(node="n1", zone="here", peers={"n2": "its-zone", "n3": "there"})
        members = tuple(
            MemberConfig(name=n, zone=f"zone-{n}", peer=f"{n}:1", api_url=f"http://{n}")
            for n in ("n1", "n2", "n3")
        )
        config = Config(
            node=NodeConfig(name="n1", zone="here", api_url="http://here"),
            cluster=ClusterConfig(members=members),
            encryption=EncryptionConfig(keys=MASTER),
        )
        replica: Any = self.replica
        self.service = NodeService(replica, config, self.metrics, FakeRuntime())

    def peer(self, name: str, hello: Hello | None, state: State | None) -> None:
        peer = self.replica.links.peers.by_name[name]
        peer.hello, peer.state = hello, state


def run(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await test(Bench())

    asyncio.run(main())


# Commands.


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_what_never_left_the_node_is_unavailable(reason: str) -> None:
    async def test(bench: Bench) -> None:
        bench.replica.answers = [NotSubmitted(reason)]
        with pytest.raises(Unavailable, match="nothing was done") as caught:
            await bench.service.propose(PUT)
        assert caught.value.reason == reason
        assert bench.metrics.requests_refused == 1

    run(test)


def test_what_may_have_happened_is_unknown_and_not_counted_as_refused() -> None:
    async def test(bench: Bench) -> None:
        bench.replica.answers = [Unknown("no majority answered in time")]
        with pytest.raises(OutcomeUnknown, match="no majority answered in time"):
            await bench.service.propose(PUT)
        assert bench.metrics.requests_refused == 0

    run(test)


def test_a_body_is_sealed_anew_when_its_accounts_keys_have_changed_meanwhile() -> None:
    async def test(bench: Bench) -> None:
        replica = bench.replica
        wrapped = bench.service.wrapped_key(PUT.account)
        key = SealingKey(7, wrapped.master, wrapped.wrapped, 0)
        changes: list[tuple[SealingRecord | None, Answer]] = [
            (SealingRecord(enabled=True, keys=(key,)), Refused(Reason.STALE_SEAL, "")),
            (None, Enqueued((b"id",))),
        ]

        def happens() -> None:
            replica.sealing, answer = changes.pop(0)
            replica.answers = [answer]

        replica.on_submit = happens
        assert await bench.service.propose(PUT) == Enqueued((b"id",))
        first, second = [command.messages[0] for command, _ in replica.submitted]
        assert (key_of(first), key_of(second)) == (0, 7)

    run(test)


def test_an_administrative_act_needs_its_record() -> None:
    async def test(bench: Bench) -> None:
        bench.replica.answers = [Done()]
        act = DeleteQueue("a", "q")
        for bare in (act, Once("a", "k", b"f", 1, act)):
            with pytest.raises(AssertionError, match="with its record"):
                await bench.service.propose(bare)
        recorded = audited(act, bench.service.audit, owner="", actor="key:k")
        assert await bench.service.propose(recorded) == Done()

    run(test)


def test_a_body_that_was_changed_on_a_disk_is_counted() -> None:
    async def test(bench: Bench) -> None:
        wrapped = bench.service.wrapped_key("a")
        key = SealingKey(7, wrapped.master, wrapped.wrapped, 0)
        bench.replica.sealing = SealingRecord(enabled=True, keys=(key,))
        changed = NewMessage(u64(7) + b"x" * 60, "t", content_encoding=CODING)
        with pytest.raises(Unreadable, match="not what was sealed"):
            bench.service.opened("a", changed)
        assert bench.metrics.bodies_damaged == 1

    run(test)


def test_who_asks_for_less_hears_that_the_command_was_taken_or_the_outcome_if_it_is_there() -> None:
    async def test(bench: Bench) -> None:
        bench.replica.answers = [Accepted()]
        assert await bench.service.accept(PUT) is None
        assert bench.replica.early
        bench.replica.answers = [Refused(Reason.NO_QUEUE, "")]
        assert await bench.service.accept(PUT) == Refused(Reason.NO_QUEUE, "")
        bench.replica.answers = [Unknown("no majority answered in time")]
        with pytest.raises(OutcomeUnknown):
            await bench.service.accept(PUT)

    run(test)


@pytest.mark.parametrize("outcome", [Done(), Refused(Reason.NO_QUEUE, "")])
def test_an_outcome_is_answered_as_it_is(outcome: Answer) -> None:
    async def test(bench: Bench) -> None:
        bench.replica.answers = [outcome, Unknown("too late to matter")]
        assert await bench.service.propose(PUT) == outcome
        assert bench.metrics.requests_refused == 0

    run(test)


def test_commands_that_are_proposed_together_are_answered_in_their_order() -> None:
    async def test(bench: Bench) -> None:
        both = (Ack("a", "q", 5), Claim("a", "q", 1))
        bench.replica.answers = [Refused(Reason.NO_CLAIM, ""), Claimed(0, 0, ())]
        assert await bench.service.propose_all(both) == bench.replica.answers
        assert bench.replica.submitted == [(one, COMMAND_BYTES) for one in both]

    run(test)


@pytest.mark.parametrize(
    ("answer", "raised"), [(NotSubmitted("no_leader"), Unavailable), (Unknown(""), OutcomeUnknown)]
)
def test_commands_that_are_proposed_together_fail_together(
    answer: Answer, raised: type[Exception]
) -> None:
    async def test(bench: Bench) -> None:
        bench.replica.answers = [answer, answer]
        with pytest.raises(raised):
            await bench.service.propose_all((Ack("a", "q", 5), Claim("a", "q", 1)))

    run(test)


WEIGHTS: list[tuple[Any, int]] = [
    (Barrier(), COMMAND_BYTES),
    (Claim("a", "q", 5), COMMAND_BYTES),
    (PUT, 30 + 2 * COMMAND_BYTES),
    (Once("a", "k", b"", 5, PUT), 30 + 2 * COMMAND_BYTES),
    (Once("a", "k", b"", 5, Claim("a", "q", 5)), COMMAND_BYTES),
    (BOTH, 60 + 5 * COMMAND_BYTES),
    (TransactAndClaim(BOTH, Claim("a", "q", 5)), 60 + 5 * COMMAND_BYTES),
]


@pytest.mark.parametrize(("command", "weight"), WEIGHTS)
def test_a_command_weighs_what_its_bodies_do(command: Any, weight: int) -> None:
    async def test(bench: Bench) -> None:
        bench.replica.answers = [Done()]
        await bench.service.propose(command)
        assert bench.replica.submitted == [(command, weight)]

    run(test)


def test_what_has_no_account_waits_among_the_commands_of_who_asked() -> None:
    async def test(bench: Bench) -> None:
        bench.replica.answers = [Done()]
        await bench.service.propose(Barrier(), account="shop")
        assert bench.replica.account == "shop"
        await bench.service.propose(PUT)
        assert bench.replica.account is None

    run(test)


def test_a_client_that_left_does_not_disturb_the_answer() -> None:
    async def test(bench: Bench) -> None:
        task = asyncio.ensure_future(bench.service.propose(PUT))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        bench.replica.last_done(Done())

    run(test)


# Waiting.


def test_who_waits_for_a_message_is_woken_by_it() -> None:
    async def test(bench: Bench) -> None:
        waiting = asyncio.ensure_future(bench.service.wait_ready("a", "q", 60))
        await asyncio.sleep(0)
        bench.replica.waiters.wake({("a", "other", ""): 1}, 0)
        assert bench.replica.waiters.parked == 1
        bench.replica.waiters.wake({("a", "q", ""): 1}, 0)
        assert await waiting is True
        assert bench.replica.waiters.parked == 0

    run(test)


def test_what_a_claim_is_on_its_way_for_is_in_nobody_else_s_sight() -> None:
    async def test(bench: Bench) -> None:
        claim = Claim("a", "q", 1)
        bench.replica.machine.ready = lambda _account, _queue: 1
        bench.replica.machine.prospects = lambda _claim: Prospects("any", near=True, far=False)
        assert bench.service.prospects(claim).near
        claiming = asyncio.ensure_future(bench.service.propose(claim))
        await asyncio.sleep(0)
        assert not bench.service.prospects(claim).near
        bench.replica.last_done(NotSubmitted("no_leader"))
        assert bench.service.prospects(claim).near
        with pytest.raises(Unavailable):
            await claiming

    run(test)


def test_who_waited_long_enough_hears_so_and_is_forgotten() -> None:
    async def test(bench: Bench) -> None:
        assert await bench.service.wait_ready("a", "q", 0.01) is False
        assert bench.replica.waiters.parked == 0

    run(test)


def test_who_leaves_while_waiting_is_forgotten() -> None:
    async def test(bench: Bench) -> None:
        waiting = asyncio.ensure_future(bench.service.wait_ready("a", "q", 60))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert bench.replica.waiters.parked == 0

    run(test)


def test_a_wake_of_one_who_leaves_in_the_same_turn_is_for_the_next() -> None:
    async def test(bench: Bench) -> None:
        first, second = (
            asyncio.ensure_future(bench.service.wait_ready("a", "q", 60)) for _ in range(2)
        )
        await asyncio.sleep(0)
        bench.replica.waiters.wake({("a", "q", ""): 1}, 0)
        first.cancel()
        assert await second is True
        await asyncio.wait([first])

    run(test)


@pytest.mark.parametrize("index", [0, 89, 90])
def test_what_is_applied_is_reached_at_once(index: int) -> None:
    async def test(bench: Bench) -> None:
        await bench.service.reach(index)

    run(test)


def test_an_index_is_reached_when_it_is_applied_and_not_before() -> None:
    async def test(bench: Bench) -> None:
        reaching = asyncio.ensure_future(bench.service.reach(92))
        await asyncio.sleep(0)
        bench.replica.waiters.wake({}, 91)
        for _ in range(3):
            await asyncio.sleep(0)
        assert not reaching.done()
        bench.replica.waiters.wake({}, 92)
        await reaching

    run(test)


def test_a_replica_that_stays_behind_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "REACH_TIMEOUT_S", 0.01)

    async def test(bench: Bench) -> None:
        with pytest.raises(Unavailable, match="has applied 90, not yet 92") as caught:
            await bench.service.reach(92)
        assert caught.value.reason == "behind"

    run(test)


# What it says of itself.

READINESS = [
    ("all is well", {}, None),
    ("stopping", {"stopping": True, "formed": False}, "stopping"),
    ("no cluster", {"formed": False, "leader": None}, "not yet a member of a cluster"),
    ("no leader", {"leader": None}, "no leader"),
    (
        "no session",
        {"submitter": SimpleNamespace(has_session=False)},
        "no session with the leader yet",
    ),
]


@pytest.mark.parametrize(
    ("state", "why_not"), [r[1:] for r in READINESS], ids=[r[0] for r in READINESS]
)
def test_a_node_is_ready_when_it_can_commit(state: dict[str, Any], why_not: str | None) -> None:
    async def test(bench: Bench) -> None:
        for name, value in state.items():
            setattr(bench.replica, name, value)
        assert bench.service.ready() == why_not

    run(test)


@pytest.mark.parametrize(("stamp_ms", "now_ms"), [(1_000, 2_000), (3_000, 3_000)])
def test_now_is_never_behind_log_time(stamp_ms: int, now_ms: int) -> None:
    async def test(bench: Bench) -> None:
        bench.replica.machine.stamp_ms = stamp_ms
        assert bench.service.now_ms() == now_ms

    run(test)


@pytest.mark.parametrize(("seconds", "shown_ms"), [(0.25, 250), (float("inf"), 10**12)])
def test_a_status_says_who_answers_and_how_fresh(seconds: float, shown_ms: int) -> None:
    async def test(bench: Bench) -> None:
        bench.replica.staleness_s = seconds
        status = bench.service.status()
        assert (status.node, status.zone, status.role) == ("n1", "here", "follower")
        assert (status.applied_index, status.staleness_ms) == (90, shown_ms)

    run(test)


def test_a_status_is_of_this_turn_and_of_what_is_applied() -> None:
    async def test(bench: Bench) -> None:
        # The loop's time stands still during a turn, and only then.
        turns = SimpleNamespace(now=1.0)
        loop: Any = SimpleNamespace(time=lambda: turns.now)
        bench.service._loop = loop
        before = bench.service.status()
        bench.replica.staleness_s = 9.0
        assert bench.service.status() is before
        bench.replica.machine.applied_index += 1
        assert bench.service.status().applied_index == 91
        bench.replica.staleness_s = 10.0
        turns.now += 0.001
        assert bench.service.status().staleness_ms == 10_000

    run(test)


GREETED = Hello(GROUP, "b", "c", (), "its-zone", "http://its", "")
VIEWS = [
    # (greeting, gossip, leader known here) -> (role, term, applied, lag) of n2
    ("never heard", None, None, None, ("unreachable", 0, 0, 95)),
    ("greeted, no gossip yet", GREETED, None, None, ("unknown", 0, 0, 95)),
    ("a follower", GREETED, State(GROUP, "follower", 7, 80), None, ("follower", 7, 80, 15)),
    ("the leader", GREETED, State(GROUP, "leader", 7, 94), "n2", ("leader", 7, 94, 1)),
    (
        "led when it last spoke",
        GREETED,
        State(GROUP, "leader", 6, 94),
        "n3",
        ("follower", 6, 94, 1),
    ),
    ("leads since it spoke", GREETED, State(GROUP, "follower", 6, 94), "n2", ("leader", 6, 94, 1)),
    ("ahead of this node", GREETED, State(GROUP, "follower", 7, 99), None, ("follower", 7, 99, 0)),
    ("a candidate", GREETED, State(GROUP, "candidate", 8, 95), None, ("candidate", 8, 95, 0)),
]


@pytest.mark.parametrize(
    ("hello", "state", "leader", "shown"), [v[1:] for v in VIEWS], ids=[v[0] for v in VIEWS]
)
def test_a_peer_is_shown_as_it_last_said_and_as_the_log_knows_better(
    hello: Hello | None, state: State | None, leader: str | None, shown: tuple[str, int, int, int]
) -> None:
    async def test(bench: Bench) -> None:
        bench.peer("n2", hello, state)
        bench.replica.leader = leader
        cluster = bench.service.cluster()
        own, peer, _ = cluster.members
        assert (peer.role, peer.term, peer.applied_index, peer.lag) == shown
        place = ("its-zone", "http://its") if hello else ("zone-n2", "http://n2")
        assert (peer.zone, peer.api_url) == place
        highest = max(95, state.applied_index if state else 0)
        assert (own.node, own.role, own.applied_index, own.lag) == (
            "n1",
            "follower",
            90,
            highest - 90,
        )
        assert (cluster.leader, cluster.term, cluster.commit_index) == (leader, 7, 95)

    run(test)


@pytest.mark.parametrize(
    ("hello", "state", "nearest"),
    [
        (None, None, None),
        (GREETED, None, None),
        (GREETED, State(GROUP, "joining", 7, 80), None),
        (GREETED, State(GROUP, "follower", 7, 80), "http://its"),
        (GREETED, State(GROUP, "leader", 7, 80), "http://its"),
    ],
)
def test_the_nearest_is_a_member_that_can_be_reached(
    hello: Hello | None, state: State | None, nearest: str | None
) -> None:
    async def test(bench: Bench) -> None:
        bench.peer("n3", hello, state)
        assert bench.service.nearest("its-zone") == nearest
        assert bench.service.nearest("elsewhere") is None
        assert bench.service.nearest("here") == "http://here"

    run(test)


def test_what_crosses_between_zones_is_told() -> None:
    async def test(bench: Bench) -> None:
        bench.metrics.of_peer("n3").frames_sent += 2
        bench.service.observe_put(["here", "there"], "here")
        bench.service.observe_claimed(["there", "there"], "its-zone")
        zones = bench.service.zones()
        assert (zones.node, zones.zone) == ("n1", "here")
        assert {one.zone: one.frames_sent for one in zones.traffic} == {"its-zone": 0, "there": 2}
        counted = [(m.message_zone, m.client_zone, m.put, m.claimed) for m in zones.messages]
        assert counted == [
            ("here", "here", 1, 0),
            ("there", "here", 1, 0),
            ("there", "its-zone", 0, 2),
        ]

    run(test)


def test_a_scrape_shows_the_node_as_it_is_now() -> None:
    async def test(bench: Bench) -> None:
        bench.peer("n2", GREETED, None)
        bench.replica.waiters.when_ready(("a", "q"), lambda _: True)
        bench.replica.consensus.is_leader = True
        bench.service.observe_request("/x", "GET", 200, 0.1)
        lines = bench.service.metrics().decode().splitlines()
        for line in (
            "raftq_term 7.0",
            "raftq_is_leader 1.0",
            "raftq_elections_started_total 5.0",
            "raftq_pre_votes_total 6.0",
            "raftq_durable_index 96.0",
            "raftq_commit_index 95.0",
            "raftq_applied_index 90.0",
            "raftq_journal_bytes 10.0",
            "raftq_journal_segments 2.0",
            "raftq_peers_connected 1.0",
            "raftq_snapshots_installed_total 3.0",
            "raftq_snapshots_sent_total 4.0",
            "raftq_leader_moves_total 9.0",
            "raftq_leader_moves_failed_total 10.0",
            "raftq_parked_polls 1.0",
            "raftq_pending_requests 8.0",
            "raftq_queues 0.0",
            'raftq_messages{state="ready"} 0.0',
            'raftq_request_seconds_count{method="GET",route="/x",status="200"} 1.0',
        ):
            assert line in lines
        bench.replica.machine.applied_index = 91
        assert "raftq_applied_index 91.0" in bench.service.metrics().decode().splitlines()

    run(test)


# Subscriptions.


def test_a_change_of_subscriptions_is_waited_for() -> None:
    async def test(bench: Bench) -> None:
        waiters = bench.replica.waiters
        assert await bench.service.subscriptions_changed(-1, 60) == 0
        assert await bench.service.subscriptions_changed(0, 0.001) == 0
        waiting = asyncio.create_task(bench.service.subscriptions_changed(0, 60))
        await asyncio.sleep(0)
        waiters.subscriptions_changed()
        assert await waiting == 1

    run(test)


def test_what_is_posted_is_measured() -> None:
    async def test(bench: Bench) -> None:
        bench.service.observe_delivery(Delivery.GONE, 0.1)
        bench.service.activity["a", "q", "s"] = Activity(in_flight=3)
        text = bench.service.metrics().decode()
        assert 'raftq_webhook_seconds_count{outcome="gone"} 1.0' in text
        assert "raftq_webhook_subscriptions 1.0" in text
        assert "raftq_webhook_requests 3.0" in text

    run(test)
