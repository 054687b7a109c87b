"""How much of the tests of whole clusters is run: ``RAFTQ_CLUSTER=full`` for all of it."""

from __future__ import annotations

import os
from typing import NamedTuple


class Scale(NamedTuple):
    """Sizes; the properties are the same at any."""

    clients: int
    acknowledged: int
    leader_kills: int
    all_kills: int
    wipes: int
    load_s: float
    recovery_s: float = 2.0


SCALES = {
    "small": Scale(40, 5_000, leader_kills=3, all_kills=1, wipes=1, load_s=5.0),
    "full": Scale(200, 50_000, leader_kills=20, all_kills=10, wipes=3, load_s=60.0),
}


def scale() -> Scale:
    """What the environment asks for."""
    return SCALES[os.environ.get("RAFTQ_CLUSTER", "small")]
