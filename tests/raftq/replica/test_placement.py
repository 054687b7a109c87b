"""When the leader moves to another zone, and when it must not: one table of stories.

A story is a list of steps, one look a second. ``a`` is the zone of this node, and members are
named after their zones: ``b1`` is the first in zone b.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from raftq.replica.placement import Placement, Standing

HOLD_S, PAUSE_S = 5.0, 30.0
QUICK_S = 0.002
ME = "a1"


class Story:
    """A node in zone a that leads, and looks once a second at members that are well."""

    def __init__(self, **weights: int) -> None:
        self.now = 100.0
        self.term = 0
        self.end = 1_000
        self.own_sync_s = QUICK_S
        self.members = {name: Standing(name, name[0], self.end, QUICK_S) for name in ("b1", "c1")}
        self.placement = Placement(weights, "a", hold_s=HOLD_S, pause_s=PAUSE_S)
        self.led_by(ME)

    def led_by(self, *names: str) -> Story:
        """One after the other, at once."""
        for name in names:
            self.term += 1
            self.placement.led_by(name, self.term, self.now)
        return self

    def change(self, name: str, **changes: Any) -> Story:
        self.members[name] = self.members[name]._replace(**changes)
        return self

    def look(self) -> str | None:
        """A second later."""
        self.now += 1
        return self.placement.look(
            self.members.values(),
            last_index=self.end,
            own_sync_s=self.own_sync_s,
            now=self.now,
        )

    def moves_after_s(self, limit: int = 5_000) -> int | None:
        """How many seconds from now on the first move is made; None: never."""
        return next((n for n in range(1, limit) if self.look() is not None), None)

    def wait(self, seconds: int) -> Story:
        for _ in range(seconds):
            self.look()
        return self


@pytest.mark.parametrize(
    ("weights", "target"),
    [
        ({}, None),
        ({"a": 1}, None),
        ({"a": 1, "b": 1}, None),
        ({"a": 2, "b": 1}, None),
        ({"b": 1}, "b1"),
        ({"a": 1, "b": 2}, "b1"),
        ({"b": 1, "c": 2}, "c1"),
        ({"b": 3, "c": 3}, "b1"),
        ({"d": 9}, None),
    ],
)
def test_only_a_greater_weight_is_worth_a_move(weights: dict[str, int], target: str | None) -> None:
    assert Story(**weights).wait(60).look() == target


class Case(NamedTuple):
    """What happens before, and after how many more seconds the move to b1 is made."""

    what: str
    before: Callable[[Story], object]
    moves_after_s: int | None


CASES = [
    Case("an election has just been", lambda story: None, 30),
    Case("all is well for long", lambda story: story.wait(29), 1),
    Case("another leader was elected meanwhile", lambda story: story.wait(29).led_by("a2"), 30),
    Case(
        "its place is in the log's past", lambda s: s.wait(40).change("b1", match_index=999), None
    ),
    Case("its disk is slow", lambda s: s.change("b1", sync_s=0.2), None),
    Case("its disk is slow, and so is ours", lambda s: slow_both(s), 30),
    Case("it was cut off for a moment", lambda s: cut(s.wait(29)), 6),
    Case("it was away at one look", lambda s: away(s.wait(29)), 6),
    Case("it lost the leadership", lambda s: s.led_by("b1", ME), 60),
    Case("it lost it twice", lambda s: s.led_by("b1", ME, "b1", ME), 120),
    Case("it lost it often", lambda s: s.led_by(*["b1", ME] * 20), 960),
    Case("another lost it often", lambda s: s.led_by(*["c1", ME] * 20), 30),
    Case("a move has failed", lambda s: s.placement.tried(s.now, moved=False), 60),
    Case("moves failed often", lambda s: fail(s, 20), 960),
    Case("a move failed, and the next did not", lambda s: fail_and_succeed(s), 30),
    Case("long ago it lost it often", lambda s: long_ago(s), 60),
    Case("it led for long before it lost it", lambda s: led_long(s), 60),
]


def slow_both(story: Story) -> None:
    story.change("b1", sync_s=0.2)
    story.own_sync_s = 0.1


def cut(story: Story) -> None:
    story.placement.disconnected("b1")


def away(story: Story) -> None:
    one = story.members.pop("b1")
    story.look()
    story.members["b1"] = one


def fail(story: Story, times: int) -> None:
    for _ in range(times):
        story.placement.tried(story.now, moved=False)


def fail_and_succeed(story: Story) -> None:
    fail(story, 3)
    story.placement.tried(story.now, moved=True)


def long_ago(story: Story) -> None:
    story.led_by(*["b1", ME] * 6)
    story.now += 2 * 32 * PAUSE_S
    story.led_by("b1", ME)


def led_long(story: Story) -> None:
    story.led_by(*["b1", ME] * 4, "b1")
    story.now += 32 * PAUSE_S
    story.led_by(ME)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_a_move_waits_until_nothing_speaks_against_it(case: Case) -> None:
    story = Story(b=1)
    case.before(story)
    assert story.moves_after_s() == case.moves_after_s


def test_a_member_is_up_to_date_if_it_holds_what_there_was_a_look_ago() -> None:
    """Under load it never holds the newest, and on a long way lacks much of it."""
    story = Story(b=1)
    for _ in range(40):
        story.change("b1", match_index=story.end)
        story.end += 1_000
        target = story.look()
    assert target == "b1"


def test_a_member_that_falls_further_behind_is_not_up_to_date() -> None:
    story = Story(b=1)
    for _ in range(60):
        story.end += 1_000
        story.change("b1", match_index=story.end - 1_001)
        assert story.look() is None


@pytest.mark.parametrize("period", range(2, 6))
def test_a_link_that_comes_and_goes_moves_nobody(period: int) -> None:
    story = Story(b=1).wait(60)
    for second in range(600):
        if second % period == 0:
            story.placement.disconnected("b1")
        assert story.look() is None or second == 0
