"""Whether an account's quotas have room for what is put, wherever bindings send it.

A message that is a duplicate adds nothing. To find them costs a look at each, so that is
done only where it matters.
"""

from __future__ import annotations

from collections.abc import Sequence

from statemachine import bindings, dedup, quotas
from statemachine.commands import Enqueue, NewMessage, PartPut
from statemachine.outcomes import Refused
from statemachine.state import State


class Wanted:
    """What several puts of one account would add, all together."""

    __slots__ = ("_account", "_into", "_state", "queues")

    def __init__(self, state: State, account: str, puts: Sequence[PartPut]) -> None:
        self._state = state
        self._account = account
        self._into: list[tuple[str, list[NewMessage]]] = []
        self.queues: dict[str, None] = {}
        """Those that are not there yet."""
        for put in puts:
            routed = bindings.routed(state, account, put.queue, put.messages)
            self._into.extend(routed.items())
        for name, _ in self._into:
            if state.find_queue(account, name) is None:
                self.queues[name] = None

    def refused(self, freed: int = 0, freed_bytes: int = 0) -> Refused | None:
        """The answer if there is no room, with so much that goes before; None if there is."""
        messages = [one for _, many in self._into for one in many]
        refusal = self._refused(messages, freed, freed_bytes)
        if refusal is None or not any(one.dedup_id for one in messages):
            return refusal
        return self._refused(self._new(), freed, freed_bytes)

    def _refused(self, new: list[NewMessage], freed: int, freed_bytes: int) -> Refused | None:
        return quotas.refused(
            self._state,
            self._state.find_account(self._account),
            queues=len(self.queues),
            messages=len(new) - freed,
            bytes=sum(len(one.body) for one in new) - freed_bytes,
        )

    def _new(self) -> list[NewMessage]:
        """Without those that are in their queues already, or come twice."""
        seen: dict[tuple[str, str], None] = {}
        new = []
        for name, many in self._into:
            remembers = self._state.in_force(self._account, name).dedup_window_ms > 0
            for one in many:
                key = (name, one.dedup_id)
                if one.dedup_id and (key in seen or self._is_known(*key)):
                    continue
                if remembers:
                    seen[key] = None
                new.append(one)
        return new

    def _is_known(self, name: str, dedup_id: str) -> bool:
        queue = self._state.find_queue(self._account, name)
        return queue is not None and dedup.is_known(self._state, queue, dedup_id)


def is_plain(state: State, account: str, puts: Sequence[PartPut]) -> bool:
    """Whether there is nothing to look at: no quotas, keys, queue to be made, or copies."""
    owner = state.find_account(account)
    if owner is None or owner.record.quotas is not None or owner.sealing or state.copies:
        return False
    for part in puts:
        queue = state.find_queue(account, part.queue)
        if queue is None or queue.record.bindings:
            return False
        if part.messages and part.messages[0].content_encoding:
            return False  # It may say that it is sealed: see ``sealing.refused``.
    return True


def refused(state: State, command: Enqueue) -> Refused | None:
    """The answer to a put for which there is no room; None if there is."""
    account = state.find_account(command.account)
    if account is None or account.record.quotas is None:
        return None
    queue, new = state.find_queue(command.account, command.queue), command.messages
    if queue is not None and not queue.record.bindings:  # The most frequent case.
        size = sum([len(one.body) for one in new])
        if quotas.refused(state, account, messages=len(new), bytes=size) is None:
            return None
    return Wanted(state, command.account, (PartPut(command.queue, new),)).refused()
