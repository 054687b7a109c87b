"""Real nodes, real disks: what of a body is on them, and what becomes of it without its key."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import Cluster, Node, until

MASTER = f"k1 {base64.b64encode(bytes(range(32))).decode()}"
SETTINGS = {"encryption": {"keys": MASTER}, "storage": {"flush_interval_ms": 300}}


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    return make_cluster(SETTINGS)


def put(node: Node, account: str) -> str:
    """Put a message with a body that is nowhere else; the body."""
    body = secrets.token_urlsafe(48)
    answer = node.request("POST", f"/v1/{account}/queues/q/messages", {"body": body})
    assert answer.status == 201, answer.body
    return body


def encrypt(node: Node, account: str) -> None:
    node.request("PUT", f"/v1/{account}")
    answer = node.request("PUT", f"/v1/{account}/encryption", {"enabled": True})
    assert answer.status == 200, answer.body


def where(node: Node, body: str) -> set[str]:
    """Whether the body is found in the journal, in the store, or in another file of a node."""
    found = set()
    for path in node.data_dir.rglob("*"):
        try:
            if path.is_file() and body.encode() in path.read_bytes():
                place = path.relative_to(node.data_dir).parts[0]
                found.add("store" if place.startswith("db-") else place)
        except FileNotFoundError:
            continue  # The node runs, and has no more use for it.
    return found


def claimed(node: Node, account: str) -> list[str]:
    answer = node.request("POST", f"/v1/{account}/queues/q/claims", {"limit": 100})
    assert answer.status == 201, answer.body
    return [one.get("body", one.get("unreadable")) for one in answer.json()["messages"]]


def test_an_encrypted_body_is_on_no_disk_of_the_cluster(cluster: Cluster) -> None:
    node = cluster["n1"]
    encrypt(node, "closed")
    closed = put(node, "closed")
    # What is put later without encryption shows that looking for it would find it.
    opened = put(node, "open")
    for one in cluster:
        until(lambda one=one: where(one, opened) >= {"journal", "store"}, "it is on the disk")
        assert where(one, closed) == set()

    # A node that has lost its disk gets it by snapshot: ciphertext, and wrapped keys.
    lost = cluster.follower()
    cluster.stop(lost.name)
    cluster.wipe(lost.name)
    cluster.start(lost.name).wait_ready(lost.name, deadline_s=60)
    cluster.wait_member(lost.name)
    cluster.wait_converged()
    until(lambda: bool(where(lost, opened)), "the disk is full again")
    for one in cluster:
        assert where(one, closed) == set()
        assert MASTER.split()[1] not in one.log
    assert claimed(lost, "closed") == [closed]


def test_a_node_without_the_master_key_says_so_and_serves_the_other_accounts(
    cluster: Cluster,
) -> None:
    encrypt(cluster["n1"], "closed")
    body = put(cluster["n1"], "closed")
    cluster.wait_converged()
    node = cluster.follower()
    cluster.stop(node.name)
    without(node.config_path, "keys")
    cluster.start(node.name).wait_ready(node.name)
    assert "master keys are missing" in node.log
    assert node.get("/readyz")["accounts_without_keys"] == 1
    answer = node.request("POST", "/v1/closed/queues/q/claims")
    assert (answer.status, answer.json()["reason"]) == (503, "encryption_key_missing")
    put(node, "open")
    other = next(one for one in cluster if one is not node)
    assert claimed(other, "closed") == [body]


def test_shredding_holds_on_every_node_and_after_all_have_started_again(cluster: Cluster) -> None:
    encrypt(cluster["n1"], "closed")
    put(cluster["n1"], "closed")
    assert cluster["n2"].request("DELETE", "/v1/closed/encryption/keys").status == 200
    cluster.wait_converged()
    cluster.stop()
    cluster.start().wait_ready()
    for node in cluster:
        [shown] = node.get("/v1/closed/queues/q/messages")["messages"]
        assert shown["unreadable"] == "body_shredded"


def without(config: Path, key: str) -> None:
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith(f"{key} =")))
