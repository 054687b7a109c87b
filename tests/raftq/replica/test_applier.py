"""Rounds: outcomes at once, rows together, and nothing more once one has broken off."""

from __future__ import annotations

from typing import Any

import pytest

from fake_runtime import FakeRuntime
from raftq.consensus.messages import Kind
from raftq.journal import LogEntry
from raftq.replica import applier
from raftq.replica.applier import Applier, RoundLost, UnknownKind
from raftq.stores.home import Home
from raftq.stores.store import StoreError
from simulation.disk import FaultyDisk
from statemachine import commands, queries
from statemachine.commands import ENTRY_VERSION, Batch, Enqueue, Entry, NewMessage, TakeDigest
from statemachine.outcomes import Enqueued


class Bench:
    """An applier over a store in memory; ``digested`` is where a digest was asked for."""

    def __init__(self) -> None:
        self.runtime = FakeRuntime()
        self.home = Home(FaultyDisk(seed=1), "data", "memory")
        self.applier = Applier(self.home, self.runtime, self)
        self.digested: list[tuple[int, int]] = []

    def membership_applied(self, entry: LogEntry) -> None:
        raise AssertionError

    def digest_wanted(self, index: int) -> None:
        self.digested.append((index, self.stored))

    def apply(self, *payloads: bytes) -> list[applier.Applied]:
        first = self.applier.machine.applied_index + 1
        entries = [LogEntry(payload, index, 1) for index, payload in enumerate(payloads, first)]
        return self.applier.apply(entries, lambda _index, _term: None)

    @property
    def stored(self) -> int:
        """Up to which entry the store has all."""
        return queries.applied(self.applier.store.reader())[0]


def entry(*asked: commands.Command) -> bytes:
    batch = Batch(session=0, seq=0, floor=0, commands=asked)
    return bytes((Kind.REGULAR,)) + commands.encode(Entry(ENTRY_VERSION, 1, (batch,)))


def put(size: int = 1) -> bytes:
    return entry(Enqueue("a", "q", (NewMessage(bytes(size), "text/plain"),)))


def test_outcomes_come_at_once_and_the_rows_of_many_entries_together() -> None:
    bench = Bench()
    for index in range(1, applier.ROUND_ENTRIES_MAX):
        (applied,) = bench.apply(put())
        assert isinstance(applied.result.outcomes[0], Enqueued)
        assert (bench.applier.machine.applied_index, bench.stored) == (index, 0)
    bench.apply(put())
    assert bench.stored == applier.ROUND_ENTRIES_MAX


def test_large_entries_do_not_wait_for_many() -> None:
    bench = Bench()
    bench.apply(put(applier.ROUND_BYTES_MAX // 2))
    assert bench.stored == 0
    bench.apply(put(applier.ROUND_BYTES_MAX // 2))
    assert bench.stored == 2


def test_a_round_ends_after_a_while_and_when_the_store_is_wanted() -> None:
    bench = Bench()
    bench.apply(put())
    bench.runtime.pass_time(applier.ROUND_S)
    assert bench.stored == 1
    bench.apply(put())
    bench.applier.settle()
    assert bench.stored == 2
    bench.runtime.pass_time(1)
    bench.applier.settle()
    assert bench.stored == 2


def test_a_digest_is_of_the_store_as_of_its_entry() -> None:
    bench = Bench()
    bench.apply(put(), entry(TakeDigest()), put())
    assert bench.digested == [(2, 2)]
    assert bench.stored == 2
    bench.applier.settle()
    assert bench.stored == 3


def _no_room(*_: Any) -> None:
    raise StoreError("no room")


def test_after_a_commit_that_failed_nothing_is_applied_or_given_to_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    bench.apply(put())
    with monkeypatch.context() as patch:
        patch.setattr(bench.applier.store, "commit", _no_room)
        with pytest.raises(StoreError):
            bench.applier.settle()
    with pytest.raises(RoundLost):
        bench.applier.settle()
    with pytest.raises(RoundLost):
        bench.apply(put())
    with pytest.raises(RoundLost):  # Whoever asked first need not have been heard.
        bench.runtime.pass_time(applier.ROUND_S)
    assert bench.stored == 0


def test_half_an_entry_is_never_given_to_the_store() -> None:
    bench = Bench()
    bench.apply(put())
    with pytest.raises(UnknownKind):
        bench.apply(put(), b"\x77")
    with pytest.raises(RoundLost):
        bench.applier.settle()
    assert bench.stored == 0
