"""What can be asked about subscriptions, of the applied state on any replica.

Like ``queries``, of which this is the part that front ends and runners of subscriptions
share. A runner counts until its lease has ended by log time, swept or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from statemachine import keys, queries, records
from statemachine.commands import SubscriptionName, SubscriptionSettings
from statemachine.kv import Reader


class SubscriptionView(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription; ``node`` is the one that runs it, empty if none does."""

    names: SubscriptionName
    revision: int
    settings: SubscriptionSettings
    secret: bytes
    created_ms: int
    node: str
    disabled_ms: int
    disabled_reason: str  # Empty: it is not disabled.

    def __repr__(self) -> str:
        """Without the secret: representations end up in logs."""
        return f"SubscriptionView({self.names}, {self.settings}, node={self.node!r})"


class Subscriptions(NamedTuple):
    """A page of a queue's subscriptions in the order of their names."""

    items: tuple[SubscriptionView, ...]
    marker: str | None


def runners(reader: Reader) -> dict[str, int]:
    """The nodes that run subscriptions now, and their numbers as runners."""
    _, _, now_ms = queries.applied(reader)
    found = {}
    for key, data in reader.scan(keys.RUNNERS, keys.SUBSCRIPTIONS):
        record = records.decode_runner(data)
        if record.until_ms > now_ms:
            (node,) = keys.split_names(key[len(keys.RUNNERS) :])
            found[node] = record.number
    return found


def subscription(reader: Reader, account: str, queue: str, name: str) -> SubscriptionView | None:
    """One subscription, or None."""
    data = reader.get(keys.subscription(account, queue, name))
    return None if data is None else _view((account, queue, name), data, runners(reader))


def subscriptions(
    reader: Reader,
    account: str,
    queue: str,
    *,
    limit: int,
    marker: str | None = None,
    prefix: str = "",
) -> Subscriptions | None:
    """Subscriptions whose names begin with ``prefix``; None if there is no such queue."""
    if reader.get(keys.queue(account, queue)) is None:
        return None
    running = runners(reader)
    found: list[SubscriptionView] = []
    space, _ = keys.subscriptions(account, queue)
    for name, data in queries.named(reader, space, prefix, marker):
        if len(found) == limit:
            return Subscriptions(tuple(found), found[-1].names[2])
        found.append(_view((account, queue, name), data, running))
    return Subscriptions(tuple(found), None)


def all_subscriptions(reader: Reader) -> Iterator[SubscriptionView]:
    """The subscriptions of all queues."""
    running = runners(reader)
    for key, data in reader.scan(keys.SUBSCRIPTIONS, keys.SUBSCRIPTIONS_END):
        account, queue, name = keys.split_names(key[len(keys.SUBSCRIPTIONS) :])
        yield _view((account, queue, name), data, running)


def _view(names: SubscriptionName, data: bytes, running: dict[str, int]) -> SubscriptionView:
    record = records.decode_subscription(data)
    return SubscriptionView(
        names=names,
        revision=record.revision,
        settings=record.settings,
        secret=record.secret,
        created_ms=record.created_ms,
        node=record.node if running.get(record.node, 0) == record.runner != 0 else "",
        disabled_ms=record.disabled_ms,
        disabled_reason=record.disabled_reason,
    )
