"""Whole nodes in a virtual world: commands over leader changes, snapshots, membership, time."""

from __future__ import annotations

import pytest

from raftq.consensus.messages import Append
from raftq.replica import wire
from raftq.replica.submitter import Answer, NotSubmitted, Unknown
from simulation.world import Node, World
from statemachine import queries
from statemachine.commands import Ack, Claim, Enqueue, NewMessage
from statemachine.outcomes import Claimed, Enqueued, Settled
from statemachine.sessions import IDLE_MAX_MS


def put(text: str, queue: str = "q") -> Enqueue:
    return Enqueue("a", queue, (NewMessage(text.encode(), "text/plain"),))


def settled_world(seed: int, names: tuple[str, ...] = ("n1", "n2", "n3")) -> World:
    world = World(seed, names)
    world.start()
    world.until(world.settled, 10, "first leader")
    return world


def answer_of(world: World, answers: list[Answer], seconds: float = 15) -> Answer:
    world.until(lambda: bool(answers), seconds, "an answer")
    return answers[0]


def ask(world: World, node: Node, command: Enqueue | Claim | Ack) -> Answer:
    return answer_of(world, node.submit(command))


def drain(world: World, node: Node, queue: str = "q") -> list[bytes]:
    """Claim and ack everything; the bodies in order."""
    bodies: list[bytes] = []
    while True:
        claimed = ask(world, node, Claim("a", queue, 100, 60_000))
        assert isinstance(claimed, Claimed)
        if not claimed.messages:
            return bodies
        bodies += [body_of(one.record) for one in claimed.messages]
        acked = ask(world, node, Ack("a", queue, claimed.claim))
        assert acked == Settled(len(claimed.messages))


def body_of(record: bytes) -> bytes:
    from statemachine.records import decode_message

    return bytes(decode_message(record).body)


def same_state(world: World) -> None:
    """Every node holds byte for byte the same."""
    world.until(world.converged, 10, "convergence")
    states = [list(node.running.reader().scan(b"", b"\xff")) for node in world.alive]
    assert all(state == states[0] for state in states)


def test_a_cluster_of_three_founds_itself_and_answers_on_every_node() -> None:
    world = settled_world(1)
    for number, node in enumerate(world.alive):
        assert isinstance(ask(world, node, put(f"m{number}")), Enqueued)
    assert drain(world, world.nodes["n2"]) == [b"m0", b"m1", b"m2"]
    same_state(world)


def test_a_cluster_of_one_works() -> None:
    world = settled_world(2, ("n1",))
    assert isinstance(ask(world, world.nodes["n1"], put("x")), Enqueued)
    world.nodes["n1"].crash(power=True)
    world.start("n1")
    world.until(world.settled, 10)
    assert drain(world, world.nodes["n1"]) == [b"x"]


def test_many_commands_at_once_share_few_entries() -> None:
    world = settled_world(3)
    node = world.nodes["n1"]
    before = node.running.machine.applied_index
    answers = [node.submit(put(str(number))) for number in range(500)]
    world.until(lambda: all(answers), 5)
    assert node.running.machine.applied_index - before < 20
    assert drain(world, node) == [str(number).encode() for number in range(500)]


def test_the_others_hear_of_a_commit_before_the_leader_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = settled_world(3)
    leader = world.leader()
    assert leader is not None
    links, told, told_by_then = leader.running.links, [], []

    def send(peer: str, frame: wire.Frame) -> bool:
        if isinstance(frame, wire.Raft) and isinstance(frame.message, Append):
            told.append((peer, frame.message.commit_index))
        return links._network.send(peer, wire.encode(frame))

    monkeypatch.setattr(links, "send", send)
    monkeypatch.setattr(links, "flush", lambda: told_by_then.append([*told]))
    answered: list[list[tuple[str, int]]] = []
    leader.running.submit(put("x"), 1, lambda _: answered.append(told_by_then[-1]))
    world.until(lambda: bool(answered), 5)
    index = leader.running.machine.applied_index
    others = {node.name for node in world.alive if node is not leader}
    assert {peer for peer, commit in answered[0] if commit >= index} == others


