"""Bindings: what is put to a queue goes to others, by its headers; one entry, many queues.

A message that at least one binding matches is put to every target whose binding
matches, and not to the queue itself, unless that is one of the targets. One that none
matches stays: nothing is ever dropped. Each copy is a message of its own, under its
queue's settings. Bindings of targets are not followed, so there are no loops. A target
that is not there is made; the bindings of a queue go when it is deleted.

Copies are more than what the entry itself holds. So that an entry can not outgrow its
ids, nor a round the memory, there are bounds on those of one entry; a command of one
message is always within them by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from statemachine import filters, keys, quotas, records
from statemachine.commands import DeleteBinding, NewMessage, PartPut, PutBinding
from statemachine.outcomes import Done, Enqueued, Outcome, Place, Reason, Refused, Stored
from statemachine.queues import no_queue, open_queue
from statemachine.records import Binding, BindingsRecord
from statemachine.state import Queue, State

BINDINGS_MAX = 64
COPIES_MAX = 100_000
COPIED_BYTES_MAX = 64 << 20

PutInto = Callable[[State, Queue, Sequence[NewMessage]], Enqueued]


def put_binding(state: State, command: PutBinding) -> Outcome:
    """See ``commands.PutBinding``."""
    queue = state.find_queue(command.account, command.queue)
    known = () if queue is None else _of(state, queue)
    before = [one for one in known if one.target == command.target]
    if not before and len(known) >= BINDINGS_MAX:
        detail = f"queue {command.queue!r} is bound to {BINDINGS_MAX} queues, which is the most"
        return Refused(Reason.TOO_MANY_BINDINGS, detail)
    owner = state.find_account(command.account)
    new_queues, new_bindings = int(queue is None), int(not before)
    refusal = quotas.refused(state, owner, queues=new_queues, bindings=new_bindings)
    if refusal is not None:
        return refusal
    if queue is None:
        queue = open_queue(state, command.account, command.queue)
    created_ms = before[0].created_ms if before else state.now_ms
    new = Binding(command.target, command.match, command.any_of, created_ms)
    others = [one for one in known if one.target != command.target]
    _keep(state, queue, tuple(sorted([*others, new], key=lambda one: one.target)))
    return Stored(created=not before)


def delete_binding(state: State, command: DeleteBinding) -> Outcome:
    """See ``commands.DeleteBinding``."""
    queue = state.find_queue(command.account, command.queue)
    if queue is None:
        return no_queue(command.account, command.queue)
    known = _of(state, queue)
    left = tuple([one for one in known if one.target != command.target])
    if len(left) == len(known):
        detail = f"queue {command.queue!r} is not bound to {command.target!r}"
        return Refused(Reason.NO_BINDING, detail)
    _keep(state, queue, left)
    return Done()


def fan_out(
    state: State, queue: Queue, messages: tuple[NewMessage, ...], put_into: PutInto
) -> Outcome:
    """Put messages, all or none, to where the queue's bindings send them."""
    bound, (account, name) = _of(state, queue), queue.names
    routes = [_targets(bound, message) or [name] for message in messages]
    by_queue: dict[str, list[int]] = {}
    for position, targets in enumerate(routes):
        for target in targets:
            by_queue.setdefault(target, []).append(position)
    more = _Copies()
    more.add(messages, routes)
    refusal = _refusal(state, more)
    if refusal is not None:
        return refusal
    state.copies += more.copies + more.queues
    state.copied_bytes += more.size
    places: list[list[Place]] = [[] for _ in messages]
    added: dict[int, None] = {}
    for target in sorted(by_queue):
        positions = by_queue[target]
        into = open_queue(state, account, target)
        put = put_into(state, into, [messages[position] for position in positions])
        for position, message_id in zip(positions, put.ids, strict=True):
            places[position].append(Place(target, message_id))
        known = dict.fromkeys(put.duplicates)
        added.update((one, None) for at, one in enumerate(positions) if at not in known)
    routed = tuple([tuple(one) for one in places])
    duplicates = tuple([one for one in range(len(messages)) if one not in added])
    return Enqueued(tuple([one[0].id for one in routed]), duplicates, routed)


def refused(state: State, account: str, puts: tuple[PartPut, ...]) -> Refused | None:
    """What would be answered to these puts, if they came one after the other."""
    total = _Copies()
    for put in puts:
        queue = state.find_queue(account, put.queue)
        if queue is not None and queue.record.bindings:
            bound = _of(state, queue)
            total.add(put.messages, [_targets(bound, one) or [put.queue] for one in put.messages])
    return _refusal(state, total)


def routed(
    state: State, account: str, name: str, messages: tuple[NewMessage, ...]
) -> dict[str, list[NewMessage]]:
    """By queue, what comes into it when these are put to one."""
    queue = state.find_queue(account, name)
    if queue is None or not queue.record.bindings:
        return {name: list(messages)}
    found: dict[str, list[NewMessage]] = {}
    bound = _of(state, queue)
    for message in messages:
        for target in _targets(bound, message) or [name]:
            found.setdefault(target, []).append(message)
    return found


def _of(state: State, queue: Queue) -> tuple[Binding, ...]:
    if queue.bindings is None:
        queue.bindings = ()
        if queue.record.bindings:
            data = state.kv.get(keys.bindings(*queue.names))
            assert data is not None, queue.names
            queue.bindings = records.decode_bindings(data).bindings
    return queue.bindings


def _keep(state: State, queue: Queue, bound: tuple[Binding, ...]) -> None:
    key = keys.bindings(*queue.names)
    if bound:
        state.kv.put(key, records.encode(BindingsRecord(bound)))
    else:
        state.kv.delete(key)
    queue.bindings = bound
    queue.record.bindings = len(bound)
    state.touch_queue(queue)


class _Copies:
    """How many copies are to be made of how many messages."""

    __slots__ = ("copies", "messages", "queues", "size")

    def __init__(self) -> None:
        self.messages = self.copies = self.queues = self.size = 0

    def add(self, messages: tuple[NewMessage, ...], routes: list[list[str]]) -> None:
        """These are put to where the routes say."""
        self.messages += len(messages)
        self.copies += sum(map(len, routes))
        self.queues += len(dict.fromkeys(target for targets in routes for target in targets))
        sizes = (
            len(one.body) * len(targets) for one, targets in zip(messages, routes, strict=True)
        )
        self.size += sum(sizes)


def _refusal(state: State, more: _Copies) -> Refused | None:
    copies = more.copies + more.queues  # A queue that is made takes an id too.
    what = f"{more.copies} copies with {more.size} bytes"
    if more.messages > 1 and (copies > COPIES_MAX or more.size > COPIED_BYTES_MAX):
        return Refused(Reason.FAN_OUT_TOO_LARGE, f"these messages would become {what}")
    total, total_bytes = state.copies + copies, state.copied_bytes + more.size
    if state.copies and (total > COPIES_MAX or total_bytes > COPIED_BYTES_MAX):
        return Refused(Reason.FAN_OUT_BUSY, f"too many copies at once; these would be {what} more")
    return None


def _targets(bound: tuple[Binding, ...], message: NewMessage) -> list[str]:
    headers = filters.by_name(message.headers)
    return [one.target for one in bound if filters.has(headers, one.match, any_of=one.any_of)]
