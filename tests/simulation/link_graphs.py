"""What becomes of a healthy cluster when only some one-way links go on working.

``python -m simulation.link_graphs`` (PYTHONPATH: tests/support:tests) plays many graphs and
prints them by class; LINKS.md holds what came out. A connection needs both directions: one
that has lost a direction still carries frames the other way until its silence is noticed,
and is not dialled anew. So a graph acts as itself for a moment, and then as its two-way links.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import permutations
from typing import NamedTuple

from raftq.consensus.guard import up_to_date
from raftq.replica.submitter import Answer
from simulation.checks import Checks
from simulation.node import Node
from simulation.world import World
from statemachine.commands import Enqueue, NewMessage
from statemachine.digest import digest
from statemachine.outcomes import Enqueued

ELECTIONS_S = 10.0  # Ten times the longest election timeout.
STABLE_S = 5.0
ANSWER_S = 5.0
HEALED_S = 15.0
LOOK_S = 0.1
PUT_EVERY_S = 0.05
LOAD_S = 2.5  # A connection that has lost a direction lives shorter.
SEGMENT_BYTES = 1 << 16
ALL_OF_THREE = 64 * 3  # Each graph with each of the nodes as the leader before.
MANY_OF_FIVE = 2_000

KEPT = "the leader keeps its majority"
MOVED = "another node has a majority, and leads"
NOBODY = "no node has a majority"
BEHIND = "only nodes whose log is behind have a majority"
BROKEN = "a promise was broken"

Link = tuple[str, str]


class Case(NamedTuple):
    """One graph, from a given moment of a given world on."""

    names: tuple[str, ...]
    links: frozenset[Link]  # That work.
    seed: int
    leader: str | None  # Who is to lead before; None: whoever the seed says.

    def around(self, name: str) -> list[str]:
        """A node, and whom it has two-way links with."""
        return [
            other
            for other in self.names
            if other == name or {(name, other), (other, name)} <= self.links
        ]

    def has_majority(self, name: str) -> bool:
        """Whether a node and those around it are a majority."""
        return 2 * len(self.around(name)) > len(self.names)


class Result(NamedTuple):
    """What came of it; ``problems`` is empty unless the product failed."""

    kind: str
    leaderless_s: float | None  # Until the leader that stayed; None: none did, or it always was.
    unserved: int  # Nodes that have links, but none with the leader.
    problems: list[str]


def case_of_three(number: int) -> Case:
    """Each of the 192 graphs of three nodes of which one leads."""
    names = ("n1", "n2", "n3")
    pairs = list(permutations(names, 2))
    links = frozenset(pair for at, pair in enumerate(pairs) if number % 64 >> at & 1)
    return Case(names, links, 1_000 * number, names[number // 64])


def case_of_five(number: int) -> Case:
    """A random graph of five nodes, sparse or dense."""
    names = ("n1", "n2", "n3", "n4", "n5")
    chance = random.Random(number)
    density = chance.uniform(0.4, 1.0)
    links = frozenset(pair for pair in permutations(names, 2) if chance.random() < density)
    return Case(names, links, number, None)


class Play:
    """A case, played."""

    def __init__(self, case: Case, problems: list[str], *, checked: bool) -> None:
        self.case = case
        self.problems = problems
        self.checked = checked
        self.world = self._healthy()
        self.loaded_until = self.world.now + LOAD_S
        self._number = 0

    def _healthy(self) -> World:
        """A settled world, in which the right node leads."""
        seed = self.case.seed
        while True:
            world = World(seed, self.case.names)
            for node in world.nodes.values():
                node.tune(segment_bytes=SEGMENT_BYTES)
            if self.checked:
                Checks(world)
            world.start()
            world.until(lambda world=world: world.leader() is not None, 10, "the first leader")
            leader = world.leader()
            if leader is not None and self.case.leader in (None, leader.name):
                world.until(world.settled, 10, "a settled world")
                return world
            seed += 1

    def _load(self) -> None:
        """Every node gets a command, and again, until the graph acts as its two-way links."""
        if self.world.now < self.loaded_until:
            for node in self.world.alive:
                self._put(node)
            self.world.at(PUT_EVERY_S, self._load)

    def _put(self, node: Node) -> list[Answer]:
        self._number += 1
        body = str(self._number).encode()
        return node.submit(Enqueue("a", "q", (NewMessage(body, "text/plain"),)))

    def play(self) -> Result:
        """From the healthy cluster, through the graph, back to health."""
        world, case = self.world, self.case
        self._load()
        world.run(0.5 + world.random.random() * 0.2)
        old = world.leader()
        assert old is not None
        old_term = old.running.consensus.term
        switched_at = world.now
        world.links.cut = {pair for pair in permutations(case.names, 2) if pair not in case.links}
        since = self._wait_for_elections(switched_at)
        leader = self._leader()
        kind = self._kind(old, leader)
        if leader is not None:
            self._must_stay(leader)
            self._must_answer(leader)
        terms = self._terms()
        known = max([old_term, *(terms[name] for name in case.names if case.has_majority(name))])
        for name in case.names:
            if terms[name] > known:
                self.problems.append(f"{name} was cut off and raised its term")
        if kind == KEPT and (leader is not old or old.running.consensus.term != old_term):
            self.problems.append(f"{old.name} had a majority all along and was deposed")
        self._heal(leader)
        unserved = self._unserved(leader)
        moved = leader is not None and kind != KEPT
        return Result(kind, since - switched_at if moved else None, unserved, self.problems)

    def _wait_for_elections(self, switched_at: float) -> float:
        """Let ten election timeouts pass; since when the last leader has been leading."""
        world = self.world
        leading, since = self._leader(), switched_at
        while world.now < switched_at + ELECTIONS_S:
            world.run(LOOK_S)
            leader = self._leader()
            if leader is not leading:
                leading, since = leader, world.now
        return since

    def _leader(self) -> Node | None:
        """The leader, if it has a majority."""
        leader = self.world.leader()
        return leader if leader is not None and self.case.has_majority(leader.name) else None

    def _terms(self) -> dict[str, int]:
        return {node.name: node.running.consensus.term for node in self.world.alive}

    def _kind(self, old: Node, leader: Node | None) -> str:
        case = self.case
        if case.has_majority(old.name):
            return KEPT
        if leader is not None:
            return MOVED
        able = [name for name in case.names if case.has_majority(name)]
        for name in able:
            if self._could_win(name):
                self.problems.append(f"{name} could be elected, and nobody leads")
        return BEHIND if able else NOBODY

    def _could_win(self, name: str) -> bool:
        """Whether a majority would find its log new enough."""
        nodes = self.world.nodes
        own = nodes[name].running.consensus
        votes = [
            other
            for other in self.case.around(name)
            if up_to_date(nodes[other].running.consensus, own.last_index, own.last_term)
        ]
        return 2 * len(votes) > len(self.case.names)

    def _must_stay(self, leader: Node) -> None:
        world, terms = self.world, self._terms()
        term = terms[leader.name]
        end = world.now + STABLE_S
        while world.now < end:
            world.run(LOOK_S)
            if self._leader() is not leader or leader.running.consensus.term != term:
                self.problems.append(f"{leader.name} led after ten election timeouts, not for good")
                return
        if self._terms() != terms:
            self.problems.append(f"somebody stood against {leader.name}")

    def _must_answer(self, leader: Node) -> None:
        around = self.case.around(leader.name)
        answers = {name: self._put(self.world.nodes[name]) for name in around}
        self.world.run(ANSWER_S)
        for name, answer in answers.items():
            if not (answer and isinstance(answer[0], Enqueued)):
                self.problems.append(f"a command at {name}, linked to the leader: {answer}")

    def _heal(self, leader: Node | None) -> None:
        world = self.world
        term = None if leader is None else leader.running.consensus.term
        world.heal()
        world.until(lambda: world.settled() and world.converged(), HEALED_S, "health again")
        world.run(STABLE_S)
        states = {digest(node.running.reader()) for node in world.alive}
        if not world.converged() or len(states) != 1:
            self.problems.append("not converged after healing")
        found = world.leader()
        leading = [node for node in world.alive if node.running.consensus.is_leader]
        if leading != [found]:
            self.problems.append(f"{len(leading)} leaders after healing")
        if leader is None:
            return
        if found is not leader or leader.running.consensus.term != term:
            self.problems.append(f"{leader.name} led, and was deposed by healing")

    def _unserved(self, leader: Node | None) -> int:
        case = self.case
        if leader is None:
            return 0
        served = case.around(leader.name)
        return sum(len(case.around(name)) > 1 for name in case.names if name not in served)


def play(case: Case, *, checked: bool) -> Result:
    """Never raises for what the product did; ``checked``: looked at by ``Checks`` all along."""
    problems: list[str] = []
    try:
        return Play(case, problems, checked=checked).play()
    except AssertionError as error:
        return Result(BROKEN, None, 0, [*problems, str(error) or repr(error)])


def cases(size: int, first: int, count: int) -> Iterator[tuple[int, Case]]:
    """Some of the cases of one size, with their numbers."""
    make = {3: case_of_three, 5: case_of_five}[size]
    for number in range(first, first + count):
        yield number, make(number)


def full() -> bool:
    """Whether the environment asks for everything."""
    return os.environ.get("RAFTQ_SIMULATION") == "full"


def main() -> None:
    """Play them and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, choices=(3, 5), default=5)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int)
    parser.add_argument("--checked", action="store_true", help="watch every step; slow")
    options = parser.parse_args()
    count = options.count or (ALL_OF_THREE if options.size == 3 else MANY_OF_FIVE)
    started = time.perf_counter()
    kinds: Counter[str] = Counter()
    waits: defaultdict[str, list[float]] = defaultdict(list)
    unserved: Counter[str] = Counter()
    for number, case in cases(options.size, options.first, count):
        result = play(case, checked=options.checked)
        kinds[result.kind] += 1
        unserved[result.kind] += result.unserved > 0
        if result.leaderless_s is not None:
            waits[result.kind].append(result.leaderless_s)
        for problem in result.problems:
            print(f"{number}: {problem} ({result.kind})", flush=True)
    print(f"\n{count} graphs of {options.size} nodes, {time.perf_counter() - started:.0f} s\n")
    print("| class | graphs | with a node out of the leader's reach | until the leader, s |")
    print("|---|---|---|---|")
    for kind, number in kinds.most_common():
        times = sorted(waits[kind])
        wait = f"median {times[len(times) // 2]:.1f}, max {times[-1]:.1f}" if times else ""
        print(f"| {kind} | {number} | {unserved[kind]} | {wait} |")


if __name__ == "__main__":
    main()
