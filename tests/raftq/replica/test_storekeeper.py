"""Background work on the store comes one after the other, and an error is never swallowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from fake_runtime import FakeRuntime
from raftq.replica.storekeeper import StoreKeeper, compaction_point


class Bench:
    """A keeper that writes down what runs."""

    def __init__(self) -> None:
        self.runtime = FakeRuntime()
        self.keeper = StoreKeeper(self.runtime)
        self.log: list[str] = []

    def run(self, name: str, then: Callable[[], None] | None = None) -> None:
        def work() -> str:
            self.log.append(f"{name} works")
            return name

        def done(result: str) -> None:
            self.log.append(f"{result} done")
            if then is not None:
                then()

        self.keeper.run(work, done)

    def run_on_loop(self, name: str) -> None:
        self.keeper.run_on_loop(lambda: self.log.append(f"{name} on the loop"))


def test_pieces_of_work_come_one_after_the_other() -> None:
    bench = Bench()
    bench.run("a")
    bench.run("b")
    assert len(bench.runtime.background) == 1
    bench.runtime.work()
    assert len(bench.runtime.background) == 0
    bench.runtime.finish()
    bench.runtime.settle()
    assert bench.log == ["a works", "a done", "b works", "b done"]


def test_work_on_the_loop_waits_for_the_background_and_the_background_for_it() -> None:
    bench = Bench()
    bench.run("a")
    bench.run_on_loop("switch")
    bench.run("b")
    bench.runtime.work()
    assert bench.log == ["a works"]
    bench.runtime.settle()
    assert bench.log == ["a works", "a done", "switch on the loop", "b works", "b done"]


def test_work_on_the_loop_runs_at_once_when_nothing_else_does() -> None:
    bench = Bench()
    bench.run_on_loop("switch")
    assert bench.log == ["switch on the loop"]
    assert bench.keeper.idle


def test_what_is_asked_for_at_the_end_of_a_piece_comes_after_what_waits() -> None:
    bench = Bench()
    bench.run("a", then=lambda: bench.run("c"))
    bench.run("b")
    bench.runtime.settle()
    assert bench.log == [f"{name} {what}" for name in "abc" for what in ("works", "done")]


def test_it_is_idle_only_when_nothing_runs_and_nothing_waits() -> None:
    bench = Bench()
    seen = [bench.keeper.idle]
    bench.run("a", then=lambda: seen.append(bench.keeper.idle))
    seen.append(bench.keeper.idle)
    bench.run("b")
    bench.runtime.work()
    bench.runtime.finish()
    seen.append(bench.keeper.idle)
    bench.runtime.settle()
    seen.append(bench.keeper.idle)
    assert seen == [True, False, False, False, True]


def test_an_error_is_raised_on_the_loop_and_nothing_is_called_done() -> None:
    bench = Bench()
    called: list[object] = []
    bench.keeper.run(lambda: 1 // 0, called.append)
    bench.runtime.work()
    with pytest.raises(ZeroDivisionError):
        bench.runtime.finish()
    assert called == []


class Segment(NamedTuple):
    path: str
    first_index: int
    bytes: int


class Segments:
    """A journal, as far as the compaction point depends on it."""

    def __init__(self, *firsts: int) -> None:
        self.base_index = firsts[0] - 1
        self._segments = [Segment("", first, 100) for first in firsts]

    def segments(self) -> list[Segment]:
        return self._segments


CUTS = [
    # (first indexes of segments of 100 bytes, durably applied, bytes to keep, the point)
    ("one segment: nothing can go", (1,), 50, 1, 0),
    ("the tail fits the last segment", (1, 11, 21), 50, 100, 20),
    ("one byte more needs another", (1, 11, 21), 50, 101, 10),
    ("all is to be kept", (1, 11, 21), 50, 1000, 0),
    ("all is to be kept, after a base", (8, 11, 21), 50, 1000, 7),
    ("nothing has to be kept", (1, 11, 21), 50, 0, 20),
    ("never past what is durable", (1, 11, 21), 15, 100, 15),
    ("nothing is durable", (1, 11, 21), 0, 100, 0),
]


@pytest.mark.parametrize(
    ("firsts", "durable", "keep_bytes", "point"),
    [p[1:] for p in CUTS],
    ids=[n[0] for n in CUTS],
)
def test_the_journal_is_cut_behind_the_durable_state_and_keeps_a_tail(
    firsts: tuple[int, ...], durable: int, keep_bytes: int, point: int
) -> None:
    journal = Segments(*firsts)
    # Only the segments and the base of a Journal are looked at.
    assert compaction_point(journal, durable, keep_bytes) == point  # type: ignore[arg-type]
