"""What comes over the network is understood to the end or costs the peer its connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from fake_runtime import ListLog
from raftq import snapshots
from raftq.config import Config, MemberConfig
from raftq.config.schema import ClusterConfig, NodeConfig
from raftq.consensus.messages import Beat, RaftMessage
from raftq.replica import wire
from raftq.replica.links import Links
from raftq.replica.membership import Membership, MembershipFile, cluster_id
from raftq.replica.wire import GROUP, Frame, Hello
from raftq.snapshots import FileSpec, Manifest
from raftq.transport.network import Handler
from simulation.disk import FaultyDisk
from statemachine import commands
from statemachine.commands import Barrier, Batch

OWN = "n1/a"
MEMBERS = ("n1/a", "n2/b", "n3/c")
CLUSTER = cluster_id(MEMBERS)
BATCH = Batch(session=1, seq=1, floor=1, commands=(Barrier(),))
EXTRA = msgspec.msgpack.encode(Membership(CLUSTER, 5, MEMBERS))
MANIFEST = Manifest("memory", 5, 1, 1, (FileSpec("f", 1, b"s" * 32),), EXTRA)
MEMBERLESS = msgspec.structs.replace(MANIFEST, extra=b"rubbish")
UNSAFE = msgspec.structs.replace(MANIFEST, files=(FileSpec("../f", 1, b"s" * 32),))


def config(name: str = "n1") -> Config:
    members = tuple(
        MemberConfig(name=n, zone=f"zone-{n}", peer=f"{n}:1", api_url=f"http://{n}")
        for n in ("n1", "n2", "n3")
    )
    node = NodeConfig(name=name, zone="zone", api_url="http://here")
    return Config(node=node, cluster=ClusterConfig(members=members))


def hello(
    identity: str, cluster: str = "", members: tuple[str, ...] = (), fingerprint: str | None = None
) -> Hello:
    printed = config().fingerprint() if fingerprint is None else fingerprint
    return Hello(GROUP, identity, cluster, members, "zone", "http://x", printed)


class Node:
    """Links with the node inside and the network outside, both written down."""

    def __init__(self, *, formed: bool = False, bootstrap: bool = False) -> None:
        disk = FaultyDisk(seed=1)
        disk.make_directory("data")
        self.membership = MembershipFile(disk, "data/members")
        if formed:
            self.membership.store(Membership(CLUSTER, 0, MEMBERS))
        self.happened: list[Any] = []
        self.sent: list[tuple[str, Frame]] = []
        self.now = 1.0
        self.log = ListLog()
        self.links = Links(
            self,
            config(),
            network=self,
            identity="a",
            membership=self.membership,
            log=self.log,
            monotonic=lambda: self.now,
            bootstrap=bootstrap,
        )
        self.links.start()

    def receive(self, peer: str, *frames: Frame | bytes) -> list[Any]:
        """What happened inside meanwhile."""
        for frame in frames:
            data = frame if isinstance(frame, bytes) else wire.encode(frame)
            self.links.received(peer, data)
        return self.take_happened()

    def take_happened(self) -> list[Any]:
        taken, self.happened = self.happened, []
        return taken

    def take_sent(self) -> list[tuple[str, Frame]]:
        taken, self.sent = self.sent, []
        return taken

    # ``links.Inside``.

    def raft_received(self, member: str, message: RaftMessage) -> None:
        self.happened.append(("raft", member, message))

    def batch_received(
        self, peer: str, batch: Batch, encoded: bytes, *, tell: bool, requests: int
    ) -> None:
        self.happened.append(("batch", peer, batch, encoded, tell, requests))

    def batch_accepted(self, session: int, seq: int) -> None:
        self.happened.append(("accepted", session, seq))

    def snapshot_offered(self, peer: str, member: str, term: int, manifest: Manifest) -> None:
        self.happened.append(("offer", peer, member, term, manifest))

    def chunk_wanted(self, peer: str, fetch: wire.SnapshotFetch) -> None:
        self.happened.append(("fetch", peer, fetch))

    def chunk_received(self, peer: str, chunk: wire.SnapshotChunk) -> None:
        self.happened.append(("chunk", peer, chunk))

    def linked(self, member: str, *, connected: bool) -> None:
        self.happened.append(("linked" if connected else "cut", member))

    def founded(self, members: tuple[str, ...]) -> None:
        self.happened.append(("founded", members))
        self.membership.store(Membership(cluster_id(members), 0, members))

    # ``network.Network``.

    def start(self, handler: Handler) -> None:
        self.happened.append("listening")

    def send(self, peer: str, frame: bytes) -> bool:
        self.sent.append((peer, wire.decode(frame)))
        return peer != "n9"

    def disconnect(self, peer: str) -> None:
        self.happened.append(("disconnect", peer))

    def flush(self) -> None:
        """Nothing is held back."""

    def buffered(self, peer: str) -> int:
        return 0

    def connected(self) -> tuple[str, ...]:
        return ()

    def set_peers(self, addresses: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def node() -> Node:
    """A member of a cluster, to which n2 of the same cluster is connected."""
    node = Node(formed=True)
    node.receive("n2", hello("b", CLUSTER, MEMBERS))
    return node


ENCODED = commands.encode(BATCH)
FETCH = wire.SnapshotFetch(GROUP, 5, 0, 0)
CHUNK = wire.SnapshotChunk(GROUP, 5, 0, 0, b"x")
OFFER = wire.SnapshotOffer(GROUP, 2, snapshots.encode(MANIFEST))
FRAMES: list[tuple[Frame, Any]] = [
    (wire.Raft(GROUP, Beat(2)), ("raft", "n2/b", Beat(2))),
    # Who does not say of how many requests it is has one for each command.
    (wire.Propose(GROUP, ENCODED), ("batch", "n2", BATCH, ENCODED, False, len(BATCH.commands))),
    (wire.Propose(GROUP, ENCODED, True, 7), ("batch", "n2", BATCH, ENCODED, True, 7)),
    (wire.Accepted(GROUP, 7, 3), ("accepted", 7, 3)),
    (OFFER, ("offer", "n2", "n2/b", 2, MANIFEST)),
    (FETCH, ("fetch", "n2", FETCH)),
    (CHUNK, ("chunk", "n2", CHUNK)),
]


@pytest.mark.parametrize(("frame", "meaning"), FRAMES)
def test_each_frame_reaches_its_place(node: Node, frame: Frame, meaning: object) -> None:
    assert node.receive("n2", frame) == [meaning]


def test_gossip_is_kept_for_whoever_asks(node: Node) -> None:
    state = wire.State(GROUP, "leader", 3, 4)
    assert node.receive("n2", state) == []
    assert node.links.peers.by_name["n2"].state == state


RUBBISH = [
    ("no message pack", b"\xc1"),
    ("nothing", b""),
    ("an unknown tag", msgspec.msgpack.encode([99, 0])),
    ("a field of another type", msgspec.msgpack.encode([4, 0, "leader", "3", 4])),
    ("a frame cut off", wire.encode(FETCH)[:-1]),
    ("a frame and more", wire.encode(FETCH) + b"\0"),
    (
        "text that is none",
        wire.encode(wire.State(GROUP, "leader", 3, 4)).replace(b"der", b"d\xb7r"),
    ),
    (
        "a manifest with text that is none",
        wire.encode(wire.SnapshotOffer(GROUP, 1, snapshots.encode(UNSAFE))).replace(
            UNSAFE.engine.encode(), b"\xb7" * len(UNSAFE.engine)
        ),
    ),
    ("a manifest that is none", wire.encode(wire.SnapshotOffer(GROUP, 1, b"rubbish"))),
    (
        "a manifest without members",
        wire.encode(wire.SnapshotOffer(GROUP, 1, snapshots.encode(MEMBERLESS))),
    ),
    ("an entry without a kind", bytes.fromhex("930200970101010101919201c400c2")),
    ("an unsafe manifest", wire.encode(wire.SnapshotOffer(GROUP, 1, snapshots.encode(UNSAFE)))),
]
UNREADABLE = [
    ("a batch that is none", wire.encode(wire.Propose(GROUP, b"rubbish"))),
    (
        "an unknown command",
        wire.encode(wire.Propose(GROUP, msgspec.msgpack.encode([1, 1, 1, [[99]]]))),
    ),
    (
        "a command with text that is none",
        wire.encode(
            wire.Propose(GROUP, msgspec.msgpack.encode([1, 1, 1, [[7, "a", "quq"]]]))
        ).replace(b"quq", b"q\xb7q"),
    ),
]


@pytest.mark.parametrize("data", [r[1] for r in RUBBISH], ids=[r[0] for r in RUBBISH])
def test_rubbish_costs_the_peer_its_connection_and_nothing_more(node: Node, data: bytes) -> None:
    assert node.receive("n2", data) == [("disconnect", "n2")]
    assert [event for event, _ in node.log.events] == ["dropped a peer that sent rubbish"]
    # It may come back.
    node.links.disconnected("n2")
    assert node.take_happened() == [("cut", "n2/b")]
    assert node.receive("n2", hello("b", CLUSTER), FETCH) == [
        ("linked", "n2/b"),
        ("fetch", "n2", FETCH),
    ]


@pytest.mark.parametrize("data", [r[1] for r in UNREADABLE], ids=[r[0] for r in UNREADABLE])
def test_a_batch_that_cannot_be_read_costs_its_sender_nothing_else(node: Node, data: bytes) -> None:
    """A later version may know commands that this one does not."""
    assert node.receive("n2", data, FETCH) == [("fetch", "n2", FETCH)]
    assert [event for event, _ in node.log.events] == ["dropped a batch"]


@pytest.mark.parametrize("frame", [*[one for one, _ in FRAMES], wire.State(GROUP, "leader", 3, 4)])
def test_who_did_not_greet_is_not_heard(frame: Frame) -> None:
    node = Node(formed=True)
    node.take_happened()
    assert node.receive("n2", frame) == [("disconnect", "n2")]
    assert node.links.peers.by_name["n2"].state is None


def test_a_greeting_is_forgotten_with_its_connection(node: Node) -> None:
    node.receive("n2", wire.State(GROUP, "leader", 3, 4))
    node.links.disconnected("n2")
    assert node.take_happened() == [("cut", "n2/b")]
    assert node.links.peers.by_name["n2"].state is None
    assert node.receive("n2", FETCH) == [("disconnect", "n2")]


@pytest.mark.parametrize("frame", [hello("z"), FETCH])
def test_who_is_not_configured_is_not_heard(node: Node, frame: Frame) -> None:
    assert node.receive("n9", frame) == [("disconnect", "n9")]
    node.links.disconnected("n9")
    assert node.take_happened() == []


def test_who_leaves_before_greeting_was_never_there() -> None:
    node = Node(formed=True)
    node.take_happened()
    node.links.connected("n2")
    node.links.disconnected("n2")
    assert node.take_happened() == []


CLUSTERS = [
    # (whether this node is in a cluster, the other's cluster, whether its consensus is heard)
    ("both in the same", True, CLUSTER, True),
    ("a newcomer", True, "", True),
    ("a member of another", True, "another", False),
    ("this node is the newcomer", False, "another", True),
]


@pytest.mark.parametrize(
    ("formed", "cluster", "heard"), [c[1:] for c in CLUSTERS], ids=[c[0] for c in CLUSTERS]
)
@pytest.mark.parametrize(("frame", "meaning"), FRAMES)
def test_nobody_listens_to_another_cluster(
    formed: bool, cluster: str, heard: bool, frame: Frame, meaning: object
) -> None:
    node = Node(formed=formed)
    node.receive("n2", hello("b", cluster, ("n2/b",)))
    happened = node.receive("n2", frame)
    assert happened == ([meaning] if heard else [])
    warned = "peer is of another cluster" in [event for event, _ in node.log.events]
    assert warned is (formed and not heard)


def test_another_identity_under_a_name_is_another_member(node: Node) -> None:
    assert node.receive("n2", hello("x")) == [("cut", "n2/b"), ("linked", "n2/x")]
    assert node.receive("n2", hello("x", CLUSTER)) == [("linked", "n2/x")]


def test_another_configuration_is_warned_of_once_per_connection() -> None:
    node = Node(formed=True)
    for _ in range(2):
        node.receive("n2", hello("b", CLUSTER, MEMBERS, fingerprint="other"))
    assert node.log.events == [("configuration differs from a peer's", {"peer": "n2"})]


def test_every_connection_begins_with_who_we_are() -> None:
    node = Node(formed=True)
    node.links.connected("n2")
    expected = Hello(GROUP, "a", CLUSTER, MEMBERS, "zone", "http://here", config().fingerprint())
    assert node.take_sent() == [("n2", expected)]
    newcomer = Node()
    newcomer.links.connected("n2")
    [(_, said)] = newcomer.take_sent()
    assert isinstance(said, Hello)
    assert (said.cluster_id, said.members) == ("", ())


def test_only_those_who_greeted_are_told_and_greeted_again(node: Node) -> None:
    node.links.connected("n3")
    node.take_sent()
    node.links.tell("leader", 3, 4, 0.5)
    assert node.take_sent() == [("n2", wire.State(GROUP, "leader", 3, 4, 500_000, 1_000_000))]
    node.links.greet_all()
    assert [peer for peer, _ in node.take_sent()] == ["n2"]


def test_what_is_said_of_a_clock_comes_back_and_tells_the_time_to_and_fro(node: Node) -> None:
    peer = node.links.peers.by_name["n2"]
    node.receive("n2", wire.State(GROUP, "follower", 3, 4, clock_us=77))
    assert peer.rtt_us is None
    node.now = 1.75
    node.links.tell("leader", 3, 4, 0)
    [(_, said)] = node.take_sent()
    assert isinstance(said, wire.State)
    assert (said.clock_us, said.echo_us, said.held_us) == (1_750_000, 77, 750_000)
    node.now = 3.0
    heard = wire.State(GROUP, "follower", 3, 4, clock_us=99, echo_us=1_750_000, held_us=1_170_000)
    node.receive("n2", heard)
    assert peer.rtt_us == 80_000
    node.receive("n2", msgspec.structs.replace(heard, held_us=1_250_000))
    assert peer.rtt_us == 60_000
    node.links.disconnected("n2")
    assert peer.rtt_us is None


def test_sending_answers_as_the_network_does(node: Node) -> None:
    assert node.links.send("n2", FETCH)
    assert not node.links.send("n9", FETCH)


def test_the_new_found_a_cluster_once_all_have_greeted_and_tell_everybody() -> None:
    node = Node()
    assert node.take_happened() == ["listening"]
    assert node.receive("n2", hello("b")) == [("linked", "n2/b")]
    assert node.receive("n3", hello("c")) == [("linked", "n3/c"), ("founded", MEMBERS)]
    said = node.take_sent()
    assert [peer for peer, _ in said] == ["n2", "n3"]
    assert {frame.cluster_id for _, frame in said if isinstance(frame, Hello)} == {CLUSTER}
    # Founded is founded.
    assert node.receive("n3", hello("c")) == [("linked", "n3/c")]


def test_told_not_to_wait_it_founds_at_the_start_and_only_once() -> None:
    node = Node(bootstrap=True)
    assert node.take_happened() == ["listening", ("founded", (OWN,))]
    formed = Node(formed=True, bootstrap=True)
    assert formed.take_happened() == ["listening"]
