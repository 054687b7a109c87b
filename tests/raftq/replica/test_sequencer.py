"""Batches become entries: in order, as they came, a few at a time, and only on a leader."""

from __future__ import annotations

import pytest

from fake_runtime import FakeRuntime, QuietMeter
from raftq.replica import gathering, sequencer
from raftq.replica.sequencer import Sequencer
from raftq.replica.stamps import Stamps
from statemachine import commands
from statemachine.commands import ENTRY_VERSION, Barrier, Batch, Entry, Purge, Sweep

TERM = 3
ENTRY_BYTES_MAX = 1_000


def batch(seq: int, size: int = 0) -> Batch:
    return Batch(session=1, seq=seq, floor=1, commands=(Purge("a", "q" * size),))


def sized(seq: int, size_bytes: int) -> Batch:
    """A batch of so many bytes in all."""
    one = batch(seq, size_bytes)
    return batch(seq, 2 * size_bytes - len(commands.encode(one)))


class Leader:
    """The consensus of a leader, as far as a sequencer knows it."""

    def __init__(self, in_flight_max: int = 2) -> None:
        self.runtime = FakeRuntime()
        self.meter = QuietMeter()
        self.is_leader = self.is_durable = True
        self.term = TERM
        self.commit_index = self.last_index = 10
        self.payloads: list[bytes] = []
        self.woken = 0
        self.stamps = Stamps(self.runtime)
        self.sequencer = Sequencer(
            self,  # type: ignore[arg-type]  # The six things of a Consensus that it uses.
            self.runtime,
            self.stamps,
            self.wake,
            entry_bytes_max=ENTRY_BYTES_MAX,
            entries_in_flight_max=in_flight_max,
            meter=self.meter,
        )

    def wake(self) -> None:
        self.woken += 1

    def propose(self, payload: bytes) -> int:
        self.payloads.append(payload)
        self.last_index += 1
        return self.last_index

    def add(self, *batches: Batch) -> None:
        for one in batches:
            assert self.sequencer.add(one, commands.encode(one), len(one.commands))

    def commit(self) -> None:
        """All that is gathered, however many entries it takes."""
        for _ in range(9):
            self.sequencer.pump()
            self.commit_index = self.last_index
            self.runtime.pass_time(gathering.WAIT_MAX_S)

    @property
    def entries(self) -> list[Entry]:
        return [commands.decode_entry(payload) for payload in self.payloads]

    @property
    def stamped(self) -> list[int]:
        return [entry.stamp_ms for entry in self.entries]

    @property
    def seqs(self) -> list[list[int]]:
        return [[one.seq for one in entry.batches] for entry in self.entries]


def test_batches_are_joined_as_they_came_and_the_entry_reads_as_if_encoded_whole() -> None:
    leader = Leader()
    leader.add(batch(1), batch(2), batch(3))
    assert leader.woken == 3
    assert leader.payloads == []
    leader.sequencer.pump()
    entry = Entry(ENTRY_VERSION, leader.runtime.wall, (batch(1), batch(2), batch(3)))
    assert leader.payloads == [commands.encode(entry)]
    assert leader.meter.batches_appended == [(3, len(leader.payloads[0]))]


def test_only_so_many_entries_are_in_flight_and_what_comes_meanwhile_is_the_next() -> None:
    leader = Leader(in_flight_max=2)
    for seq in (1, 2, 3, 4):
        leader.add(batch(seq))
        leader.sequencer.pump()
    assert leader.seqs == [[1], [2]]
    leader.commit_index += 1
    leader.sequencer.pump()
    assert leader.seqs == [[1], [2], [3, 4]]


