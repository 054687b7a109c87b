"""Power lost, a disk that fails and a disk that is full, at every step of a story.

``make test`` plays one strike at every kind of place and some more; ``RAFTQ_SIMULATION=full``
plays all of them, each power loss with two draws of what survives.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from simulation import crash_points
from simulation.crash_points import (
    PLACES,
    ROLES,
    STATES,
    STRIKES,
    Strike,
    Told,
    slice_of,
    strikes,
    tell,
)

FULL = os.environ.get("RAFTQ_SIMULATION") == "full"
MORE = 8
BLOCKS = 24


@pytest.fixture(scope="module")
def told() -> Told:
    """The story without a strike."""
    told = tell()
    assert told.violation is None
    return told


def play(some: list[Strike], told: Told) -> Counter[str]:
    """Play strikes; each must strike, and none may break a promise."""
    places: Counter[str] = Counter()
    for strike in some:
        result = tell(strike)
        step = told.tapes[strike.node].steps[strike.at]
        assert result.violation is None, f"{strike} at {step}: {result.violation}"
        assert result.struck, strike
        assert result.stops or strike.kind != "failing", f"{strike}: nobody noticed"
        places[step.place] += 1
    return places


def test_the_story_has_every_kind_of_step_in_every_role(told: Told) -> None:
    assert told.places == set(PLACES)
    assert set(ROLES) <= set(told.roles)
    assert told.reached["log: snapshot installed"] >= 2
    for name in ("n2", "n3"):  # The one that fell behind, and the one that lost its disk.
        steps = told.tapes[name].steps
        assert ("incoming store: write", "receiving") in steps
        assert sum(step.place == "store directory: rename" for step in steps) >= 2
    assert all(told.reached[state] for state in STATES)


def test_a_strike_changes_nothing_before_it(told: Told) -> None:
    for name, tape in told.tapes.items():
        at = len(tape.steps) // 2
        struck = tell(Strike(name, at, "power")).tapes[name]
        assert struck.steps[: at + 1] == tape.steps[: at + 1]


def test_what_survives_depends_on_the_draw_alone(told: Told) -> None:
    at = next(n for n, one in enumerate(told.tapes["n1"].steps) if one.place == "segment: sync")
    first, again, other = [
        tell(Strike("n1", at, "power", draw)).tapes["n1"].steps for draw in (0, 0, 1)
    ]
    assert first == again
    assert first[: at + 1] == other[: at + 1]


@pytest.mark.skipif(FULL, reason="all of them are played")
def test_strikes_at_every_kind_of_place(told: Told) -> None:
    some = slice_of(told, MORE)
    assert {strike.kind for strike in some} == set(STRIKES)
    assert set(play(some, told)) == set(PLACES)


@pytest.mark.skipif(not FULL, reason="RAFTQ_SIMULATION=full plays all of them")
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("block", range(BLOCKS if FULL else 1))
@pytest.mark.parametrize("kind", STRIKES)
def test_strikes_at_every_step(kind: str, block: int, told: Told) -> None:
    play(strikes(told, (kind,), draws=2)[block::BLOCKS], told)


def test_the_command_line_plays_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert crash_points.main(["--strike", "n2,40,power all,0"]) == 0
    assert "held" in capsys.readouterr().out
