"""The leader's side of group commit: one entry for all batches that came meanwhile.

While this node's disk has something to write, what arrives is gathered for the next entry:
so entries grow with the load. They need not wait for the network: ``entries_in_flight_max``
may be appended and not yet committed. But one that is smaller than the last waits for a
moment, or until all before it are committed. An entry is stamped when it is appended, and
its batches are copied into it as the bytes they came in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from raftq.consensus.consensus import Consensus
from raftq.replica.meter import Meter
from raftq.replica.stamps import Stamps
from raftq.runtime import Runtime
from statemachine.commands import ENTRY_VERSION, Batch, Command, Entry

QUEUE_BYTES_MAX = 64 << 20
GATHER_S = 0.005
"""How long a small entry waits at most: far less than a commit takes between distant zones."""


class _Sealed(msgspec.Struct, frozen=True, array_like=True):
    """``statemachine.commands.Entry`` with its batches encoded already."""

    version: int
    stamp_ms: int
    batches: tuple[msgspec.Raw, ...]


class Sequencer:
    """Orders batches into entries while this node leads."""

    def __init__(
        self,
        consensus: Consensus,
        runtime: Runtime,
        stamps: Stamps,
        wake: Callable[[], None],
        *,
        entry_bytes_max: int,
        entries_in_flight_max: int,
        meter: Meter,
    ) -> None:
        self._consensus = consensus
        self._runtime = runtime
        self._stamps = stamps
        self._wake = wake
        self._entry_bytes_max = entry_bytes_max
        self._entries_in_flight_max = entries_in_flight_max
        self._meter = meter
        self._queue: deque[tuple[Batch, bytes]] = deque()
        self._queue_bytes = self._queue_commands = 0
        self._last_commands = 0  # In the entry that was appended last; nought: it was waited for.
        self._is_waiting = False
        self._appended: dict[tuple[int, int], Entry] = {}  # (index, term): what we wrote ourselves
        self._held = False
        self._last_stamp_ms = 0
        self._earliest_ms = 0  # That the next entry may say.

    def add(self, batch: Batch, encoded: bytes) -> bool:
        """Queue a batch; False when the queue is full (its sender tries again)."""
        if self._queue_bytes + len(encoded) > QUEUE_BYTES_MAX:
            return False
        self._queue.append((batch, encoded))
        self._queue_bytes += len(encoded)
        self._queue_commands += len(batch.commands)
        self._wake()
        return True

    def propose_own(self, *commands: Command, now_ms: int = 0) -> bool:
        """Queue commands of the leader's own housekeeping; False when full, or not leading.

        They are for log time ``now_ms``, and come in no entry that says less: before a node
        has followed anybody, its log time can still go back a little.
        """
        if not self._consensus.is_leader:
            return False
        batch = Batch(session=0, seq=0, floor=0, commands=commands)
        if not self.add(batch, msgspec.msgpack.encode(batch)):
            return False
        self._earliest_ms = max(self._earliest_ms, now_ms)
        return True

    def pump(self) -> None:
        """Append what was gathered, unless the disk is busy: ``synced`` goes on."""
        consensus = self._consensus
        if self._held or not consensus.is_durable:
            return
        while self._queue and consensus.is_leader:
            in_flight = consensus.last_index - consensus.commit_index
            if in_flight >= self._entries_in_flight_max:
                return
            # An entry costs three nodes the same whatever it carries. Of a small one more is on its
            # way: those who wait for the last one ask again once they are answered.
            if in_flight and self._queue_commands < self._last_commands:
                self._wait_for_more()
                return
            self._append()

    def _wait_for_more(self) -> None:
        if not self._is_waiting:
            self._is_waiting = True
            self._runtime.call_later(GATHER_S, self._waited)

    def _waited(self) -> None:
        self._is_waiting = False
        self._last_commands = 0
        if self._queue:
            self._wake()

    def synced(self) -> None:
        """The disk has caught up: what was gathered meanwhile may go."""
        if self._queue:
            self._wake()

    def hold(self, held: bool) -> None:
        """Append nothing for now: the leadership is being handed over."""
        if self._held and not held:
            self._wake()
        self._held = held

    def clear(self) -> None:
        """Leadership is gone: the senders know, and send to the next one."""
        self._queue.clear()
        self._queue_bytes = self._queue_commands = self._earliest_ms = 0
        self._appended.clear()

    def take(self, index: int, term: int) -> Entry | None:
        """The entry as this node wrote it, if it did: saves decoding it."""
        return self._appended.pop((index, term), None)

    def _append(self) -> None:
        batches: list[Batch] = []
        encoded: list[msgspec.Raw] = []
        size = 0
        while self._queue:
            batch, data = self._queue[0]
            if batches and size + len(data) > self._entry_bytes_max:
                break
            self._queue.popleft()
            batches.append(batch)
            encoded.append(msgspec.Raw(data))
            size += len(data)
        self._queue_bytes -= size
        self._last_commands = sum([len(batch.commands) for batch in batches])
        self._queue_commands -= self._last_commands
        stamp_ms = max(self._stamps.now_ms(), self._last_stamp_ms, self._earliest_ms)
        self._last_stamp_ms = stamp_ms
        sealed = _Sealed(ENTRY_VERSION, stamp_ms, tuple(encoded))
        payload = msgspec.msgpack.encode(sealed)
        index = self._consensus.propose(payload)
        self._meter.appended(self._last_commands, len(payload))
        key = (index, self._consensus.term)
        self._appended[key] = Entry(ENTRY_VERSION, stamp_ms, tuple(batches))
