"""One plan run to its end: faults and clients, then peace, then the verdict."""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from queue_model import Names
from raftq.consensus import replication
from raftq.replica import replica, transfer
from raftq.replica.submitter import Answer, Unknown
from simulation.checks import Checks, Violation
from simulation.clients import Client, History, Request
from simulation.faults import Faults
from simulation.making import ACCOUNT
from simulation.node import Node
from simulation.plan import FAULTS, Plan, Tuning
from simulation.posting import GRACE_S, LEASE_S, Postings, Receiver
from simulation.standing import Standing
from simulation.trace import Record
from simulation.verdict import Verdict
from simulation.world import World
from statemachine import commands as c
from statemachine.outcomes import Claimed, Settled

Held = dict[Names, Claimed]

MOVE_HOLD_MS, MOVE_PAUSE_MS = 300, 500
LEADER_WITHIN_S = 15.0
"""Ten of the longest election timeouts, and what a lost disk or a snapshot takes."""
CONVERGED_WITHIN_S = 60.0
ANSWERED_WITHIN_S = 15.0
STRAGGLERS_S = 2.0  # Slow frames, what is queued behind them, connections yet to be found dead.
HANGS_S = 3.0  # A disk: longer than the others take to elect somebody.
SERVED_WITHIN_S = 0.3  # While nothing is wrong.
WOKEN_WITHIN_S = 2.0
REDRIVEN_WITHIN_S = 120.0  # Hundreds of messages, of which five go in a second.
TICKED_WITHIN_S = 5.0  # A hundred ticks that were missed, one after the other.
RUN_WITHIN_S = 5 * LEASE_S
POSTED_WITHIN_S = 35.0  # A receiver that was down is left alone for half a minute.
STOPPED_WITHIN_S = GRACE_S + 2.0
DRAIN_ROUNDS_MAX = 400


