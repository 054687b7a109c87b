"""The Python client against real processes: the README's examples, and a leader that dies."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import ROOT, Cluster
from raftq.client import AsyncRaftq, Raftq

EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
MESSAGES = 1_500


@pytest.fixture(scope="module")
def shared(make_shared: Callable[..., Cluster]) -> Cluster:
    return make_shared()


@pytest.fixture
def cluster(shared: Cluster) -> Cluster:
    """All its nodes run, whatever has become of them before."""
    return shared.start().wait_ready()


def test_the_examples_of_the_readme_do_what_they_say(cluster: Cluster, tmp_path: Path) -> None:
    assert len(EXAMPLES) == 2
    said = ""
    for number, example in enumerate(EXAMPLES):
        code = example
        for port, node in zip((8001, 8002), cluster, strict=False):
            code = code.replace(f"http://127.0.0.1:{port}", node.api_url)
        script = tmp_path / f"example{number}.py"
        script.write_text(code)
        command = [sys.executable, "-W", "error", str(script)]
        run = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
        )
        assert run.returncode == 0, run.stderr
        said += run.stdout
    assert "resizing cat.jpg\n0 left\n" in said
    assert "100 durable\n" in said
    assert [f"sending to {number}" in said for number in range(100)] == [True] * 100


@pytest.mark.timeout(180)
def test_nothing_is_lost_when_the_leader_is_killed(cluster: Cluster) -> None:
    leader = cluster.wait_leader()
    seen: list[int] = []
    # In the leader's zone: it is the replica that is used.
    with Raftq(leader.api_url, zone=leader.zone, timeout=60.0) as client:
        queue = client.queue("killed")

        def work() -> None:
            for message in queue.consume(20, lease=5, wait=1):
                seen.append(message.body)
                if len(set(seen)) == MESSAGES:
                    message.ack()
                    break

        consumer = threading.Thread(target=work)
        consumer.start()
        futures = []
        with queue.producer(max_batch=20, max_pending=40) as producer:
            for number in range(MESSAGES):
                if number == MESSAGES // 3:
                    cluster.kill(leader.name)
                futures.append(producer.put(number))
        # Every put is durable, and none is there twice.
        assert len({future.result() for future in futures}) == MESSAGES
        consumer.join(120)
        assert not consumer.is_alive()
        assert set(seen) == set(range(MESSAGES))
        assert {member.node for member in client.cluster().members} == {"n1", "n2", "n3"}


def test_a_replica_that_hangs_is_left_and_nothing_is_doubled(cluster: Cluster) -> None:
    follower = cluster.follower()

    async def work() -> None:
        async with AsyncRaftq(follower.api_url, zone=follower.zone, try_timeout=1.0) as client:
            queue = client.queue("hanging")
            first = await queue.put("before")
            cluster.pause(follower.name)
            try:
                second = await queue.put("while")
                # Read your writes, at a replica that was not the one written to.
                assert [message.id for message in await queue.peek()] == [first, second]
            finally:
                cluster.resume(follower.name)

    asyncio.run(work())


def test_events_go_on_at_another_replica_when_theirs_is_killed(cluster: Cluster) -> None:
    follower = cluster.follower()
    with Raftq(follower.api_url, zone=follower.zone) as client:
        queue = client.queue("told")
        with queue.events(from_="oldest", kinds=["enqueued"]) as events:
            ids = [queue.put(number) for number in range(3)]
            seen = [next(events).messages[0].id for _ in range(3)]
            cluster.kill(follower.name)
            ids += [queue.put(number) for number in range(3)]
            seen += [next(events).messages[0].id for _ in range(3)]
        assert seen == ids


@pytest.mark.parametrize("closes", [True, False])
def test_a_program_that_fails_in_its_loop_ends(
    cluster: Cluster, tmp_path: Path, closes: bool
) -> None:
    script = tmp_path / "worker.py"
    lines = [
        "import contextlib, sys",
        "from raftq.client import Raftq",
        "client = Raftq(sys.argv[1])",
        "with client if sys.argv[2] == 'True' else contextlib.nullcontext():",
        "    queue = client.queue('failing-' + sys.argv[2])",
        "    queue.put('x')",
        "    for message in queue.consume(lease=60):",
        "        raise KeyError(message.body)",
    ]
    script.write_text("\n".join(lines))
    command = [sys.executable, "-W", "error", str(script), cluster["n1"].api_url, str(closes)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert (run.returncode, "KeyError: 'x'" in run.stderr) == (1, True), run.stderr
    with Raftq(cluster["n2"].api_url) as client:
        left = client.queue(f"failing-{closes}").stats(consistency="linearizable").messages
    # Not closed, it may still hold the message: that comes back when its lease ends.
    assert left.ready + left.claimed == 1
    assert left.ready == 1 or not closes