def test_what_was_acknowledged_survives_the_leader_and_is_not_doubled() -> None:
    world = settled_world(4)
    leader = world.leader()
    assert leader is not None
    others = [node for node in world.alive if node is not leader]
    answers = [others[n % 2].submit(put(str(n))) for n in range(200)]
    world.run(0.002)
    leader.crash()
    world.until(lambda: all(answers), 15)
    assert all(isinstance(answer[0], Enqueued) for answer in answers)
    assert sorted(int(body) for body in drain(world, others[0])) == list(range(200))
    world.start(leader.name)
    world.until(world.settled, 10)
    same_state(world)


def test_power_loss_of_all_nodes_loses_nothing_acknowledged() -> None:
    world = settled_world(5)
    answers = [world.nodes["n1"].submit(put(str(n))) for n in range(100)]
    world.until(lambda: all(answers[:50]), 5)
    acknowledged = [n for n, answer in enumerate(answers) if answer]
    for node in world.alive:
        node.crash(power=True)
    world.start()
    world.until(world.settled, 15)
    found = {int(body) for body in drain(world, world.nodes["n3"])}
    assert set(acknowledged) <= found
    same_state(world)


def test_without_a_majority_nothing_is_acknowledged_and_the_client_hears_so() -> None:
    world = settled_world(6)
    leader = world.leader()
    assert leader is not None
    for node in world.alive:
        if node is not leader:
            node.crash()
    answer = answer_of(world, leader.submit(put("x")), 30)
    assert isinstance(answer, Unknown)
    answer = answer_of(world, leader.submit(put("y")), 30)
    assert isinstance(answer, NotSubmitted | Unknown)


def test_a_node_that_lost_its_disk_comes_back_under_a_new_identity() -> None:
    world = settled_world(7)
    leader = world.leader()
    assert leader is not None
    lost = next(node for node in world.alive if node is not leader)
    old = lost.running.self_id
    for number in range(20):
        ask(world, leader, put(str(number)))
    lost.crash()
    lost.wipe()
    world.start(lost.name)
    world.until(lambda: lost.running.consensus.is_member, 20, "taken in again")
    world.until(world.settled, 10)
    assert lost.running.self_id != old
    assert old not in leader.running.consensus.members
    assert lost.running.snapshots_installed == 1
    same_state(world)
    assert len(drain(world, lost)) == 20


def test_a_node_that_has_forgotten_does_not_vote() -> None:
    """Two wiped nodes of three must not elect anybody, however long they wait."""
    world = settled_world(8)
    ask(world, world.nodes["n1"], put("x"))
    for name in ("n1", "n2", "n3"):
        world.nodes[name].crash()
    for name in ("n2", "n3"):
        world.nodes[name].wipe()
    world.start("n2", "n3")
    world.run(5)
    world.start("n1")
    world.run(30)
    assert world.leader() is None


def test_a_follower_behind_the_truncated_log_catches_up_by_snapshot() -> None:
    world = World(9)
    for node in world.nodes.values():
        node.tune(segment_bytes=4096, journal_keep_bytes=4096, flush_interval_ms=200)
    world.start()
    world.until(world.settled, 10)
    leader = world.leader()
    assert leader is not None
    behind = next(node for node in world.alive if node is not leader)
    behind.crash()
    for number in range(200):
        ask(world, leader, put("x" * 200 + str(number)))
    world.until(lambda: leader.running.journal.base_index > 50, 10, "truncation")
    world.start(behind.name)
    world.until(lambda: behind.running.snapshots_installed == 1, 10, "snapshot")
    world.until(world.settled, 10)
    same_state(world)


