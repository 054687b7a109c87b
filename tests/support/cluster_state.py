"""Whether the nodes of a cluster hold the same state, and what their disks say.

While they run, replicas digest their state at common log indexes; the tests' clusters do
so often and log it, which is where ``digests`` finds it. On the disk of a stopped node the
product's own offline checks are run, as an operator would.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cluster import ROOT, Cluster, Node, Settings, until

# For ``Cluster``: digests often enough to wait for, in logs that a program can read.
OBSERVABLE: Settings = {
    "storage": {"digest_interval_ms": 1_000},
    "log": {"level": "debug", "format": "json"},
}
# What the consensus engine says when it drops entries that it has already applied.
ENGINE_TRUNCATION = "truncating already-applied"


class Checked(NamedTuple):
    """What an offline check found."""

    exit_code: int
    output: str

    def json(self) -> Any:
        return json.loads(self.output)


def events(node: Node) -> Iterator[dict[str, Any]]:
    """The node's log, line by line; what is no event is left out."""
    for line in node.log.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def digests(cluster: Cluster) -> dict[int, dict[str, str]]:
    """Log index -> node -> digest, of all that were ever taken."""
    found: dict[int, dict[str, str]] = defaultdict(dict)
    for node in cluster:
        for event in events(node):
            if event.get("event") == "digest taken":
                found[event["index"]][node.name] = event["digest"]
    return found


def assert_same_state(cluster: Cluster, *, deadline_s: float = 60.0) -> None:
    """All nodes run, have caught up, and from now on digest to the same; all views agree."""
    index = max(node.applied_index() for node in cluster)
    everybody = {node.name for node in cluster}

    def compared() -> bool:
        assert {node.name for node in cluster.running} == everybody, "a node has ended"
        return any(at >= index and set(by) == everybody for at, by in digests(cluster).items())

    until(compared, f"all nodes have digested their state after {index}", deadline_s, poll_s=0.3)
    for at, by in digests(cluster).items():
        assert len(set(by.values())) == 1, f"states differ at {at}: {by}"
    views = {node.name: _view(node, index) for node in cluster}
    assert len({json.dumps(view, sort_keys=True) for view in views.values()}) == 1, views


def _view(node: Node, index: int) -> object:
    """What clients see of the queues there, none of which may change meanwhile."""
    session = {"Raftq-Min-Index": str(index)}
    listed = node.request("GET", "/v1/default/queues", headers=session).json()["queues"]
    names = [queue["name"] for queue in listed]
    return [node.get(f"/v1/default/queues/{name}/messages", limit="1000") for name in names]


def assert_nothing_was_truncated(cluster: Cluster) -> None:
    """No node has ever dropped applied entries of its log."""
    for node in cluster:
        assert ENGINE_TRUNCATION not in node.log, f"{node.name} has truncated applied entries"


def verify_store(node: Node) -> Checked:
    """``raftq store verify`` of a stopped node."""
    return _offline(node.data_dir, "store", "verify")


def inspect_journal(node: Node) -> Checked:
    """``raftq journal inspect`` of a stopped node."""
    return _offline(node.data_dir, "journal", "inspect")


def _offline(directory: Path, *command: str) -> Checked:
    done = subprocess.run(
        [sys.executable, "-m", "raftq", *command, "--json", str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Checked(done.returncode, done.stdout if done.stdout else done.stderr)


def flip_byte(path: Path, offset: int) -> None:
    """Let one byte rot."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x40]))
