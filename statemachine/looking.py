"""Where in its life each stored message of a queue is: nothing says so but what is around it.

``messages`` tells how each state is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge

from statemachine import filters, keys, records
from statemachine.commands import Filter, MessageId, MessageState
from statemachine.kv import Reader
from statemachine.records import LaneRecord, QueueRecord

HELD_MAX = 10_000
"""Messages of the open claims after which no more are looked at for their deliveries."""


class Look:
    """Tells what state the messages of one queue are in."""

    def __init__(self, reader: Reader, record: QueueRecord, lanes: Sequence[LaneRecord]) -> None:
        self._reader = reader
        self._record = record
        self._lanes = lanes
        self._held: dict[MessageId, tuple[int, str]] | None = None

    def rows(
        self, marker: MessageId | None, include_claimed: bool, wanted: Filter
    ) -> Iterator[tuple[MessageId, bytes]]:
        """Stored messages younger than ``marker``, by age, from marks below which none is wanted.

        What can not be wanted may be left out.
        """
        streams: list[Iterator[tuple[MessageId, bytes]]] = []
        after = 0 if marker is None else keys.number(marker[2:]) + 1
        for number, lane in enumerate(self._lanes):
            if not lane.stored or not filters.may_hold(wanted, lane):
                continue
            low = lane.floor
            if not include_claimed and not self._record.delayed:
                low = max(low, min(lane.head, lane.returned_low))
            streams.append(self._from(number, max(low, after)))
            if lane.stored > lane.ready - lane.returned:
                low = max(lane.flagged_floor, after)
                streams.append(self._from(number | keys.PARKED, low))
                streams.append(self._from(number | keys.GROUPED, low))
        return merge(*streams, key=_age)

    def state(self, message_id: MessageId, record_data: bytes) -> tuple[MessageState, int, str]:
        """A stored message's state; how often it was delivered, and what was wrong with it.

        Both are not known of a claimed one.
        """
        record, get = self._record, self._reader.get
        number = keys.lane_number(message_id)
        lane = self._lanes[number]
        if message_id[:2] == number.to_bytes(2, "big") and _seq(message_id) >= lane.head:
            return "ready", 0, ""
        if lane.returned:
            data = get(keys.returned(record.number, message_id))
            if data is not None:
                return "ready", *records.decode_returned(data)
        if record.delayed:
            data = get(keys.delayed(record.number, message_id))
            if data is not None:
                return "delayed", *records.decode_delayed(data)[1:]
        if record.blocked and (group := records.group_of(record_data)):
            data = get(keys.group(record.number, group))
            assert data is not None, "a group with members has a record"
            if records.decode_group(data).head != message_id:
                return "blocked", 0, ""
        return "claimed", 0, ""

    def held(self) -> dict[MessageId, tuple[int, str]]:
        """Deliveries and errors of messages that claims hold; read once: it may be long."""
        if self._held is None:
            held: dict[MessageId, tuple[int, str]] = {}
            self._held = held
            record = self._record
            low = keys.claim(record.number, record.claims_low)
            for _, data in self._reader.scan(low, keys.claim(record.number + 1, 0)):
                for one in records.decode_claim(data).messages:
                    held[one.id] = one.deliveries, one.error
                if len(held) >= HELD_MAX:
                    break
        return self._held

    def _from(self, id_lane: int, seq: int) -> Iterator[tuple[MessageId, bytes]]:
        """Messages whose ids begin with these two bytes, by age."""
        prefix = keys.of_queue(b"m", self._record.number)
        high = keys.message_id(0, id_lane + 1) if id_lane < 0xFFFF else b"\xff" * keys.ID_BYTES
        for key, data in self._reader.scan(prefix + keys.message_id(seq, id_lane), prefix + high):
            yield key[-keys.ID_BYTES :], data


def _seq(message_id: MessageId) -> int:
    return keys.number(message_id[2:])


def _age(row: tuple[MessageId, bytes]) -> bytes:
    return row[0][2:]
