"""One Raft group of the model: what takes time of the way of a command, and nothing else.

It follows ``raftq.replica``: a node gathers commands into batches, two of which are under
way; the leader gathers batches into an entry while its disk is busy, eight of which may be
uncommitted; a follower acknowledges what is on its disk; and whoever asked is answered by
the replica that sent the batch, once it has applied the entry.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from loadtests.groups.costs import Costs
from loadtests.groups.events import Events
from loadtests.groups.machines import Disk, Port

BATCHES_IN_FLIGHT_MAX = 2
ENTRIES_IN_FLIGHT_MAX = 8
SMALL_KIB = 0.1


class Command(NamedTuple):
    """A request that waits for its outcome."""

    apply_us: float
    kib: float
    front: Port
    """The process that the client talks with."""
    answered: Callable[[], None]


class Batch:
    """Commands of one node on their way; ``home`` is the replica that answers them."""

    def __init__(self, home: Replica, commands: list[Command]) -> None:
        self.home, self.commands = home, commands
        self.term = -1
        """Of the leader that it was sent to last."""
        self.apply_us = sum(command.apply_us for command in commands)
        self.kib = sum(command.kib for command in commands)


class Entry:
    """Batches that are committed together."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches
        self.apply_us = sum(batch.apply_us for batch in batches)
        self.kib = sum((batch.kib for batch in batches), SMALL_KIB)


class Replica:
    """A group's member on one node, with what that node submits to the group."""

    def __init__(self, group: Group, port: Port, disk: Disk) -> None:
        self.group, self.port, self.disk = group, port, disk
        self.has_log = True
        self.written = self.durable = self.known = self.applied = 0
        self.vouched = 0  # As the leader knows it.
        self.syncing = False
        self._applying = False
        self._unsynced_kib = 0.0
        self._waiting: list[Command] = []
        self._in_flight: list[Batch] = []
        self._forming = False

    @property
    def alive(self) -> bool:
        """Whether it takes part."""
        return self.has_log and self.port.process.alive

    # What this node submits.

    def submit(self, command: Command) -> None:
        """Send it with the next batch."""
        self._waiting.append(command)
        self._gather()

    def settle(self, batch: Batch) -> None:
        """Applied here: let the processes answer that were asked."""
        self._in_flight.remove(batch)
        by_front: dict[Port, list[Command]] = defaultdict(list)
        for command in batch.commands:
            by_front[command.front].append(command)
        for front, commands in by_front.items():
            if front is self.port:
                self.group.answer(front, commands)
            else:
                answer = self._answering(front, commands)
                self.port.send(front, SMALL_KIB, answer)
        self._gather()

    def lead(self) -> None:
        """Commit something of this term: an empty batch, before all others."""
        self._in_flight.insert(0, Batch(self, []))
        self.send_again()

    def send_again(self) -> None:
        """There is a new leader, which knows of nothing that is under way."""
        for batch in self._in_flight:
            if batch.term != self.group.term:
                self._offer(batch)
        self._gather()

    def forget(self) -> None:
        """The process is gone, and what it was asked."""
        self._waiting.clear()
        self._in_flight.clear()
        self._forming = self.syncing = self._applying = False

    def join(self) -> None:
        """It has a snapshot, and what the log brings from now on."""
        self.has_log = True
        self.written = self.durable = self.known = self.applied = self.group.committed

    def begin_term(self) -> None:
        """What is not committed begins anew."""
        self.written = self.durable = self.known = self.applied = self.vouched = 0
        self._unsynced_kib = 0.0

    def _gather(self) -> None:
        ready = self._waiting and len(self._in_flight) < BATCHES_IN_FLIGHT_MAX
        if ready and not self._forming and self.group.leader is not None:
            self._forming = True
            self.port.process.run(self.group.costs.entry_us / 2, self._form)

    def _form(self) -> None:
        self._forming = False
        batch = Batch(self, self._waiting)
        self._waiting = []
        self._in_flight.append(batch)
        if self.group.leader is not None:
            self._offer(batch)
        self._gather()

    def _offer(self, batch: Batch) -> None:
        group, term, leader = self.group, self.group.term, self.group.leader
        batch.term = term
        if leader is self:
            group.take(batch, term)
        else:
            assert leader is not None
            self.port.send(leader.port, batch.kib, lambda: group.take(batch, term))

    def _answering(self, front: Port, commands: list[Command]) -> Callable[[], None]:
        return lambda: self.group.answer(front, commands)

    # The log on this node.

    def append(self, index: int, kib: float) -> None:
        """Write an entry and see that it is synced."""
        self.written = index
        self._unsynced_kib += kib
        if not self.syncing:
            self._sync()

    def apply(self) -> None:
        """All that is committed and on this disk, as one round."""
        target = min(self.known, self.durable)
        if target <= self.applied or self._applying:
            return
        self._applying = True
        term, entries = self.group.term, self.group.log[self.applied : target]
        cost_us = self.group.costs.apply_entry_us + sum(entry.apply_us for entry in entries)

        def applied() -> None:
            self._applying = False
            if term == self.group.term:
                self.applied = target
                for batch in (batch for entry in entries for batch in entry.batches):
                    if batch.home is self:
                        self.settle(batch)
            self.apply()

        self.port.process.run(cost_us, applied)

    def _sync(self) -> None:
        self.syncing = True
        term, target, kib = self.group.term, self.written, self._unsynced_kib
        self._unsynced_kib = 0.0
        half_us = self.group.costs.sync_cpu_us / 2
        process = self.port.process

        def synced() -> None:
            self.syncing = False
            if term == self.group.term:
                self.durable = target
                self.group.synced(self)
            if self.written > self.durable and not self.syncing:
                self._sync()

        def back() -> None:
            process.run(half_us, synced)

        process.run(half_us, lambda: self.disk.sync(kib, back))


