"""Which faults come when: a pure function of the seed.

Faults come in rounds, each round all kinds in another order, so that a short run sees many
kinds and a long one sees every kind often. Whom a fault hits is said by role, since only
the cluster knows who leads when the time has come.
"""

from __future__ import annotations

import enum
import random
from typing import NamedTuple

HOLD_S = (2.0, 7.0)
CALM_S = (1.0, 4.0)


class Family(enum.Enum):
    """What a fault is done to."""

    NETWORK = "network"
    PROCESS = "process"
    DISK = "disk"
    CLOCK = "clock"


class Kind(enum.Enum):
    """What can be done to a cluster; the value is what people read."""

    CUT_LEADER = "the leader is cut off"
    CUT_FOLLOWER = "a follower is cut off"
    CUT_ALL = "all nodes are cut off from each other"
    LEADER_DEAF = "the leader hears nobody"
    LEADER_UNHEARD = "nobody hears the leader"
    LOSS = "20 % of all packets between nodes are lost"
    RESET = "the leader's connections are reset"
    DELAY = "delay between all zones"
    DELAY_ONE_WAY = "delay one way, from the leader"
    BANDWIDTH = "1 Mbit/s out of the leader"
    KILL_LEADER = "SIGKILL of the leader"
    KILL_FOLLOWER = "SIGKILL of a follower"
    KILL_ALL = "SIGKILL of all nodes"
    PAUSE_LEADER = "the leader's process is stopped and goes on"
    PAUSE_FOLLOWER = "a follower's process is stopped and goes on"
    DISK_FULL = "a full disk"
    SYNC_FAILS = "fdatasync fails with EIO"
    SYNC_SLOW = "fdatasync takes 50 ms longer"
    DISK_WIPED = "a wiped disk"
    BIT_FLIPPED = "a flipped bit in a closed journal segment"
    CLOCK_STEP = "one clock steps"
    CLOCKS_APART = "all clocks step, each elsewhere"

    @property
    def family(self) -> Family:
        return _FAMILIES[self]


_FAMILIES = dict.fromkeys(Kind, Family.NETWORK)
_FAMILIES |= dict.fromkeys(
    [
        Kind.KILL_LEADER,
        Kind.KILL_FOLLOWER,
        Kind.KILL_ALL,
        Kind.PAUSE_LEADER,
        Kind.PAUSE_FOLLOWER,
    ],
    Family.PROCESS,
)
_FAMILIES |= dict.fromkeys(
    [Kind.DISK_FULL, Kind.SYNC_FAILS, Kind.SYNC_SLOW, Kind.DISK_WIPED, Kind.BIT_FLIPPED],
    Family.DISK,
)
_FAMILIES |= dict.fromkeys([Kind.CLOCK_STEP, Kind.CLOCKS_APART], Family.CLOCK)


class Step(NamedTuple):
    """One fault: how long it lasts, and how long it is calm after everybody has recovered."""

    kind: Kind
    hold_s: float
    calm_s: float
    seed: int  # Of every choice that the fault itself makes.


def plan(seed: int, seconds: float, kinds: tuple[Kind, ...] = tuple(Kind)) -> list[Step]:
    """More steps than fit into the time, as recovering takes time too; the run stops on time."""
    chance = random.Random(seed)
    steps: list[Step] = []
    planned_s = 0.0
    while planned_s < seconds:
        for kind in chance.sample(kinds, len(kinds)):
            hold_s, calm_s = (round(chance.uniform(*span), 1) for span in (HOLD_S, CALM_S))
            steps.append(Step(kind, hold_s, calm_s, chance.randrange(1 << 32)))
            planned_s += hold_s + calm_s
    return steps
