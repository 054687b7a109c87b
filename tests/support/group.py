"""Members of one Raft group under a virtual clock, network and disk: consensus and journal only.

Links keep order; a cut link swallows frames. ``check`` is run after every event.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from raftq.config.schema import RaftConfig
from raftq.consensus.consensus import Consensus
from raftq.consensus.guard import Intervention
from raftq.consensus.messages import Kind, RaftMessage
from raftq.journal import Journal, LogEntry, TermFile
from simulation.disk import FaultyDisk
from simulation.events import Events

SYNC_S = 0.001
HOP_S = 0.001


class Group:
    """The members, the clock, and what must always hold."""

    def __init__(self, seed: int, count: int = 3) -> None:
        self.random = random.Random(seed)
        self._events = Events()
        self.at = self._events.at
        self.cut: set[tuple[str, str]] = set()
        self.ids = [f"n{at}/x" for at in range(1, count + 1)]
        self.members = {name: Member(self, name) for name in self.ids}
        self.committed: dict[int, tuple[int, bytes]] = {}
        self.leaders: dict[int, str] = {}
        self.loss = 0.0

    @property
    def now(self) -> float:
        return self._events.now

    def run(self, seconds: float) -> None:
        # Looked up each time: a test may watch for more.
        self._events.run(seconds, after=lambda: self.check())

    def until(self, condition: Callable[[], bool], seconds: float) -> None:
        end = self.now + seconds
        while not condition():
            assert self.now <= end, f"not within {seconds} virtual seconds"
            self.run(0.01)

    def start(self) -> None:
        for member in self.members.values():
            member.start()

    def leader(self) -> Member | None:
        leading = [m for m in self.members.values() if m.up and m.consensus.is_leader]
        return max(leading, key=lambda m: m.consensus.term, default=None)

    def isolate(self, name: str) -> None:
        for other in self.ids:
            self.cut |= {(name, other), (other, name)}

    def heal(self) -> None:
        self.cut.clear()

    def converged(self) -> bool:
        leader = self.leader()
        return leader is not None and all(
            m.consensus.core.applied_index == leader.journal.last_index
            for m in self.members.values()
            if m.up
        )

    def check(self) -> None:
        """One leader per term; what is committed stays, and is the same everywhere."""
        for member in self.members.values():
            if member.up and member.consensus.is_leader:
                term = member.consensus.term
                assert self.leaders.setdefault(term, member.name) == member.name, term

    def applied(self, member: Member, entry: LogEntry) -> None:
        known = self.committed.setdefault(entry.index, (entry.term, entry.payload))
        assert known == (entry.term, entry.payload), f"{member.name} differs at {entry.index}"
        holders = [
            m
            for m in self.members.values()
            if m.journal.durable_index >= entry.index
            and m.journal.term_at(entry.index) in (entry.term, None)
        ]
        assert 2 * len(holders) > len(self.ids), f"{entry.index} is not on a majority of disks"


class Member:
    """One member; its disk outlives it. Implements ``Host`` and the runtime."""

    def __init__(self, group: Group, name: str) -> None:
        self.group, self.name = group, name
        self.disk = FaultyDisk(seed=group.random.getrandbits(32))
        self.disk.make_directory("d")
        self.disk.sync_directory("d")
        self.up = False
        self.life = 0
        self.applied_index = 0  # A store that loses nothing: only the log is tested here.
        self.interventions: list[Intervention] = []
        self._tick_is_due = self._syncing = False
        self.journal: Journal
        self.consensus: Consensus

    def start(self) -> None:
        self.life += 1
        self.up = True
        self._tick_is_due = self._syncing = False
        self.journal = Journal.open(self.disk, "d/journal", segment_bytes=1 << 16)
        self.applied_index = min(self.applied_index, self.journal.last_index)
        self.consensus = Consensus(
            self,
            self_id=self.name,
            members=self.group.ids,
            journal=self.journal,
            terms=TermFile(self.disk, "d/term"),
            applied_index=self.applied_index,
            timing=RaftConfig(),
            window_bytes=1 << 16,
            runtime=self,
        )
        for other in self.group.members.values():
            if other is not self and other.up:
                self.consensus.set_connected(other.name, True)
                other.consensus.set_connected(self.name, True)
        self._beat(self.life)

    def crash(self) -> None:
        """Power loss: what was not synced is lost or torn."""
        self.life += 1
        self.up = False
        self.disk.crash()
        for other in self.group.members.values():
            if other is not self and other.up:
                other.consensus.set_connected(self.name, False)

    def propose(self, payload: bytes) -> None:
        self.consensus.propose(payload)
        self.wake()

    # ``Host``.

    def send(self, member: str, message: RaftMessage) -> bool:
        target, group = self.group.members[member], self.group
        lives = (self.life, target.life)

        def arrive() -> None:
            lost = (self.name, member) in group.cut or group.random.random() < group.loss
            if lost or (self.life, target.life) != lives or not target.up:
                return
            target.consensus.receive(self.name, message)
            target.sync()

        group.at(HOP_S, arrive)
        return True

    def apply(self, entries: list[LogEntry]) -> None:
        for entry in entries:
            assert entry.index == self.applied_index + 1
            self.applied_index = entry.index
            self.group.applied(self, entry)

    def needs_snapshot(self, member: str) -> None:
        raise AssertionError("nothing is compacted here")

    def role_changed(self) -> None:
        pass

    def intervened(self, what: Intervention) -> None:
        self.interventions.append(what)

    def wake(self) -> None:
        if not self._tick_is_due:
            self._tick_is_due = True
            self.group.at(0.0, self._alive(self._tick))

    # ``Runtime``, as far as the consensus uses it.

    def monotonic(self) -> float:
        return self.group.now

    def random(self) -> float:
        return self.group.random.random()

    def wall_ms(self) -> int:
        raise AssertionError

    def token(self, count: int) -> bytes:
        raise AssertionError

    def call_soon(self, callback: Callable[[], None]) -> None:
        raise AssertionError

    call_later = offload = call_soon  # type: ignore[assignment]

    # The loop.

    def _alive(self, callback: Callable[[], None]) -> Callable[[], None]:
        life = self.life

        def run() -> None:
            if self.life == life and self.up:
                callback()

        return run

    def _beat(self, life: int) -> None:
        def again() -> None:
            self.wake()
            self._beat(life)

        self.group.at(0.02, self._alive(again))

    def _tick(self) -> None:
        self._tick_is_due = False
        self.consensus.tick()
        self.consensus.flush()
        self.sync()

    def sync(self) -> None:
        if self._syncing or (work := self.journal.begin_sync()) is None:
            return
        self._syncing = True

        def done() -> None:
            work.run()
            self.journal.end_sync(work)
            self._syncing = False
            self.consensus.synced()
            self.sync()

        self.group.at(SYNC_S, self._alive(done))


def payload(number: int) -> bytes:
    """A regular entry's payload, without its kind."""
    return b"%d" % number


def number_of(data: bytes) -> int | None:
    """The number in a committed payload, None for the log's own entries."""
    return int(data[1:]) if data[0] == Kind.REGULAR else None
