"""What the clients were told, held against what the log says happened.

The log is one order of everything that took effect. The service is linearizable if what
each client heard is what the log says, and if whatever was asked after an answer comes
after it in the log (Herlihy and Wing, 1990).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from raftq.replica.submitter import Accepted, NotSubmitted
from simulation.checks import Taken, Violation
from simulation.clients import History, NotKnown, Read, Request
from simulation.oracle import Effect, Oracle, key_of
from statemachine import commands as c
from statemachine.outcomes import Claimed, Enqueued, Outcome, TransactedAndClaimed
from steps import ids_given, takes


class Verdict:
    """See the module; ``check`` raises ``Violation``."""

    def __init__(
        self, history: History, oracle: Oracle, taken: Mapping[bytes, Taken], term: int
    ) -> None:
        """``taken`` is what leaders took, and ``term`` that in which the last of them leads."""
        self._history = history
        self._oracle = oracle
        self._taken, self._term = taken, term
        self.lost: list[Request] = []  # Accepted, and gone with a leader.
        self.copied: list[Request] = []  # To several queues, and the client has not heard of it.
        self.unheard: list[Request] = []  # It has taken messages, and the client does not know.
        self._effects: dict[bytes, list[Effect]] = defaultdict(list)
        for effect in oracle.effects:
            self._effects[key_of(effect.command)].append(effect)
        self._index_of: dict[int, int] = {}  # Of requests that were answered, by number.

    def check(self) -> None:
        """All of it."""
        self._happened_as_told()
        self._nothing_was_invented()
        self._taken_is_given_once()
        self._in_real_time_order()
        self._reads_are_true()

    def _happened_as_told(self) -> None:
        """What was answered is what the log says came of it."""
        for request in self._history.requests:
            answer = request.answer
            if answer is None:
                raise Violation(f"request {request.number} was never answered")
            if isinstance(answer, Accepted):
                self._was_taken(request)
            if isinstance(answer, NotKnown | Accepted):
                self._may_be_copied(request)
                continue
            same = [
                effect
                for effect in self._effects[key_of(request.command)]
                if _agrees(effect.outcome, answer)
            ]
            if not same:
                raise Violation(
                    f"request {request.number} {request.command} was answered {answer}, "
                    "which the log does not say"
                )
            if len(same) == 1:
                self._index_of[request.number] = same[0].index

    def _may_be_copied(self, request: Request) -> None:
        for effect in self._effects.get(key_of(request.command), ()):
            if isinstance(effect.outcome, Enqueued) and effect.outcome.routed:
                self.copied.append(request)
            elif takes(request.command) and ids_given(effect.outcome):
                self.unheard.append(request)

    def _taken_is_given_once(self) -> None:
        """What was taken nobody else is given, then or later; so it is lost with the answer."""
        taken: set[bytes] = set()
        for effect in self._oracle.effects:
            if again := taken.intersection(ids_given(effect.outcome)):
                raise Violation(f"{again} was taken, and is given to {effect.command}")
            if takes(effect.command):
                taken |= ids_given(effect.outcome)
        told: set[bytes] = set()
        for request in self._history.requests:
            if not takes(request.command):
                continue
            if again := told.intersection(ids_given(request.answer)):
                raise Violation(f"request {request.number} was told of {again} once more")
            told |= ids_given(request.answer)

    def _was_taken(self, request: Request) -> None:
        """It may be lost, but only with the leader that had it when this was told."""
        key = key_of(request.command)
        taken, told_at = self._taken.get(key), request.answered_at
        assert told_at is not None
        if taken is None or taken.at > told_at:
            raise Violation(f"request {request.number} was accepted, and no leader had it")
        if key not in self._effects:
            if taken.term == self._term:
                raise Violation(f"request {request.number} was accepted and lost by its leader")
            self.lost.append(request)

    def _nothing_was_invented(self) -> None:
        """Each request took effect at most once, and not at all if that was the answer."""
        asked: dict[bytes, int] = defaultdict(int)
        for request in self._history.requests:
            asked[key_of(request.command)] += not isinstance(request.answer, NotSubmitted)
        for key, effects in self._effects.items():
            if isinstance(effects[0].command, c.Barrier):
                continue  # Nodes send some of their own.
            if len(effects) > asked[key]:
                raise Violation(
                    f"{effects[0].command} took effect {len(effects)} times, at "
                    f"{[effect.index for effect in effects]}; asked for {asked[key]} times"
                )

    def _in_real_time_order(self) -> None:
        """Whoever asks after an answer is behind it in the log."""
        for request, floor in self._after():
            index = self._index_of.get(request.number)
            if index is not None and index < floor:
                raise Violation(
                    f"request {request.number} took effect at {index}, but was asked for when "
                    f"{floor} had been answered"
                )

    def _after(self) -> list[tuple[Request, int]]:
        """Each request with the highest index that was answered before it was asked."""
        moments: list[tuple[float, int, Request]] = []
        for request in self._history.requests:
            moments.append((request.asked_at, 1, request))
            if request.number in self._index_of and request.answered_at is not None:
                moments.append((request.answered_at, 0, request))
        floors, floor = [], 0
        for _, is_question, request in sorted(
            moments, key=lambda one: (one[0], -one[1], one[2].number)
        ):
            if is_question:
                floors.append((request, floor))
            else:
                floor = max(floor, self._index_of[request.number])
        return floors

    def _reads_are_true(self) -> None:
        """A read is the state at its index; a linearizable one has seen all answers before it."""
        answered = sorted(
            (request.answered_at, self._index_of[request.number])
            for request in self._history.requests
            if request.number in self._index_of and request.answered_at is not None
        )
        last: dict[tuple[str, int], int] = {}
        for read in self._history.reads:
            self._is_true(read)
            if read.index < last.get((read.node, read.life), 0):
                raise Violation(f"{read} went back behind {last[read.node, read.life]}")
            last[read.node, read.life] = read.index
            if read.asked_at is not None:
                floor = max((i for at, i in answered if at < read.asked_at), default=0)
                if read.index < floor:
                    raise Violation(f"{read} is stale: {floor} had been answered before it")

    def _is_true(self, read: Read) -> None:
        if read.index > self._oracle.index:
            raise Violation(f"{read} is ahead of what was committed")
        counts = self._oracle.counts(read.names, read.index)
        if counts != read.counts:
            raise Violation(f"{read}, but there was {counts}")


def _agrees(outcome: Outcome, answer: object) -> bool:
    """Equal; but a claim that is remembered is shown as it is now, and may have shrunk."""
    if isinstance(outcome, Claimed) and isinstance(answer, Claimed):
        given = {(one.id, one.deliveries) for one in outcome.messages}
        return all((one.id, one.deliveries) in given for one in answer.messages)
    if isinstance(outcome, TransactedAndClaimed) and isinstance(answer, TransactedAndClaimed):
        first, again = outcome.claimed, answer.claimed
        if first is not None and again is not None:
            return outcome.transacted == answer.transacted and _agrees(first, again)
    return outcome == answer
