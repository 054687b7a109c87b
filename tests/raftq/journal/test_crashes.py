"""Histories with crashes anywhere: what was durable stays, nothing else is made up."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from raftq.journal import Journal, SyncWork
from simulation.disk import FaultyDisk, PowerLoss

DIRECTORY = "/data/log"
SEGMENT_BYTES = 2048
State = tuple[int, int, tuple[tuple[bytes, int], ...]]  # Base, its term, the entries after it.


class History:
    """A journal, and beside it every state that a crash may leave."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.disk = FaultyDisk(seed + 1)
        self.disk.power_fails_after = self.chance.choice([None, 1, 2, 3, 5, 8])
        self.written = 0
        self.compacted = 0
        self.work: SyncWork | None = None
        self.work_mark = 0
        self.cuts = 0
        self.states: list[State] = [(0, 0, ())]  # Since what is surely durable, oldest first.
        self.journal = self.reopen()

    def reopen(self) -> Journal:
        """Open, with more crashes in the middle of it, until it succeeds."""
        while True:
            try:
                journal = Journal.open(
                    self.disk, DIRECTORY, segment_bytes=SEGMENT_BYTES, cache_bytes=600
                )
                break
            except PowerLoss:
                self.disk.crash()
                self.disk.power_fails_after = self.chance.choice([None, None, 1, 3, 7])
        self.work = None
        self.cuts += journal.recovery is not None
        self.journal = journal
        self.check_recovered()
        self.states = [self.state()]
        self.compacted = max(self.compacted, journal.base_index)  # A reset got through.
        self.disk.power_fails_after = self.chance.choice([None, 3, 20, 60])
        return journal

    def state(self) -> State:
        journal = self.journal
        first, last = journal.base_index + 1, journal.last_index
        entries = journal.slice(first, last) if first <= last else []
        assert [entry.index for entry in entries] == list(range(first, last + 1))
        assert [journal.term_at(entry.index) for entry in entries] == [e.term for e in entries]
        return journal.base_index, journal.base_term, tuple((e.payload, e.term) for e in entries)

    def check_recovered(self) -> None:
        assert self.journal.durable_index == self.journal.last_index
        found = self.state()
        assert any(self.agrees(found, state) for state in self.states), (found, self.states)

    def agrees(self, found: State, state: State) -> bool:
        """Whether ``found`` is ``state``, but for what compaction may have taken from either."""
        base, base_term, entries = state
        found_base, found_term, found_entries = found
        if found_base == base and found_term == base_term:
            return found_entries == entries
        if found_base < base:  # The deletion of a segment was itself lost.
            rest = found_entries[base - found_base :]
            at_base = found_entries[base - found_base - 1 : base - found_base]
            return rest == entries and [term for _, term in at_base] == [base_term]
        if found_base > self.compacted or found_base - base > len(entries):
            return False
        return found_entries == entries[found_base - base :]

    def step(self) -> None:
        names = [self.append] * 8 + [self.sync] * 4 + [self.truncate, self.compact, self.seal]
        rare: list[Callable[[], None]] = [self.prepare, self.kill]
        rare += [self.reset] if self.chance.random() < 0.2 else []
        try:
            self.chance.choice([*names, *rare])()
            self.states.append(self.state())
        except PowerLoss:
            self.disk.crash()
            self.reopen()

    def append(self) -> None:
        journal = self.journal
        for _ in range(self.chance.choice([1, 1, 3])):
            self.written += 1
            payload = b"%d:" % self.written + b"x" * self.chance.choice([0, 20, 400, 1900, 2500])
            term = journal.last_term + (self.chance.random() < 0.1)
            index = journal.last_index + 1
            base, base_term, entries = self.states[-1]
            # Listed first: a crash within the write may leave the record whole.
            self.states.append((base, base_term, (*entries, (payload, term))))
            journal.append(payload, index, term)

    def truncate(self) -> None:
        journal = self.journal
        if journal.last_index > journal.base_index:
            index = self.chance.randint(journal.base_index + 1, journal.last_index)
            base, base_term, entries = self.states[-1]
            self.states.append((base, base_term, entries[: index - 1 - base]))
            journal.truncate_from(index)

    def sync(self) -> None:
        """Begin a sync or end the one in flight; it runs at either end of what is between."""
        if self.work is None:
            self.work_mark = len(self.states) - 1
            self.work = self.journal.begin_sync()
            if self.work is not None and self.chance.random() < 0.5:
                self.work.run()
            return
        if not self.work.done:
            self.work.run()
        self.journal.end_sync(self.work)
        self.work = None
        del self.states[: self.work_mark]

    def compact(self) -> None:
        target = self.chance.randint(0, self.journal.last_index)
        self.compacted = max(self.compacted, min(target, self.journal.durable_index))
        for _ in self.journal.compact_to(target):
            pass
        assert self.journal.base_index <= self.compacted

    def seal(self) -> None:
        self.journal.seal()

    def prepare(self) -> None:
        work = self.journal.prepare()
        if work is not None:
            work()
            assert self.journal.prepare() is None

    def reset(self) -> None:
        index = self.chance.randint(0, self.journal.last_index + 5)
        term = self.journal.last_term + self.chance.randint(0, 1)
        self.states.append((index, term, ()))
        self.journal.reset(index, term)
        self.states = [(index, term, ())]
        self.compacted = index
        self.work_mark = 0

    def kill(self) -> None:
        self.disk.kill()
        self.states = [self.states[-1]]
        self.reopen()


@pytest.mark.parametrize("seed", range(300))
def test_what_was_durable_survives_and_nothing_is_made_up(seed: int) -> None:
    history = History(seed)
    for _ in range(60):
        history.step()
    history.disk.crash()
    history.reopen()


def test_the_histories_reach_what_they_are_meant_to_test() -> None:
    histories = [History(seed) for seed in range(20)]
    for history in histories:
        for _ in range(60):
            history.step()
    assert sum(history.cuts for history in histories) >= 5
    assert sum(len(history.journal.segments()) > 2 for history in histories) >= 3
    assert sum(history.compacted > 0 for history in histories) >= 10
