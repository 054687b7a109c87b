"""Nodes of an older and of a newer version in one cluster: the older stops rather than guess.

What an older version may meet, and what it does:

- a field more at the end of a frame, a batch, a command or a small file: it ignores the field
  (so a field that changes what a command does needs a new entry version or a new tag);
- a frame, or a batch in a frame, that it does not know: it drops the connection, and the log
  never sees it;
- a command, an entry version or a kind of entry in the log that it does not know: it stops, and
  again at each start, until it is upgraded;
- a file of a later format: it refuses to start, and names both versions.
"""

from __future__ import annotations

from unittest.mock import patch

import msgspec
import pytest

from raftq.journal import Corruption, layout, record_file
from raftq.replica.submitter import NotSubmitted, Unknown
from raftq.stores.store import StoreCorruption
from simulation.checks import Checks
from simulation.node import DATA, Node
from simulation.versions import (
    LATER_KIND,
    RECORD_FILES,
    Build,
    Later,
    build,
    lengthen_files,
    world_of,
)
from statemachine.commands import Claim, Command, Enqueue, NewMessage
from statemachine.machine import UnknownVersion
from statemachine.outcomes import Claimed, Done, Enqueued
from statemachine.records import decode_message


class Cluster:
    """Three nodes of builds, under the checks, and what was acknowledged."""

    def __init__(self, seed: int) -> None:
        self.world = world_of(seed)
        self.checks = Checks(self.world)
        self.checks.failed = self._failed
        self.acknowledged: list[bytes] = []
        self.stopped: list[tuple[str, Exception]] = []
        for node in self.world.nodes.values():
            node.tune(segment_bytes=4_096, journal_keep_bytes=4_096, flush_interval_ms=500)
        self.world.start()
        self.settle()

    def settle(self) -> None:
        """All that are up have a leader and hold the same."""
        self.world.until(self.world.settled, 30, "a leader")
        self.world.until(self.world.converged, 30, "convergence")
        for node in self.world.alive:
            self.checks.digest(node)

    @property
    def leader(self) -> Node:
        """Whoever leads."""
        self.world.until(lambda: self.world.leader() is not None, 30, "a leader")
        leader = self.world.leader()
        assert leader is not None
        return leader

    def ask(self, node: Node, command: Command | Later) -> object:
        """The answer to a command."""
        answers = node.submit(command)
        self.world.until(lambda: bool(answers), 30, "an answer")
        return answers[0]

    def put(self, node: Node, count: int = 3) -> None:
        """Put messages through a node."""
        for _ in range(count):
            body = b"%d" % len(self.acknowledged)
            new = NewMessage(body, "text/plain")
            assert isinstance(self.ask(node, Enqueue("a", "q", (new,))), Enqueued)
            self.acknowledged.append(body)

    def upgrade(self, node: Node, which: Build = Build.NEWER) -> None:
        """Restart a node as another build."""
        if node.is_up:
            node.crash()
        build(node, which)
        node.start()

    def lead(self, node: Node) -> None:
        """Let a node lead: whoever else is elected goes down."""
        for _ in range(60):
            leader = self.leader
            if leader is node:
                self.settle()
                return
            leader.crash()
            self.world.until(lambda: self.world.leader() is not None, 30, "another leader")
            leader.start()
            self.settle()
        raise AssertionError(f"{node.name} was never elected")

    def everything_is_there(self) -> None:
        """Each message once, in order, on a cluster that is whole."""
        assert len(self.world.alive) == len(self.world.names)
        self.settle()
        claimed = self.ask(self.leader, Claim("a", "q", 1_000, 60_000))
        assert isinstance(claimed, Claimed)
        bodies = [bytes(decode_message(one.record).body) for one in claimed.messages]
        assert bodies == self.acknowledged
        self.settle()

    def _failed(self, node: Node, error: Exception) -> bool:
        self.stopped.append((node.name, error))
        known = msgspec.MsgspecError | UnknownVersion | Corruption | StoreCorruption
        return isinstance(error, known) or "kind" in str(error)


@pytest.fixture
def cluster() -> Cluster:
    """Three nodes of the older build, at work."""
    cluster = Cluster(31)
    for node in cluster.world.alive:
        cluster.put(node)
    return cluster


def test_a_rolling_upgrade_goes_unnoticed(cluster: Cluster) -> None:
    for node in list(cluster.world.nodes.values()):
        cluster.upgrade(node)
        cluster.settle()
        for one in cluster.world.alive:
            cluster.put(one, 2)
    assert cluster.ask(cluster.leader, Later(1)) == Done()
    assert not cluster.stopped
    cluster.everything_is_there()


def stops_the_older(cluster: Cluster, newer: Node) -> list[Node]:
    """The others have stopped, stop again when started, and are then upgraded one by one."""
    world = cluster.world
    older = [node for node in world.nodes.values() if node is not newer]
    world.until(lambda: not any(node.is_up for node in older), 10, "the older to stop")
    assert {name for name, _ in cluster.stopped} == {node.name for node in older}
    for node in older:  # One after the other: with the newer each is a majority.
        node.start()
        world.until(lambda node=node: not node.is_up, 30, f"{node.name} to stop again")
    return older


def goes_on_upgraded(cluster: Cluster, newer: Node, older: list[Node], which: Build) -> None:
    count = len(cluster.stopped)
    for node in older:
        cluster.upgrade(node, which)
        cluster.settle()
        cluster.put(newer, 2)
    assert len(cluster.stopped) == count
    cluster.everything_is_there()


