"""What can be asked of bindings and schedules. Nothing here changes anything (``queries``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from statemachine import keys, records
from statemachine.kv import Reader
from statemachine.queries import any_name, named
from statemachine.records import Binding, ScheduleRecord


class ScheduleView(NamedTuple):
    """A schedule and its name."""

    name: str
    record: ScheduleRecord


class Schedules(NamedTuple):
    """A page of schedules in the order of their names."""

    items: tuple[ScheduleView, ...]
    marker: str | None


def bindings(reader: Reader, account: str, queue: str) -> tuple[Binding, ...] | None:
    """A queue's bindings in the order of their targets; None if there is no queue."""
    data = reader.get(keys.queue(account, queue))
    if data is None:
        return None
    if not records.decode_queue(data).bindings:
        return ()
    bound = reader.get(keys.bindings(account, queue))
    assert bound is not None, (account, queue)
    return records.decode_bindings(bound).bindings


def schedules(
    reader: Reader,
    account: str,
    *,
    limit: int,
    marker: str | None = None,
    prefix: str = "",
    sees: Callable[[str], bool] = any_name,
) -> Schedules | None:
    """Schedules whose names begin with ``prefix``; None if there is no account.

    Only those for queues that the reader ``sees``; he learns of no others.
    """
    if reader.get(keys.account(account)) is None:
        return None
    found: list[ScheduleView] = []
    for name, value in named(reader, b"e" + keys.name(account), prefix, marker):
        record = records.decode_schedule(value)
        if not sees(record.queue):
            continue
        if len(found) == limit:
            return Schedules(tuple(found), found[-1].name if found else marker)
        found.append(ScheduleView(name, record))
    return Schedules(tuple(found), None)


def schedule(reader: Reader, account: str, name: str) -> ScheduleRecord | None:
    """One schedule, or None."""
    data = reader.get(keys.schedule(account, name))
    return None if data is None else records.decode_schedule(data)
