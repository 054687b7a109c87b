"""``python -m examples.three_zones``: 1 if a message that was put was not worked on."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from examples.three_zones.network import Network, ZoneTransport
from examples.three_zones.nodes import ZONES, Node, running
from examples.three_zones.page import Cut, html
from examples.three_zones.work import WORKERS, Board, Done, Producer, work
from raftq.client import AsyncRaftq

REPORTS = Path(__file__).parents[2] / "reports"
CUT_ZONE = "b"
SHARES = (0.3, 0.3, 0.4)  # Of the time: before, cut off, healed.
DRAIN_S = 60.0
CALL_TIMEOUT_S = 3.0


class Result(NamedTuple):
    """What came of it."""

    board: Board
    cut: Cut
    totals: dict[str, float]


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.three_zones", description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="of all phases; default: 40")
    parser.add_argument("--out", type=Path, help="the page; default: a file in reports/")
    asked = parser.parse_args()
    # That a zone which is cut off cannot claim is what this is about, and no news.
    logging.getLogger("raftq.client").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="raftq-three-zones-") as directory:
        result = asyncio.run(run(Path(directory), asked.seconds))
    path = asked.out or REPORTS / f"three-zones-{time.strftime('%Y%m%d-%H%M%S')}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html(result.board.done, ZONES, result.cut, result.totals))
    print(json.dumps(result.totals))
    print(path)
    return 1 if result.totals["lost"] or result.totals["never put"] else 0


async def run(directory: Path, seconds: float) -> Result:
    """All phases, and the end."""
    network = Network()
    print("starting three nodes in three zones ...", flush=True)
    async with running(directory, network) as nodes, AsyncExitStack() as clients:
        queues = {}
        for node in nodes:
            client = await clients.enter_async_context(_client(node, nodes, network))
            queues[node.zone] = client.queue("jobs")
        board = Board(time.monotonic)
        producers = [Producer(queue, zone, board) for zone, queue in queues.items()]
        tasks = [asyncio.create_task(one.make()) for one in producers]
        tasks += [asyncio.create_task(one.send()) for one in producers]
        tasks += [
            asyncio.create_task(work(queue, zone, f"{zone}{number}", board))
            for zone, queue in queues.items()
            for number in range(1, WORKERS + 1)
        ]
        try:
            cut = await _phases(network, board, producers, seconds)
            await _drained(board, producers)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        stats = await queues[CUT_ZONE].stats(consistency="linearizable")
    return Result(board, cut, _totals(board, producers, stats.messages.ready))


def _client(node: Node, nodes: Sequence[Node], network: Network) -> AsyncRaftq:
    """A client that is in a node's zone."""
    zones = {one.api_port: one.zone for one in nodes}
    transport = ZoneTransport(network, node.zone, zones)
    return AsyncRaftq(
        node.api_url, zone=node.zone, timeout=CALL_TIMEOUT_S, try_timeout=2.0, transport=transport
    )


async def _phases(
    network: Network, board: Board, producers: Sequence[Producer], seconds: float
) -> Cut:
    normal_s, cut_s, healed_s = (share * seconds for share in SHARES)
    await _watch("normal", normal_s, board, producers)
    network.cut(CUT_ZONE)
    began_s = board.seconds
    await _watch(f"{CUT_ZONE} is cut off", began_s + cut_s, board, producers)
    network.heal()
    ended_s = board.seconds
    await _watch("healed", ended_s + healed_s, board, producers)
    for producer in producers:
        producer.stopped = True
    return Cut(CUT_ZONE, began_s, ended_s)


async def _watch(phase: str, until_s: float, board: Board, producers: Sequence[Producer]) -> None:
    """Say every second what was done."""
    while (left_s := until_s - board.seconds) > 0:
        second = int(board.seconds)
        await asyncio.sleep(min(left_s, second + 1 - board.seconds))
        if int(board.seconds) == second:
            continue
        said = []
        for zone, producer in zip(ZONES, producers, strict=True):
            local = board.done[Done(second, zone, True)]
            elsewhere = board.done[Done(second, zone, False)]
            said.append(f"{zone}: {local:3} own {elsewhere:3} others {producer.waiting:4} unsent")
        print(f"{second:3} s  {phase:13} {'  |  '.join(said)}", flush=True)


async def _drained(board: Board, producers: Sequence[Producer]) -> None:
    """Until all is put and worked on, or for long enough."""
    end_s = board.seconds + DRAIN_S
    while board.seconds < end_s:
        if not board.missing and not any(producer.waiting for producer in producers):
            return
        await asyncio.sleep(0.1)


def _totals(board: Board, producers: Sequence[Producer], left: int) -> dict[str, float]:
    made = sum(producer.made for producer in producers)
    return {
        "made": made,
        "put": len(board.put),
        "processed": len(board.worked),
        "lost": board.missing,
        "never put": made - len(board.put),
        "worked on twice": sum(board.worked.values()) - len(board.worked),
        "puts repeated": board.put_twice,
        "left in the queue": left,
    }


if __name__ == "__main__":
    raise SystemExit(main())
