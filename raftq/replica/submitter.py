"""From commands to outcomes: batches that survive a change of leader without doubling.

A node gathers commands while its previous batches are under way (``backlog``) and while those
who were answered are about to ask again (``gathering``), and sends them to the leader as one
batch, named by the node's session and a sequence number. When the leader changes, or its
answer does not come, the same batch goes out again: the state machine remembers what it
answered (Ongaro's dissertation, section 6.3). An outcome is known when *this* node has applied
the entry, so whoever is answered can read his write. Who asked for less (``early``) is
answered when the leader has taken the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from raftq.replica.backlog import NOBODY, Backlog, Waiting, requests_of
from raftq.replica.gathering import Gathering
from raftq.replica.meter import Meter
from raftq.runtime import Runtime
from statemachine import commands
from statemachine.commands import Barrier, Batch, Command, OpenSession
from statemachine.outcomes import Outcome, Reason, Refused, SessionOpened

BATCHES_IN_FLIGHT_MAX = 2
BATCH_COMMANDS_MAX = 4_096
BATCH_BYTES_MAX = 1 << 20
SHARED_BATCH_BYTES_MAX = 64 << 10
"""While there are several accounts: nobody can overtake what is under way, so let it be little."""
SHARED_S = 1.0
OPEN_AGAIN_S = 1.0
RESEND_S = 2.0  # Doubled each time: whoever is late because of load must not get more of it.
RESEND_MAX_S = 16.0
WATCH_S = 0.25
KEEP_SESSION_S = 900.0  # A session that was idle for an hour of log time is forgotten.


class NotSubmitted(NamedTuple):
    """The command never left this node: it has not happened and will not."""

    reason: str  # "no_leader", "overloaded", "stopping"


class Unknown(NamedTuple):
    """The command may or may not happen."""

    detail: str


class Accepted(NamedTuple):
    """The leader has taken the command; it happens unless that leader is lost first."""


Answer = Outcome | Accepted | NotSubmitted | Unknown
Done = Callable[[Answer], None]
Asked = tuple[Command, int, Done]
"""A command, about how many bytes it has, and who is to be answered: once, from the loop."""


class Leader(Protocol):
    """How batches reach the leader, whoever that is."""

    def offer(self, batch: Batch, encoded: bytes, *, tell: bool, requests: int) -> bool:
        """Hand it over; False when no leader can be reached now. May be lost all the same.

        ``tell``: the submitter wants to hear (``accepted``) that the leader has taken it.
        ``requests``: that its commands are of; who has asked with two at once is one.
        """
        ...


class _InFlight:
    def __init__(self, batch: Batch, waiting: list[Waiting[Answer]], since: float) -> None:
        self.batch = batch
        self.since = since
        self.encoded = commands.encode(batch)
        self.waiting = waiting
        self.requests = requests_of(waiting)
        self.tell = any(one.early for one in waiting)
        self.patience_s = RESEND_S
        self.sent = 0  # When, as a place in the order of all that was sent.
        self.send_again_at = 0.0


class Submitter:
    """One node's commands on their way."""

    def __init__(
        self,
        leader: Leader,
        runtime: Runtime,
        meter: Meter,
        *,
        name: str,
        pending_max: int,
        pending_bytes_max: int,
        timeout_s: float,
        expect: Callable[[Command], bool],
    ) -> None:
        """``expect``: told what is under way; whether somebody is about to ask because of it."""
        self._leader = leader
        self._expect = expect
        self._meter = meter
        self._runtime = runtime
        self._timeout_s = timeout_s
        self._name = name
        self._token = f"{name}/{runtime.token(8).hex()}"
        self._session = 0
        self._opening_since: float | None = None
        self._seq = 0
        self._sent = 0
        self._last_batch_at = 0.0
        self._backlog: Backlog[Answer] = Backlog(
            commands_max=pending_max, bytes_max=pending_bytes_max
        )
        self._in_flight: dict[int, _InFlight] = {}
        self._in_flight_commands = 0
        self._kick_is_due = False
        self._lets_in = self._has_let_in = False
        self._gathering = Gathering(runtime, self._kick)
        self._stopping = False
        self._watch()

    @property
    def pending(self) -> int:
        """Commands that wait for their outcome."""
        return len(self._backlog) + self._in_flight_commands

    @property
    def has_session(self) -> bool:
        """Whether commands can be sent."""
        return self._session != 0

    def submit(
        self,
        command: Command,
        size: int,
        done: Done,
        *,
        account: str | None = None,
        early: bool = False,
    ) -> None:
        """Commit ``command`` (about ``size`` bytes); ``done`` is called once, from the loop.

        ``account``: among whose commands it waits, if it does not say so itself.
        ``early``: with ``Accepted`` if that is known before the outcome.
        """
        if account is None:
            account = getattr(command, "account", "")
        one = Waiting(command, size, done, self._runtime.monotonic(), early, account)
        self._add((one,))

    def submit_all(self, asked: Sequence[Asked]) -> None:
        """Commit commands of one account next to each other, in one batch, or none of them."""
        account, since = getattr(asked[0][0], "account", ""), self._runtime.monotonic()
        last = len(asked) - 1
        self._add(
            [
                Waiting(*one, since, False, account, is_joined=place < last)
                for place, one in enumerate(asked)
            ]
        )

    def _add(self, ones: Sequence[Waiting[Answer]]) -> None:
        if self._stopping:
            refusal = NotSubmitted("stopping")
        elif self._backlog.add(ones, self._in_flight_commands):
            for one in ones:
                self._lets_in |= self._expect(one.command)
            self._kick()
            return
        else:
            refusal = NotSubmitted("overloaded")
        for one in ones:
            one.done(refusal)

    def stop(self) -> None:
        """Take nothing more; what is under way goes on."""
        self._stopping = True

    def leader_changed(self) -> None:
        """Whatever was sent may be lost: send it again, in order."""
        self._opening_since = None
        for flight in self._in_flight.values():
            self._send_lost(flight)
        self._kick()

    def accepted(self, session: int, seq: int) -> None:
        """The leader has taken a batch of this node's."""
        flight = self._in_flight.get(seq) if session == self._session else None
        if flight is None or not flight.tell:
            return
        flight.tell = False
        waiting, flight.waiting = flight.waiting, []
        for one in waiting:
            if one.early:
                one.done(Accepted())
                one = msgspec.structs.replace(one, done=_ignore)
            flight.waiting.append(one)

    def applied(self, session: int, seq: int, outcomes: tuple[Outcome, ...]) -> None:
        """An entry was applied that carries a batch; perhaps one of ours."""
        if session != self._session:
            return
        flight = self._in_flight.pop(seq, None)
        if flight is None:
            return  # A second copy of a batch that was answered by its first.
        self._in_flight_commands -= len(flight.waiting)
        self._gathering.committed(min(self._in_flight, default=self._seq + 1) - 1)
        self._send_overtaken(flight)
        self._meter.committed(self._runtime.monotonic() - flight.since)
        lost = isinstance(outcomes[0], Refused) and outcomes[0].reason in (
            Reason.SESSION_EXPIRED,
            Reason.STALE_BATCH,
        )
        if lost:
            self._session_lost()
        if not flight.waiting:
            outcomes = ()  # Given up: nobody waits for them.
        for waiting, outcome in zip(flight.waiting, outcomes, strict=True):
            waiting.done(Unknown("the node's session expired") if lost else outcome)
        self._kick()

    def session_opened(self, token: str, outcome: Outcome) -> None:
        """An OpenSession was applied; perhaps ours."""
        if token == self._token and not self._session and isinstance(outcome, SessionOpened):
            self._session = outcome.session
            self._opening_since = None
            self._last_batch_at = self._runtime.monotonic()
            self._kick()

    def _session_lost(self) -> None:
        self._session = 0
        self._token = f"{self._name}/{self._runtime.token(8).hex()}"
        flights, self._in_flight = self._in_flight, {}
        self._in_flight_commands = 0
        self._gathering.clear()
        for flight in flights.values():
            for waiting in flight.waiting:
                waiting.done(Unknown("the node's session expired"))

    def _kick(self) -> None:
        """Gather everything that is being submitted in this turn of the loop."""
        if not self._kick_is_due:
            self._kick_is_due = True
            self._runtime.call_soon(self._flush)

    def _flush(self) -> None:
        self._kick_is_due = False
        if not self._session:
            self._open_session()
            return
        if not self._backlog:
            return
        self._lets_in, self._has_let_in = False, self._lets_in and not self._has_let_in
        if self._has_let_in:  # Whoever was told submits in this turn, to be in the same batch.
            self._kick()
            return
        if not self._gathering.is_enough(self._backlog.requests, self._backlog.size):
            return
        while self._backlog and (held_up := self._held_up()) is not None:
            waiting = self._backlog.take(
                commands_max=BATCH_COMMANDS_MAX,
                bytes_max=SHARED_BATCH_BYTES_MAX if self._is_shared() else BATCH_BYTES_MAX,
                held_up=held_up,
            )
            if not waiting:
                break
            self._seq += 1
            batch = Batch(
                session=self._session,
                seq=self._seq,
                floor=min(self._in_flight, default=self._seq),
                commands=tuple([one.command for one in waiting]),
            )
            flight = _InFlight(batch, waiting, self._runtime.monotonic())
            self._in_flight[self._seq] = flight
            self._last_batch_at = flight.since
            self._in_flight_commands += len(waiting)
            self._gathering.appended(self._seq, flight.requests, len(flight.encoded))
            self._send(flight)

    def _held_up(self) -> frozenset[str] | None:
        """Accounts whose next commands wait for a batch to be done; None: all do.

        Who has filled the batch under way does not keep the next one from others.
        """
        if not self._in_flight:
            return NOBODY
        if len(self._in_flight) >= BATCHES_IN_FLIGHT_MAX:
            return None
        if not self._is_shared():
            return NOBODY
        flights = self._in_flight.values()
        if sum([len(flight.encoded) for flight in flights]) < SHARED_BATCH_BYTES_MAX:
            return NOBODY
        return frozenset([one.account for flight in flights for one in flight.waiting])

    def _is_shared(self) -> bool:
        return self._backlog.is_shared(self._runtime.monotonic() - SHARED_S)

    def _send(self, flight: _InFlight) -> None:
        # Not even sent: the next look round tries again.
        patience_s = 0.0
        if self._leader.offer(
            flight.batch, flight.encoded, tell=flight.tell, requests=flight.requests
        ):
            patience_s = flight.patience_s
            flight.patience_s = min(2 * patience_s, RESEND_MAX_S)
        self._sent += 1
        flight.sent = self._sent
        flight.send_again_at = self._runtime.monotonic() + patience_s

    def _send_overtaken(self, applied: _InFlight) -> None:
        """What was sent before a batch that has got through is lost: send it again at once.

        One way leads to the leader and nothing on it overtakes, as with the fast retransmit of
        TCP (RFC 5681, section 3.2). To wait for its patience would keep a slot busy for nothing.
        """
        for flight in self._in_flight.values():
            if flight.sent < applied.sent:
                self._send_lost(flight)

    def _send_lost(self, flight: _InFlight) -> None:
        """Again, with the patience of the first time: it was not late because of load."""
        flight.patience_s = RESEND_S
        self._send(flight)

    def _open_session(self) -> None:
        now = self._runtime.monotonic()
        if self._opening_since is not None and now - self._opening_since < OPEN_AGAIN_S:
            return
        batch = Batch(session=0, seq=0, floor=0, commands=(OpenSession(self._token),))
        if self._leader.offer(batch, commands.encode(batch), tell=False, requests=1):
            self._opening_since = now

    def _watch(self) -> None:
        """Give up on what took too long, and send again what got no answer."""
        now = self._runtime.monotonic()
        for waiting in self._backlog.expired(now - self._timeout_s):
            waiting.done(NotSubmitted("no_leader"))
        for flight in self._in_flight.values():
            if now > flight.send_again_at:
                self._send(flight)
            if flight.waiting and flight.waiting[0].since + self._timeout_s < now:
                self._give_up(flight)
        if not self._session:
            self._open_session()
        elif now - self._last_batch_at > KEEP_SESSION_S and not self._backlog:
            self.submit(Barrier(), 0, _ignore)
        self._runtime.call_later(WATCH_S, self._watch)

    def _give_up(self, flight: _InFlight) -> None:
        """The clients hear that nobody knows; the batch itself stays until it is settled.

        Forgetting it would let a late copy be taken for a new one.
        """
        for waiting in flight.waiting:
            waiting.done(Unknown("no majority answered in time"))
        self._in_flight_commands -= len(flight.waiting)
        flight.waiting = []


def _ignore(_answer: Answer) -> None:
    """Whoever waited has gone."""