class Result(NamedTuple):
    """What came of a run."""

    plan: Plan
    violation: str | None
    hash: str
    seconds: float  # Virtual.
    events: int
    requests: int
    entries: int
    reached: Counter[str]
    records: list[Record]


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """A run is short and nearly all of it stays, to its end: nobody need look for what does not."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_garbage_kept()
def run(plan: Plan, *, keep_trace: bool = False) -> Result:
    """Run a plan. A broken promise is told in the result; any other exception is a bug here."""
    world = World(plan.seed, plan.names, keep_trace=keep_trace)
    story = Story(world, plan)
    violation = None
    with _in_pieces(plan.tuning), story.postings.received(plan.seed):
        try:
            story.tell()
        except Violation as error:
            violation = f"{error} (at {world.now:.4f} s)"
    return Result(
        plan=plan,
        violation=violation,
        hash=world.trace.hexdigest(),
        seconds=world.now,
        events=world.events.count_run,
        requests=len(story.history.requests),
        entries=story.checks.oracle.index,
        reached=world.reached,
        records=world.trace.records,
    )


@contextmanager
def _in_pieces(tuning: Tuning) -> Iterator[None]:
    """Small chunks and appends that can be interrupted anywhere, and members that act fast."""
    before = transfer.CHUNK_BYTES, replication.APPEND_BYTES_MAX, replica.GOSSIP_S
    transfer.CHUNK_BYTES = tuning.chunk_bytes
    replication.APPEND_BYTES_MAX = tuning.append_bytes
    replica.GOSSIP_S = tuning.gossip_s
    try:
        yield
    finally:
        transfer.CHUNK_BYTES, replication.APPEND_BYTES_MAX, replica.GOSSIP_S = before


class Story:
    """The phases of a run."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.world, self.plan = world, plan
        self.checks = Checks(world)
        self.history = History()
        self.faults = Faults(world, random.Random(f"faults {plan.seed}"))
        self.clients = [
            Client(
                world, random.Random(f"client {number} {plan.seed}"), plan.workload, self.history
            )
            for number in range(plan.workload.clients)
        ]
        if plan.workload.standing:
            self.clients.append(self._maker_of_what_stands())
        receiver = Receiver(
            world, random.Random(f"receiver {plan.seed}"), self.checks.oracle.arrangements
        )
        self.postings = Postings(world, self.history, receiver)
        self.receiver = receiver
        self.checks.died = self._died
        self.checks.lost_power = self._lost_power
        self.checks.failed = self._failed
        for node, clock in zip(world.nodes.values(), plan.clocks, strict=True):
            node.clock_rate, node.clock_origin = clock.rate, clock.origin_s
            node.wall_skew_ms = clock.wall_skew_ms
            if "subscribe" in plan.workload.standing:
                node.started = self.postings.started
            node.raft = msgspec.structs.replace(
                node.raft,
                request_timeout_ms=plan.tuning.request_timeout_ms,
                peer_window_bytes=4 * plan.tuning.append_bytes,
                inflight_entries_max=plan.tuning.entries_in_flight,
                move_hold_ms=MOVE_HOLD_MS,
                move_pause_ms=MOVE_PAUSE_MS,
            )
            if plan.tuning.preferred:
                node.leader_zones = {f"zone-n{plan.tuning.preferred}": 1}
            node.tune(
                segment_bytes=plan.tuning.segment_bytes,
                journal_keep_bytes=plan.tuning.journal_keep_bytes,
                flush_interval_ms=plan.tuning.flush_interval_ms,
                digest_interval_ms=plan.tuning.digest_interval_ms,
            )

    def _maker_of_what_stands(self) -> Client:
        work, chance = self.plan.workload, random.Random(f"standing client {self.plan.seed}")
        workload = msgspec.structs.replace(work, operations=work.standing)
        return Client(self.world, chance, workload, self.history, Standing)

    def tell(self) -> None:
        """Begin, suffer, heal, and be judged."""
        world, plan = self.world, self.plan
        self.faults.schedule(plan.faults)
        world.start()
        for client in self.clients:
            client.start()
        self._watch_disks()
        world.run(plan.seconds)
        self.faults.end()
        for client in self.clients:
            client.stopped = True
        self._until(self._has_leader, LEADER_WITHIN_S, "a leader after healing")
        self._until(self._answered, ANSWERED_WITHIN_S, "an answer to every request")
        self._until(self._recovered, CONVERGED_WITHIN_S, "all nodes to be members and equal")
        # What a node sent before the peace may still be in the way of what it is asked now.
        self._lift_limits(ANSWERED_WITHIN_S)
        self._post_in_peace()
        self._wait_for_stragglers()
        for node in world.alive:
            self.checks.digest(node)
        self._judge()
        self._lift_limits(SERVED_WITHIN_S)  # A limit may have been a straggler.
        self._tick_no_more()
        for node in world.alive:
            self._wakes(node)
        self._give_way()
        self._drain()

    def _lift_limits(self, within_s: float) -> None:
        """What comes in peace has all the room there is. It is judged as what clients asked."""
        if "limit" not in self.plan.workload.standing:
            return
        node, command = self.world.alive[0], c.SetQuotas(ACCOUNT, c.Quotas())
        while True:
            request = Request(self.history.number(), node.name, command, self.world.now)
            self.history.requests.append(request)
            (request.answer,) = self._answers(node, (command,), within_s)
            request.answered_at = self.world.now
            if not isinstance(request.answer, Unknown):
                return

    def _wait_for_stragglers(self) -> None:
        """What was sent before the peace still comes, and what was cut is found to be dead."""
        hung = any(fault.kind == "hung disk" for fault in self.plan.faults)
        self.world.run(FAULTS["hung disk"] if hung else STRAGGLERS_S)
        # A leader of whose connections that was found makes way for another.
        self._until(self._has_leader, LEADER_WITHIN_S, "a leader in peace")

    def _judge(self) -> None:
        leader = self.world.leader()
        assert leader is not None
        term = leader.running.consensus.term
        verdict = Verdict(self.history, self.checks.oracle, self.checks.taken, term)
        verdict.check()
        if verdict.lost:
            self.world.sometimes("what was accepted was lost with its leader")
        if verdict.unheard:
            self.world.sometimes("what was taken was lost with its answer")
        if verdict.copied:
            self.world.sometimes("a put that nobody heard of was copied")

    def _until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        try:
            self.world.until(condition, seconds, what)
        except Violation:
            raise
        except AssertionError as error:
            raise Violation(f"liveness: {error}") from error

    # What it waits for.

    def _has_leader(self) -> bool:
        leader = self.world.leader()
        return leader is not None and all(
            node.running.leader == leader.name
            for node in self.world.alive
            if node.running.consensus.is_member
        )

    def _answered(self) -> bool:
        return all(client.waiting is None for client in self.clients)

    def _recovered(self) -> bool:
        world = self.world
        return (
            world.converged()
            and world.settled()
            and all(
                node.is_up
                and node.running.formed
                and node.running.consensus.is_member
                and not node.running.stopping
                for node in world.nodes.values()
            )
        )

    # What happens meanwhile.

    def _died(self, node: Node) -> None:
        self.postings.died(node)
        for client in self.clients:
            client.node_died(node)

    def _lost_power(self, node: Node) -> None:
        self.world.sometimes("power failed at a change to the disk")
        self.faults.lost_power(node)

    def _failed(self, node: Node, error: Exception) -> bool:
        if not self.faults.excused(node, error):
            return False
        self.faults.failed(node, error)
        return True

    def _watch_disks(self) -> None:
        """Now and then, see whether a replaced disk holds everything again."""
        world = self.world
        leader = world.leader()
        for node in world.alive:
            if not self.faults.is_damaged(node) or leader is None or not node.running.formed:
                continue
            consensus = node.running.consensus
            if (
                consensus.is_member
                and node.running.self_id in leader.running.consensus.members
                and consensus.commit_index >= len(self.checks.committed) - 1
            ):
                self.faults.rejoined(node)
        world.at(0.1, self._watch_disks)

    # The end.

    def _post_in_peace(self) -> None:
        """Every subscription is run by one node, which posts what there is; then all stop."""
        if "subscribe" not in self.plan.workload.standing:
            return
        self.receiver.in_peace = True
        began = self.world.now
        self._until(
            lambda: self.postings.answered(began), ANSWERED_WITHIN_S, "an answer to every node"
        )
        self._until(self._all_run, RUN_WITHIN_S, "each subscription to run on one node")
        self._until(self._all_posted, POSTED_WITHIN_S, "all messages to be posted")
        self.postings.stop()
        self._until(self.postings.stopped, STOPPED_WITHIN_S, "runners to stop")
        self._until(self.postings.answered, ANSWERED_WITHIN_S, "an answer to every node")
        within_s = RUN_WITHIN_S if self.postings.cut_short else SERVED_WITHIN_S
        self._until(
            lambda: not self.checks.oracle.model.running(), within_s, "no runner to be left"
        )
        self._until(self._recovered, CONVERGED_WITHIN_S, "all nodes to be equal again")

    def _all_run(self) -> bool:
        model = self.checks.oracle.model
        expected = {
            names: [model.node_of(hook)] for names, hook in model.hooks.items() if not hook.disabled
        }
        return self.postings.running() == expected

    def _all_posted(self) -> bool:
        model = self.checks.oracle.model
        hooked = {names[:2] for names, hook in model.hooks.items() if not hook.disabled}
        return not any(
            message.state == "ready"
            for names in hooked
            for message in model.queues[names].messages.values()
        )

    def _tick_no_more(self) -> None:
        """No tick is left out; then there are to be no more."""
        node, oracle = self.world.alive[0], self.checks.oracle
        leader = self.world.leader()
        assert leader is not None
        stamps = leader.running.stamps

        def in_time() -> bool:
            return not oracle.arrangements.late(stamps.now_ms())

        self._until(in_time, TICKED_WITHIN_S, "a message for each tick that was due")
        self._ask(node, *(c.DeleteSchedule(*names) for names in sorted(oracle.model.schedules)))

    def _give_way(self) -> None:
        """A leader's last entry gives way to another's while its disk is busy with it.

        No draw brings a hanging disk, a deposed leader and an entry that nobody heard of
        together in five hundred seeds; so the last of all that goes wrong is always this.
        """
        world, leader = self.world, self.world.leader()
        assert leader is not None
        world.isolate(leader.name)
        leader.work_delay_s = HANGS_S
        message = c.NewMessage(b"late", "text/plain")
        answers = leader.submit(c.Enqueue(ACCOUNT, "late", (message,)))
        self._until(lambda: world.leader() not in (leader, None), LEADER_WITHIN_S, "another leader")
        leader.work_delay_s = 0.0
        world.heal()
        self._until(lambda: bool(answers), ANSWERED_WITHIN_S, "an answer to what came late")
        self._until(self._recovered, CONVERGED_WITHIN_S, "the old leader to be equal")

    def _drain(self) -> None:
        """Everything that is still there can be had, and then nothing is there."""
        node, oracle = self.world.alive[0], self.checks.oracle
        self._until(lambda: not oracle.redrives, REDRIVEN_WITHIN_S, "redrives to end")
        held: Held = {}
        for _ in range(DRAIN_ROUNDS_MAX):
            left = [names for names, queue in sorted(oracle.model.queues.items()) if queue.messages]
            if not left:
                break
            held = self._take(node, left, held)
        else:
            raise Violation(f"{left} cannot be drained: {oracle.model.queues[left[0]].messages}")
        self._until(self.world.converged, CONVERGED_WITHIN_S, "all nodes to be equal at the end")
        for one in self.world.alive:
            self.checks.digest(one)

    def _wakes(self, node: Node) -> None:
        """Whoever waits on a node hears of a message, put elsewhere, and of an index reached."""
        woken: list[str] = []
        replica = node.running
        replica.waiters.when_ready(
            (ACCOUNT, f"wake {node.name}"), lambda _: not woken.append("ready")
        )
        reached = self.world.leader()
        assert reached is not None
        index = reached.running.consensus.last_index + 1
        replica.waiters.when_applied(index, lambda: woken.append("applied"))
        message = c.NewMessage(b"wake", "text/plain", delay_ms=50)
        self._ask(self.world.alive[-1], c.Enqueue(ACCOUNT, f"wake {node.name}", (message,)))
        self._until(lambda: len(woken) == 2, WOKEN_WITHIN_S, f"{node.name} to wake who waits there")

    def _take(self, node: Node, left: list[Names], held: Held) -> Held:
        """Settle what is held and claim more, with one request of each queue at a time."""
        acks = [c.Ack(ACCOUNT, queue, one.claim) for (_, queue), one in held.items()]
        claims = [c.Claim(ACCOUNT, queue, 100, 60_000) for _, queue in left]
        answers = self._ask(node, *acks, *claims)
        for one, settled in zip(held.values(), answers, strict=False):
            if settled != Settled(len(one.messages)):
                raise Violation(f"an ack of {one} was answered {settled}")
        claimed = {
            names: one
            for names, one in zip(left, answers[len(acks) :], strict=True)
            if isinstance(one, Claimed) and one.messages
        }
        if not (held or claimed):
            self.world.run(1.0)  # For leases and delays to end.
        return claimed

    def _ask(self, node: Node, *commands: c.Command) -> list[Answer]:
        """The outcomes of what is asked for at once.

        Once more if it is not known: log time may have leapt, and ended the node's session.
        """
        answers = self._answers(node, commands)
        again = [at for at, one in enumerate(answers) if isinstance(one, Unknown)]
        for at, one in zip(again, self._answers(node, [commands[at] for at in again]), strict=True):
            answers[at] = one
        return answers

    def _answers(
        self, node: Node, commands: Sequence[c.Command], within_s: float = SERVED_WITHIN_S
    ) -> list[Answer]:
        answers = [node.submit(command) for command in commands]
        self._until(lambda: all(answers), within_s, f"an answer to {commands}")
        return [one[0] for one in answers]
