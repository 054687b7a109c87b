"""One bit of one node is not what was written: nothing is lost, and nothing false is answered.

What a start reads is checked by ``bit_flips.flip_kind``, field by field. Here are also the
bits that flip under a running node, and the one place where damage cannot be told from a
crash: what was synced after the last seal. It looks like a torn tail and is cut, and this node
alone has then forgotten what it vouched for, until the leader sends it again. The next write
or 50 ms of quiet close that window; it takes the loss of another disk, or the death of the
leader before it has sent again, within it, to lose anything. See the journal's DESIGN.md.
"""

from __future__ import annotations

import os

import pytest

from raftq.journal import Corruption, layout
from raftq.journal.layout import RECORD_BYTES
from raftq.replica import transfer
from raftq.replica.syncing import SEAL_AFTER_S
from raftq.stores.store import StoreCorruption
from simulation.bit_flips import (
    HARMLESS,
    KINDS,
    RECORD_FILE,
    RECORD_HEADER,
    SEEDS,
    SEGMENT_HEADER,
    Scene,
    fields,
    flip_kind,
    segments,
    unsealed_bytes,
)
from simulation.node import DATA, Node

FULL = os.environ.get("RAFTQ_SIMULATION") == "full"
BODY_BYTES = 40
RECEIVED_BYTES = 900


@pytest.mark.parametrize("seed", range(SEEDS if FULL else 1))
@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_named_or_harmless(kind: str, seed: int) -> None:
    tally = flip_kind(seed, kind, full=FULL)
    flipped = set(tally.refused) | set(tally.went_on)
    if kind.startswith("snapshot"):  # A start does not read it: another can be made any time.
        assert not tally.refused
        assert flipped <= {f"snapshot {name}" for name, _ in (*RECORD_FILE, ("payload", 0))}
    elif kind.endswith("segment"):
        assert {f"header {name}" for name, _ in SEGMENT_HEADER} <= flipped
        parts = [name for name, _ in (*RECORD_HEADER, ("payload", 0))]
        assert {f"{one}: {part}" for one in ("entry", "seal") for part in parts} <= flipped
        assert all(name.startswith(HARMLESS) for name in tally.went_on)
        assert tally.went_on["unused space"]
    else:
        assert not tally.went_on
        assert flipped == {name for name, _ in RECORD_FILE} | {"payload"}


# What was synced and not yet sealed.


def killed_unsealed(scene: Scene, victim: Node) -> int:
    """Kill the victim when something of its log is durable and unsealed; how many bytes."""
    scene.put(1, BODY_BYTES)
    world = scene.world
    world.until(lambda: unsealed_bytes(victim) > 0, 5, "something unsealed")
    size = unsealed_bytes(victim)
    victim.crash()
    return size


def unsealed_fields(victim: Node) -> list[tuple[str, str, int, int]]:
    """Path, name, and where: of all that stands behind the last seal of the log."""
    path = segments(victim.disk.files())[-1]
    return [
        (path, field.name, field.start, field.end)
        for field in fields(victim, path)
        if field.name.startswith("unsealed")
    ]


def test_an_unsealed_record_looks_torn_and_comes_back_from_the_others() -> None:
    scene = Scene(21)
    victim = scene.follower()
    cuts: dict[str, int] = {}
    for number in range(200 if FULL else 40):
        size = killed_unsealed(scene, victim)
        assert 0 < size <= 2 * (layout.SEAL_BYTES + RECORD_BYTES + BODY_BYTES + 60)
        found = unsealed_fields(victim)
        assert found
        path, name, start, end = found[number % len(found)]
        bit = start * 8 + (number * 37) % ((end - start) * 8)
        lost = victim.disk.bytes_of(path)
        assert lost
        seen = scene.restart_on(victim, path, bit)
        assert seen.refusal is None, f"{path}, bit {bit}, {name}: {seen.refusal}"
        cuts[name] = cuts.get(name, 0) + seen.cut
        scene.equal()
    assert all(cuts.values())
    assert {f"unsealed entry: {name}" for name, _ in RECORD_HEADER} <= set(cuts)
    scene.drained()


