"""The verdict on histories that are known to be wrong: each kind of lie is told apart."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raftq.replica.submitter import Accepted, NotSubmitted, Unknown
from simulation.checks import Taken, Violation
from simulation.clients import GONE, Gone, History, Read, Request
from simulation.oracle import Effect, Oracle, key_of
from simulation.verdict import Verdict
from statemachine import commands as c
from statemachine.outcomes import Claimed, Delivered, Done, Enqueued, Outcome

ID = (1 << 20).to_bytes(10, "big")


def put(number: int) -> c.Enqueue:
    return c.Enqueue("a", "q", (c.NewMessage(b"%d" % number, "text/plain"),))


class Told:
    """A history under construction, beside the log that it is judged by."""

    def __init__(self) -> None:
        self.history = History()
        self.oracle = Oracle(lambda _what: None)
        self.oracle.index = 100
        self.taken: dict[bytes, Taken] = {}

    def log(self, index: int, command: c.Command, outcome: Outcome) -> None:
        self.oracle.effects.append(Effect(index, command, outcome))

    def ask(
        self,
        command: c.Command,
        answer: Outcome | Accepted | NotSubmitted | Unknown | Gone | None,
        asked_at: float = 1.0,
        answered_at: float = 2.0,
    ) -> None:
        request = Request(self.history.number(), "n1", command, asked_at)
        request.answer = answer
        request.answered_at = None if answer is None else answered_at
        self.history.requests.append(request)

    def take(self, command: c.Command, at: float, term: int) -> None:
        self.taken[key_of(command)] = taken = Taken(at)
        taken.term = term

    def read(self, index: int, asked_at: float | None = None, at: float = 3.0) -> None:
        self.history.reads.append(Read("n1", 1, index, ("a", "q"), None, asked_at, at))

    def judge(self) -> None:
        Verdict(self.history, self.oracle, self.taken, term=3).check()


def test_the_truth_passes() -> None:
    told = Told()
    told.log(5, put(1), Enqueued((ID,)))
    told.ask(put(1), Enqueued((ID,)))
    told.ask(put(2), Unknown("lost"))
    told.ask(put(3), NotSubmitted("no_leader"))
    told.log(7, put(4), Enqueued((ID,)))
    told.ask(put(4), GONE)
    told.read(7, asked_at=2.5)
    told.judge()


def never_answered(told: Told) -> None:
    told.ask(put(1), None)


def acknowledged_and_lost(told: Told) -> None:
    told.ask(put(1), Enqueued((ID,)))


def answered_otherwise(told: Told) -> None:
    told.log(5, put(1), Enqueued((ID,)))
    told.ask(put(1), Enqueued((b"another id",)))


def done_twice(told: Told) -> None:
    told.log(5, put(1), Enqueued((ID,)))
    told.log(6, put(1), Enqueued((b"another id",)))
    told.ask(put(1), Unknown("lost"))


def done_though_refused(told: Told) -> None:
    told.log(5, put(1), Enqueued((ID,)))
    told.ask(put(1), NotSubmitted("no_leader"))


def invented(told: Told) -> None:
    told.log(5, put(1), Enqueued((ID,)))


def in_another_order(told: Told) -> None:
    told.log(5, put(2), Enqueued((ID,)))
    told.log(6, put(1), Enqueued((b"another id",)))
    told.ask(put(1), Enqueued((b"another id",)), asked_at=1, answered_at=2)
    told.ask(put(2), Enqueued((ID,)), asked_at=3, answered_at=4)


def read_from_the_future(told: Told) -> None:
    told.read(101)


def read_backwards(told: Told) -> None:
    told.read(9)
    told.read(8)


def read_stale(told: Told) -> None:
    told.log(5, put(1), Enqueued((ID,)))
    told.ask(put(1), Enqueued((ID,)), asked_at=1, answered_at=2)
    told.read(4, asked_at=2.5)


def read_what_is_not(told: Told) -> None:
    told.history.reads.append(Read("n1", 1, 5, ("a", "q"), (1, 0, 0, 0), None, 3.0))


def accepted_by_nobody(told: Told) -> None:
    told.ask(put(1), Accepted())


def accepted_too_early(told: Told) -> None:
    told.take(put(1), at=2.5, term=2)
    told.ask(put(1), Accepted())


def accepted_and_lost_without_need(told: Told) -> None:
    told.take(put(1), at=1.5, term=3)
    told.ask(put(1), Accepted())


def accepted_and_done_twice(told: Told) -> None:
    told.take(put(1), at=1.5, term=3)
    told.log(5, put(1), Enqueued((ID,)))
    told.log(6, put(1), Enqueued((b"another id",)))
    told.ask(put(1), Accepted())


LIES: list[tuple[Callable[[Told], None], str]] = [
    (never_answered, "never answered"),
    (acknowledged_and_lost, "the log does not say"),
    (answered_otherwise, "the log does not say"),
    (done_twice, "took effect 2 times"),
    (done_though_refused, "asked for 0 times"),
    (invented, "asked for 0 times"),
    (in_another_order, "had been answered"),
    (read_from_the_future, "ahead of what was committed"),
    (read_backwards, "went back"),
    (read_stale, "stale"),
    (read_what_is_not, "but there was"),
    (accepted_by_nobody, "no leader had it"),
    (accepted_too_early, "no leader had it"),
    (accepted_and_lost_without_need, "lost by its leader"),
    (accepted_and_done_twice, "took effect 2 times"),
]


@pytest.mark.parametrize(("lie", "named"), LIES, ids=[lie.__name__ for lie, _ in LIES])
def test_a_lie_is_found_out(lie: Callable[[Told], None], named: str) -> None:
    told = Told()
    lie(told)
    with pytest.raises(Violation, match=named):
        told.judge()


def test_a_remembered_claim_may_have_shrunk_but_not_grown() -> None:
    one, two = Delivered(ID, 1, b""), Delivered(b"another id", 1, b"")
    told = Told()
    command = c.Claim("a", "q", 2, zone="z1")
    told.log(5, command, Claimed(1, 9, (one, two)))
    told.ask(command, Claimed(1, 9, (one,)))
    told.judge()
    told.ask(command, Claimed(1, 9, (one, Delivered(b"a third one", 1, b""))))
    with pytest.raises(Violation, match="the log does not say"):
        told.judge()


def test_what_was_taken_is_given_once() -> None:
    one, other = c.Take("a", "q", 1, consumer="c1"), c.Take("a", "q", 1, consumer="c2")
    claim, gave = c.Claim("a", "q", 1), Claimed(7, 0, (Delivered(ID, 2, b""),))
    told = Told()
    told.log(4, claim, Claimed(6, 9, (Delivered(ID, 1, b""),)))
    told.ask(claim, GONE)
    told.log(5, one, gave)
    told.ask(one, GONE)
    verdict = Verdict(told.history, told.oracle, told.taken, term=3)
    verdict.check()
    assert [request.command for request in verdict.unheard] == [one]
    told.ask(one, gave)
    told.ask(one, gave)
    with pytest.raises(Violation, match="once more"):
        told.judge()
    told.log(6, other, gave)
    told.ask(other, GONE)
    with pytest.raises(Violation, match="was taken, and is given to"):
        told.judge()


def test_a_nodes_own_barriers_are_nobodys_request() -> None:
    told = Told()
    told.log(5, c.Barrier(), Done())
    told.judge()


def test_what_was_accepted_may_be_lost_with_its_leader_alone() -> None:
    told = Told()
    told.take(put(1), at=1.5, term=2)
    told.ask(put(1), Accepted())
    told.take(put(2), at=1.5, term=3)
    told.log(5, put(2), Enqueued((ID,)))
    told.ask(put(2), Accepted())
    verdict = Verdict(told.history, told.oracle, told.taken, term=3)
    verdict.check()
    assert [request.command for request in verdict.lost] == [put(1)]
