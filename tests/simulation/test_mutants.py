"""The mutants do damage, and only while they are told to; some are killed at once."""

from __future__ import annotations

from types import CodeType

import pytest

from raftq.consensus import guard
from raftq.replica import sweeps, watch
from simulation import mutate
from simulation.mutants.catalogue import MUTANTS
from simulation.mutants.damage import Constant, Edit, Mutant, NothingDamaged, mutant

AT_LEAST = 34
QUICK = (  # Which check is the first to say so is none of this test's business.
    "vote-not-stored",
    "count-beyond-own-disk",
    "apply-before-commit",
    "change-before-own-commit",
    "commit-beyond-verified",
    "journal-not-synced",
    "seal-before-durable",
    "store-not-synced",
    "sync-outlives-truncation",
    "vote-of-an-older-term",
    "outcome-of-another-session",
    "outcome-depends-on-the-node",
    "last-in-first-out",
)
QUICK_SEEDS = 12


def meaning(code: object) -> object:
    """What a piece of code does, wherever it was compiled."""
    if not isinstance(code, CodeType):
        return code
    return code.co_code, code.co_names, tuple(map(meaning, code.co_consts))


def test_there_are_enough_of_them() -> None:
    assert len(MUTANTS) >= AT_LEAST


@pytest.mark.parametrize("one", MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_changes_what_it_names_and_changes_it_back(one: Mutant) -> None:
    honest = [damage.present for damage in one.damages]
    with one.applied():
        for damage, before in zip(one.damages, honest, strict=True):
            assert meaning(damage.present) != meaning(before), damage.where
    for damage, before in zip(one.damages, honest, strict=True):
        assert damage.present is before, damage.where


@pytest.mark.parametrize("one", MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_says_what_it_breaks_in_a_sentence(one: Mutant) -> None:
    assert one.breaks.endswith(".")
    assert one.breaks[0].isupper()
    assert one.damages
    assert one.where


def test_damage_is_undone_when_the_run_raises() -> None:
    one = MUTANTS["journal-not-synced"]
    honest = one.damages[0].present
    with pytest.raises(KeyError), one.applied():
        raise KeyError
    assert one.damages[0].present is honest


def test_damage_is_felt_where_a_function_was_imported_to() -> None:
    imported = guard.up_to_date
    edit = Edit(guard, "up_to_date", ">=", "<")
    with edit.applied():
        assert imported.__code__ is edit.present


@pytest.mark.parametrize(
    "damage",
    [
        Edit(guard, "no_such_function", "a", "b"),
        Edit(guard, "Intervention", "a", "b"),
        Edit(guard, "up_to_date", "no such passage", "b"),
        Edit(guard, "up_to_date", "last", "first"),  # More than once.
        Constant(sweeps, "NO_SUCH_CONSTANT", 1),
        Constant(sweeps, "SWEEP_LIMIT", sweeps.SWEEP_LIMIT),
    ],
)
def test_what_is_not_there_cannot_be_damaged(damage: Edit | Constant) -> None:
    with pytest.raises(NothingDamaged), damage.applied():
        pass


@pytest.mark.parametrize("name", QUICK)
def test_the_simulator_kills(name: str) -> None:
    fate = mutate.hunt(name, first=0, seeds=QUICK_SEEDS)
    assert fate.killed, f"survived {QUICK_SEEDS} seeds"
    assert fate.reason


def test_a_killed_mutant_is_a_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert mutate.main(["--only", "apply-before-commit", "--seeds", "8", "--jobs", "1"]) == 0
    assert "1 mutants, 1 killed, 0 survived" in capsys.readouterr().out


def test_what_does_no_harm_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    harmless = mutant("harmless", "Nothing.", Constant(watch, "GAP_S", 0.011))
    monkeypatch.setitem(MUTANTS, harmless.name, harmless)
    assert mutate.main(["--only", "harmless", "--seeds", "1", "--jobs", "1"]) == 1


def test_a_verdict_is_told_in_few_words() -> None:
    violation = "12.5000 n2: lost ['n1/a(b)', {1: 2}] of f(x) (at 12.5 s)"
    assert mutate.in_few_words(violation) == "lost … of f…"
    assert len(mutate.in_few_words("x" * 500)) == mutate.REASON_CHARACTERS_MAX