def test_quiet_closes_the_window() -> None:
    scene = Scene(22)
    scene.put(5)
    scene.world.run(0.05)
    victim = scene.follower()
    scene.put(1)
    assert victim.running.journal.durable_index
    scene.world.run(2 * SEAL_AFTER_S + 0.05)
    assert unsealed_bytes(victim) == 0
    victim.crash()
    assert not unsealed_fields(victim)
    path = segments(victim.disk.files())[-1]
    last = [field for field in fields(victim, path) if field.name == "entry: payload"][-1]
    seen = scene.restart_on(victim, path, last.start * 8)
    assert isinstance(seen.refusal, Corruption)
    scene.replace_disk(victim)
    scene.drained()


# Under a running node.


def test_a_closed_segment_read_for_a_follower_that_is_behind() -> None:
    """The leader stops and names the place; the others go on without it."""
    for ordinal in range(4):
        scene = Scene(23, journal_cache_bytes=1, journal_keep_bytes=1 << 20)
        scene.put(3)
        behind = scene.follower()
        behind.crash()
        scene.put(40)
        leader = scene.leader
        closed = segments(leader.disk.files())[:-1]
        path = closed[ordinal % len(closed)]
        entry = [field for field in fields(leader, path) if field.name == "entry: payload"][-1]
        leader.disk.flip(path, entry.start * 8 + 3 + ordinal)
        behind.start()
        scene.world.until(lambda node=leader: not node.is_up, 10, "the leader to stop")
        assert isinstance(scene.refusals[-1], Corruption)
        assert f"{path}: offset {entry.named}:" in str(scene.refusals[-1])
        scene.world.until(scene.world.settled, 20, "another leader")
        assert scene.restart_on(leader, path, 0).refusal is not None
        scene.replace_disk(leader)
        scene.drained()


def behind_the_log(scene: Scene) -> Node:
    """A node that is down and needs a snapshot."""
    scene.put(5)
    behind = scene.follower()
    last = behind.running.journal.last_index
    behind.crash()
    scene.put(60)
    scene.world.until(
        lambda: scene.leader.running.journal.base_index > last, 20, "a compacted journal"
    )
    return behind


def incoming_of(node: Node) -> list[str]:
    """Files of a snapshot that is coming in."""
    return [path for path in node.disk.files() if path.startswith(f"{DATA}/incoming/")]


def receiving(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node that has received a part of a snapshot."""
    monkeypatch.setattr(transfer, "CHUNK_BYTES", 500)
    behind = behind_the_log(scene)
    behind.start()
    fetching = behind.running._fetching
    scene.world.until(
        lambda: fetching._sink is not None and fetching._sink.position[1] > RECEIVED_BYTES,
        10,
        "a part of a snapshot",
    )
    return behind


def test_a_half_received_snapshot_is_not_trusted_after_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for bit in (0, 70, 100, 2_001, 7_199):
        scene = Scene(24, journal_keep_bytes=2_048)
        behind = receiving(scene, monkeypatch)
        behind.crash()
        (path,) = incoming_of(behind)
        assert scene.restart_on(behind, path, bit).refusal is None
        assert behind.running.snapshots_installed == 0
        scene.drained()
        assert behind.running.snapshots_installed == 1


def test_a_snapshot_that_rots_while_it_is_received_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hash is over what came; what went to the disk is looked at before the switch."""
    scene = Scene(25, journal_keep_bytes=2_048)
    behind = receiving(scene, monkeypatch)
    (path,) = incoming_of(behind)
    behind.disk.flip(path, 8 * (RECEIVED_BYTES - 100))
    scene.world.until(lambda: not behind.is_up, 10, "the node to stop")
    assert isinstance(scene.refusals[-1], StoreCorruption)
    assert path in str(scene.refusals[-1])
    behind.start()
    scene.drained()
    assert behind.running.snapshots_installed == 1


def test_a_snapshot_that_rots_while_it_is_sent_is_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(26, journal_keep_bytes=2_048)
    behind = receiving(scene, monkeypatch)
    leader = scene.world.leader()
    assert leader is not None
    (path,) = [p for p in leader.disk.files() if "/files/" in p]
    leader.disk.flip(path, 8 * len(leader.disk.bytes_of(path)) - 5)
    scene.world.until(
        lambda: behind.running.snapshots_installed == 1, 120, "another snapshot, and whole"
    )
    scene.drained()
