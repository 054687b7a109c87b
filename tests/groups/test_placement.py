"""The map of slots to groups, and who has and leads a group: even, stable, the same everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.groups.placement import (
    SLOTS,
    first_map,
    leaders,
    rebalanced,
    slot_moves,
    slot_of,
    spread,
)

ROOT = Path(__file__).parents[2]
GROUPS = st.sets(st.integers(0, 99), min_size=1, max_size=20)
NODES = [f"n{number}" for number in range(9)]
TELL = """
from loadtests.groups.placement import *
nodes = {f"n{n}": f"z{n % 3}" for n in range(9)}
members = spread(range(40), nodes)
led = leaders(members, set(nodes) - {"n3"}, leaders(members, set(nodes)))
print(rebalanced(rebalanced(first_map({1, 2, 3}), {2, 9}), {1, 4, 9}), members, led)
"""


@pytest.mark.parametrize(("account", "slot"), [("", 692), ("shop", 774), ("käse", 361)])
def test_a_slot_is_for_ever(account: str, slot: int) -> None:
    assert slot_of(account) == slot


def test_every_process_answers_the_same() -> None:
    told = [
        subprocess.run(
            [sys.executable, "-c", TELL],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    ]
    assert told[0] == told[1]


def test_slots_are_asked_for_alike() -> None:
    asked = Counter(slot_of(f"account-{number}") for number in range(50 * SLOTS))
    assert len(asked) == SLOTS
    assert min(asked.values()) > 25
    assert max(asked.values()) < 80


@given(st.lists(GROUPS, min_size=1, max_size=6))
@settings(max_examples=30)
def test_a_map_is_even_and_no_even_one_is_nearer(history: list[set[int]]) -> None:
    before = first_map(history[0])
    for groups in history:
        after = rebalanced(before, groups)
        owned = Counter(after.owners)
        assert after.epoch == before.epoch + 1
        assert owned.keys() == groups
        assert max(owned.values()) - min(owned.values()) <= 1
        # No even map keeps more: a share of each group's slots, and one more of so many groups.
        share, larger = divmod(SLOTS, len(groups))
        had = Counter(before.owners)
        kept = sum(min(had[group], share) for group in groups)
        kept += min(larger, sum(had[group] > share for group in groups))
        moves = list(slot_moves(before, after))
        assert len(moves) == SLOTS - kept
        assert all(before.owners[move.slot] == move.source != move.target for move in moves)
        before = after


@given(st.integers(1, 63))
@settings(max_examples=20)
def test_a_new_group_takes_its_share_and_gives_it_back(count: int) -> None:
    before = first_map(range(count))
    with_one_more = rebalanced(before, range(count + 1))
    taken = list(slot_moves(before, with_one_more))
    assert {move.target for move in taken} == {count}
    assert len(taken) == SLOTS // (count + 1)
    given_back = list(slot_moves(with_one_more, rebalanced(with_one_more, range(count))))
    assert {move.source for move in given_back} == {count}


@given(st.integers(1, 64), st.integers(3, 9), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_members_are_spread_over_zones_and_nodes(groups: int, nodes: int, zones: int) -> None:
    places = {node: f"z{number % zones}" for number, node in enumerate(NODES[:nodes])}
    members = spread(range(groups), places)
    for own in members.values():
        assert len(set(own)) == 3
        assert len({places[node] for node in own}) == min(3, zones)
    if zones == 1 or zones == nodes:
        loads = Counter({node: 0 for node in places})
        loads.update(node for own in members.values() for node in own)
        assert max(loads.values()) - min(loads.values()) <= 1
    assert spread(range(groups), places, before=members) == members


@given(st.integers(1, 64), st.integers(3, 8))
@settings(max_examples=25, deadline=None)
def test_a_new_node_is_the_only_one_that_gets_members(groups: int, nodes: int) -> None:
    before = spread(range(groups), {node: node for node in NODES[:nodes]})
    after = spread(range(groups), {node: node for node in NODES[: nodes + 1]}, before=before)
    new = {node for group in before for node in set(after[group]) - set(before[group])}
    assert new <= {NODES[nodes]}
    moved = sum(NODES[nodes] in own for own in after.values())
    assert moved == 3 * groups // (nodes + 1)


MEMBERSHIPS = st.lists(
    st.lists(st.sampled_from(NODES[:4]), min_size=1, max_size=3, unique=True), max_size=6
)


@given(MEMBERSHIPS, st.sets(st.sampled_from(NODES[:4]), min_size=1))
@settings(max_examples=60, deadline=None)
def test_leaders_are_as_even_as_they_can_be(memberships: list[list[str]], alive: set[str]) -> None:
    members = dict(enumerate(memberships))
    led = leaders(members, alive, leaders(members, NODES))
    able = [sorted(alive.intersection(own)) for own in memberships]
    assert led.keys() == {group for group, nodes in enumerate(able) if nodes}
    assert all(node in able[group] for group, node in led.items())
    found = (Counter(choice) for choice in product(*(nodes for nodes in able if nodes)))
    best = min(sum(count * count for count in counts.values()) for counts in found)
    assert sum(count * count for count in Counter(led.values()).values()) == best
    assert leaders(members, alive, led) == led


@given(st.integers(1, 64), st.integers(3, 9))
@settings(max_examples=25, deadline=None)
def test_leaders_stay_where_they_are_when_another_node_fails(groups: int, nodes: int) -> None:
    members = {group: tuple(NODES[:3]) for group in range(groups)}
    before = leaders(members, NODES[:nodes])
    after = leaders(members, NODES[1:nodes], before)
    assert all(after[group] == node for group, node in before.items() if node != NODES[0])
    back = leaders(members, NODES[:nodes], after)
    counts = Counter({node: 0 for node in NODES[:3]})
    counts.update(back.values())
    assert max(counts.values()) - min(counts.values()) <= 1
    assert sum(back[group] != node for group, node in after.items()) == groups // 3
