"""What is acknowledged is on the disks of two nodes of three, as the system calls tell.

The node's own word is not taken for it: each write of a body to a journal, and each sync of
that file after it, is looked up in what ``strace`` saw, with its time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

import tracing
from cluster import Cluster
from tracing import Call

PUTS = 120
AT_ONCE = 8
MAJORITY = 2


class Acknowledged(NamedTuple):
    """A put that was answered, and when that was known."""

    body: str
    at: float


@pytest.fixture
def traceable() -> None:
    if reason := tracing.unavailable():
        pytest.skip(f"nothing can be traced here: {reason}")


def put(cluster: Cluster, number: int) -> Acknowledged:
    node = list(cluster)[number % 3]
    body = f"synced-{number:05}"
    answer = node.request("POST", "/v1/shop/queues/orders/messages", {"body": body})
    at = time.time()
    assert answer.status == 201, answer
    return Acknowledged(body, at)


def put_many(cluster: Cluster, directory: Path) -> tuple[list[Acknowledged], list[list[Call]]]:
    """Puts to all nodes, several at once, and what each node did to its journal meanwhile."""
    assert put(cluster, PUTS)  # The queue is made, and each node has a session.
    outputs = [directory / node.name for node in cluster]
    with ExitStack() as stack:
        for node, output in zip(cluster, outputs, strict=True):
            stack.enter_context(tracing.writes_and_syncs(node.pid, output))
        with ThreadPoolExecutor(AT_ONCE) as clients:
            answered = list(clients.map(lambda number: put(cluster, number), range(PUTS)))
    return answered, [tracing.calls(output) for output in outputs]


def synced_at(body: str, calls: Sequence[Call]) -> float:
    """When a journal with this body in it was first known to be on disk; never: infinity."""
    for at, written in enumerate(calls):
        if "pwrite" in written.name and body in written.arguments and "journal" in written.path:
            for call in calls[at:]:
                is_sync = call.name in ("fdatasync", "fsync") and call.path == written.path
                if is_sync and call.result == 0 and call.began_at >= written.ended_at:
                    return call.ended_at
    return float("inf")


def too_early(answered: list[Acknowledged], nodes: list[list[Call]]) -> list[str]:
    """What was acknowledged before a majority had synced it."""
    return [
        one.body
        for one in answered
        if sum(synced_at(one.body, calls) <= one.at for calls in nodes) < MAJORITY
    ]


@pytest.mark.usefixtures("traceable")
def test_an_answer_comes_after_a_sync_on_two_nodes(
    make_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    answered, nodes = put_many(make_cluster(), tmp_path)
    assert too_early(answered, nodes) == []


@pytest.mark.usefixtures("traceable")
@pytest.mark.parametrize("sabotage", ["sync_nothing", "acknowledge_before_commit"])
def test_a_build_that_answers_too_early_is_found_out(
    sabotage: str, make_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    answered, nodes = put_many(make_cluster(sabotage=sabotage), tmp_path)
    assert any("pwrite" in call.name for calls in nodes for call in calls)
    assert len(too_early(answered, nodes)) == PUTS
