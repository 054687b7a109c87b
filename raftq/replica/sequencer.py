"""The leader's side of group commit: one entry for all batches that came meanwhile.

While this node's disk has something to write, what arrives is gathered for the next entry:
so entries grow with the load. They need not wait for the network: ``entries_in_flight_max``
may be appended and not yet committed. But a small one waits for a moment for those who are
about to ask again (``gathering``). An entry is stamped when it is appended, and its batches
are copied into it as the bytes they came in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from raftq.consensus.consensus import Consensus
from raftq.replica.gathering import Gathering
from raftq.replica.meter import Meter
from raftq.replica.stamps import Stamps
from raftq.runtime import Runtime
from statemachine.commands import ENTRY_VERSION, Batch, Command, Entry

QUEUE_BYTES_MAX = 64 << 20


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
        self._stamps = stamps
        self._wake = wake
        self._entry_bytes_max = entry_bytes_max
        self._entries_in_flight_max = entries_in_flight_max
        self._meter = meter
        self._queue: deque[tuple[Batch, bytes, int]] = deque()
        self._queue_bytes = self._queue_requests = 0
        self._gathering = Gathering(runtime, wake)
        self._appended: dict[tuple[int, int], Entry] = {}  # (index, term): what we wrote ourselves
        self._held = False
        self._last_stamp_ms = 0
        self._earliest_ms = 0  # That the next entry may say.

    def add(self, batch: Batch, encoded: bytes, requests: int) -> bool:
        """Queue a batch of so many requests; False when it is full (its sender tries again)."""
        if self._queue_bytes + len(encoded) > QUEUE_BYTES_MAX:
            return False
        self._queue.append((batch, encoded, requests))
        self._queue_bytes += len(encoded)
        self._queue_requests += requests
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
        if not self.add(batch, msgspec.msgpack.encode(batch), len(commands)):
            return False
        self._earliest_ms = max(self._earliest_ms, now_ms)
        return True

    @property
    def has_more(self) -> bool:
        """Whether anything waits for an entry."""
        return bool(self._queue)

    def pump(self) -> None:
        """Append what was gathered, unless the disk is busy: ``synced`` goes on."""
        consensus = self._consensus
        committed = consensus.commit_index
        self._gathering.committed(committed)
        if self._held or not consensus.is_durable:
            return
        while self._queue and consensus.is_leader:
            if consensus.last_index - committed >= self._entries_in_flight_max:
                return
            if not self._gathering.is_enough(self._queue_requests, self._queue_bytes):
                return
            self._append()

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
        self._queue_bytes = self._queue_requests = self._earliest_ms = 0
        self._appended.clear()
        self._gathering.clear()

    def take(self, index: int, term: int) -> Entry | None:
        """The entry as this node wrote it, if it did: saves decoding it."""
        return self._appended.pop((index, term), None)

    def _append(self) -> None:
        batches: list[Batch] = []
        encoded: list[msgspec.Raw] = []
        size = requests = 0
        while self._queue:
            batch, data, asked = self._queue[0]
            if batches and size + len(data) > self._entry_bytes_max:
                break
            self._queue.popleft()
            batches.append(batch)
            encoded.append(msgspec.Raw(data))
            size += len(data)
            requests += asked
        self._queue_bytes -= size
        self._queue_requests -= requests
        stamp_ms = max(self._stamps.now_ms(), self._last_stamp_ms, self._earliest_ms)
        self._last_stamp_ms = stamp_ms
        sealed = _Sealed(ENTRY_VERSION, stamp_ms, tuple(encoded))
        payload = msgspec.msgpack.encode(sealed)
        index = self._consensus.propose(payload)
        self._meter.appended(sum([len(batch.commands) for batch in batches]), len(payload))
        self._gathering.appended(index, requests, size)
        key = (index, self._consensus.term)
        self._appended[key] = Entry(ENTRY_VERSION, stamp_ms, tuple(batches))
