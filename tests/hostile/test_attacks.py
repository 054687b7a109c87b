from __future__ import annotations

import pytest

from hostile.attacks import ATTACKS, MINE, Attack, get
from hostile.target import Target

CASES_MIN = 150


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_it_is_refused(attack: Attack, attacked: Target) -> None:
    answer = attacked.told(attack.parts)
    # Whoever is refused in the middle of sending may find the connection reset.
    allowed = {*attack.statuses, *([0] if len(attack.parts) > 1 else [])}
    assert answer.status in allowed, (answer.status, answer.body[:300])
    if answer.status >= 400 and answer.body:
        assert answer.is_problem
    assert attacked.alive()


def test_what_was_signed_is_served(attacked: Target) -> None:
    # Or the attacks on it would be refused for another reason.
    asked = [get(f"{MINE}/messages?" + query, key="") for query in ("{SIGNED}", "{SIGNED}&limit=1")]
    assert [attacked.told([one]).status for one in asked] == [200, 200]


def test_there_are_as_many_as_were_promised() -> None:
    assert len(ATTACKS) >= CASES_MIN
