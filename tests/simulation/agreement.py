"""What a replica has stored, held against the model: it is all there, once, and nothing else.

Outcomes alone do not show what nobody has asked for yet: a dead letter that is still in
its old queue too, or an event that was forgotten before its history says so.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable

from msgspec.structs import asdict

from queue_model import HookNames, Model, Queue
from simulation.making import ACCOUNT
from statemachine import audit, histories, hooks, keyring, keys, queries, records, standing
from statemachine import commands as c
from statemachine.kv import Reader
from statemachine.machine import Machine
from statemachine.records import JobRecord
from told import Told as Shown
from told import seen, told

Names = tuple[str, str]


class Store:
    """What the first node to apply an entry holds right after it, in the midst of a round."""

    def __init__(self, machine: Machine) -> None:
        self._state = machine._state

    def rows(self, names: Names) -> list[tuple[bytes, bytes]]:
        """Ids and records of a queue's messages, in the order of the ids."""
        queue = self._state.find_queue(*names)
        if queue is None:
            return []
        number = queue.record.number
        low, high = keys.of_queue(b"m", number), keys.of_queue(b"m", number + 1)
        rows = [(key[-keys.ID_BYTES :], data) for key, data in self._state.kv.scan(low, high)]
        return sorted(rows, key=lambda row: row[0][2:])

    def job(self, names: Names) -> JobRecord | None:
        """What is done to many of a queue's messages, or was of late."""
        queue = self._state.find_queue(*names)
        data = queue and self._state.kv.get(keys.job(queue.record.number))
        return records.decode_job(data) if data else None

    def revision(self, names: HookNames) -> int:
        """Which putting of a subscription is there now; 0 without one."""
        data = self._state.kv.get(keys.subscription(*names))
        return records.decode_subscription(data).revision if data else 0


class Told:
    """Which entry of the log brought which of the model's events."""

    def __init__(self) -> None:
        self._ends: dict[Names, tuple[Queue, list[int], list[int]]] = {}

    def entry(self, index: int, model: Model) -> None:
        """All of an entry is in the model."""
        for names, queue in model.queues.items():
            found = self._ends.get(names)
            if found is None or found[0] is not queue:
                found = self._ends[names] = (queue, [], [])
            _, indexes, ends = found
            if len(queue.events) > (ends[-1] if ends else 0):
                indexes.append(index)
                ends.append(len(queue.events))

    def since(self, names: Names, index: int) -> int:
        """How many of a queue's events came before the entry at ``index``."""
        _, indexes, ends = self._ends[names]
        at = bisect_left(indexes, index)
        return ends[at - 1] if at else 0


def agrees(reader: Reader, model: Model, told_by: Told, sometimes: Callable[[str], None]) -> None:
    """Assert that a store is what the model says, queue by queue."""
    for names, queue in model.queues.items():
        if names[0] == ACCOUNT:
            _holds(reader, names, queue)
            _tells(reader, names, queue, told_by, sometimes)
            _binds(reader, names, model)
    _ticks(reader, model)
    _runs(reader, model)
    _sums(reader, model)
    _lets_in(reader, model)


def _binds(reader: Reader, names: Names, model: Model) -> None:
    found = standing.bindings(reader, *names)
    assert found is not None
    stored = {one.target: (one.match, one.any_of) for one in found}
    bound = model.bindings.get(names, {})
    expected = {target: (one.match, one.any_of) for target, one in bound.items()}
    assert stored == expected, f"{names} has other bindings: {found}"


def _ticks(reader: Reader, model: Model) -> None:
    found = standing.schedules(reader, ACCOUNT, limit=len(model.schedules) + 1)
    stored = {one.name: one.record for one in found.items} if found else {}
    assert stored.keys() == {name for _, name in model.schedules}
    for (_, name), one in model.schedules.items():
        record = stored[name]
        counts = (record.next_ms, record.ticks, record.refused)
        assert counts == (one.next_ms, len(one.ticks), one.refused), f"{name}: {record}"
        put = (one.put.queue, one.put.message, one.put.timing)
        assert (record.queue, record.message, record.timing) == put, f"{name}: {record}"


