"""Zones in a cluster of real processes: where the leader goes, and who is near."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import ROOT, Cluster, until

QUEUE = "/v1/shop/queues/orders"


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    settings: dict[str, dict[str, object]] = {
        "cluster": {"leader_zones": {"b": 2, "c": 1}},
        "raft": {"move_hold_ms": 1_000, "move_pause_ms": 2_000},
    }
    return Cluster(tmp_path / "cluster", settings=settings)


def test_the_leader_goes_where_it_should_be_and_comes_back_there(cluster: Cluster) -> None:
    with cluster:
        cluster.start().wait_ready()
        until(lambda: cluster.leader() is cluster["n2"], "the best zone leads")
        put = cluster["n1"].request("POST", f"{QUEUE}/messages", {"body": 1})
        assert put.status == 201
        cluster.stop("n2")
        assert cluster.wait_leader(beside="n2") is cluster["n3"], "the second best was asked first"
        assert cluster["n1"].request("POST", f"{QUEUE}/messages", {"body": 2}).status == 201
        cluster.start("n2").wait_ready()
        until(lambda: cluster.leader() is cluster["n2"], "the best zone leads again")
        assert cluster["n1"].get(f"{QUEUE}/stats")["messages"]["ready"] == 2


def test_the_nearest_replica_and_what_crosses_are_known(cluster: Cluster) -> None:
    with cluster:
        cluster.start().wait_ready()
        until(lambda: cluster.leader() is cluster["n2"], "the best zone leads")
        node, near = cluster["n1"], cluster["n3"].api_url
        until(lambda: node.get("/cluster", zone="c")["nearest"] == near, "n3 is known")
        put = node.request("POST", f"{QUEUE}/messages", {"body": 1}, headers={"Raftq-Zone": "c"})
        assert put.headers["raftq-nearest"] == near
        assert cluster["n3"].request("POST", f"{QUEUE}/claims", {"wait": 5}).status == 201
        view = node.get("/cluster", zone="c")
        assert view["nearest"] == near
        assert [member["node"] for member in view["members"]] == ["n3", "n1", "n2"]
        until(
            lambda: sum(m["rtt_ms"] is not None for m in node.get("/cluster")["members"]) == 2,
            "the times to the others are known",
        )
        done = subprocess.run(
            [sys.executable, "-m", "raftq", "zones", "--json", "--url", node.api_url],
            cwd=ROOT,
            capture_output=True,
            timeout=60,
            check=True,
        )
        told = json.loads(done.stdout)
        assert told["unreachable"] == []
        assert told["claimed"] == {"a": {"c": 1}}
        pairs = [(one, other) for one in "abc" for other in "abc" if one != other]
        assert all(told["bytes_sent"][one][other] > 0 for one, other in pairs)
        text = node.request("GET", "/metrics").body.decode()
        assert 'raftq_zone_messages_put_total{client_zone="a",message_zone="a"} 1.0' in text
