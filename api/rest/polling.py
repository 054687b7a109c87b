"""Claiming with patience: propose, park until something is ready, propose again.

Rules: a client that has gone away must not hold messages; a cluster without a leader
for a moment is something to wait out; a parked request costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from starlette.types import Receive

from api.ports import OutcomeUnknown, Unavailable
from api.problems import Problem
from api.rest.requests import Call, Disconnected
from statemachine.commands import Claim, Release, Take
from statemachine.outcomes import Claimed
from statemachine.settings import ONLY, PREFER

BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 1.0
OF_A_MOMENT = ("no_leader", "not_current")
"""Reasons that pass by themselves while leaders change."""

T = TypeVar("T")


class Presence:
    """Whether somebody still wants what is waited for."""

    def __init__(self) -> None:
        self.gone = False
        self._scope: anyio.CancelScope | None = None

    async def during(self, waiting: Callable[[], Awaitable[T]]) -> T:
        """What ``waiting`` answers, unless the client leaves first: then Disconnected.

        ``waiting`` runs in this task at once, so that what it registers is in place
        before anything else happens.
        """
        if not self.gone:
            with anyio.CancelScope() as self._scope:
                return await waiting()
        raise Disconnected

    def leave(self) -> None:
        """Nobody does any more."""
        self.gone = True
        if self._scope is not None:
            self._scope.cancel()


class ClientPresence(Presence):
    """Whether the client is still there, once its whole request has been read."""

    def __init__(self, receive: Receive) -> None:
        super().__init__()
        self._watch = asyncio.ensure_future(self._wait_for_disconnect(receive))

    async def close(self) -> None:
        """Stop watching."""
        self._watch.cancel()
        await asyncio.wait([self._watch])

    async def _wait_for_disconnect(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.leave()


async def claim_within(
    call: Call, command: Claim | Take, wait_s: float, empty: Claimed | None = None
) -> Claimed:
    """The first claim that is not empty, or the empty one at the end of the wait.

    ``empty``: the claim was made once, and found nothing; so this parks first.
    """
    presence = ClientPresence(call.receive)
    try:
        return await claim_while_present(call, command, wait_s, presence, empty)
    finally:
        await presence.close()


async def claim_while_present(
    call: Call,
    command: Claim | Take,
    wait_s: float,
    presence: Presence,
    empty: Claimed | None = None,
) -> Claimed:
    """The same, as long as somebody wants it; else nothing is held, and ``Disconnected``.

    Where this replica knows of nothing, the claim is made when there is something, and at the
    end of the wait: it would be an entry in the log that says that the queue is empty.
    """
    clock = asyncio.get_running_loop().time
    deadline_s = clock() + wait_s
    backoff_s = 0.0
    has_waited = empty is not None or call.service.prospects(command).is_empty
    if has_waited:
        due_ms = empty.until_ms if empty is not None else 0
        backoff_s = await _park(call, command, due_ms, wait_s, backoff_s, presence)
    while True:
        if presence.gone:
            raise Disconnected
        try:
            if has_waited:
                await _readmit(call, command)
            has_waited = True
            claimed = await call.propose(command, Claimed)
        except Unavailable as error:
            left_s = deadline_s - clock()
            if error.reason not in OF_A_MOMENT or left_s <= 0:
                raise
            backoff_s = _next(backoff_s)
            pause_s = min(backoff_s, left_s)
            await presence.during(lambda: asyncio.sleep(pause_s))  # noqa: B023 - awaited here.
            continue
        if claimed.messages:
            await _give_back_if_gone(call, command, claimed, presence)
            return claimed
        left_s = deadline_s - clock()
        if left_s <= 0:
            return claimed
        backoff_s = await _park(call, command, claimed.until_ms, left_s, backoff_s, presence)


async def _readmit(call: Call, command: Claim | Take) -> None:
    """Go on only if the key is still good; else somebody else gets what there may be."""
    try:
        await call.readmit()
    except Problem:
        call.service.wake_next(command.account, command.queue)
        raise


async def _park(
    call: Call,
    command: Claim | Take,
    due_ms: int,
    left_s: float,
    backoff_s: float,
    presence: Presence,
) -> float:
    """Wait until another claim may find something; the backoff from now on.

    ``due_ms`` is when the first message of another zone may be had here, or 0: then the
    claim is made again. Without it whoever prefers its own zone wants to hear of others'
    messages, to learn that time.

    Something may have become ready between the empty claim and now, unseen by a waiter
    that had not registered yet: then there is no wait. But the count of ready messages
    includes some that no claim can get (they have expired and are not swept yet), so
    that a second such round waits a little.
    """
    seen = call.service.prospects(command)
    if seen.near or (seen.far and not due_ms):
        timeout_s = min(backoff_s, left_s)
        backoff_s = _next(backoff_s)
    else:
        backoff_s, timeout_s = 0.0, left_s
        if due_ms:
            timeout_s = min(max(due_ms - call.service.now_ms(), 1) / 1000, left_s)
    if timeout_s <= 0:
        return backoff_s
    call.park()
    try:
        await presence.during(
            lambda: call.service.wait_ready(
                command.account,
                command.queue,
                timeout_s,
                zone=command.zone if seen.mode in (ONLY, PREFER) else None,
                others=seen.mode == PREFER and not due_ms,
            )
        )
    finally:
        call.unpark()
    return backoff_s


async def _give_back_if_gone(
    call: Call, command: Claim | Take, claimed: Claimed, presence: Presence
) -> None:
    if not presence.gone:
        return
    if isinstance(command, Take):
        raise Disconnected  # They are gone, and nobody has got them: that is what was asked for.
    # If this fails the lease runs out by itself; nobody is there to be told.
    with contextlib.suppress(Unavailable, OutcomeUnknown):
        await call.service.propose(Release(command.account, command.queue, claimed.claim, None, 0))
    raise Disconnected


def _next(backoff_s: float) -> float:
    return min(max(backoff_s * 2, BACKOFF_FIRST_S), BACKOFF_MAX_S)
