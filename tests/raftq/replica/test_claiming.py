"""Polls do not all go for the same message, and none is left behind for that."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from memory_kv import MemoryKV
from raftq.replica.claiming import PASS_ON_S, Claiming
from raftq.replica.submitter import Answer, NotSubmitted, Unknown
from raftq.replica.waiters import Waiters
from statemachine import commands as c
from statemachine.claims import NONE_READY
from statemachine.commands import Batch, Command, Entry, NewMessage
from statemachine.machine import Machine
from statemachine.outcomes import Outcome
from statemachine.prospects import Prospects

Q, OTHER = ("a", "q"), ("a", "other")
NOTHING, SOMETHING = (Prospects("any", near, far=False) for near in (False, True))


class Node:
    """Its claims and those who wait on it, by the zone that they take from."""

    def __init__(self) -> None:
        self.machine = Machine(MemoryKV())
        self.waiters = Waiters()
        self.later: list[Callable[[], None]] = []
        self.told: list[str | None] = []
        self.answers: list[Answer] = []
        self.claiming = Claiming(self.waiters, lambda: self.machine, self._call_later)

    def do(self, command: Command) -> Outcome:
        entry = Entry(c.ENTRY_VERSION, 100, (Batch(0, 0, 0, (command,)),))
        (result,) = self.machine.apply(self.machine.applied_index + 1, 1, entry)
        self.machine.end_round()
        return result.outcomes[0]

    def put(self, *zones: str) -> None:
        messages = tuple(NewMessage(b"x", "text/plain", zone=zone) for zone in zones)
        self.do(c.Enqueue(*Q, messages))

    def wait(self, zone: str | None = None) -> None:
        def told(_: str) -> bool:
            self.told.append(zone)
            return True

        self.waiters.when_ready(Q, told, zone=zone)

    def begin(self, limit: int = 1) -> Callable[[Answer], None]:
        return self.claiming.begins(c.Claim(*Q, limit), self.answers.append)

    def sees(self, queue: tuple[str, str] = Q) -> Prospects:
        return self.claiming.prospects(c.Claim(*queue, 1))

    def _call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        assert seconds == PASS_ON_S
        self.later.append(callback)


@pytest.fixture
def node() -> Node:
    return Node()


def test_what_claims_want_that_are_under_way_is_not_there_for_others(node: Node) -> None:
    node.put("", "", "")
    node.do(c.Enqueue(*OTHER, (NewMessage(b"x", "text/plain"),)))
    first = node.begin(2)
    assert node.sees() == SOMETHING
    second = node.begin()
    assert node.sees() == NOTHING
    assert node.sees(OTHER) == SOMETHING
    second(NotSubmitted("no_leader"))
    assert node.sees() == SOMETHING
    first(NotSubmitted("no_leader"))
    assert node.sees() == SOMETHING


def test_the_answer_goes_to_who_asked(node: Node) -> None:
    node.begin()(NONE_READY)
    assert node.answers == [NONE_READY]
    assert not node.later, "nobody waits"


def test_what_a_claim_has_left_is_for_the_next_at_once(node: Node) -> None:
    node.put("", "")
    ended = node.begin(5)
    node.wait()
    node.wait()
    ended(node.do(c.Claim(*Q, 1)))
    assert node.told == [None]
    assert not node.later


def test_what_others_still_want_is_for_nobody_else(node: Node) -> None:
    node.put("", "")
    ended, other = node.begin(1), node.begin(1)
    node.wait()
    ended(node.do(c.Claim(*Q, 1)))
    assert not node.told
    other(Unknown("the leader is gone"))
    for callback in node.later:
        callback()
    assert node.told == [None]


@pytest.mark.parametrize("answer", [NONE_READY, NotSubmitted("no_leader"), Unknown("lost")])
def test_after_a_claim_in_vain_the_next_is_told_in_a_moment(node: Node, answer: Answer) -> None:
    """Two of them that cannot have a message must not go for it in turns for ever."""
    node.put("")
    ended = node.begin()
    node.wait()
    ended(answer)
    assert not node.told
    (callback,) = node.later
    callback()
    assert node.told == [None]


def test_only_who_can_take_what_is_left_is_told(node: Node) -> None:
    node.put("north", "north")
    ended = node.begin(5)
    node.wait("south")
    node.wait("north")
    ended(node.do(c.Claim(*Q, 1)))
    assert node.told == ["north"]


def test_nobody_is_told_where_nothing_is_left(node: Node) -> None:
    node.put("")
    ended = node.begin()
    node.wait()
    ended(node.do(c.Claim(*Q, 1)))
    assert not node.told