def test_an_entry_fills_while_the_disk_has_the_one_before() -> None:
    leader = Leader()
    leader.add(batch(1))
    leader.sequencer.pump()
    leader.is_durable = False
    for seq in (2, 3):
        leader.add(batch(seq))
        leader.sequencer.pump()
    assert leader.seqs == [[1]]
    leader.is_durable = True
    woken = leader.woken
    leader.sequencer.synced()
    assert leader.woken == woken + 1
    leader.sequencer.pump()
    assert leader.seqs == [[1], [2, 3]]
    leader.sequencer.synced()  # With nothing to append there is nothing to do.
    assert leader.woken == woken + 1


def two_under_way() -> Leader:
    """Two commands, in one entry that is not committed."""
    leader = Leader(in_flight_max=9)
    leader.add(batch(1), batch(2))
    leader.sequencer.pump()
    return leader


def test_a_small_entry_waits_for_those_who_are_about_to_ask_again() -> None:
    leader = two_under_way()
    leader.commit_index = leader.last_index
    leader.add(batch(3))
    leader.sequencer.pump()
    assert leader.seqs == [[1, 2]]
    leader.add(batch(4))
    leader.sequencer.pump()
    assert leader.seqs == [[1, 2], [3, 4]]


def test_it_waits_for_requests_however_many_commands_each_of_them_is() -> None:
    leader = Leader()
    assert leader.sequencer.add(batch(1), commands.encode(batch(1)), 3)
    leader.sequencer.pump()
    leader.commit_index = leader.last_index
    for seq in (2, 3, 4):
        leader.sequencer.pump()
        assert leader.seqs == [[1]]
        leader.add(batch(seq))
    leader.sequencer.pump()
    assert leader.seqs == [[1], [2, 3, 4]]


def test_it_waits_for_a_moment_only_and_the_leader_is_woken_then() -> None:
    leader = two_under_way()
    leader.add(batch(3))
    leader.sequencer.pump()
    leader.sequencer.pump()
    woken = leader.woken
    leader.runtime.pass_time(gathering.WAIT_MAX_S)
    assert leader.woken == woken + 1
    leader.sequencer.pump()
    assert leader.seqs == [[1, 2], [3]]
    leader.runtime.pass_time(1)
    assert leader.woken == woken + 1


def test_a_commit_is_timed_though_nothing_is_there_to_append() -> None:
    leader = two_under_way()
    leader.runtime.pass_time(0.001)
    leader.commit_index = leader.last_index
    leader.sequencer.pump()
    leader.runtime.pass_time(1)
    leader.add(batch(3))
    leader.sequencer.pump()
    woken = leader.woken
    leader.runtime.pass_time(0.0025)
    assert leader.woken == woken + 1


def test_large_batches_wait_for_nobody() -> None:
    leader = two_under_way()
    leader.add(batch(3, gathering.ENOUGH_BYTES))
    leader.sequencer.pump()
    assert leader.seqs == [[1, 2], [3]]


def test_who_leads_again_waits_for_nobody_of_before() -> None:
    leader = two_under_way()
    leader.sequencer.clear()
    leader.add(batch(3))
    leader.sequencer.pump()
    assert leader.seqs == [[1, 2], [3]]


ENTRIES = [
    # (the bytes of each batch, which of them share an entry)
    ("all fit exactly", [300, 300, 400], [[1, 2, 3]]),
    ("one byte too many", [300, 300, 401], [[1, 2], [3]]),
    ("two of three thirds", [667] * 3, [[1], [2], [3]]),
    ("a half goes with a half", [500] * 5, [[1, 2], [3, 4], [5]]),
    ("one alone may be larger", [5_000, 100, 100], [[1], [2, 3]]),
    ("a large one does not go along", [100, 5_000, 100], [[1], [2], [3]]),
    ("nor one that would fit alone", [100, 1_000, 100], [[1], [2], [3]]),
]


@pytest.mark.parametrize(("sizes", "shared"), [e[1:] for e in ENTRIES], ids=[e[0] for e in ENTRIES])
def test_an_entry_is_never_larger_than_it_may_be_unless_by_a_single_batch(
    sizes: list[int], shared: list[list[int]]
) -> None:
    leader = Leader(in_flight_max=9)
    leader.add(*[sized(seq, size) for seq, size in enumerate(sizes, 1)])
    leader.commit()
    assert leader.seqs == shared


