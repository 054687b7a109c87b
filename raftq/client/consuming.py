"""A consumer: claims ahead, keeps leases alive while the work lasts, settles.

Rules of the loop over ``queue.consume(...)``:

- With ``auto_ack`` a message is done when the loop comes back for the next one: it is
  acked beside the loop, in one request with others that were done meanwhile, and with the
  next claim if there is to be one. A loop that
  ends otherwise (``break``, an exception) has not come back: that message, and those that
  were claimed ahead, are given back: at once when consumer or client are closed, or
  within a third of the lease after the consumer was forgotten. ``with message:`` settles
  at once instead: it acks, or releases if the block raises.
- While a message is with the loop or waits for it, its claim is extended by itself, for
  ``extend_for`` seconds at most. A lease that is lost in spite of that is told:
  ``message.lost``, ``LeaseLost`` from ``message.ack()``, and a warning in the log when the
  ack was automatic. What is lost before the loop has seen it is not shown to it.
- When no replica can serve, the consumer waits; only its first claim raises. It also waits
  while the account has as much in flight as it may have, from the first claim on.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from raftq.client.answers import Message
from raftq.client.claims import ClaimCore, Wanted, extend_many, make
from raftq.client.effects import Bell, Pause, Spawn, Steps
from raftq.client.errors import LeaseLost, OutcomeUnknown, QuotaExceeded, RaftqError, Unavailable
from raftq.client.operations import QueueCore

EXTENDS_PER_LEASE = 3
EXTEND_TIMEOUT_MIN_S = 0.5
OUTAGE_PAUSE_S = 1.0

log = logging.getLogger("raftq.client")


class Consume(msgspec.Struct, frozen=True, kw_only=True):
    """How a consumer works; times in seconds."""

    wanted: Wanted
    lease: float
    auto_ack: bool
    drain: bool
    prefetch: bool
    extend_for: float


class Held(msgspec.Struct, frozen=True, eq=False):
    """A message, and how it was claimed."""

    claimed: ClaimCore
    message: Message

    @property
    def claim(self) -> ClaimCore:
        """The claim that holds it now: part of a claim can become one of its own."""
        return self.claimed.holder(self.message.id)

    @property
    def settled(self) -> bool:
        """Whether it was acked or released, or is lost."""
        return self.message.id not in self.claim.held

    @property
    def lost(self) -> bool:
        """Whether its lease is known to be lost."""
        return self.claim.is_lost(self.message.id)

    def ack(self) -> Steps[None]:
        """Delete it: the work is done. ``LeaseLost`` if it is no longer ours."""
        yield from self.claim.ack([self.message.id])

    def release(self, delay: float | None = None) -> Steps[None]:
        """Give it back, to be ready again after ``delay`` seconds."""
        yield from self.claim.release([self.message.id], delay=delay)

    def nack(
        self, reason: str | None = None, *, delay: float | None = None, dead: bool = False
    ) -> Steps[None]:
        """The work has failed: give it back and say why; ``dead``: do not try it again."""
        yield from self.claim.nack([self.message.id], reason=reason, delay=delay, dead=dead)

    def leave(self, done: bool) -> Steps[None]:
        """The end of a ``with`` block."""
        if self.settled:
            return
        if done:
            yield from self.ack()
            return
        try:
            yield from self.release()
        except RaftqError as error:  # What the block raised is what its author must see.
            log.warning("message %s was not released: %s", self.message.id, error)


class _Kept:
    """A claim whose lease is looked after."""

    def __init__(self, claim: ClaimCore, now_s: float, every_s: float, extend_for_s: float) -> None:
        self.claim = claim
        self.due_s = now_s + every_s
        self.end_s = now_s + extend_for_s


class ConsumerCore:
    """The state that loop and keeper share; the keeper runs in the background."""

    def __init__(self, queue: QueueCore, how: Consume) -> None:
        self._queue = queue
        self._how = how
        self._every_s = how.lease / EXTENDS_PER_LEASE
        self._bell = Bell(queue.new_event)
        self._kept: list[_Kept] = []
        self._waiting: deque[Held] = deque()
        self._current: Held | None = None
        self._done: list[Held] = []
        self._prefetching = False
        self._started = self._closed = self._keeper_runs = False

    def next(self) -> Steps[Held | None]:
        """Settle the message before and give the next; None when the loop is over."""
        if self._closed:
            return None
        if self._current is not None:
            before, self._current = self._current, None
            if self._how.auto_ack and not before.settled:
                self._done.append(before)
                self._bell.ring()
        while not self._closed:
            while self._waiting:
                held = self._waiting.popleft()
                if not held.settled and not held.lost:
                    self._current = held
                    self._prefetch_if_last()
                    return held
            if self._prefetching:
                yield from self._bell.listen()
            elif not (yield from self._claim()) and self._how.drain:
                yield from self.close()
        return None

    def close(self) -> Steps[None]:
        """End; what was not settled is given back."""
        self._closed = True
        self._bell.ring()
        while self._keeper_runs:
            yield from self._bell.listen()
        self._waiting.clear()

    def forget(self) -> None:
        """Nobody will ask for more. Safe wherever an object may be collected: only a flag."""
        self._closed = True

    def _claim(self) -> Steps[bool]:
        """Wait for messages; whether there are any."""
        try:
            claim = yield from self._next_claim(self._how.wanted)
        except (Unavailable, OutcomeUnknown, QuotaExceeded) as error:
            if not self._started and not isinstance(error, QuotaExceeded):
                raise
            log.warning("no claim on %s: %s", self._queue.name, error)
            yield Pause(OUTAGE_PAUSE_S)
            return True
        self._started = True
        return (yield from self._take(claim))

    def _take(self, claim: ClaimCore) -> Steps[bool]:
        if not claim.messages:
            return False
        now_s = self._queue.session.clock()
        self._kept.append(_Kept(claim, now_s, self._every_s, self._how.extend_for))
        self._waiting.extend(Held(claim, message) for message in claim.messages)
        if not self._keeper_runs and not self._closed:
            self._keeper_runs = True
            self._queue.session.users.add(self)
            yield Spawn(self._keep())
        self._bell.ring()
        return True

    def _prefetch_if_last(self) -> None:
        """Claim ahead while the last message is worked on, so that the loop need not wait."""
        if self._how.prefetch and not self._waiting and not self._prefetching:
            self._prefetching = True
            self._bell.ring()

    def _keep(self) -> Steps[None]:
        """The keeper: extend in time, ack, claim ahead when asked to; give back at the end."""
        try:
            while not self._closed:
                now_s = self._queue.session.clock()
                self._kept = [kept for kept in self._kept if kept.claim.held]
                if any(k.due_s <= now_s < k.end_s for k in self._kept):
                    # Those that are due soon come along.
                    soon_s = now_s + self._every_s / 2
                    due = [k for k in self._kept if k.due_s <= soon_s and now_s < k.end_s]
                    yield from self._extend(due)
                elif self._prefetching:
                    yield from self._prefetch()
                elif self._done:
                    yield from self._ack_done()
                else:
                    # Also without anything due: whether it was forgotten is only a flag.
                    times = [kept.due_s for kept in self._kept if kept.due_s < kept.end_s]
                    until_s = min([now_s + self._every_s, *times])
                    yield from self._bell.listen(until_s - now_s)
            while self._done:
                yield from self._ack_done()
            yield from self._give_back()
        finally:
            self._keeper_runs = self._prefetching = False
            self._queue.session.users.discard(self)
            self._bell.ring()

    def _next_claim(self, wanted: Wanted) -> Steps[ClaimCore]:
        """A new claim, by the request that acks what is done of an earlier one."""
        if not self._done:
            return (yield from make(self._queue, wanted))
        claim, ids = self._take_done()
        # The answer may be long in coming, and they are acked by then: nothing is to be extended.
        claim.held.difference_update(ids)
        try:
            settled, found = yield from claim.ack_and_claim(ids, next=wanted)
        except RaftqError as error:
            if error.done is None:
                _not_acked(claim, ids, error)
            raise
        _tell_lost(settled.stale)
        return found

    def _ack_done(self) -> Steps[None]:
        """Ack what is done of one claim. Work done twice is better than a loop that ends."""
        claim, ids = self._take_done()
        try:
            stale: Sequence[str] = (yield from claim.ack(ids)).stale
        except LeaseLost:
            stale = ids
        except RaftqError as error:
            _not_acked(claim, ids, error)
            return
        _tell_lost(stale)

    def _take_done(self) -> tuple[ClaimCore, list[str]]:
        """A claim, and what is done of it and to be acked."""
        claim = self._done[0].claim
        mine = [held for held in self._done if held.claim is claim]
        self._done = [held for held in self._done if held.claim is not claim]
        return claim, [held.message.id for held in mine if not held.settled]

    def _give_back(self) -> Steps[None]:
        for kept in self._kept:
            if not kept.claim.held:
                continue
            try:
                yield from kept.claim.release()
            except RaftqError as error:  # They come back when the lease ends.
                log.warning("claim %s was not released: %s", kept.claim.id, error)

    def _extend(self, due: list[_Kept]) -> Steps[None]:
        """One request for all that are due."""
        claims = [kept.claim for kept in due]
        for kept in due:
            kept.due_s = self._queue.session.clock() + self._every_s
        patience_s = max(self._every_s, EXTEND_TIMEOUT_MIN_S)
        try:
            over = yield from extend_many(self._queue, claims, self._how.lease, timeout=patience_s)
        except RaftqError as error:
            # Another try is due soon enough.
            log.warning("%d claims were not extended: %s", len(claims), error)
            return
        for claim in over:
            log.warning("claim %s was not extended: it is over", claim.id)

    def _prefetch(self) -> Steps[None]:
        try:
            claim = yield from self._next_claim(replace(self._how.wanted, wait=0.0))
            yield from self._take(claim)
        except RaftqError as error:  # The loop claims for itself and sees what the matter is.
            log.info("nothing was claimed ahead on %s: %s", self._queue.name, error)
        finally:
            self._prefetching = False
            self._bell.ring()


def _not_acked(claim: ClaimCore, ids: Sequence[str], error: RaftqError) -> None:
    log.warning("messages %s may come again: %s", ", ".join(ids), error)
    claim.held.difference_update(ids)


def _tell_lost(stale: Sequence[str]) -> None:
    if stale:
        log.warning("the leases of messages %s were lost", ", ".join(stale))
