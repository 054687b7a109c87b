"""How each kind of fault (``chaos_plan``) is done to a cluster on hosts, and undone.

A fault is a context manager: it says whom it hit, lasts as long as its ``with`` block, and
afterwards has taken away whatever disturbed; whoever was stopped runs again, though he may
not have caught up yet. A node that does not do what it must under a fault, such as stopping
when its disk fails, is Misbehaved.
"""

from __future__ import annotations

import contextlib
import random
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chaos_plan import Kind, Step
from cluster import NotInTime, until
from cluster_state import flip_byte, inspect_journal
from host_cluster import HostCluster, HostNode, injected
from raftq.journal.layout import HEADER_BYTES, RECORD_BYTES
from relay import Delay

LOSS_PERCENT = 20
BANDWIDTH = "1mbit"
SLOW_SYNC_US = 50_000
STEP_MS = (60_000, 600_000)
REFUSE_TIMEOUT_S = 30.0
MEMBER_TIMEOUT_S = 60.0
REFILL_S = 0.1
LOOK_S = 0.5

Inject = Callable[[HostCluster, Step, random.Random], "contextlib.AbstractContextManager[str]"]


class Misbehaved(AssertionError):
    """A node did not do what the fault asks of it."""


@contextlib.contextmanager
def fault(cluster: HostCluster, step: Step) -> Iterator[str]:
    """The step's fault, from its injection to its end; whom it hit."""
    chance = random.Random(step.seed)
    with FAULTS[step.kind](cluster, step, chance) as victim:
        yield victim


def pick(cluster: HostCluster, chance: random.Random) -> HostNode:
    return cluster[chance.choice(sorted(cluster.nodes))]


def lead(cluster: HostCluster) -> HostNode:
    return cluster[cluster.wait_leader().name]


def follow(cluster: HostCluster, chance: random.Random) -> HostNode:
    return cluster[chance.choice(cluster.others(lead(cluster).name))]


# The network.


def between(
    change: Callable[[HostCluster, str], None], whom: Callable[[HostCluster, random.Random], str]
) -> Inject:
    """A fault of the links that ``heal`` takes away."""

    @contextlib.contextmanager
    def inject(cluster: HostCluster, step: Step, chance: random.Random) -> Iterator[str]:
        victim = whom(cluster, chance)
        try:
            change(cluster, victim)
            yield victim or "all"
        finally:
            cluster.hosts.heal()

    return inject


def the_leader(cluster: HostCluster, chance: random.Random) -> str:
    return lead(cluster).name


def a_follower(cluster: HostCluster, chance: random.Random) -> str:
    return follow(cluster, chance).name


def nobody(cluster: HostCluster, chance: random.Random) -> str:
    return ""


def unhear(cluster: HostCluster, name: str) -> None:
    """Nobody hears the named one."""
    for other in cluster.others(name):
        cluster.hosts.drop(other, [name])


def deafen(cluster: HostCluster, name: str) -> None:
    """The named one hears nobody."""
    cluster.hosts.drop(name, cluster.others(name))


def cut(cluster: HostCluster, name: str) -> None:
    unhear(cluster, name)
    deafen(cluster, name)


def cut_all(cluster: HostCluster, _: str) -> None:
    for node in cluster:
        deafen(cluster, node.name)


def lose(cluster: HostCluster, _: str) -> None:
    for node in cluster:
        cluster.hosts.lose(node.name, cluster.others(node.name), LOSS_PERCENT)


def reset(cluster: HostCluster, name: str) -> None:
    cluster.hosts.reject(name, cluster.others(name))
    for other in cluster.others(name):
        cluster.hosts.reject(other, [name])


def narrow(cluster: HostCluster, name: str) -> None:
    cluster.hosts.limit(name, BANDWIDTH)


@contextlib.contextmanager
def delay(cluster: HostCluster, step: Step, chance: random.Random) -> Iterator[str]:
    """As between distant zones: each pair has its own."""
    with delayed(
        cluster,
        {
            (node.name, other): Delay(chance.uniform(0.01, 0.06), 0.01)
            for node in cluster
            for other in cluster.others(node.name)
        },
    ):
        yield "all"


@contextlib.contextmanager
def delay_one_way(cluster: HostCluster, step: Step, chance: random.Random) -> Iterator[str]:
    leader = lead(cluster).name
    slow = Delay(chance.uniform(0.1, 0.4), 0.05)
    with delayed(cluster, {(leader, other): slow for other in cluster.others(leader)}):
        yield leader


@contextlib.contextmanager
def delayed(cluster: HostCluster, delays: dict[tuple[str, str], Delay]) -> Iterator[None]:
    cluster.delay(delays)
    try:
        yield
    finally:
        cluster.delay({})


# Processes.


@contextlib.contextmanager
def kill(cluster: HostCluster, *names: str) -> Iterator[str]:
    cluster.kill(*names)
    yield " ".join(names) or "all"
    cluster.start(*names)


@contextlib.contextmanager
def pause(cluster: HostCluster, name: str) -> Iterator[str]:
    """It keeps its connections and its beliefs."""
    cluster.pause(name)
    try:
        yield name
    finally:
        cluster.resume(name)


# Disks.


@contextlib.contextmanager
def disk_full(cluster: HostCluster, step: Step, chance: random.Random) -> Iterator[str]:
    """No byte is free, and none stays free; the node may stop or get by."""
    node = pick(cluster, chance)
    over = threading.Event()

    def keep_full() -> None:
        while not over.wait(REFILL_S):
            node.host.fill_disk()

    filler = threading.Thread(target=keep_full, name="ballast")
    node.host.fill_disk()
    filler.start()
    try:
        yield node.name
    finally:
        over.set()
        filler.join()
        node.host.empty_disk()
    cluster.start(node.name)


