"""A member that sends rubbish, and strangers at the peers' port: dropped, and the node lives."""

from __future__ import annotations

import contextlib
import random
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import Cluster, Node, until
from fuzz.mutation import mutated
from fuzz.samples import encoded
from raftq.replica import wire
from raftq.transport.frames import header
from raftq.transport.handshake import NONCE_BYTES, Acceptor, Identity

DEADLINE_S = 20.0
DROPPED = "dropped a peer that sent rubbish"
CHANCE = random.Random(5)
HELLO = wire.encode(wire.Hello(0, "stranger", "", (), "c", "http://127.0.0.1:1", "fingerprint"))
FRAMES = encoded(wire.Frame, CHANCE, 50)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two of three: the third is ours to play."""
    settings = {"storage": {"engine": "memory"}}
    with Cluster(tmp_path_factory.mktemp("peers"), settings=settings) as cluster:
        cluster.start("n1", "n2", "n3").wait_ready()
        cluster.kill("n3")
        yield cluster


def secret_of(node: Node) -> bytes:
    return str(tomllib.loads(node.config_path.read_text())["cluster"]["secret"]).encode()


def spoken_to(nodes: Cluster, *frames: bytes) -> str:
    """Be n3 for whoever calls first; say these frames; who it was, once it has hung up."""
    with socket.create_server(("127.0.0.1", nodes["n3"].peer_port)) as listener:
        listener.settimeout(DEADLINE_S)
        plug, _ = listener.accept()
    with plug:
        plug.settimeout(DEADLINE_S)
        identity = Identity("test", "n3", secret_of(nodes["n1"]))
        end = Acceptor(identity, {"n1", "n2"}, CHANCE.randbytes(NONCE_BYTES))
        while not end.done:
            plug.sendall(end.feed(plug.recv(4_096)))
        with contextlib.suppress(ConnectionError):
            for frame in frames:
                plug.sendall(header(frame) + frame)
            while plug.recv(65_536):
                pass
    return end.peer


def works(nodes: Cluster) -> bool:
    assert all(nodes[name].running for name in ("n1", "n2")), nodes.logs()
    answer = nodes["n1"].request("POST", "/v1/a/queues/q/messages", {"messages": [{"body": 1}]})
    return answer.status == 201


RUBBISH = {
    "no msgpack": [b"\xc1" * 40],
    "text": [b"GET / HTTP/1.1\r\n\r\n"],
    "nothing of ours": [b"\x93\x01\x02\x03"],
    "deep nesting": [b"\x91" * 100_000],
    "a count of four thousand million": [b"\x97\xdd\xff\xff\xff\xff"],
    "a frame before the hello": [FRAMES[0]],
    "a batch that is none": [HELLO, wire.encode(wire.Propose(0, b"\xff"))[:-1] + b"\x00\x00"],
    "a manifest that is none": [HELLO, wire.encode(wire.SnapshotOffer(0, 1, b"\x90"))],
    "a raft message that is none": [HELLO, b"\x93\x02\x00\x92\x63\x00"],
}


@pytest.mark.parametrize("frames", RUBBISH.values(), ids=RUBBISH)
def test_a_member_that_sends_rubbish_is_dropped(frames: list[bytes], nodes: Cluster) -> None:
    caller = spoken_to(nodes, *frames)
    assert DROPPED in nodes[caller].log
    assert works(nodes)


def test_damaged_frames_of_a_member_do_no_harm(nodes: Cluster) -> None:
    rounds = 30
    undecodable = [part for part in (mutated(FRAMES, CHANCE) for _ in range(400)) if _bad(part)]
    for number in range(rounds):
        spoken_to(nodes, HELLO, *undecodable[number : number + 1])
    assert works(nodes)


def _bad(frame: bytes) -> bool:
    with contextlib.suppress(Exception):
        wire.decode(frame)
        return False
    return bool(frame)


STRANGERS = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "zeros": bytes(5_000),
    "noise": CHANCE.randbytes(5_000),
    "our magic and no end": b"RAFTQ\x01\xff\xff\xff" + b"x" * 5_000,
    "another version": b"RAFTQ\x63" + bytes(50),
    "names that are none": b"RAFTQ\x01\x02\x02\x02\n\n\x00\x00\xff\xff" + bytes(64),
}


@pytest.mark.parametrize("sent", STRANGERS.values(), ids=STRANGERS)
def test_a_stranger_at_the_peers_port_is_hung_up_on(sent: bytes, nodes: Cluster) -> None:
    with socket.create_connection(("127.0.0.1", nodes["n1"].peer_port)) as plug:
        plug.settimeout(DEADLINE_S)
        answer = b""
        with contextlib.suppress(ConnectionError):
            plug.sendall(sent)
            while part := plug.recv(65_536):
                answer += part
    assert len(answer) < 100, "a stranger learns no more than a challenge"
    assert works(nodes)


def test_a_stranger_who_says_nothing_is_hung_up_on(nodes: Cluster) -> None:
    with socket.create_connection(("127.0.0.1", nodes["n2"].peer_port)) as plug:
        plug.settimeout(DEADLINE_S)
        assert plug.recv(1) == b""
    until(lambda: works(nodes), "the nodes work on", DEADLINE_S)


def test_the_log_does_not_grow_with_the_rubbish(nodes: Cluster, tmp_path: Path) -> None:
    before = len(nodes["n1"].log)
    for _ in range(300):
        with socket.create_connection(("127.0.0.1", nodes["n1"].peer_port)) as plug:
            plug.settimeout(DEADLINE_S)
            with contextlib.suppress(ConnectionError):
                plug.sendall(bytes(100))
                plug.recv(1)
    assert len(nodes["n1"].log) - before < 20_000
    assert works(nodes)