def test_an_unknown_command_stops_an_older_node(cluster: Cluster) -> None:
    newer = cluster.world.nodes["n2"]
    cluster.upgrade(newer)
    cluster.settle()
    cluster.lead(newer)
    cluster.put(newer)
    answers = newer.submit(Later(7))
    older = stops_the_older(cluster, newer)
    assert answers == [Done()]  # It was committed: a majority has it on disk.
    errors = {type(error) for _, error in cluster.stopped}
    assert errors == {msgspec.ValidationError}
    goes_on_upgraded(cluster, newer, older, Build.NEWER)


def test_an_unknown_entry_version_stops_an_older_node(cluster: Cluster) -> None:
    newer = cluster.world.nodes["n3"]
    cluster.upgrade(newer)
    cluster.settle()
    cluster.lead(newer)
    cluster.upgrade(newer, Build.NEWER_ENTRIES)
    older = [node for node in cluster.world.nodes.values() if node is not newer]
    cluster.world.until(lambda: cluster.world.leader() is not None, 20, "a leader")
    cluster.settle()  # While an older node leads, nothing of the later version is written.
    assert not cluster.stopped
    cluster.lead(newer)
    newer.submit(Enqueue("a", "q", (NewMessage(b"%d" % len(cluster.acknowledged), "text/plain"),)))
    cluster.acknowledged.append(b"%d" % len(cluster.acknowledged))
    assert stops_the_older(cluster, newer) == older
    assert {type(error) for _, error in cluster.stopped} == {UnknownVersion}
    goes_on_upgraded(cluster, newer, older, Build.NEWER_ENTRIES)


def test_an_entry_of_an_unknown_kind_stops_an_older_node(cluster: Cluster) -> None:
    newer = cluster.world.nodes["n1"]
    cluster.upgrade(newer)
    cluster.settle()
    cluster.lead(newer)
    core = newer.running.consensus.core

    def propose() -> None:
        core.propose(LATER_KIND, b"what only a later version understands")
        newer.running.wake()

    newer.run(newer.life, propose)
    older = stops_the_older(cluster, newer)
    goes_on_upgraded(cluster, newer, older, Build.NEWER)


def test_an_older_leader_keeps_an_unknown_command_out_of_the_log(cluster: Cluster) -> None:
    newer = cluster.world.nodes["n2"]
    cluster.upgrade(newer)
    cluster.settle()
    other = next(node for node in cluster.world.alive if node is not newer)
    cluster.lead(other)
    answer = cluster.ask(newer, Later(1))
    assert isinstance(answer, Unknown | NotSubmitted)
    assert not cluster.stopped
    for node in cluster.world.alive:
        if node is not newer:
            cluster.put(node, 2)
    # The leader last: one that understands would let it into the log of those that do not.
    for node in sorted(cluster.world.nodes.values(), key=lambda node: node is other):
        if node is not newer:
            assert cluster.world.leader() is other
            cluster.upgrade(node)
            cluster.put(node, 2)
    cluster.put(newer, 2)  # What it could not get rid of has found its way.
    assert not cluster.stopped
    cluster.everything_is_there()


def test_a_node_whose_batch_is_not_understood_still_follows(cluster: Cluster) -> None:
    newer = cluster.world.nodes["n2"]
    cluster.upgrade(newer)
    cluster.settle()
    other = next(node for node in cluster.world.alive if node is not newer)
    cluster.lead(other)
    newer.submit(Later(1))
    cluster.world.run(3.0)
    cluster.put(other, 2)
    cluster.world.until(cluster.world.converged, 10, "the newer node to follow")


def test_more_fields_at_the_end_are_no_obstacle() -> None:
    """Every frame of one node is longer, among them a snapshot's manifest."""
    cluster = Cluster(32)
    longer = cluster.world.nodes["n1"]
    cluster.upgrade(longer, Build.LONGER)
    cluster.settle()
    for node in cluster.world.alive:
        cluster.put(node, 2)
    cluster.lead(longer)
    behind = cluster.world.nodes["n2"]
    behind.crash()
    cluster.put(longer, 60)
    last = cluster.world.nodes["n3"].running.journal.last_index
    cluster.world.until(lambda: longer.running.journal.base_index > last // 2, 20, "compaction")
    behind.start()
    cluster.settle()
    assert behind.running.snapshots_installed == 1
    cluster.put(behind, 3)
    assert not cluster.stopped
    assert not any("rubbish" in line for node in cluster.world.alive for line in node.log)
    cluster.everything_is_there()


def test_more_fields_at_the_end_of_files_are_no_obstacle(cluster: Cluster) -> None:
    """A newer version has run here, and was replaced by the older again."""
    for node in list(cluster.world.nodes.values()):
        identity = node.running.identity
        node.crash()
        assert lengthen_files(node.disk) == list(RECORD_FILES)
        node.start()
        cluster.settle()
        assert node.running.identity == identity
        cluster.put(node, 2)
    assert not cluster.stopped
    cluster.everything_is_there()


@pytest.mark.parametrize("name", [*RECORD_FILES, "journal"])
def test_a_file_of_a_later_format_is_refused(cluster: Cluster, name: str) -> None:
    node = next(one for one in cluster.world.alive if one is not cluster.leader)
    node.crash()
    if name == "journal":
        path = next(path for path in node.disk.files() if path.endswith(".segment"))
        node.disk.bytes_of(path)[8] = layout.VERSION + 1
    else:
        path = f"{DATA}/{name}"
        data = record_file.load(node.disk, path)
        assert data is not None
        with patch.object(record_file, "VERSION", record_file.VERSION + 1):
            record_file.store(node.disk, path, data)
    node.start()
    assert not node.is_up
    text = str(cluster.stopped[-1][1])
    assert path in text
    assert "format version 2, this program reads version 1" in text
