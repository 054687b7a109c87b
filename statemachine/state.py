"""What all commands share: the store, log time, new ids, and decoded records.

Records that nearly every command changes (queues, accounts, sessions, the machine's
own) are kept decoded and written once, by ``end_round``. Everything else is written
at once. Nothing that is cached may have a say in what is written: a replica that
has just restarted has empty caches and must come to the same bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from operator import sub

from statemachine import keys, records, sealed
from statemachine.commands import QueueSettings
from statemachine.kv import KV
from statemachine.records import (
    AccountRecord,
    Binding,
    ClaimRecord,
    LaneRecord,
    MachineRecord,
    QueueRecord,
    SessionRecord,
)
from statemachine.sealed import SealingRecord
from statemachine.settings import BUILT_IN, Effective, effective
from statemachine.timers import Timers

ORDINAL_BITS = 22
"""Ids are ``index << 22 | ordinal``: unique and increasing without any state."""

ENTRY_IDS_MAX = 1 << 20
"""More than an entry of 8 MiB can ask for by itself; what is left over is for dead letters."""

HANDLES_MAX = 16_384
"""Of queues, with 4 KiB each; as many accounts, and as many sessions."""

CLAIMED_MESSAGES_MAX = 200_000
WINDOW_BYTES_MAX = 64 << 20

Fresh = tuple[bytes, int, int, bool, bytes]
"""A fresh message: id, expires_ms, bytes of its body, whether timed, the stored record."""

Returned = tuple[bytes, int, str]
"""A returned message: its id with the lane at the end, so that it sorts by age; deliveries;
what was said to be wrong with it."""

Said = tuple[int | str | bytes, ...]
"""The members of an ``EventRecord``, of which it is made when it is read."""


Counts = tuple[int, int, int, int, int, int]
"""Of a queue: ready, delayed, claimed, bytes, blocked, bindings."""

NOTHING_SET = QueueSettings()
NOTHING: Counts = (0, 0, 0, 0, 0, 0)


class UnknownVersion(Exception):
    """An entry or a store of another version: this replica must not guess what it means."""


class Account:
    """An account, decoded."""

    __slots__ = ("dirty", "key", "record", "sealing", "untold")

    def __init__(
        self, key: bytes, record: AccountRecord, sealing: SealingRecord | None = None
    ) -> None:
        self.key = key
        self.sealing = sealing
        """Its keys as they are stored, if its bodies are sealed, or some are."""
        self.record = record
        self.dirty = False
        self.untold: list[Said] = []
        """Events of the entry at hand that are not in the history yet."""


class Lane:
    """A lane, decoded, with the oldest of its messages (``fresh``, ``returned``)."""

    __slots__ = (
        "dirty",
        "has_gaps",
        "key",
        "messages",
        "number",
        "place",
        "record",
        "returned",
        "returned_is_all",
        "window",
        "window_is_all",
    )

    def __init__(
        self, names: tuple[str, str], queue_number: int, number: int, record: LaneRecord
    ) -> None:
        self.place = (*names, record.zone)
        """Account, queue and zone."""
        self.number = number
        self.record = record
        self.key = keys.lane(queue_number, number)
        self.messages = keys.of_queue(b"m", queue_number) + number.to_bytes(2, "big")
        """Where the keys in space m of its messages without flags begin."""
        self.dirty = number == 0
        """Whether it is to be written; the first one always is, with the queue."""
        self.has_gaps = False
        """Whether the command at hand has taken fresh ones out from between."""
        self.forget()

    def forget(self) -> None:
        """Know nothing of what is in it but the counts."""
        self.window: deque[Fresh] = deque()
        self.window_is_all = self.record.ready == self.record.returned
        self.returned: list[Returned] = []
        self.returned_is_all = not self.record.returned


class Queue:
    """A queue, decoded, with its lanes."""

    __slots__ = (
        "_effective",
        "_under",
        "account",
        "bindings",
        "claims",
        "counted",
        "dirty",
        "key",
        "lanes",
        "lanes_by_kind",
        "messages",
        "names",
        "record",
        "tiers",
        "uncounted",
        "untold",
    )

    def __init__(
        self,
        names: tuple[str, str],
        key: bytes,
        record: QueueRecord,
        account: Account,
        more_lanes: Iterable[LaneRecord] = (),
    ) -> None:
        self.names = names
        self.key = key
        self.account = account
        self.dirty = False
        self.bindings: tuple[Binding, ...] | None = None
        """As they are stored; None: not read yet."""
        self.untold: list[Said] = []
        """As an account's: events that are not in the history yet."""
        self.counted = _counts(record)
        """What of this queue is in the sums of the account and of the machine."""
        self.uncounted = False
        """Whether that may not be all: see ``State.sum_up``."""
        self.lanes: list[Lane] = []
        self.begin(record)
        for lane in more_lanes:
            self.add_lane(lane)
        self._under: object = None
        self._effective = BUILT_IN

    def begin(self, record: QueueRecord) -> None:
        """Go by this record, by its number, and by its first lane if it has one."""
        for lane in self.lanes:
            lane.dirty = False
        self.record = record
        self.messages = keys.of_queue(b"m", record.number)
        """Where its keys in space m begin; ``claims`` is the same for space c."""
        self.claims = keys.of_queue(b"c", record.number)
        self.lanes = []
        self.lanes_by_kind: dict[tuple[int, str], Lane] = {}
        """By priority and zone."""
        self.tiers: list[list[Lane]] = []
        """Lanes by priority, the highest first."""
        if record.first is not None:
            self.add_lane(record.first)

    def add_lane(self, record: LaneRecord) -> Lane:
        """Take in the next lane in the order of their numbers."""
        lane = Lane(self.names, self.record.number, len(self.lanes), record)
        self.lanes.append(lane)
        self.lanes_by_kind[record.priority, record.zone] = lane
        tiers: dict[int, list[Lane]] = {}
        for one in self.lanes:
            tiers.setdefault(-one.record.priority, []).append(one)
        self.tiers = [tiers[priority] for priority in sorted(tiers)]
        return lane

    def lane_of(self, message_id: bytes) -> Lane:
        """The lane of a message that is stored."""
        return self.lanes[(message_id[0] << 8 | message_id[1]) & keys.LANE_MASK]

    def in_force(self) -> Effective:
        """The queue's settings under its account's defaults, as both are now."""
        defaults = self.account.record.defaults
        if self._under is not defaults:
            self._under = defaults
            self._effective = effective(self.record.settings, defaults)
        return self._effective

    def settings_changed(self) -> None:
        """Look at the settings again."""
        self._under = None


