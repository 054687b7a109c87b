"""Nodes under mutual TLS, on real sockets; what a caller without the right papers gets."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from certificates import Authority, Pair, certificate_of
from raftq.tls.certificates import Certificate
from raftq.transport.handshake import Reason
from raftq.transport.network import Address
from raftq.transport.settings import Settings

if TYPE_CHECKING:  # pytest loads conftest.py itself; as a module it has no importable name.
    from conftest import Lab, Node

CLUSTER = "east"
HASTY = Settings(backoff_min_s=0.005, backoff_max_s=0.05, handshake_timeout_s=0.2, handshakes_max=2)


class Papers:
    """Certificates of one authority, and of a stranger with the same names."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.authority, self.stranger = Authority(), Authority("stranger")

    def of(self, name: str, pair: Pair | None = None, *, trusted: bytes = b"") -> Certificate:
        """Of node ``name``, with a certificate that may say something else."""
        directory = self._directory / f"{len(list(self._directory.iterdir()))}"
        (pair or self.authority.node(CLUSTER, name)).write(directory, name)
        (directory / "ca.pem").write_bytes(trusted or self.authority.certificate)
        return certificate_of(directory, name)


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


async def caller(lab: Lab, node: Node, tls: ssl.SSLContext, name: str = "n1") -> None:
    """Dial by hand, with the cluster's secret; EOFError when refused."""
    streams = await asyncio.open_connection(*node.address, ssl=tls, server_hostname="")
    await lab.wrap(*streams).prove(name, node.name)


@pytest.mark.anyio
async def test_under_mutual_tls_frames_pass_and_a_plain_caller_does_not(
    lab: Lab, papers: Papers
) -> None:
    one, other = lab.node("n1", tls=papers.of("n1")), lab.node("n2", tls=papers.of("n2"))
    one.start(other)
    other.start(one)
    await lab.until(lambda: one.told and other.told)
    assert one.network.send("n2", bytes(1_000_000))
    assert other.network.send("n1", b"back")
    await lab.until(lambda: one.frames and other.frames)
    assert (one.frames, other.frames) == ([b"back"], [bytes(1_000_000)])
    plain = await lab.wire(other)
    plain.writer.write(bytes(1_000))
    await plain.ended()
    assert (one.told, other.told) == (["+n2"], ["+n1"])
    assert other.counts.peers_refused == 1
    assert other.log.reasons("peer refused") == ["wrong version number"]


@pytest.mark.parametrize("name", ["n1", "n3"])
@pytest.mark.anyio
async def test_a_certificate_lets_in_the_node_that_it_names_and_no_other(
    lab: Lab, papers: Papers, name: str
) -> None:
    node = lab.node("n4", tls=papers.of("n4")).start(lab.node("n1"), lab.node("n3"))
    tls = papers.of("n1").client
    if name == "n1":
        await caller(lab, node, tls, name)
        assert node.told == ["+n1"]
        return
    with pytest.raises(EOFError):
        await caller(lab, node, tls, name)
    await lab.until(lambda: node.counts.peers_refused == 1)
    assert node.log.events[-1][1]["claimed"] == name
    assert node.log.reasons("peer refused") == [Reason.WRONG_CERTIFICATE]


@pytest.mark.parametrize(
    "uris",
    [
        [],
        ["raftq://east/n"],
        ["raftq://west/n1"],
        ["raftq://east/n1/"],
        ["RAFTQ://east/n1"],
        ["https://east/n1"],
        ["raftq://east/n2"],
    ],
)
@pytest.mark.anyio
async def test_what_a_certificate_says_must_be_the_name_to_the_letter(
    lab: Lab, papers: Papers, uris: list[str]
) -> None:
    node = lab.node("n2", tls=papers.of("n2")).start(lab.node("n1"))
    tls = papers.of("n1", papers.authority.issue(uris=uris)).client
    with pytest.raises(EOFError):
        await caller(lab, node, tls)
    await lab.until(lambda: node.log.reasons("peer refused") == [Reason.WRONG_CERTIFICATE])


