"""Keys over real processes: the first one, and how soon and how long a revocation holds."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable

import pytest

from access import bearing
from api.access import minting, tokens
from cluster import Cluster, Node, until

OPERATOR = minting.new_token(minting.new_id())
REVOKED_WITHIN_S = 1.0


@pytest.fixture(scope="module")
def guarded(
    make_shared: Callable[..., Cluster], tmp_path_factory: pytest.TempPathFactory
) -> Cluster:
    """One that asks for keys, and knows the operator's."""
    path = tmp_path_factory.mktemp("operator") / "operator.key"
    path.touch(mode=0o600)
    path.write_text(OPERATOR)
    cluster = make_shared({"auth": {"required": True, "bootstrap_key_file": str(path)}})
    for node in cluster:
        node.key = OPERATOR
        until(lambda: node.request("GET", "/v1").status == 200, "the operator is let in")  # noqa: B023 - now.
    return cluster


def create(node: Node) -> str:
    made = node.request("POST", "/v1/shop/keys", {"roles": ["consume", "manage"]})
    assert made.status == 201, made
    key: str = made.json()["key"]
    return key


def status(node: Node, key: str) -> int:
    return node.request("GET", "/v1/shop", headers=bearing(key)).status


def wait_let_in(node: Node, key: str) -> None:
    until(lambda: status(node, key) == 200, f"{node.name} lets in", 10.0)


def revoke(node: Node, key: str) -> None:
    assert node.request("DELETE", f"/v1/shop/keys/{tokens.id_of(key)}").status == 204


def test_the_first_key_is_printed_by_one_node_once(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster({"auth": {"required": True}})

    def said() -> list[str]:
        words = [word for node in cluster for word in re.findall(r"rq_\w{66}", node.log)]
        return [word for word in words if tokens.id_of(word)]

    until(said, "the first key is printed")
    (key,) = said()
    for node in cluster:
        wait_operator(node, key)
    cluster.stop()
    cluster.start().wait_ready()
    for node in cluster:
        wait_operator(node, key)
    assert said() == [key]


def wait_operator(node: Node, key: str) -> None:
    until(lambda: node.request("GET", "/v1", headers=bearing(key)).status == 200, "it is let in")


def test_a_revocation_holds_everywhere_within_a_second_and_for_ever(guarded: Cluster) -> None:
    nodes = list(guarded)
    for number, node in enumerate(nodes):
        key = create(node)
        for other in nodes:
            wait_let_in(other, key)
        revoke(node, key)
        revoked_s = time.monotonic()
        others = [nodes[(number + 1) % 3], nodes[(number + 2) % 3]]
        while any(status(other, key) == 200 for other in others):
            assert time.monotonic() - revoked_s < REVOKED_WITHIN_S
        assert status(node, key) == 401
    kept = create(nodes[0])
    guarded.kill()
    guarded.start().wait_ready()
    for node in nodes:
        wait_let_in(node, kept)
        assert status(node, key) == 401


def test_a_replica_that_has_heard_nothing_of_late_lets_nobody_in(guarded: Cluster) -> None:
    key = create(guarded.wait_leader())
    follower = guarded.follower()
    wait_let_in(follower, key)
    others = [node for node in guarded if node is not follower]
    for node in others:
        node.signal(signal.SIGSTOP)
    try:
        stopped_s = time.monotonic()
        until(lambda: status(follower, key) == 503, "it lets nobody in", 10.0)
        assert time.monotonic() - stopped_s < 3.0
        answer = follower.request("GET", "/v1/shop", headers=bearing(key))
        assert answer.json()["reason"] == "not_current"
        assert follower.request("GET", "/livez").status == 200
    finally:
        for node in others:
            node.signal(signal.SIGCONT)
    wait_let_in(follower, key)


def test_a_replica_that_stood_still_learns_of_a_revocation_before_it_answers(
    guarded: Cluster,
) -> None:
    leader = guarded.wait_leader()
    key = create(leader)
    follower = guarded.follower()
    wait_let_in(follower, key)
    guarded.pause(follower.name)
    revoke(leader, key)
    time.sleep(1.5)  # Longer than it may go without a word of the leader's.
    guarded.resume(follower.name)
    seen = {status(follower, key)}
    until(lambda: status(follower, key) == 401, "it knows", 10.0)
    assert 200 not in seen