@contextlib.contextmanager
def sync_fails(cluster: HostCluster, step: Step, chance: random.Random) -> Iterator[str]:
    """Whoever cannot know what is on his disk must not go on."""
    node = pick(cluster, chance)
    with injected(node, "error=EIO"):
        try:
            code = node.exit_code(REFUSE_TIMEOUT_S)
        except NotInTime:
            raise Misbehaved(f"{node.name} goes on though its fdatasync fails") from None
    if code == 0:
        raise Misbehaved(f"{node.name} ended with 0 though its fdatasync failed")
    yield node.name
    cluster.start(node.name)


@contextlib.contextmanager
def sync_slow(cluster: HostCluster, step: Step, chance: random.Random) -> Iterator[str]:
    node = pick(cluster, chance)
    with injected(node, f"delay_enter={SLOW_SYNC_US}"):
        yield node.name


@contextlib.contextmanager
def disk_wiped(cluster: HostCluster, step: Step, chance: random.Random) -> Iterator[str]:
    """It comes back as somebody new, and counts once it has a snapshot."""
    node = pick(cluster, chance)
    cluster.kill(node.name)
    cluster.wipe(node.name)
    yield node.name
    rejoin(cluster, node)


@contextlib.contextmanager
def bit_flipped(cluster: HostCluster, step: Step, chance: random.Random) -> Iterator[str]:
    """Whoever would have to serve from a damaged log must say where, and stay down."""
    node = pick(cluster, chance)
    until(
        lambda: bool(closed_segments(node)),
        f"{node.name} has closed a segment",
        MEMBER_TIMEOUT_S,
        poll_s=LOOK_S,
    )
    cluster.stop(node.name)
    yield node.name
    chosen = chance.choice(closed_segments(node))
    segment = Path(chosen["path"])
    # All this is written, however large the records are; behind it there may be only zeros.
    flip_byte(segment, chance.randrange(HEADER_BYTES + chosen["records"] * RECORD_BYTES))
    written = len(node.log)
    cluster.start(node.name)
    try:
        code = node.exit_code(REFUSE_TIMEOUT_S)
    except NotInTime:
        raise Misbehaved(f"{node.name} runs with a flipped bit in {segment}") from None
    said = node.log[written:]
    if code == 0 or not re.search(rf"{re.escape(str(segment))}: offset \d+", said):
        raise Misbehaved(f"{node.name} ended with {code}, not naming {segment} and an offset")
    cluster.wipe(node.name)
    rejoin(cluster, node)


def closed_segments(node: HostNode) -> list[dict[str, Any]]:
    """Those that are no longer written."""
    segments = inspect_journal(node).json()["segments"]
    return sorted(segments, key=lambda segment: segment["path"])[:-1]


def rejoin(cluster: HostCluster, node: HostNode) -> None:
    """Start a node whose disk is empty; it votes again only once it has a snapshot."""
    written = len(node.log)
    cluster.start(node.name)
    cluster.wait_member(node.name, deadline_s=MEMBER_TIMEOUT_S)
    if "snapshot installed" not in node.log[written:]:
        raise Misbehaved(f"{node.name} is a member again without a snapshot")


# Clocks.


@contextlib.contextmanager
def clocks(cluster: HostCluster, steps_ms: dict[str, int]) -> Iterator[str]:
    for name, ms in steps_ms.items():
        cluster[name].step_clock(ms)
    try:
        yield ", ".join(f"{name} by {ms / 60_000:+.1f} min" for name, ms in steps_ms.items())
    finally:
        for name in steps_ms:
            cluster[name].step_clock(0)


def some_ms(chance: random.Random) -> int:
    return chance.choice([-1, 1]) * chance.randrange(*STEP_MS)


FAULTS: dict[Kind, Inject] = {
    Kind.CUT_LEADER: between(cut, the_leader),
    Kind.CUT_FOLLOWER: between(cut, a_follower),
    Kind.CUT_ALL: between(cut_all, nobody),
    Kind.LEADER_DEAF: between(deafen, the_leader),
    Kind.LEADER_UNHEARD: between(unhear, the_leader),
    Kind.LOSS: between(lose, nobody),
    Kind.RESET: between(reset, the_leader),
    Kind.DELAY: delay,
    Kind.DELAY_ONE_WAY: delay_one_way,
    Kind.BANDWIDTH: between(narrow, the_leader),
    Kind.KILL_LEADER: lambda cluster, step, chance: kill(cluster, lead(cluster).name),
    Kind.KILL_FOLLOWER: lambda cluster, step, chance: kill(cluster, follow(cluster, chance).name),
    Kind.KILL_ALL: lambda cluster, step, chance: kill(cluster),
    Kind.PAUSE_LEADER: lambda cluster, step, chance: pause(cluster, lead(cluster).name),
    Kind.PAUSE_FOLLOWER: lambda cluster, step, chance: pause(cluster, follow(cluster, chance).name),
    Kind.DISK_FULL: disk_full,
    Kind.SYNC_FAILS: sync_fails,
    Kind.SYNC_SLOW: sync_slow,
    Kind.DISK_WIPED: disk_wiped,
    Kind.BIT_FLIPPED: bit_flipped,
    Kind.CLOCK_STEP: lambda cluster, step, chance: clocks(
        cluster, {pick(cluster, chance).name: some_ms(chance)}
    ),
    Kind.CLOCKS_APART: lambda cluster, step, chance: clocks(
        cluster, {node.name: some_ms(chance) for node in cluster}
    ),
}
