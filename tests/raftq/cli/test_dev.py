"""``raftq dev`` as a process, with stand-ins for the nodes: what it starts, says and ends."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import pytest

from raftq.cli import devfiles, session
from raftq.cli.devfiles import DevNode
from raftq.cli.failure import Exit, Failure

WITHIN_S = 60.0

# Python imports this before anything else; it takes the place of the node and its engines.
STAND_IN = """
import asyncio, os, signal, sys, types

async def serve(config):
    async def answer(reader, writer):
        await reader.readuntil(b"\\r\\n\\r\\n")
        writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 0\\r\\n\\r\\n")
        await writer.drain()
        writer.close()
    host, port = config.node.api_listen.split(":")
    server = await asyncio.start_server(answer, host, int(port))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print("pid", os.getpid(), "zone", config.node.zone, flush=True)
    await stop.wait()
    server.close()
    print("stopped in order", flush=True)

def run(config, *, bootstrap):
    if os.environ.get("STAND_IN_DIES"):
        return 78
    asyncio.run(serve(config))
    return 0

sys.modules["raftq.node"] = types.ModuleType("raftq.node")
sys.modules["raftq.node"].run = run
"""


class Dev:
    """The process and what it said."""

    def __init__(
        self, directory: Path, cluster: list[DevNode], *options: str, **environment: str
    ) -> None:
        (directory / "sitecustomize.py").write_text(STAND_IN)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "raftq", "dev"),
                *("--data", str(directory / "data"), "--base-port", str(cluster[0].api_port)),
                *options,
            ],
            env={**os.environ, "PYTHONPATH": str(directory), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._limit = Timer(WITHIN_S, self.process.kill)
        self._limit.start()
        self.lines: list[str] = []

    def until(self, part: str) -> str:
        """Read up to a line with this in it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if part in line:
                return line
        raise AssertionError(f"{part!r} was never said:\n" + "\n".join(self.lines))

    def end(self) -> int:
        """Read the rest; the exit code."""
        assert self.process.stdout is not None
        self.lines += self.process.stdout.read().splitlines()
        return self.process.wait()

    def close(self) -> None:
        self.process.terminate()
        self.end()
        self._limit.cancel()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def pids(self) -> dict[str, int]:
        """The last one of each node."""
        said = [line.split() for line in self.lines if " | pid " in line]
        return {words[0]: int(words[3]) for words in said}


@pytest.fixture
def cluster() -> list[DevNode]:
    """Six free ports; found by trying, as others on this machine take ports too."""
    for _ in range(100):
        found = devfiles.nodes(random.randrange(20_000, 30_000))
        try:
            devfiles.check_ports(found)
        except Failure:
            continue
        return found
    raise AssertionError("no free ports")


@pytest.fixture
def dev(tmp_path: Path, cluster: list[DevNode]) -> Iterator[Dev]:
    running = Dev(tmp_path, cluster)
    yield running
    running.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_the_session_when_all_serve_and_a_signal_ends_all(
    number: signal.Signals, dev: Dev, cluster: list[DevNode]
) -> None:
    dev.until("who is in the cluster")
    dev.process.send_signal(number)
    assert dev.end() == Exit.DONE
    text = "\n".join(dev.lines)
    assert session.text([node.api_url for node in cluster]) in f"{text}\n"
    pids = dev.pids()
    assert pids.keys() == {"n1", "n2", "n3"}
    for node in cluster:
        assert f"{node.name} | pid {pids[node.name]} zone {node.zone}" in dev.lines
        assert f"{node.name} | stopped in order" in dev.lines
    assert not any(alive(pid) for pid in pids.values())


def test_with_keys_it_prints_a_session_with_the_operators(
    tmp_path: Path, cluster: list[DevNode]
) -> None:
    dev = Dev(tmp_path, cluster, "--keys")
    try:
        dev.until("who is in the cluster")
        dev.process.terminate()
        assert dev.end() == Exit.DONE
    finally:
        dev.close()
    text = "\n".join(dev.lines)
    key = devfiles.key(tmp_path / "data")
    assert session.text([node.api_url for node in cluster], key) in f"{text}\n"
    assert "No keys are asked for" not in text


def test_without_keys_it_says_so_in_one_line(dev: Dev) -> None:
    assert dev.until("No keys are asked for").endswith("(--keys: ask).\n")


def test_a_node_that_dies_is_reported_and_started_again(dev: Dev) -> None:
    dev.until("who is in the cluster")
    first = dev.pids()["n2"]
    os.kill(first, signal.SIGKILL)
    dev.until("n2 | was ended by SIGKILL; starting it again")
    dev.until("n2 | pid")
    assert dev.pids()["n2"] != first


def test_nodes_that_cannot_start_end_it_with_an_error(
    tmp_path: Path, cluster: list[DevNode]
) -> None:
    dev = Dev(tmp_path, cluster, STAND_IN_DIES="1")
    try:
        assert dev.end() == Exit.FAILED
        assert sum("exited with code 78 3 times in a row" in line for line in dev.lines) == 3
    finally:
        dev.close()


def test_settings_of_one_node_do_not_reach_all_three(
    tmp_path: Path, cluster: list[DevNode]
) -> None:
    dev = Dev(tmp_path, cluster, RAFTQ_NODE__NAME="n9", RAFTQ_CLUSTER__NAME="x")
    try:
        dev.until("who is in the cluster")
    finally:
        dev.close()
