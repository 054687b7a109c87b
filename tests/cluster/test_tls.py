"""Whole clusters under TLS: who is let in, who is not, and certificates that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from certificates import Authority
from cluster import CLUSTER, ROOT, Cluster, Node, until
from raftq.client import AsyncRaftq, Raftq, Unavailable
from raftq.serving.server import GRACE_S

MakeCluster = Callable[..., Cluster]
MESSAGES = 300
STRANGERS = 100
GONE_S = 20.0
STRANGER_BYTES_MAX = 64 * 1024
RECORD_BYTES = 16_384
HEAD = b"POST /v1/a/queues/q/messages HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
OF_STRANGERS = {
    "half a head": HEAD + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 130) for n in range(70)),
    "half a head of one line": HEAD + b"X: " + b"y" * 10_000,
    "half a head behind a request": HEAD + b"\r\n" + HEAD + b"X: y\r\n" * 120,
    "a body that nobody asked for": HEAD + b"Content-Length: 4000000\r\n\r\n" + bytes(60_000),
    "trailers": CHUNKED + b"0\r\n" + b"x: y\r\n" * 2_500,
}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def shared(make_shared: MakeCluster, authority: Authority) -> Cluster:
    return make_shared(authority=authority, size=1)


@pytest.fixture
def one(shared: Cluster) -> Node:
    """A node alone, which runs whatever has become of it before."""
    return shared.start().wait_ready()["n1"]


def ca_file(node: Node) -> str:
    return str(node.directory / "ca.pem")


@contextlib.contextmanager
def shown(node: Node, source: str = "") -> Iterator[ssl.SSLSocket]:
    """A connection to the API, from this address."""
    assert node.trust is not None
    with (
        socket.create_connection((node.address, node.api_port), 5, (source, 0)) as plug,
        node.trust.wrap_socket(plug, server_hostname=node.address) as wrapped,
    ):
        yield wrapped


@contextlib.contextmanager
def heard(node: Node, data: bytes) -> Iterator[None]:
    """A connection that has sent this."""
    with shown(node) as plug:
        plug.sendall(data)
        yield


@contextlib.contextmanager
def stopped_short(node: Node, data: bytes) -> Iterator[None]:
    """A connection that has sent this, and of a record of the largest size all but the end."""
    assert node.trust is not None
    received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    with socket.create_connection((node.address, node.api_port), 5) as plug:
        tls = node.trust.wrap_bio(received, to_send, server_hostname=node.address)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                plug.sendall(to_send.read())
                received.write(plug.recv(RECORD_BYTES))
        tls.write(data)
        plug.sendall(to_send.read())
        tls.write(bytes(RECORD_BYTES))
        plug.sendall(to_send.read()[:-1])
        yield


def certificate(node: Node) -> str:
    """What the node shows to who connects now, by its number."""
    with shown(node) as plug:
        found = plug.getpeercert()
        assert found is not None
        return str(found["serialNumber"])


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident_bytes(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def command(*arguments: str, ca: str | None = None) -> subprocess.CompletedProcess[str]:
    trusted = [] if ca is None else ["--ca-file", ca]
    return subprocess.run(
        [sys.executable, "-m", "raftq", *trusted, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_api_answers_under_tls_to_who_trusts_its_authority(one: Node) -> None:
    assert one.api_url.startswith("https://")
    with Raftq(one.api_url, account="a", ca_file=ca_file(one)) as client:
        assert client.cluster().members[0].api_url == one.api_url
        client.queue("q").put({"n": 1})
        (message,) = client.queue("q").claim()
        assert message.body == {"n": 1}

    async def later() -> None:
        async with AsyncRaftq(one.api_url, account="a", ca_file=ca_file(one)) as client:
            assert (await client.queue("q").stats()).messages.claimed == 1

    asyncio.run(later())
    shown = command("cluster", "status", "--url", one.api_url, ca=ca_file(one))
    assert (shown.returncode, "n1" in shown.stdout) == (0, True), shown.stderr


def test_who_trusts_another_authority_sends_nothing(one: Node, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(Authority("other").certificate)
    for trusted in (str(other), None):
        with (
            Raftq(one.api_url, ca_file=trusted, timeout=1.0) as client,
            pytest.raises(Unavailable, match="certificate verify failed"),
        ):
            client.queue("q").put(1)
        told = command("cluster", "status", "--url", one.api_url, ca=trusted)
        assert (told.returncode, "certificate verify failed" in told.stderr) == (3, True)
    missing = command("cluster", "status", "--url", one.api_url, ca="none.pem")
    assert (missing.returncode, "none.pem" in missing.stderr) == (2, True)


def test_nothing_is_said_in_the_clear_and_nothing_older_than_1_2(one: Node) -> None:
    failed = one.metric("raftq_tls_handshakes_failed_total")
    plain = http.client.HTTPConnection(one.address, one.api_port, timeout=5)
    plain.request("GET", "/livez")
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        plain.getresponse()
    plain.close()
    old = ssl.create_default_context(cafile=ca_file(one))
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection((one.address, one.api_port), timeout=5) as plug,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        old.wrap_socket(plug, server_hostname=one.address)
    assert one.metric("raftq_tls_handshakes_failed_total") == failed + 2


def test_a_node_does_not_wait_for_clients_that_only_rest(one: Node) -> None:
    with shown(one) as resting:
        resting.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert resting.recv(4_096)
        began = time.monotonic()
        one.signal(signal.SIGTERM)
        assert one.exit_code() == 0
    assert time.monotonic() - began < GRACE_S


def test_who_is_turned_away_is_gone_soon_though_he_says_nothing(
    make_cluster: MakeCluster, authority: Authority
) -> None:
    settings = {"api": {"connections_per_address_max": 3, "write_timeout_s": 60}}
    node = make_cluster(settings, authority=authority, size=1)["n1"]
    with contextlib.ExitStack() as open_still:
        for _ in range(3):
            open_still.enter_context(shown(node))
        few = descriptors(node.pid)
        plugs = [open_still.enter_context(shown(node)) for _ in range(20)]
        assert all(b"too_many_connections" in plug.recv(4_096) for plug in plugs)
        until(lambda: descriptors(node.pid) <= few, "they are gone", GONE_S)


def test_who_begins_handshakes_without_end_is_hung_up_on(
    make_cluster: MakeCluster, authority: Authority
) -> None:
    settings = {"api": {"handshakes_per_s": 1, "handshakes_burst": 20}}
    node = make_cluster(settings, authority=authority, size=1)["n1"]
    ended = []
    for _ in range(40):
        try:
            with shown(node, "127.1.2.3"):
                ended.append(False)
        except OSError:
            ended.append(True)
    assert not any(ended[:20])
    assert sum(ended) >= 5

    def is_counted() -> bool:
        with contextlib.suppress(OSError):  # We have called often ourselves.
            return node.metric("raftq_tls_handshakes_refused_total") >= sum(ended)
        return False

    until(is_counted, "others may call")


def test_whom_nobody_knows_little_is_kept_for(
    make_cluster: MakeCluster, authority: Authority
) -> None:
    settings = {
        "auth": {"required": True},
        "storage": {"engine": "memory"},
        "api": {"head_timeout_s": 60, "body_timeout_s": 60},
    }
    node = make_cluster(settings, authority=authority, size=1)["n1"]
    each: dict[str, float] = {}
    with contextlib.ExitStack() as open_still:
        # The first ones take what was free already.
        for sent, stranger, data in [
            ("nothing", heard, b""),
            *((sent, heard, data) for sent, data in OF_STRANGERS.items()),
            ("half a head, half a record", stopped_short, OF_STRANGERS["half a head"]),
        ]:
            before = resident_bytes(node.pid)
            for _ in range(STRANGERS):
                open_still.enter_context(stranger(node, data))
            until(node.is_ready, "the node has heard them all")
            each[sent] = (resident_bytes(node.pid) - before) / STRANGERS
        assert descriptors(node.pid) > len(each) * STRANGERS, "some were turned away"
    print({sent: f"{size / 1024:.1f} KiB" for sent, size in each.items()})
    assert max(each.values()) < STRANGER_BYTES_MAX, each


def test_with_an_authority_for_clients_only_who_has_its_certificate_is_heard(
    make_cluster: MakeCluster, authority: Authority, tmp_path: Path
) -> None:
    clients = Authority("clients")
    known, unknown = clients.issue(), authority.issue()
    (tmp_path / "clients.pem").write_bytes(clients.certificate)
    cluster = Cluster(
        tmp_path / "c",
        size=1,
        settings={"tls": {"api_client_ca_file": str(tmp_path / "clients.pem")}},
        authority=authority,
    )
    node = cluster["n1"]
    assert node.trust is not None
    with cluster.start():
        for name, pair in (("unknown", unknown), ("known", known)):
            pair.write(tmp_path, name)
            node.trust = authority.trust()
            node.trust.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
            if pair is known:
                cluster.wait_ready()
            else:
                until(lambda: "serving" in node.log, "the node serves")
                with pytest.raises(OSError, match=r"unknown ca|reset|EOF|Remote"):
                    node.request("GET", "/livez")


@pytest.mark.parametrize("how", ["a signal", "the files change"])
def test_certificates_are_changed_in_a_running_cluster_and_no_request_fails(
    make_cluster: MakeCluster, authority: Authority, how: str
) -> None:
    interval_ms = 60_000 if how == "a signal" else 100
    cluster = make_cluster({"tls": {"check_interval_ms": interval_ms}}, authority=authority)
    nodes = list(cluster)
    old = [certificate(node) for node in nodes]
    kept = nodes[0]
    ends_s = kept.metric('raftq_tls_certificate_expiry_seconds{use="api"}')
    failed: list[BaseException] = []
    done = threading.Event()

    def put() -> None:
        numbers = iter(range(1_000_000))
        try:
            with Raftq([node.api_url for node in nodes], account="a", ca_file=ca_file(kept)) as to:
                while not done.is_set():
                    to.queue("q").put(next(numbers))
        except BaseException as error:
            failed.append(error)

    putting = threading.Thread(target=put)
    putting.start()
    try:
        for node in nodes:
            cluster.certify(node.name, life=datetime.timedelta(days=400))
            if how == "a signal":
                node.signal(signal.SIGHUP)
        until(
            lambda: not {certificate(node) for node in nodes} & set(old), "they show new ones", 20
        )
        # Peers that connect anew use them, and are not held up by the old ones.
        for node in nodes:
            assert node.metric("raftq_tls_reloads_total") >= 2  # One for each use, or more.
            assert node.metric("raftq_peers_connected") == 2
    finally:
        done.set()
        putting.join()
    assert failed == []
    new_ends_s = kept.metric('raftq_tls_certificate_expiry_seconds{use="api"}')
    assert new_ends_s - ends_s > 299 * 86_400


def test_an_expired_certificate_is_refused_until_there_is_another(
    make_cluster: MakeCluster, authority: Authority
) -> None:
    cluster = make_cluster({"tls": {"check_interval_ms": 100}}, authority=authority)
    gone = cluster.follower()
    cluster.stop(gone.name)
    cluster.certify(gone.name, life=datetime.timedelta(hours=-1))
    cluster.start(gone.name)
    until(lambda: "certificate has expired" in gone.log, "it is said")
    others = [node for node in cluster if node is not gone]
    until(
        lambda: (
            any("certificate refused: certificate has expired" in node.log for node in others)
            or "certificate expired" in gone.log
        ),
        "the peers refuse it",
    )
    cluster.certify(gone.name)
    cluster.wait_ready()
    cluster.wait_converged()


def test_under_tls_a_cluster_goes_on_when_its_leader_is_killed(
    make_cluster: MakeCluster, authority: Authority
) -> None:
    cluster = make_cluster(authority=authority)
    leader = cluster.wait_leader()
    urls = [node.api_url for node in cluster]
    with Raftq(urls, account="a", ca_file=ca_file(leader), timeout=30.0) as client:
        queue = client.queue("q")
        for number in range(MESSAGES):
            if number == MESSAGES // 3:
                cluster.kill(leader.name)
            queue.put(number)
        cluster.start(leader.name)
        cluster.wait_ready()
        assert queue.stats().messages.ready == MESSAGES
    cluster.wait_converged()


def test_a_node_does_not_start_with_the_certificate_of_another(
    authority: Authority, tmp_path: Path
) -> None:
    with Cluster(tmp_path / "c", size=1, authority=authority) as cluster:
        node = cluster["n1"]
        authority.node(CLUSTER, "n2").write(node.directory, "n1")
        cluster.start()
        assert node.exit_code() == 78
        assert f"tls.peer_cert_file: {node.directory / 'n1.pem'} is not for this node" in node.log


@pytest.mark.parametrize("papers", ["none", "of another authority"])
def test_a_node_without_good_papers_takes_no_part(
    make_cluster: MakeCluster, authority: Authority, papers: str
) -> None:
    """It holds the cluster's secret, and all that it had before."""
    cluster = make_cluster(authority=authority)
    stranger = cluster.follower()
    others = [node for node in cluster if node is not stranger]
    cluster.stop(stranger.name)
    refused = {node.name: node.metric("raftq_peers_refused_total") for node in others}
    if papers == "none":
        lines = stranger.config_path.read_text().splitlines()
        kept = [line for line in lines if not line.startswith("peer_") or "listen" in line]
        stranger.config_path.write_text("\n".join(kept))
    else:
        Authority("another").node(CLUSTER, stranger.name).write(stranger.directory, stranger.name)
    cluster.start(stranger.name)
    until(
        lambda: any(n.metric("raftq_peers_refused_total") > refused[n.name] for n in others),
        "a peer refuses it",
    )
    until(
        lambda: (
            all(n.metric("raftq_peers_connected") == 1 for n in others)
            and any("peer refused" in node.log for node in others)
        ),
        "the others are by themselves",
    )
    assert all(node.is_ready() for node in others)
