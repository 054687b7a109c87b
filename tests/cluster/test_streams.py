"""Streams while leaders die: what was confirmed is there, in order, and nothing twice."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from cluster import Cluster, Node
from line_stream import LineStream

pytestmark = pytest.mark.timeout(240)

MESSAGES = 4_000
AT_ONCE = 20
BEFORE_S = 30.0
QUEUE = "/v1/shop/queues/{}/messages"
WORK = "/v1/shop/queues/work"
WORKED = 3_000
NONE = {"ready": 0, "delayed": 0, "claimed": 0, "blocked": 0}


async def put_until_it_ends(node: Node, queue: str, begun: asyncio.Event) -> Any:
    """The last thing that was heard, after a stream of numbers from 0."""
    heard: Any = {"put": 0}

    async def send(stream: LineStream) -> None:
        for first in range(0, MESSAGES, AT_ONCE):
            await stream.send_lines(*[{"body": n} for n in range(first, first + AT_ONCE)])
            await asyncio.sleep(0.005)  # A stream that lasts.
        await stream.end()

    async with LineStream(node.api_port, QUEUE.format(queue)) as stream:
        sending = asyncio.ensure_future(send(stream))
        try:
            while (line := await stream.line()) is not None:
                heard = line
                if heard["put"] > MESSAGES // 10:
                    begun.set()
        except (OSError, ValueError, asyncio.IncompleteReadError):
            pass  # The node is gone.
        sending.cancel()
        await asyncio.wait([sending])
    return heard


async def consume_all(node: Node, begun: asyncio.Event) -> list[int]:
    """The bodies of all acks that were answered, in order."""
    acked: list[int] = []
    open_claims = deque[list[int]]()
    async with LineStream(node.api_port, f"{WORK}/consume?batch={AT_ONCE}&lease=60") as stream:
        await stream.send_lines({"credit": 2 * AT_ONCE})
        while len(acked) < WORKED:
            line = await stream.line()
            if "claim" in line:
                open_claims.append([one["body"] for one in line["messages"]])
                await asyncio.sleep(0.01)  # Some work.
                await stream.send_lines({"ack": line["claim"], "credit": len(open_claims[-1])})
            elif line:
                assert line == {"acked": len(open_claims[0])}
                acked += open_claims.popleft()
                begun.set()
        await stream.end()
        assert (await stream.lines())[-1] == {"done": True}
    return acked


def bodies(node: Node, queue: str) -> list[int]:
    found: list[int] = []
    marker: str | None = ""
    while marker is not None:
        query = {"limit": "1000", "consistency": "linearizable"}
        page = node.get(QUEUE.format(queue), **query, **({"marker": marker} if marker else {}))
        found += [one["body"] for one in page["messages"]]
        marker = page["marker"]
    return found


def test_nothing_confirmed_is_lost_when_the_leader_dies_in_the_middle(cluster: Cluster) -> None:
    leader = cluster.wait_leader()
    follower = cluster.follower()

    for first in range(0, WORKED, 1_000):
        batch = {"messages": [{"body": n} for n in range(first, first + 1_000)]}
        assert leader.request("POST", f"{WORK}/messages", batch).status == 201

    async def story() -> tuple[Any, Any, list[int]]:
        begun = [asyncio.Event() for _ in range(3)]
        working = asyncio.ensure_future(consume_all(follower, begun[2]))
        streams = [
            asyncio.ensure_future(put_until_it_ends(node, name, one))
            for node, name, one in zip((leader, follower), ("led", "kept"), begun[:2], strict=True)
        ]
        async with asyncio.timeout(BEFORE_S):
            await asyncio.gather(*[one.wait() for one in begun])
        await asyncio.to_thread(cluster.kill, leader.name)
        return await streams[0], await streams[1], await working

    broken, kept, worked = asyncio.run(story())
    cluster.wait_leader(beside=leader.name)
    # Over another node the stream goes on as soon as somebody leads again.
    assert kept == {"put": MESSAGES, "done": True}
    assert bodies(follower, "kept") == list(range(MESSAGES))
    # So does a consumer's, and what was acknowledged is not given to anybody again.
    assert worked == list(range(WORKED))
    assert follower.get(f"{WORK}/stats", consistency="linearizable")["messages"] == NONE
    # With the node that died it breaks: what it has not confirmed may be there, in order.
    there = bodies(follower, "led")
    assert MESSAGES > len(there) >= broken["put"] > MESSAGES // 10
    assert there == list(range(len(there)))
