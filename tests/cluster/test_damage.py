"""What rots on a disk is found and named; it is never served, and never spread."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import Cluster, Node
from cluster_state import flip_byte, inspect_journal, verify_store

MESSAGES = 400
BODY_BYTES = 10_000
PATH = "/v1/default/queues/work/messages"


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    """Three nodes that have written a good deal, and made it durable."""
    running = make_cluster({"storage": {"flush_interval_ms": 500}})
    for first in range(0, MESSAGES, 100):
        # Not all alike, or compression would leave nothing to damage.
        bodies = [f"{first + n} ".ljust(6) * (BODY_BYTES // 6) for n in range(100)]
        body = {"messages": [{"body": text} for text in bodies]}
        assert running["n1"].request("POST", PATH, body).status == 201
    running.wait_converged()
    return running


def stopped(cluster: Cluster) -> Node:
    """A node that has ended in order, while the others go on."""
    node = cluster.follower()
    cluster.stop(node.name)
    return node


def test_a_flipped_byte_in_the_journal_keeps_the_node_from_starting(cluster: Cluster) -> None:
    node = stopped(cluster)
    (segment,) = inspect_journal(node).json()["segments"]
    # The middle of what was written; what comes after are zeros, which nobody needs.
    middle = MESSAGES * BODY_BYTES // 2
    flip_byte(Path(segment["path"]), middle)

    report = inspect_journal(node)
    assert report.exit_code == 1
    damaged = next(one for one in report.json()["segments"] if one["state"] == "corrupt")
    assert damaged["path"] == segment["path"]
    assert 0 < damaged["offset"] <= middle

    cluster.start(node.name)
    assert node.exit_code() != 0
    assert segment["path"] in node.log
    assert re.search(rf"offset {damaged['offset']}\b", node.log)


def test_a_flipped_byte_in_the_store_is_found_and_the_others_serve_on(cluster: Cluster) -> None:
    node = stopped(cluster)
    assert verify_store(node).exit_code == 0
    table = max(node.data_dir.glob("db-*/*.sst"), key=lambda path: path.stat().st_size)
    flip_byte(table, table.stat().st_size // 3)

    report = verify_store(node)
    assert report.exit_code == 1
    assert table.name in [damage["file"] for damage in report.json()["damage"]]

    # Digesting its state, it reads everything sooner or later.
    cluster.start(node.name)
    assert node.exit_code(timeout_s=60) != 0
    assert table.name in node.log

    cluster.wait_leader()
    assert cluster.running[0].request("POST", PATH, {"body": "still here"}).status == 201
    cluster.wait_converged()
    pages = [other.get(PATH, limit="1000")["messages"] for other in cluster.running]
    assert len(pages) == 2
    assert len(pages[0]) == MESSAGES + 1
    assert pages[0] == pages[1]