@pytest.mark.anyio
async def test_whoever_dials_sends_nothing_to_a_node_with_another_ones_certificate(
    lab: Lab, papers: Papers
) -> None:
    impostor = papers.of("n2", papers.authority.node(CLUSTER, "n3"))
    heard: list[bytes] = []

    class Hears(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            heard.append(data)

    loop = asyncio.get_running_loop()
    async with await loop.create_server(Hears, "127.0.0.1", 0, ssl=impostor.server) as server:
        node = lab.node("n1", tls=papers.of("n1"))
        node.network.set_peers({"n2": Address(*server.sockets[0].getsockname())})
        node.network.start(node)
        await lab.until(lambda: node.counts.peers_refused >= 5)
    assert node.log.reasons("peer refused") == [Reason.WRONG_CERTIFICATE]
    assert heard == []


@pytest.mark.anyio
async def test_a_peer_of_another_authority_is_refused_by_both_ends(
    lab: Lab, papers: Papers
) -> None:
    foreign = papers.stranger.node(CLUSTER, "n1")
    one = lab.node("n1", tls=papers.of("n1", foreign, trusted=papers.stranger.certificate))
    other = lab.node("n2", tls=papers.of("n2"))
    one.start(other)
    other.start(one)
    await lab.until(lambda: one.counts.peers_refused >= 2 and other.counts.peers_refused >= 2)
    (reason,) = one.log.reasons("peer refused")
    assert str(reason).startswith("certificate refused: ")
    assert (one.told, other.told) == ([], [])


@pytest.mark.parametrize("caller_has", ["no certificate", "a foreign certificate"])
@pytest.mark.anyio
async def test_whom_the_authority_does_not_know_gets_no_answer(
    lab: Lab, papers: Papers, caller_has: str
) -> None:
    node = lab.node("n2", tls=papers.of("n2")).start(lab.node("n1"))
    tls = ssl.create_default_context(cadata=papers.authority.certificate.decode())
    tls.check_hostname = False
    if caller_has == "a foreign certificate":
        tls = papers.of("n1", papers.stranger.node(CLUSTER, "n1")).client
    with pytest.raises((EOFError, OSError)):
        await caller(lab, node, tls)
    await lab.until(lambda: node.counts.peers_refused == 1)
    assert node.told == []


@pytest.mark.anyio
async def test_nobody_speaks_an_older_protocol_than_tls_1_3_to_a_node(
    lab: Lab, papers: Papers
) -> None:
    node = lab.node("n2", tls=papers.of("n2")).start(lab.node("n1"))
    old = papers.of("n1").client
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await caller(lab, node, old)
    await lab.until(lambda: node.log.reasons("peer refused") == ["unsupported protocol"])


@pytest.mark.anyio
async def test_without_the_secret_a_certificate_is_not_enough(lab: Lab, papers: Papers) -> None:
    node = lab.node("n2", tls=papers.of("n2")).start(lab.node("n1"))
    streams = await asyncio.open_connection(
        *node.address, ssl=papers.of("n1").client, server_hostname=""
    )
    with pytest.raises(EOFError):
        await lab.wrap(*streams).prove("n1", "n2", secret=b"another one of sixteen")
    assert node.told == []


@pytest.mark.anyio
async def test_callers_that_say_nothing_keep_nobody_out_and_do_not_stay(
    lab: Lab, papers: Papers
) -> None:
    node = lab.node("n2", tls=papers.of("n2"), settings=HASTY).start(lab.node("n1"))
    silent = [await lab.wire(node) for _ in range(4)]
    await lab.until(lambda: node.counts.peers_refused >= 2)
    assert node.log.reasons("peer refused")[0] == "too many handshakes at once"
    await caller(lab, node, papers.of("n1").client)
    assert [await each.ended() for each in silent] == [b""] * 4
    assert node.counts.peers_refused == 4
