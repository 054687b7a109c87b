"""One-way link graphs: who can lead does lead, and who is cut off disturbs nobody.

``RAFTQ_SIMULATION=full`` plays every graph of three nodes under every leader, and 2,000 of
five; otherwise every graph of three under one leader, and a few of five.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any
from unittest import mock

import pytest

from raftq.consensus import guard
from raftq.consensus.messages import PreVoteRequest
from simulation import stock
from simulation.link_graphs import (
    ALL_OF_THREE,
    BEHIND,
    KEPT,
    MANY_OF_FIVE,
    MOVED,
    NOBODY,
    Case,
    Link,
    case_of_five,
    case_of_three,
    full,
    play,
)
from simulation.stock import Switch

FEW_OF_FIVE = 60
CHECKED = 20  # So many of each size are watched at every step: that doubles what one costs.
NAMES = ("n1", "n2", "n3", "n4", "n5")

THREES = range(ALL_OF_THREE) if full() else [at + 64 * (at % 3) for at in range(64)]
FIVES = range(MANY_OF_FIVE if full() else FEW_OF_FIVE)


def both(*pairs: str) -> set[Link]:
    """Two-way links, each written like ``"12"``."""
    there = {(f"n{one}", f"n{other}") for one, other in pairs}
    return there | {(other, one) for one, other in there}


@pytest.mark.parametrize("number", THREES)
def test_a_graph_of_three(number: int) -> None:
    result = play(case_of_three(number), checked=number < CHECKED)
    assert result.problems == []


@pytest.mark.parametrize("number", FIVES)
def test_a_graph_of_five(number: int) -> None:
    result = play(case_of_five(number), checked=number < CHECKED)
    assert result.problems == []


def test_the_graphs_of_three_are_all_there_are_under_each_leader() -> None:
    found = {(case.links, case.leader) for case in map(case_of_three, range(ALL_OF_THREE))}
    assert len(found) == ALL_OF_THREE == 3 * 2 ** len(list(permutations(NAMES[:3], 2)))
    assert len({case_of_three(number).links for number in THREES}) == 64


KINDS = [
    ("nothing is cut", set(permutations(NAMES, 2)), KEPT),
    ("the leader is the middle of a star", both("12", "13", "14", "15"), KEPT),
    ("the leader is the end of a chain", both("12", "23", "34", "45"), MOVED),
    ("the leader is a ray of a star", both("13", "23", "34", "35"), MOVED),
    ("only pairs", both("12", "34"), NOBODY),
    ("everything goes one way", set(zip(NAMES, NAMES[1:] + NAMES[:1], strict=True)), NOBODY),
]


@pytest.mark.parametrize(("links", "kind"), [row[1:] for row in KINDS], ids=[k[0] for k in KINDS])
def test_a_graph_of_a_known_kind(links: set[Link], kind: str) -> None:
    result = play(Case(NAMES, frozenset(links), 1, "n1"), checked=True)
    assert (result.kind, result.problems) == (kind, [])
    assert (result.leaderless_s is not None) == (kind == MOVED)


@pytest.mark.parametrize("seed", range(3))
def test_a_middle_that_is_behind_its_rays_leads_nobody(seed: int) -> None:
    """Raft cannot: see LINKS.md. Nothing is lost by it, and healing ends it."""
    links = both("23", "24") | {("n1", "n3"), ("n1", "n4")}
    result = play(Case(NAMES, frozenset(links), seed, "n1"), checked=True)
    assert (result.kind, result.problems) == (BEHIND, [])


def without_a_second_election() -> Any:
    """Nobody is cleared to stand in a later term than the first."""
    honest = guard.grant_pre_vote

    def grant(*arguments: Any, **named: Any) -> bool:
        (message,) = (one for one in arguments if isinstance(one, PreVoteRequest))
        return message.term == 1 and honest(*arguments, **named)

    return mock.patch.object(guard, "grant_pre_vote", grant)


@pytest.mark.parametrize(
    ("links", "fault", "problem"),
    [
        (both("12"), stock.without_pre_vote, "n3 was cut off and raised its term"),
        (both("12"), stock.without_pre_vote, "n1 led, and was deposed by healing"),
        (both("23"), without_a_second_election, "could be elected, and nobody leads"),
    ],
)
def test_what_judges_a_graph_finds_fault(links: set[Link], fault: Switch, problem: str) -> None:
    case = Case(NAMES[:3], frozenset(links), 1, "n1")
    assert play(case, checked=True).problems == []
    with fault():
        result = play(case, checked=False)
    assert any(problem in found for found in result.problems), result