def test_a_full_queue_refuses_until_its_bytes_are_appended(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(commands.encode(batch(1)))
    monkeypatch.setattr(sequencer, "QUEUE_BYTES_MAX", 2 * size)
    leader = Leader()
    leader.add(batch(1), batch(2))
    assert not leader.sequencer.add(batch(3), commands.encode(batch(3)), 1)
    assert leader.woken == 2
    leader.sequencer.pump()
    leader.add(batch(3), batch(4))
    leader.sequencer.clear()
    leader.add(batch(5), batch(6))
    leader.commit()
    assert leader.seqs == [[1, 2], [5, 6]]


def test_nothing_is_appended_while_it_is_held_or_by_who_does_not_lead() -> None:
    leader = Leader()
    leader.add(batch(1))
    leader.sequencer.hold(True)
    leader.sequencer.pump()
    leader.sequencer.hold(False)
    leader.is_leader = False
    leader.sequencer.pump()
    assert leader.payloads == []
    leader.is_leader = True
    leader.sequencer.pump()
    assert leader.seqs == [[1]]


def test_what_is_for_some_log_time_comes_in_no_entry_that_says_less() -> None:
    leader = Leader()
    now_ms = leader.stamps.now_ms()
    assert leader.sequencer.propose_own(Sweep(5), now_ms=now_ms)
    # A first entry of before is applied, and log time goes on from that.
    leader.stamps.observe(now_ms - 3, live=True)
    assert leader.stamps.now_ms() < now_ms
    leader.sequencer.pump()
    assert leader.stamped == [now_ms]


def test_time_for_what_was_dropped_is_forgotten() -> None:
    leader = Leader()
    now_ms = leader.stamps.now_ms()
    assert leader.sequencer.propose_own(Sweep(5), now_ms=now_ms + 60_000)
    leader.sequencer.clear()
    leader.add(batch(1))
    leader.sequencer.pump()
    assert leader.stamped == [now_ms]


def test_housekeeping_goes_the_same_way_but_only_on_a_leader() -> None:
    leader = Leader()
    assert leader.sequencer.propose_own(Sweep(5))
    leader.add(batch(1))
    leader.is_leader = False
    assert not leader.sequencer.propose_own(Barrier())
    leader.is_leader = True
    leader.sequencer.pump()
    own = Batch(session=0, seq=0, floor=0, commands=(Sweep(5),))
    assert [entry.batches for entry in leader.entries] == [(own, batch(1))]


def test_what_it_wrote_is_taken_once_under_its_index_and_term() -> None:
    leader = Leader()
    leader.add(batch(1))
    leader.sequencer.pump()
    index = leader.last_index
    assert leader.sequencer.take(index, TERM + 1) is None
    assert leader.sequencer.take(index + 1, TERM) is None
    assert leader.sequencer.take(index, TERM) == leader.entries[0]
    assert leader.sequencer.take(index, TERM) is None


def test_who_lost_the_lead_forgets_what_was_queued_and_what_was_written() -> None:
    leader = Leader()
    leader.add(batch(1))
    leader.sequencer.pump()
    leader.add(batch(2))
    leader.sequencer.clear()
    leader.sequencer.pump()
    assert leader.seqs == [[1]]
    assert leader.sequencer.take(leader.last_index, TERM) is None


def test_stamps_are_of_the_moment_of_appending_and_never_run_backwards() -> None:
    leader = Leader(in_flight_max=9)
    began_ms = leader.runtime.wall
    leader.add(batch(1))
    leader.runtime.pass_time(5)
    leader.sequencer.pump()
    leader.runtime.wall -= 3_600_000
    leader.add(batch(2))
    leader.sequencer.pump()
    assert [entry.stamp_ms for entry in leader.entries] == [began_ms + 5_000] * 2
