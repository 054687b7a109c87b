"""A claim that waits where a message is put has it by the same log entry."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cluster import Cluster, Node, until

QUEUE = "/v1/shop/queues/{}"


@pytest.fixture(scope="module")
def cluster(make_shared: Callable[..., Cluster]) -> Cluster:
    return make_shared()


def waiting(cluster: Cluster) -> float:
    return sum(node.metric("raftq_parked_polls") for node in cluster)


def claim(node: Node, queue: str) -> Any:
    return json.loads(node.request("POST", f"{QUEUE.format(queue)}/claims", {"wait": 20}).body)


def put(node: Node, queue: str, **rest: Any) -> str:
    answer = node.request("POST", f"{QUEUE.format(queue)}/messages", {"body": 1, **rest})
    assert answer.status == 201, answer.body
    return str(json.loads(answer.body)["ids"][0])


def entries(node: Node, queue: str, message: str) -> list[tuple[str, int]]:
    """What has happened to the message, and by which entry of the log."""
    path = f"{QUEUE.format(queue)}/messages/{message}/history"
    told = json.loads(node.request("GET", path).body)["events"]
    return [(one["kind"], one["index"]) for one in told]


@pytest.mark.parametrize("place", range(3))
def test_a_claim_at_the_same_node_comes_in_the_entry_of_the_put(
    cluster: Cluster, place: int
) -> None:
    nodes = [*cluster]
    node, queue = nodes[place], f"near-{place}"
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(claim, one, queue) for one in nodes]
        until(lambda: waiting(cluster) == len(nodes), "all wait")
        first = put(node, queue)
        assert [one["id"] for one in asked[place].result()["messages"]] == [first]
        (enqueued, at), (claimed, there) = entries(node, queue, first)[:2]
        assert (enqueued, claimed) == ("enqueued", "claimed")
        assert at == there
        assert waiting(cluster) == len(nodes) - 1, "the others have heard of nothing"
        for other in nodes:
            if other is not node:
                put(other, queue)
        assert all(len(one.result()["messages"]) == 1 for one in asked)


def test_a_claim_at_another_node_is_woken_when_its_node_has_the_message(cluster: Cluster) -> None:
    first, other, *_ = cluster
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(claim, first, "far")
        until(lambda: waiting(cluster) == 1, "it waits")
        message = put(other, "far")
        assert [one["id"] for one in asked.result()["messages"]] == [message]


def test_a_put_that_is_refused_leaves_the_claim_waiting(cluster: Cluster) -> None:
    node = next(iter(cluster))
    path = f"{QUEUE.format('narrow')}/messages"
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(claim, node, "narrow")
        until(lambda: waiting(cluster) == 1, "it waits")
        assert node.request("PATCH", "/v1/shop/quotas", {"bytes": 1}).status == 200
        assert node.request("POST", path, {"body": "more"}).status == 403
        until(lambda: waiting(cluster) == 1, "it waits again")
        assert node.request("PATCH", "/v1/shop/quotas", {"bytes": 0}).status == 200
        message = put(node, "narrow")
        assert [one["id"] for one in asked.result()["messages"]] == [message]