@pytest.mark.parametrize("after", range(0, 400, 23))
def test_a_snapshot_interrupted_at_any_moment_leaves_the_old_state_or_the_new(after: int) -> None:
    world = settled_world(10)
    leader = world.leader()
    assert leader is not None
    for number in range(5):
        ask(world, leader, put("y" * 1000 + str(number)))
    lost = next(node for node in world.alive if node is not leader)
    lost.crash()
    lost.wipe()
    world.start(lost.name)
    world.run(1.0)
    for _ in range(after):
        world.step()
    lost.crash(power=True)
    world.start(lost.name)
    world.until(lambda: lost.running.consensus.is_member, 30, "taken in again")
    world.until(world.settled, 10)
    same_state(world)


def test_leases_end_by_log_time_and_a_wall_clock_step_ends_none() -> None:
    world = settled_world(11)
    leader = world.leader()
    assert leader is not None
    ask(world, leader, put("x"))
    first = ask(world, leader, Claim("a", "q", 1, 5_000))
    assert isinstance(first, Claimed)
    assert first.messages
    for node in world.alive:
        node.wall_skew_ms = 24 * 3_600_000
    world.run(3)
    early = ask(world, leader, Claim("a", "q", 1, 5_000))
    assert isinstance(early, Claimed)
    assert not early.messages
    world.run(4)
    late = ask(world, leader, Claim("a", "q", 1, 5_000))
    assert isinstance(late, Claimed)
    assert [one.deliveries for one in late.messages] == [2]


def test_a_waiter_is_woken_by_what_its_own_node_applies() -> None:
    world = settled_world(12)
    woken: list[str] = []

    def wake(_: str) -> bool:
        woken.append("n3")
        return True

    world.nodes["n3"].running.waiters.when_ready(("a", "q"), wake)
    world.run(5)
    assert not woken
    ask(world, world.nodes["n1"], put("x"))
    world.until(lambda: woken == ["n3"], 1)
    assert world.nodes["n3"].running.waiters.parked == 0


def test_a_graceful_stop_hands_over_and_the_others_go_on_at_once() -> None:
    world = settled_world(13)
    leader = world.leader()
    assert leader is not None
    other = next(node for node in world.alive if node is not leader)
    stopped: list[bool] = []
    leader.running.stop(lambda: stopped.append(True))
    before = world.now
    world.until(lambda: bool(stopped), 3)
    leader.crash()
    assert isinstance(ask(world, other, put("x")), Enqueued)
    assert world.now - before < 1.0


def test_replicas_compare_digests_and_one_that_differs_stops() -> None:
    world = World(14)
    for node in world.nodes.values():
        node.tune(digest_interval_ms=1000)
    world.start()
    world.until(world.settled, 10)
    ask(world, world.nodes["n1"], put("x"))
    world.run(3)
    assert not world.fatal
    leader = world.leader()
    odd = next(node for node in world.alive if node is not leader)
    store = odd.running._applier.store
    store.kv.put(b"x-odd", b"rot")
    store.commit()
    with pytest.raises(Exception, match="StateDiverged"):
        world.run(5)
    assert [name for name, _ in world.fatal] == [odd.name]


def test_reads_see_what_was_applied() -> None:
    world = settled_world(15)
    ask(world, world.nodes["n2"], put("x"))
    stats = queries.stats(world.nodes["n2"].running.reader(), "a", "q")
    assert stats is not None
    assert stats.ready == 1


def test_a_node_that_is_idle_for_longer_than_sessions_may_be_keeps_its_own() -> None:
    world = settled_world(16)
    node = world.nodes["n2"]
    session = node.running.submitter._session
    world.run(1.1 * IDLE_MAX_MS / 1000)
    assert isinstance(ask(world, node, put("x")), Enqueued)
    assert node.running.submitter._session == session


def test_a_node_that_stops_lets_go_of_who_waits() -> None:
    world = settled_world(17)
    node = world.nodes["n2"]
    woken: list[bool] = []

    def wake(_: str) -> bool:
        woken.append(True)
        return True

    node.running.waiters.when_ready(("a", "q"), wake)
    node.running.stop(lambda: None)
    assert woken == [True]
    assert node.submit(put("x")) == [NotSubmitted("stopping")]
