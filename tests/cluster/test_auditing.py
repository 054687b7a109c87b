"""What operators and strangers did, as real nodes remember it."""

from __future__ import annotations

import json
from typing import Any

from cluster import Cluster, Node, until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def acts(node: Node) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = node.get("/audit")["acts"]
    return found


def access_lines(node: Node) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in node.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["component"] == "access"]


def test_every_node_tells_of_the_same_acts_and_still_does_after_all_have_died(
    cluster: Cluster,
) -> None:
    for node in cluster:
        answer = node.request("PUT", f"/v1/shop/queues/at-{node.name}", {"ttl": 60})
        assert answer.status == 201
    cluster["n2"].request("DELETE", "/v1/shop/queues/other", headers={"traceparent": TRACEPARENT})
    cluster.wait_converged()
    told = acts(cluster["n1"])
    assert [(one["act"], one["subject"], one["outcome"]) for one in told] == [
        ("put_queue", "at-n1", "done"),
        ("put_queue", "at-n2", "done"),
        ("put_queue", "at-n3", "done"),
        ("delete_queue", "other", "no_queue"),
    ]
    assert told[-1]["request_id"] == TRACE
    assert {one["source"] for one in told} == {"127.0.0.1"}
    assert [acts(node) for node in cluster] == [told] * 3
    cluster.kill()
    cluster.start().wait_ready()
    assert [acts(node) for node in cluster] == [told] * 3


def test_a_node_logs_what_it_has_refused_and_not_what_it_has_done(cluster: Cluster) -> None:
    node = cluster["n1"]
    node.request("PUT", "/v1/shop/queues/q", {})
    node.request("GET", "/v1/shop/queues/none", headers={"traceparent": TRACEPARENT})
    until(lambda: bool(access_lines(node)), "the request is in the log")
    [line] = [one for one in access_lines(node) if one["route"].startswith("/v1")]
    assert (line["request"], line["status"], line["path"]) == (
        TRACE,
        404,
        "/v1/shop/queues/none",
    )
