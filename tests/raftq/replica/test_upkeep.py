"""The node's own timers on its storage."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from fake_runtime import FakeRuntime
from raftq.config.schema import StorageConfig
from raftq.journal import Journal
from raftq.replica.storekeeper import StoreKeeper
from raftq.replica.upkeep import STEP_S, Upkeep
from simulation.disk import FaultyDisk

FLUSH_S = 2.0
SEGMENT_BYTES = 4096


class Node:
    """A journal of many segments, and a store that has applied all of it."""

    def __init__(self, entries: int) -> None:
        self.runtime = FakeRuntime()
        self.journal = Journal.open(FaultyDisk(), "/log", segment_bytes=SEGMENT_BYTES)
        self.advanced: list[int] = []
        self.flushed = 0
        self.held_from: int | None = None
        for _ in range(entries):
            self.append()
        self.sync()
        self.upkeep = Upkeep(
            StorageConfig(flush_interval_ms=int(FLUSH_S * 1000), journal_keep_bytes=SEGMENT_BYTES),
            runtime=self.runtime,
            journal=self.journal,
            applier=cast(Any, self),
            membership=cast(Any, SimpleNamespace(advance=self.advanced.append)),
            keeper=StoreKeeper(self.runtime),
            sequencer=cast(Any, SimpleNamespace(propose_own=lambda _command: False)),
            held_from=lambda: self.held_from,
            log=cast(Any, SimpleNamespace(debug=lambda *_args, **_fields: None)),
        )
        self.upkeep.start()

    # What it uses of an ``Applier``.

    @property
    def machine(self) -> Any:
        return SimpleNamespace(applied_index=self.journal.last_index)

    @property
    def store(self) -> Any:
        return self

    def settle(self) -> None:
        """Nothing is kept back."""

    def flush(self) -> None:
        self.flushed += 1

    # What a test does.

    def append(self) -> None:
        self.journal.append(bytes(1000), self.journal.last_index + 1, 1)

    def sync(self) -> None:
        work = self.journal.begin_sync()
        assert work is not None
        work.run()
        self.journal.end_sync(work)

    def segments_after(self, seconds: float) -> int:
        self.runtime.pass_time(seconds)
        self.runtime.settle()
        return len(self.journal.segments())


def test_a_long_log_is_cut_one_segment_at_a_time() -> None:
    node = Node(40)
    before = len(node.journal.segments())
    assert before > 10
    found = [node.segments_after(FLUSH_S)]
    while found[-1] > 1:
        found.append(node.segments_after(STEP_S))
    assert found == list(range(before - 1, 0, -1))
    assert len(node.advanced) == 1


def test_the_next_flush_is_counted_from_the_end_of_the_cut() -> None:
    node = Node(40)
    node.segments_after(FLUSH_S)
    while node.segments_after(STEP_S) > 1:
        pass
    node.segments_after(STEP_S)
    assert node.flushed == 1
    node.segments_after(FLUSH_S - STEP_S)
    assert node.flushed == 1
    node.segments_after(2 * STEP_S)
    assert node.flushed == 2


def test_the_log_may_grow_and_be_begun_anew_between_two_steps() -> None:
    node = Node(40)
    before = node.segments_after(FLUSH_S)
    for _ in range(8):
        node.append()
    node.sync()
    assert node.segments_after(STEP_S) == before + 1
    node.journal.reset(100, 2)
    assert node.segments_after(10 * STEP_S) == 1
    assert node.journal.base_index == 100
    node.segments_after(FLUSH_S)
    assert node.flushed == 2


def test_what_a_snapshot_needs_is_kept() -> None:
    node = Node(40)
    node.held_from = 20
    node.segments_after(FLUSH_S)
    node.segments_after(1.0)
    assert 15 < node.journal.base_index <= 20
    node.held_from = None
    node.segments_after(FLUSH_S)
    node.segments_after(1.0)
    assert len(node.journal.segments()) == 1
