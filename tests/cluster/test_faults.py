"""Nodes die, hang and lose their disks under load; the clients' history must stay sound."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cluster import Cluster
from cluster_state import assert_nothing_was_truncated, assert_same_state
from history import History, check, recoveries, summary
from scale import Scale
from workload import Workload

Disturb = Callable[[Cluster, Workload, Scale], Awaitable[None]]

in_thread = asyncio.to_thread


def under_load(cluster: Cluster, scale: Scale, disturb: Disturb) -> History:
    """Load before, during and after the disturbance, until enough was acknowledged."""

    async def story() -> History:
        async with Workload(
            [node.api_port for node in cluster],
            producers=scale.clients // 2,
            consumers=scale.clients - scale.clients // 2,
        ) as load:
            await load.acknowledges(100)
            await disturb(cluster, load, scale)
            missing = scale.acknowledged - load.history.acknowledged
            await load.acknowledges(max(missing, 100), deadline_s=300)
            return await load.finish()

    history = asyncio.run(story())
    print(summary(history))
    return history


async def kill_leaders(cluster: Cluster, load: Workload, scale: Scale) -> None:
    for _ in range(scale.leader_kills):
        leader = await in_thread(cluster.wait_leader)
        await in_thread(cluster.kill, leader.name)
        load.fault(f"kill the leader, {leader.name}")
        await load.recovers()
        await load.acknowledges(100)
        await in_thread(cluster.start, leader.name)
        await in_thread(cluster.wait_ready)


async def kill_all(cluster: Cluster, load: Workload, scale: Scale) -> None:
    for _ in range(scale.all_kills):
        await in_thread(cluster.kill)
        await in_thread(cluster.start)
        load.fault("kill all nodes and start them")
        await in_thread(cluster.wait_ready)
        await load.recovers()
        await load.acknowledges(100)


async def hang_leader(cluster: Cluster, load: Workload, scale: Scale) -> None:
    """It wakes up with the belief that it leads."""
    leader = await in_thread(cluster.wait_leader)
    cluster.pause(leader.name)
    load.fault(f"stop the leader's process, {leader.name}")
    await in_thread(cluster.wait_leader, beside=leader.name)
    await load.recovers()
    await load.acknowledges(100)
    cluster.resume(leader.name)
    await in_thread(cluster.wait_ready)
    await load.acknowledges(100)


async def wipe_nodes(cluster: Cluster, load: Workload, scale: Scale) -> None:
    """The wiped one must count again: with another one down, nothing goes without it."""
    for _ in range(scale.wipes):
        wiped = await in_thread(cluster.follower)
        await in_thread(cluster.kill, wiped.name)
        cluster.wipe(wiped.name)
        await in_thread(cluster.start, wiped.name)
        await in_thread(cluster.wait_ready)
        await in_thread(cluster.wait_member, wiped.name)
        await load.acknowledges(100)
        other = next(node for node in await in_thread(cluster.followers) if node is not wiped)
        await in_thread(cluster.kill, other.name)
        load.fault(f"kill {other.name} with {wiped.name} wiped before")
        await load.recovers()
        await load.acknowledges(100)
        await in_thread(cluster.start, other.name)
        await in_thread(cluster.wait_ready)


@pytest.mark.parametrize("disturb", [kill_leaders, kill_all, hang_leader, wipe_nodes])
@pytest.mark.timeout(1200)
def test_nothing_acknowledged_is_lost_and_nothing_held_twice_when_we(
    disturb: Disturb, cluster: Cluster, scale: Scale
) -> None:
    history = under_load(cluster, scale, disturb)
    assert check(history) == []
    if disturb is kill_leaders:
        slow = [fault for fault in recoveries(history) if fault[1] > scale.recovery_s]
        assert slow == []
    assert_same_state(cluster)
    assert_nothing_was_truncated(cluster)


@pytest.mark.timeout(300)
def test_healthy_nodes_never_truncate_what_they_have_applied(
    cluster: Cluster, scale: Scale
) -> None:
    async def nothing(_cluster: Cluster, _load: Workload, scale: Scale) -> None:
        await asyncio.sleep(scale.load_s)

    history = under_load(cluster, scale._replace(acknowledged=0), nothing)
    assert check(history) == []
    assert_nothing_was_truncated(cluster)