class Session:
    """A session, decoded, with the batches it remembers: the keys of their outcomes."""

    __slots__ = ("dirty", "key", "record", "remembered")

    def __init__(self, key: bytes, record: SessionRecord, remembered: dict[int, bytes]) -> None:
        self.key = key
        self.record = record
        self.remembered = remembered
        self.dirty = False


Gathered = tuple[Queue, int, str, str, str]
"""What events have in common that become one: queue, kind, node, reason and target."""


class State:
    """The replicated state as the rules see it."""

    def __init__(self, kv: KV) -> None:
        self.kv = kv
        data = kv.get(keys.POSITION)
        self.machine = MachineRecord() if data is None else records.decode_machine(data)
        if self.machine.layout != records.LAYOUT:
            layouts = f"layout {self.machine.layout}, and this program reads {records.LAYOUT}"
            raise UnknownVersion(f"the store has {layouts}: start the program that wrote it")
        self.is_empty = data is None
        self.moved = False
        self.now_ms = self.machine.stamp_ms
        self.next_id = (self.machine.index + 1) << ORDINAL_BITS
        self.timers = Timers(kv, self.machine)
        self.accounts: dict[str, Account] = {}
        self.queues: dict[tuple[str, str], Queue] = {}
        self.sessions: dict[int, Session] = {}
        self.claims: dict[int, ClaimRecord] = {}
        self.claimed_messages = self.window_bytes = 0
        """How many messages the cached claims had when they were cached; how many bytes have
        gone into windows since they were last emptied."""
        self.copies = self.copied_bytes = 0
        """How many copies bindings have made in this entry, and how many bytes."""
        self.woken: dict[Lane, int] = {}
        """Lanes in which messages have become ready, and how many."""
        self.node = ""
        """Whose batch is being done; empty: the leader's own."""
        self.next_event = 0
        """The ordinal of the entry's next event."""
        self.gathered: dict[Gathered, list[tuple[bytes, int, int]]] = {}
        """Messages with events that are yet to be made, see ``events``."""
        self.untold: list[Queue | Account] = []
        """Who has events of this entry that are not in the history yet."""
        self.noted: dict[tuple[str, str], None] = {}
        """Queues with new events; an account's own have no queue's name."""
        self.subscriptions_moved = self.keys_moved = False
        """Whether a subscription or a runner has come, gone, or changed; and an access key."""
        self.sealing_changes = 0
        """How often the keys of an account have changed, since this replica began."""
        self._dirty_lanes: list[Lane] = []
        self._dirty: list[Account | Session] = []
        self._dirty_queues: list[Queue] = []
        self._uncounted: list[Queue] = []

    def begin(self, index: int, term: int, stamp_ms: int) -> None:
        """Go on to the next entry of the log."""
        machine = self.machine
        machine.index = index
        machine.term = term
        if stamp_ms > machine.stamp_ms:
            machine.stamp_ms = self.now_ms = stamp_ms
        self.next_id = index << ORDINAL_BITS
        self.next_event = 0
        self.copies = self.copied_bytes = 0
        self.is_empty = False
        self.moved = True

    def take_id(self) -> int:
        """A number that nothing else has or will have."""
        taken = self.next_id
        self.next_id = taken + 1
        return taken

    def has_room(self) -> bool:
        """Whether this entry has ids left beyond those that it may still ask for."""
        used = self.next_id & ((1 << ORDINAL_BITS) - 1)
        return used < (1 << ORDINAL_BITS) - ENTRY_IDS_MAX

    def find_account(self, name: str) -> Account | None:
        """The account, or None."""
        found = self.accounts.get(name)
        if found is None:
            key = keys.account(name)
            data = self.kv.get(key)
            if data is None:
                return None
            sealing = sealed.of(self.kv, name)
            found = self.accounts[name] = Account(key, records.decode_account(data), sealing)
        return found

    def find_queue(self, account: str, name: str) -> Queue | None:
        """The queue, or None."""
        found = self.queues.get((account, name))
        if found is None:
            key = keys.queue(account, name)
            data = self.kv.get(key)
            if data is None:
                return None
            owner = self.find_account(account)
            assert owner is not None, "a queue has an account"
            names, record = (account, name), records.decode_queue(data)
            more = self._more_lanes(record)
            found = self.queues[names] = Queue(names, key, record, owner, more)
        return found

    def in_force(self, account: str, name: str) -> Effective:
        """The settings of a queue, or those that it would have."""
        queue = self.find_queue(account, name)
        if queue is not None:
            return queue.in_force()
        owner = self.find_account(account)
        return BUILT_IN if owner is None else effective(NOTHING_SET, owner.record.defaults)

    def find_session(self, session_id: int) -> Session | None:
        """The session, or None."""
        found = self.sessions.get(session_id)
        if found is None:
            key = keys.session(session_id)
            data = self.kv.get(key)
            if data is None:
                return None
            low, high = keys.outcomes(session_id), keys.outcomes(session_id + 1)
            remembered = {keys.number(row[-8:]): row for row, _ in self.kv.scan(low, high)}
            record = records.decode_session(data)
            found = self.sessions[session_id] = Session(key, record, remembered)
        return found

    def touch(self, changed: Account | Session) -> None:
        """The record is to be written at the end of the round."""
        if not changed.dirty:
            changed.dirty = True
            self._dirty.append(changed)

    def touch_queue(self, queue: Queue) -> None:
        """The queue's record is to be written at the end of the round, and to be summed up."""
        if not queue.uncounted:
            queue.uncounted = True
            self._uncounted.append(queue)
            if not queue.dirty:
                queue.dirty = True
                self._dirty_queues.append(queue)

    def touch_lane(self, lane: Lane) -> None:
        """The lane's record is to be written at the end of the round; its queue's as well."""
        if not lane.dirty:
            lane.dirty = True
            self._dirty_lanes.append(lane)

    def wake(self, lane: Lane, count: int = 1) -> None:
        """Messages of the lane have become ready."""
        self.woken[lane] = self.woken.get(lane, 0) + count

    def drop_queue(self, queue: Queue) -> None:
        """The queue is no more: take its record and its share of the sums away."""
        for lane in queue.lanes:
            lane.dirty = False
        del self.queues[queue.names]
        self.kv.delete(queue.key)
        self._count(queue, NOTHING)
        queue.dirty = queue.uncounted = False

    def drop_account(self, name: str) -> None:
        """The account is no more."""
        account = self.accounts.pop(name)
        self.kv.delete(account.key)
        if account.sealing is not None:
            self.keep_sealing(name, account, None)
        account.dirty = False

    def keep_sealing(self, name: str, account: Account, record: SealingRecord | None) -> None:
        """These are the account's keys from now on, or it has none."""
        account.sealing = record
        self.sealing_changes += 1
        if record is None:
            self.kv.delete(keys.sealing(name))
        else:
            self.kv.put(keys.sealing(name), records.encode(record))

    def drop_session(self, session_id: int) -> None:
        """The session is no more."""
        session = self.sessions.pop(session_id)
        self.kv.delete(session.key)
        session.dirty = False

    def sum_up(self) -> None:
        """Have all that the commands before this one have done in the sums.

        Not while a command is at work: what it touched before would count as summed up.
        """
        for queue in self._uncounted:
            if queue.uncounted:
                queue.uncounted = False
                self._count(queue, _counts(queue.record))
        self._uncounted.clear()

    def end_round(self) -> None:
        """Write what was kept back, and keep the caches within their bounds."""
        if not self.moved:
            return
        self.sum_up()
        put, encode = self.kv.put, records.encode
        for queue in self._dirty_queues:
            if queue.dirty:
                queue.dirty = False
                put(queue.key, encode(queue.record))
        for lane in self._dirty_lanes:
            if lane.dirty:
                lane.dirty = False
                put(lane.key, encode(lane.record))
        for changed in self._dirty:
            if changed.dirty:
                changed.dirty = False
                put(changed.key, encode(changed.record))
        put(keys.POSITION, encode(self.machine))
        self._dirty_queues.clear()
        self._dirty_lanes.clear()
        self._dirty.clear()
        self.moved = False
        self._trim()

    def _more_lanes(self, record: QueueRecord) -> list[LaneRecord]:
        """The records of all lanes but the first."""
        if record.lanes < 2:
            return []
        low, high = keys.lane(record.number, 1), keys.lane(record.number + 1, 0)
        # No step further than to the last: behind it are deleted messages.
        rows = islice(self.kv.scan(low, high), record.lanes - 1)
        return [records.decode_lane(data) for _, data in rows]

    def _count(self, queue: Queue, counts: Counts) -> None:
        before = queue.counted
        if counts == before:
            return
        queue.counted = counts
        ready, delayed, claimed, size, blocked, bindings = map(sub, counts, before)
        machine, account = self.machine, queue.account.record
        machine.ready += ready
        machine.bytes += size
        account.messages += ready + delayed + claimed + blocked
        account.bytes += size
        if claimed:
            machine.claimed += claimed
            account.in_flight += claimed
        if delayed or blocked or bindings:
            machine.delayed += delayed
            machine.blocked += blocked
            account.bindings += bindings
        self.touch(queue.account)

    def _trim(self) -> None:
        """Make room in a cache that has grown too large: seldom enough to cost nothing."""
        if len(self.accounts) > HANDLES_MAX:
            # Together, since queues hold on to their accounts.
            self.queues.clear()
            self.accounts.clear()
        elif len(self.queues) > HANDLES_MAX:
            # Not all: of a few more queues than there is room for, most would have to be read.
            excess = len(self.queues) - HANDLES_MAX * 15 // 16
            for names in list(islice(self.queues, excess)):
                del self.queues[names]
        if len(self.sessions) > HANDLES_MAX:
            self.sessions.clear()
        if self.claimed_messages > CLAIMED_MESSAGES_MAX:
            self.claims.clear()
            self.claimed_messages = 0
        if self.window_bytes > WINDOW_BYTES_MAX:
            for queue in self.queues.values():
                for lane in queue.lanes:
                    lane.forget()
            self.window_bytes = 0


def _counts(record: QueueRecord) -> Counts:
    ready, delayed, claimed = record.ready, record.delayed, record.claimed
    return ready, delayed, claimed, record.bytes, record.blocked, record.bindings