def _sums(reader: Reader, model: Model) -> None:
    """What the account has is what is there, and its limits are those that were set."""
    found = queries.usage(reader, ACCOUNT)
    if found is None:
        assert ACCOUNT not in model.accounts
        return
    assert found.limits == model.quotas.get(ACCOUNT, c.Quotas()), f"other limits: {found}"
    usage = {**model.usage(ACCOUNT), "history_bytes": _history_bytes(reader, model)}
    assert asdict(found.usage) == usage, f"the account has {usage}, and counts {found.usage}"


def _lets_in(reader: Reader, model: Model) -> None:
    """All keys that were made and not revoked are there, and every act is written down."""
    found = dict(keyring.of_account(reader, ACCOUNT))
    assert found == model.keys, f"the account has other keys: {found}"
    acts = audit.page(reader, limit=len(model.acts) + 1).items
    written = [(one.time_ms, one.actor, one.request, one.outcome) for _, one in acts]
    assert written == model.acts, f"the audit log has {written}"


def _history_bytes(reader: Reader, model: Model) -> int:
    data = reader.get(keys.account(ACCOUNT))
    assert data is not None
    numbers = [records.decode_account(data).history.number]
    for names in model.queues:
        data = reader.get(keys.queue(*names)) if names[0] == ACCOUNT else None
        numbers += [records.decode_queue(data).history.number] if data else []
    rows = [
        len(key) + len(row)
        for number in numbers
        for key, row in reader.scan(keys.events(number, 0), keys.events(number + 1, 0))
    ]
    return sum(rows)


def _runs(reader: Reader, model: Model) -> None:
    """Each subscription is as it was put, and of one node at most: of that which took it."""
    running = {node: one.number for node, one in model.running().items()}
    assert hooks.runners(reader) == running, "others run subscriptions"
    stored = {
        one.names: (one.settings, one.secret, one.node, one.disabled_reason)
        for one in hooks.all_subscriptions(reader)
    }
    expected = {
        names: (one.settings, one.secret, model.node_of(one), one.disabled)
        for names, one in model.hooks.items()
    }
    assert stored == expected, "other subscriptions"


def _holds(reader: Reader, names: Names, queue: Queue) -> None:
    data = reader.get(keys.queue(*names))
    assert data is not None, f"{names} is not there"
    number = records.decode_queue(data).number
    low, high = keys.of_queue(b"m", number), keys.of_queue(b"m", number + 1)
    stored = {key[-keys.ID_BYTES :] for key, _ in reader.scan(low, high)}
    assert stored == set(queue.messages), f"{names} holds other messages: {stored}"
    stats = queries.stats(reader, *names)
    assert stats is not None
    bodies = sum(len(one.new.body) for one in queue.messages.values())
    expected = (queue.dead, queue.leases_ended, bodies)
    assert (stats.dead, stats.leases_ended, stats.bytes) == expected, f"{names}: {stats}"


def _tells(
    reader: Reader,
    names: Names,
    queue: Queue,
    told_by: Told,
    sometimes: Callable[[str], None],
) -> None:
    """No event behind the mark is lost, and none is invented."""
    known = histories.known(reader, *names)
    assert known is not None
    gone, name = known.gone, names[1]
    if gone > histories.BEGINNING:
        sometimes("history was trimmed" if known.oldest else "a history was off")
    shown: Counter[Shown] = Counter()
    part: Counter[Shown] = Counter()
    for event in histories.between(reader, known.number, name, gone, keys.U64_MAX - 1):
        (shown if event.position.at > gone.at else part).update(seen(event))
    whole = [one for one in queue.events[told_by.since(names, gone.at + 1) :] if _counts(one)]
    expected = Counter([told(one) for one in whole])
    assert shown == expected, f"{name}: lost {expected - shown}, made up {shown - expected}"
    # Of an entry in which the mark is, the model can not tell what came before it.
    before = queue.events[told_by.since(names, gone.at) : told_by.since(names, gone.at + 1)]
    assert not part - Counter([told(one) for one in before]), f"{name} made up {part}"


def _counts(event: object) -> bool:
    """A purge is one event, whatever was there."""
    return getattr(event, "kind", "") != "purged" or getattr(event, "message", None) is None
