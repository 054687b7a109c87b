"""A cluster that breaks a promise is found out by the same workload and checker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import pytest

from cluster import Cluster
from history import History, Kind, check, summary
from workload import PATH, Workload


class Case(NamedTuple):
    """A sabotage, what it must be found out by, and a workload that gives it the chance."""

    sabotage: str
    found: Kind
    lease_s: float
    deaths: float
    drain: bool


CASES = [
    Case("acknowledge_before_commit", Kind.MISSING, lease_s=2.0, deaths=0.01, drain=True),
    # Leases that outlive the loss of a leader, many of them held by nobody.
    Case("forget_leases", Kind.HELD_TWICE, lease_s=30.0, deaths=0.3, drain=False),
]


@pytest.mark.parametrize("case", CASES, ids=[case.sabotage for case in CASES])
def test_a_broken_build_is_found_out(case: Case, make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(sabotage=case.sabotage)
    # A put that is answered too early may not have made its queue when the queue is drained.
    assert cluster["n1"].request("PUT", PATH).status == 201

    async def story() -> History:
        async with Workload(
            [node.api_port for node in cluster],
            producers=8,
            consumers=8,
            lease_s=case.lease_s,
            deaths=case.deaths,
        ) as load:
            await load.acknowledges(500)
            leader = await asyncio.to_thread(cluster.wait_leader)
            await asyncio.to_thread(cluster.kill, leader.name)
            load.fault("kill the leader")
            await load.recovers()
            await load.acknowledges(500)
            return await load.finish() if case.drain else load.history

    history = asyncio.run(story())
    print(summary(history))
    assert case.found in {violation.kind for violation in check(history)}
