"""Cores, processes, disks and connections: everything that something has to wait for.

A process runs one job at a time, as an interpreter with a lock does, and needs one of the
cores of its machine for it. It keeps the core until it has nothing to do, or has had its
slice while others wait.
"""

from __future__ import annotations

from collections import deque
from functools import partial

from loadtests.groups.costs import Costs
from loadtests.groups.events import Action, Events

US = 1e-6
SLICE_S = 0.003
"""Of Linux' scheduler, on few cores (base_slice_ns)."""


class Machine:
    """Cores that processes share, and that part of their time which these get."""

    def __init__(self, cores: int, share: float = 1.0) -> None:
        self.share = share
        self._free = cores
        self._ready: deque[Process] = deque()

    def ask(self, process: Process) -> None:
        """The process has a job: it gets a core now or when its turn comes."""
        if self._free:
            self._free -= 1
            process.begin()
        else:
            self._ready.append(process)

    @property
    def wanted(self) -> bool:
        """Whether others wait for a core."""
        return bool(self._ready)

    def release(self) -> None:
        """A process gives its core back."""
        self._free += 1
        if self._ready:
            self.ask(self._ready.popleft())


class Process:
    """One event loop: jobs in the order of their asking."""

    def __init__(self, events: Events, machine: Machine) -> None:
        self.alive = True
        self.busy_s = 0.0
        self._events, self._machine = events, machine
        self._jobs: deque[tuple[float, Action]] = deque()
        self._active = False
        self._debt_us = 0.0
        self._since_s = 0.0

    def run(self, cost_us: float, done: Action) -> None:
        """Spend so much CPU when its turn comes, and then do it; a dead process does nothing."""
        if not self.alive:
            return
        self._jobs.append((cost_us, done))
        if not self._active:
            self._active = True
            self._machine.ask(self)

    def owe(self, cost_us: float) -> None:
        """Let the next job take so much longer: what is done along the way."""
        self._debt_us += cost_us

    def begin(self) -> None:
        """A core is there."""
        self._since_s = self._events.now_s
        self._next()

    def kill(self) -> None:
        """Whatever it was about to do is not done."""
        self.alive = False
        self._jobs.clear()

    def restart(self) -> None:
        """It is there again, and knows nothing."""
        self.alive = True

    def _next(self) -> None:
        if not self._jobs:
            self._active = False
            self._machine.release()
            return
        cost_us, done = self._jobs.popleft()
        cost_s = (cost_us + self._debt_us) * US
        self._debt_us = 0.0
        self._events.after(cost_s / self._machine.share, lambda: self._end(cost_s, done))

    def _end(self, cost_s: float, done: Action) -> None:
        self.busy_s += cost_s
        if self.alive:
            done()
        had_slice = self._events.now_s - self._since_s >= SLICE_S
        if self._jobs and had_slice and self._machine.wanted:
            self._machine.release()
            self._machine.ask(self)
        else:
            self._next()


class Disk:
    """So many syncs at once at full speed; further ones queue."""

    def __init__(self, events: Events, costs: Costs) -> None:
        self.busy_s = 0.0
        self._events, self._costs = events, costs
        self._free = costs.disk_syncs_at_once
        self._waiting: deque[tuple[float, Action]] = deque()

    def sync(self, kib: float, done: Action) -> None:
        """Write so much and sync it, on a thread."""
        costs = self._costs
        back = partial(self._events.after, costs.handover_us * US, done)
        self._take((costs.sync_us + kib * costs.sync_kib_us) * US, back)

    def transfer(self, kib: float, done: Action) -> None:
        """Read or write so much, with nothing to be synced at once."""
        self._take(kib * self._costs.sync_kib_us * US, done)

    def _take(self, seconds: float, done: Action) -> None:
        if not self._free:
            self._waiting.append((seconds, done))
            return
        self._free -= 1
        self.busy_s += seconds
        self._events.after(seconds, lambda: self._end(done))

    def _end(self, done: Action) -> None:
        self._free += 1
        if self._waiting:
            self._take(*self._waiting.popleft())
        done()


class Port:
    """Where a process sends frames and gets them.

    All that is sent to one process in a turn of the loop is one write, and all that has come
    from anywhere is read in one turn; each frame costs what it takes to make and to handle.
    """

    def __init__(self, events: Events, costs: Costs, process: Process, network_us: float) -> None:
        self.process = process
        self._events, self._costs, self._network_us = events, costs, network_us
        self._outboxes: dict[Port, list[Action]] = {}
        self._inbox: list[Action] = []

    def send(self, target: Port, kib: float, received: Action) -> None:
        """Let the target do something, unless it is dead by then."""
        if not self.process.alive:
            return
        cost_us = self._costs.frame_us + kib * self._costs.kib_us
        self.process.owe(cost_us)

        def handled() -> None:
            target.process.owe(cost_us)
            received()

        outbox = self._outboxes.setdefault(target, [])
        outbox.append(handled)
        if len(outbox) == 1:
            self.process.run(self._costs.turn_us, lambda: self._flush(target))

    def clear(self) -> None:
        """What was under way is lost, with the process."""
        self._outboxes.clear()
        self._inbox.clear()

    def _flush(self, target: Port) -> None:
        frames = self._outboxes.pop(target, [])
        self._events.after(self._network_us * US, lambda: target.arrive(frames))

    def arrive(self, frames: list[Action]) -> None:
        """Frames are in the socket's buffer."""
        if not self.process.alive:
            return
        if not self._inbox:
            self.process.run(self._costs.turn_us, self._read)
        self._inbox.extend(frames)

    def _read(self) -> None:
        frames, self._inbox = self._inbox, []
        for handled in frames:
            handled()
