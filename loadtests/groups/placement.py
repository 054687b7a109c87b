"""Which group a queue belongs to, which nodes have that group, and which of them leads it.

An account's name is hashed to one of ``SLOTS`` slots, and a map says which group owns each
slot. All is a function of its arguments alone, so that whoever has the same map answers the
same, and each change moves as little as it can.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import cycle, islice
from typing import NamedTuple

SLOTS = 1_024
REPLICAS = 3


class PlacementMap(NamedTuple):
    """What group 0 keeps: a version that grows with each change, and the owner of each slot."""

    epoch: int
    owners: tuple[int, ...]
    """``SLOTS`` groups."""

    def group_of(self, account: str) -> int:
        """The group that has everything of the account."""
        return self.owners[slot_of(account)]


class SlotMove(NamedTuple):
    """A slot that changes hands."""

    slot: int
    source: int
    target: int


def slot_of(account: str) -> int:
    """The same on every node and in every version: BLAKE2b of the name in UTF-8, 8 bytes."""
    return _hashed(account) % SLOTS


def first_map(groups: Collection[int]) -> PlacementMap:
    """The slots in turn to each of the groups; 1 to ``SLOTS`` of these."""
    assert 0 < len(groups) <= SLOTS
    return PlacementMap(1, tuple(islice(cycle(sorted(groups)), SLOTS)))


def rebalanced(placement: PlacementMap, groups: Collection[int]) -> PlacementMap:
    """The next map, in which these groups and no others own slots: as many each, but for one.

    No map of which that is true is fewer moves away: only what a group has beyond its share
    leaves it, and the larger shares go to those that have the most.
    """
    assert 0 < len(groups) <= SLOTS
    owned: dict[int, list[int]] = {group: [] for group in sorted(groups)}
    left: list[int] = []
    for slot, owner in enumerate(placement.owners):
        owned.get(owner, left).append(slot)
    share, larger = divmod(SLOTS, len(owned))
    by_size = sorted(owned, key=lambda group: (-len(owned[group]), group))
    shares = {group: share + (place < larger) for place, group in enumerate(by_size)}
    for group, slots in owned.items():
        left.extend(slots[shares[group] :])
    homeless = iter(sorted(left))
    owners = list(placement.owners)
    for group, slots in owned.items():
        for slot in islice(homeless, max(shares[group] - len(slots), 0)):
            owners[slot] = group
    return PlacementMap(placement.epoch + 1, tuple(owners))


def slot_moves(before: PlacementMap, after: PlacementMap) -> Iterator[SlotMove]:
    """What has to be done to get from one map to the other."""
    pairs = enumerate(zip(before.owners, after.owners, strict=True))
    return (SlotMove(slot, *owners) for slot, owners in pairs if owners[0] != owners[1])


def spread(
    groups: Iterable[int],
    zones: Mapping[str, str],
    *,
    replicas: int = REPLICAS,
    before: Mapping[int, Sequence[str]] | None = None,
) -> dict[int, tuple[str, ...]]:
    """For each group its members, with as many of them on each node, but for one.

    ``zones`` names the zone of each node. Members are in as many zones as there can be, which
    goes before balance, and members of ``before`` stay unless balance takes them away.
    """
    known = before or {}
    members = {
        group: [node for node in known.get(group, ()) if node in zones] for group in sorted(groups)
    }
    loads = Counter({node: 0 for node in zones})
    loads.update(node for nodes in members.values() for node in nodes)
    for group, nodes in members.items():
        while len(nodes) < min(replicas, len(zones)):
            nodes.append(_next_member(group, nodes, zones, loads))
            loads[nodes[-1]] += 1
    while (better := _relief(members, zones, loads)) is not None:
        group, source, target = better
        members[group][members[group].index(source)] = target
        loads[source] -= 1
        loads[target] += 1
    return {group: tuple(nodes) for group, nodes in members.items()}


def leaders(
    members: Mapping[int, Sequence[str]],
    alive: Collection[str],
    before: Mapping[int, str] | None = None,
) -> dict[int, str]:
    """For each group which member should lead it: as evenly as the memberships allow.

    Groups without a member that is ``alive`` are not among them. Leaders move along shortest
    paths from a node to one that leads at least two fewer, until there is none: the load is
    then as even as it can be (Harvey, Ladner, Lovasz and Tamir, "Semi-matchings for bipartite
    graphs and load balancing", J. Algorithms 59, 2006).
    """
    known = before or {}
    able = {
        group: [node for node in nodes if node in alive] for group, nodes in sorted(members.items())
    }
    able = {group: nodes for group, nodes in able.items() if nodes}
    led = {group: known[group] for group in able if known.get(group) in able[group]}
    loads = Counter({node: 0 for node in sorted(alive)})
    loads.update(led.values())
    for group in sorted(able.keys() - led.keys()):
        led[group] = min(able[group], key=lambda node: (loads[node], node))
        loads[led[group]] += 1
    while (path := _path(able, led, loads)) is not None:
        for group, target in path:
            loads[led[group]] -= 1
            loads[target] += 1
            led[group] = target
    return dict(sorted(led.items()))


def _hashed(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def _next_member(
    group: int, nodes: Collection[str], zones: Mapping[str, str], loads: Mapping[str, int]
) -> str:
    """Among equals any, but not the same for each group: what fails is made up for by many."""
    used = Counter(zones[node] for node in nodes)
    free = (node for node in zones if node not in nodes)
    return min(free, key=lambda node: (used[zones[node]], loads[node], _hashed(f"{group}/{node}")))


def _relief(
    members: Mapping[int, Sequence[str]], zones: Mapping[str, str], loads: Mapping[str, int]
) -> tuple[int, str, str] | None:
    """A member to move from a node to one with at least two fewer, in no fewer zones."""
    by_load = sorted(zones, key=lambda node: (loads[node], node))
    for source in reversed(by_load):
        for target in by_load:
            if loads[source] - loads[target] < 2:
                break
            for group, nodes in members.items():
                if source not in nodes or target in nodes:
                    continue
                others = {zones[node] for node in nodes if node != source}
                if zones[target] not in others or zones[source] in others:
                    return group, source, target
    return None


def _path(
    able: Mapping[int, Sequence[str]], led: Mapping[int, str], loads: Mapping[str, int]
) -> list[tuple[int, str]] | None:
    """Groups, and who is to lead each: the last node gains one, the first one loses one."""
    of_node: dict[str, list[int]] = {node: [] for node in loads}
    for group, node in led.items():
        of_node[node].append(group)
    for start in sorted(loads, key=lambda node: (-loads[node], node)):
        came: dict[str, tuple[int, str]] = {}
        queue = deque([start])
        while queue:
            node = queue.popleft()
            if loads[start] - loads[node] >= 2:
                return list(_steps(came, start, node))
            for group in sorted(of_node[node]):
                for target in able[group]:
                    if target != start and target not in came:
                        came[target] = (group, node)
                        queue.append(target)
    return None


def _steps(came: Mapping[str, tuple[int, str]], start: str, node: str) -> Iterator[tuple[int, str]]:
    while node != start:
        group, previous = came[node]
        yield group, node
        node = previous
