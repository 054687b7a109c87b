from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from fuzz.mutation import mutated
from fuzz.run import Found, fuzz
from fuzz.targets import TARGETS

EXECUTIONS = 20_000


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_bytes_raise_what_is_declared_and_nothing_else(name: str) -> None:
    count = int(EXECUTIONS * TARGETS[name][1])
    assert fuzz(count, 1, only=name) == {name: count}


def test_a_finding_says_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(chance: random.Random) -> Callable[[], None]:
        outcomes = iter([None, KeyError("missing")])

        def execution() -> None:
            if (error := next(outcomes)) is not None:
                raise error

        return execution

    monkeypatch.setitem(TARGETS, "broken", (broken, 1.0))
    with pytest.raises(Found, match="broken, seed 7, execution 2: KeyError"):
        fuzz(10, 7, only="broken")


def test_mutations_come_from_the_seed_and_differ() -> None:
    corpus = [b"some bytes", b"and others"]
    first, again = (random.Random(3) for _ in range(2))
    drawn = [mutated(corpus, first) for _ in range(500)]
    assert drawn == [mutated(corpus, again) for _ in range(500)]
    assert len(set(drawn)) > 400
