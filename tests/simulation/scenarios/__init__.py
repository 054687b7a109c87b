"""Plans that once broke a promise, each kept as a file beside this one."""

from __future__ import annotations

from pathlib import Path

import msgspec

from simulation.plan import Plan

DIRECTORY = Path(__file__).parent


class Scenario(msgspec.Struct, frozen=True):
    """A plan, and what it once showed."""

    about: str
    plan: Plan


def load(path: Path) -> Scenario:
    """Read a scenario file."""
    return msgspec.json.decode(path.read_bytes(), type=Scenario)


def all_scenarios() -> list[Path]:
    """Every file there is."""
    return sorted(DIRECTORY.glob("*.json"))