class Group:
    """Replicas, one of which leads; ``start`` gives it a leader."""

    def __init__(self, events: Events, costs: Costs, chance: random.Random, number: int) -> None:
        self.number = number
        self.costs = costs
        self.term = 0
        self.leader: Replica | None = None
        self.members: list[Replica] = []
        self.log: list[Entry] = []
        self.sent_at_s = 0.0
        self.commands = self.entries = 0
        self.led_at_s = 0.0
        """When the present leader had its first entry committed."""
        self._events, self._chance = events, chance
        self._queue: list[Batch] = []
        self._appending = self._standing = False
        self.committed = 0

    def others(self) -> list[Replica]:
        """The members that follow."""
        return [member for member in self.members if member is not self.leader and member.alive]

    def answer(self, front: Port, commands: list[Command]) -> None:
        """Write the answers of these, in one go."""
        each_us = self.costs.request_out_us + self.costs.request_io_us / 2

        def written() -> None:
            for command in commands:
                command.answered()

        front.process.run(each_us * len(commands), written)

    # The leader.

    def take(self, batch: Batch, term: int) -> None:
        """A batch has come to the leader of this term."""
        if term == self.term:
            self._queue.append(batch)
            self._pump()

    def synced(self, replica: Replica) -> None:
        """A member has something more on its disk."""
        leader, term = self.leader, self.term
        if replica is leader:
            self._vouch(replica, replica.durable, term)
            self._pump()
        elif leader is not None:
            index = replica.durable
            replica.port.send(leader.port, SMALL_KIB, lambda: self._vouch(replica, index, term))
            replica.apply()

    def _pump(self) -> None:
        leader = self.leader
        if leader is None or not self._queue or leader.syncing or self._appending:
            return
        if len(self.log) - self.committed < ENTRIES_IN_FLIGHT_MAX:
            self._appending = True
            term = self.term
            leader.port.process.run(self.costs.entry_us, lambda: self._append(term))

    def _append(self, term: int) -> None:
        if term != self.term:
            return
        self._appending = False
        entry = Entry(self._queue)
        self._queue = []
        self.entries += 1
        self.commands += sum(len(batch.commands) for batch in entry.batches)
        self.log.append(entry)
        leader, index = self.leader, len(self.log)
        assert leader is not None
        self.sent_at_s = self._events.now_s
        for follower in self.others():
            leader.port.send(follower.port, entry.kib, self._appending_to(follower, index))
        leader.append(index, entry.kib)

    def _appending_to(self, follower: Replica, index: int) -> Callable[[], None]:
        term, kib = self.term, self.log[index - 1].kib

        def received() -> None:
            if term != self.term or not follower.has_log:
                return
            follower.port.process.owe(self.costs.entry_us)
            if index == 1:
                follower.send_again()
            follower.append(index, kib)

        return received

    def _vouch(self, replica: Replica, index: int, term: int) -> None:
        leader = self.leader
        if term != self.term or leader is None:
            return
        replica.vouched = max(replica.vouched, index)
        by_index = sorted((member.vouched for member in self.members), reverse=True)
        committed = min(by_index[len(self.members) // 2], leader.durable)
        if committed <= self.committed:
            return
        self.committed = committed
        if self.led_at_s < 0.0:
            self.led_at_s = self._events.now_s
        for follower in self.others():
            leader.port.send(follower.port, SMALL_KIB, self._telling(follower, committed))
        leader.known = committed
        leader.apply()
        self._pump()

    def _telling(self, follower: Replica, committed: int) -> Callable[[], None]:
        term = self.term

        def told() -> None:
            if term == self.term:
                follower.known = committed
                follower.apply()

        return told

    # Elections.

    def start(self, leader: Replica) -> None:
        """It led from the beginning."""
        self.leader = leader

    def lose_leader(self) -> None:
        """Its connections closed: each member that is left stands within a short time."""
        self.leader = None
        self.led_at_s = -1.0
        self._new_term()
        term = self.term
        for member in self.members:
            if member.alive:
                wait_s = self._chance.random() * self.costs.stand_within_s
                self._events.after(wait_s, self._standing_for(member, term))

    def _new_term(self) -> None:
        self.term += 1
        self.log = []
        self._queue = []
        self.committed = 0
        self._appending = self._standing = False
        for member in self.members:
            member.begin_term()

    def _standing_for(self, candidate: Replica, term: int) -> Callable[[], None]:
        """A pre-vote, then a vote that each side has on its disk before it is told."""

        def lead() -> None:
            if term == self.term and self.leader is None:
                self.leader = candidate
                candidate.lead()

        def stand() -> None:
            self._record(candidate, lambda: self._ask(candidate, True, lead))

        def look() -> None:
            if term == self.term and not self._standing:
                self._standing = True
                self._ask(candidate, False, stand)

        return look

    def _ask(self, candidate: Replica, recorded: bool, granted: Callable[[], None]) -> None:
        """The first of the other members that agrees makes a majority of three."""
        answers: list[Replica] = []
        needed = len(self.members) // 2

        def agreed(voter: Replica) -> None:
            answers.append(voter)
            if len(answers) == needed:
                granted()

        for voter in self.members:
            if voter is not candidate and voter.alive:
                self._ask_one(candidate, voter, recorded, agreed)

    def _ask_one(
        self,
        candidate: Replica,
        voter: Replica,
        recorded: bool,
        agreed: Callable[[Replica], None],
    ) -> None:
        def tell() -> None:
            voter.port.send(candidate.port, SMALL_KIB, lambda: agreed(voter))

        def asked() -> None:
            if recorded:
                self._record(voter, tell)
            else:
                tell()

        candidate.port.send(voter.port, SMALL_KIB, asked)

    def _record(self, member: Replica, done: Callable[[], None]) -> None:
        """Term and vote: a file that is synced and renamed, and its directory."""
        process, disk = member.port.process, member.disk
        half_us = self.costs.sync_cpu_us / 2

        def named() -> None:
            disk.sync(SMALL_KIB, lambda: process.run(half_us, done))

        process.run(half_us, lambda: disk.sync(SMALL_KIB, named))
