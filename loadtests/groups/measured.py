"""What the model is calibrated by, of real nodes here.

Three nodes and the client on this machine, as in ``make bench``: how much of a load comes to
an entry, what CPU the leader and the followers take; how syncs of several files hold each
other up; and how long a node whose disk was lost takes to be whole again.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import mean, median

from cluster import Cluster, Node
from loadtests.bench import exchanges, machine
from loadtests.bench.client import Exchange, Load, saying
from loadtests.bench.exchanges import Lifecycles, Puts
from loadtests.bench.plan import BODY_BYTES, PLANS, PUT
from loadtests.bench.records import Record, of_kind
from loadtests.bench.service import PATIENT, READY_S, run_measured, run_out
from loadtests.groups.costs import REAL_SEVERAL_US, REALITY, Real, Shape

PLAN = PLANS["full"]._replace(warmup_s=0.5, measure_s=2.0)
SYNC_FILES = (1, 2, 4, 8, 16)
SYNC_BYTES = 16 << 10
SYNC_FILE_BYTES = 4 << 20
SYNC_S = 1.0
RECOVER_S = 300.0
SEVERAL = tuple(REAL_SEVERAL_US)
SEVERAL_CLIENTS = 64
QUEUE = "groups"
CELL = "measured_cell"
"""The kind of records that ``reality`` is made of."""

_COUNTED = re.compile(
    r"^raftq_(entries_appended_total|entries_committed_total|commands_committed_total|"
    r"fsync_seconds_count|fsync_seconds_sum) (\S+)$",
    re.MULTILINE,
)


def records(directory: Path, repetitions: int, messages: int) -> Iterator[Record]:
    """All of it; ``messages`` of 1 KiB are on the disk that is lost."""
    yield from syncs(directory)
    with Cluster(directory / "cluster", settings=PATIENT) as cluster:
        cluster.start().wait_ready(deadline_s=READY_S)
        for repetition in range(repetitions):
            for real in REALITY:
                yield {**_cell(cluster, real.shape), "repetition": repetition}
        yield lost_disk(cluster, messages)
    yield from several(directory, repetitions)


def several(directory: Path, repetitions: int) -> Iterator[Record]:
    """Clusters beside each other with a part of the clients each: as groups in own processes."""
    with ExitStack() as stack:
        clusters = [
            stack.enter_context(Cluster(directory / f"several-{number}", settings=PATIENT))
            for number in range(max(SEVERAL))
        ]
        for cluster in clusters:
            cluster.start().wait_ready(deadline_s=READY_S)
        for repetition in range(repetitions):
            for groups in SEVERAL if repetition % 2 == 0 else SEVERAL[::-1]:
                record = {"kind": "measured_several", "groups": groups, "repetition": repetition}
                yield {**record, **_beside(clusters[:groups])}


def reality(kept: Sequence[Record]) -> list[Real]:
    """The medians of what was measured, for the model to be compared with."""
    found: list[Real] = []
    for real in REALITY:
        shape = real.shape._asdict()
        own = [one for one in of_kind(kept, CELL) if shape.items() <= one.items()]
        figures = ("messages_per_s", "node_us", "commands_per_entry")
        found.append(Real(real.shape, *(median(one[name] for one in own) for name in figures)))
    return found


def syncs(directory: Path) -> Iterator[Record]:
    """Appends to several files, each with its own fdatasync, from as many threads."""
    for files in SYNC_FILES:
        latencies_s: list[float] = []
        until_s = time.perf_counter() + SYNC_S
        threads = [
            threading.Thread(
                target=_sync_loop, args=(directory / f"synced-{number}", until_s, latencies_s)
            )
            for number in range(files)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        yield {
            "kind": "measured_syncs",
            "files": files,
            "append_bytes": SYNC_BYTES,
            "syncs_per_s": round(len(latencies_s) / SYNC_S, 1),
            "mean_us": round(mean(latencies_s) * 1e6, 1),
        }


def lost_disk(cluster: Cluster, messages: int) -> Record:
    """From the start of a node without its directory until it has everything."""
    run_out(lambda: Load([cluster.follower().api_port], 8, saying(lambda: _filling(messages // 8))))
    lost = cluster.follower()
    cluster.kill(lost.name)
    cluster.wipe(lost.name)
    began_s = time.monotonic()
    cluster.start(lost.name)
    cluster.wait_ready(lost.name, deadline_s=RECOVER_S)
    cluster.wait_member(lost.name, deadline_s=RECOVER_S)
    cluster.wait_converged(deadline_s=RECOVER_S)
    seconds = time.monotonic() - began_s
    mib = messages * BODY_BYTES / machine.MIB
    return {"kind": "measured_lost_disk", "mib": mib, "seconds": round(seconds, 2)}


def _sync_loop(path: Path, until_s: float, latencies_s: list[float]) -> None:
    data = b"x" * SYNC_BYTES
    file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        for offset in range(0, SYNC_FILE_BYTES, SYNC_BYTES):
            os.pwrite(file, data, offset)
        os.fsync(file)
        offset = 0
        while (began_s := time.perf_counter()) < until_s:
            os.pwrite(file, data, offset)
            os.fdatasync(file)
            latencies_s.append(time.perf_counter() - began_s)
            offset = (offset + SYNC_BYTES) % SYNC_FILE_BYTES
    finally:
        os.close(file)
        path.unlink()


def _filling(messages: int) -> Exchange:
    return Puts(QUEUE, 1_000, BODY_BYTES, messages // 1_000)


def _cell(cluster: Cluster, shape: Shape) -> Record:
    nodes = sorted(cluster, key=lambda node: node is not cluster.wait_leader())
    marks: list[list[float]] = []

    def servers_cpu_s() -> float:
        marks.append([machine.cpu_s(node.pid) for node in nodes])
        return sum(marks[-1])

    def make() -> Exchange:
        kind = Puts if shape.scenario == PUT else Lifecycles
        return kind(QUEUE, shape.batch, BODY_BYTES)

    ports = [node.api_port for node in cluster]
    before = _counts(nodes[0])
    figures = run_measured(lambda: Load(ports, shape.clients, saying(make)), PLAN, servers_cpu_s)
    after = _counts(nodes[0])
    counted = {name: after[name] - before[name] for name in after}
    spent_s = [end - begin for begin, end in zip(*marks, strict=True)]
    _forget(nodes[1])
    entries = max(counted["entries_committed_total"], 1.0)
    return {
        "kind": CELL,
        **shape._asdict(),
        "messages_per_s": figures["messages_per_s"],
        "p50_ms": figures["p50_ms"],
        "p99_ms": figures["p99_ms"],
        "client_us": round(figures["client_cpu_s_per_10k"] * 100, 1),
        "node_us": round(figures["server_cpu_s_per_10k"] * 100, 1),
        "leader_share": round(spent_s[0] / max(sum(spent_s), 1e-9), 3),
        "commands_per_entry": round(counted["commands_committed_total"] / entries, 2),
        "sync_us": round(
            counted["fsync_seconds_sum"] / max(counted["fsync_seconds_count"], 1) * 1e6, 1
        ),
    }


def _beside(clusters: Sequence[Cluster]) -> Record:
    nodes = [node for cluster in clusters for node in cluster]
    figures = run_measured(
        lambda: Load(
            [node.api_port for node in nodes],
            SEVERAL_CLIENTS,
            saying(lambda: Puts(QUEUE, 1, BODY_BYTES)),
        ),
        PLAN,
        lambda: machine.total_cpu_s(node.pid for node in nodes),
    )
    for cluster in clusters:
        _forget(cluster.follower())
    return {
        "clients": SEVERAL_CLIENTS,
        "messages_per_s": figures["messages_per_s"],
        "node_us": round(figures["server_cpu_s_per_10k"] * 100, 1),
    }


def _forget(node: Node) -> None:
    answer = node.request("DELETE", exchanges.queue_path(QUEUE), timeout_s=READY_S)
    assert answer.status in (200, 204), answer


def _counts(node: Node) -> dict[str, float]:
    page = node.request("GET", "/metrics").body.decode()
    return {name: float(value) for name, value in _COUNTED.findall(page)}
