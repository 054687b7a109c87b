"""Real nodes on hosts in network namespaces: a slice of what ``make chaos`` does at length."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from chaos import Run, run, settings
from chaos_plan import Kind, Step
from cluster import until
from host_cluster import HostCluster, HostNode, injected
from hosts import Hosts
from relay import Delay

SLICE = (
    Kind.CUT_LEADER,
    Kind.LEADER_UNHEARD,
    Kind.DELAY_ONE_WAY,
    Kind.SYNC_FAILS,
    Kind.DISK_FULL,
    Kind.CLOCKS_APART,
)
HOLD_S, CALM_S = 1.0, 0.2
DELAY_S = 0.15
LEASE_S = 30.0
MESSAGES = "/v1/default/queues/felt/messages"
CLAIMS = "/v1/default/queues/felt/claims"
LIMIT_S = 60.0


@pytest.mark.timeout(150)
def test_faults_on_hosts_lose_nothing(group: Hosts) -> None:
    told: list[str] = []
    so_far = Run(told.append)
    steps = [Step(kind, HOLD_S, CALM_S, seed) for seed, kind in enumerate(SLICE)]
    with HostCluster(group, settings=settings()) as cluster:
        run(cluster, steps, LIMIT_S, so_far, puts_per_s=150)
    print("\n".join(told))
    assert so_far.complaints() == []
    assert [fault.kind for fault in so_far.faults] == list(SLICE)


def put_s(node: HostNode) -> float:
    """How long a put there takes until it is acknowledged."""
    started_s = time.monotonic()
    assert node.request("POST", MESSAGES, {"body": "x"}).status == 201
    return time.monotonic() - started_s


def log_ahead_s(node: HostNode) -> float:
    """How far the log's time is ahead of this machine's."""
    claimed = node.request("POST", CLAIMS, {"limit": 1, "lease": LEASE_S})
    assert claimed.status == 201
    ends = datetime.fromisoformat(claimed.json()["lease_until"])
    return ends.timestamp() - LEASE_S - time.time()


@pytest.mark.timeout(150)
def test_delays_slow_disks_and_stepped_clocks_are_felt(group: Hosts) -> None:
    with HostCluster(group, settings=settings()) as cluster:
        leader = cluster[cluster.start().wait_ready().wait_leader().name]
        pairs = [(node.name, other) for node in cluster for other in cluster.others(node.name)]
        cluster.delay(dict.fromkeys(pairs, Delay(DELAY_S)))
        assert put_s(leader) >= 2 * DELAY_S, "there and back"
        cluster.delay({})
        with injected(leader, f"delay_enter={int(DELAY_S * 1e6)}"):
            assert put_s(leader) >= DELAY_S
        put_s(leader)
        for node in cluster:
            node.step_clock(600_000)
        # It is slewed there, at a tenth of time's own speed.
        time_s = log_ahead_s(leader)
        until(lambda: put_s(leader) > 0 and log_ahead_s(leader) > time_s + 0.1, "it is ahead")
