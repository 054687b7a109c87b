"""docs/semantics.md and SECURITY.md tell the truth about their tests: each is there, and passes.

What has run already is not run once more.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SEMANTICS, SECURITY = ROOT / "docs" / "semantics.md", ROOT / "SECURITY.md"
HEADS = ("feature", "against", "---")
ROW = re.compile(r"^\|(?P<feature>[^|]+)\|[^|]+\|[^|]*\|(?P<tests>[^|]+)\|$")
NAMED = re.compile(r"`(tests/[^`]+)`")
SLOW = (
    "tests/cluster/",
    "tests/simulation/",
    "tests/statemachine/test_histories_agree.py",
)
"""Minutes for all of them: not run here, if they were not run before."""


def rows(page: Path) -> list[tuple[str, list[str]]]:
    found = []
    for line in page.read_text(encoding="utf-8").splitlines():
        match = ROW.match(line)
        if match and match["feature"].strip() not in HEADS:
            found.append((match["feature"].strip(), NAMED.findall(match["tests"])))
    return found


ROWS = [*rows(SEMANTICS), *rows(SECURITY)]
NAMES = sorted({name for _, names in ROWS for name in names})


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-3_000:]
    return done.stdout


@pytest.mark.parametrize(("feature", "names"), ROWS, ids=lambda value: str(value)[:40])
def test_every_feature_names_a_test(feature: str, names: list[str]) -> None:
    assert names, feature


def test_every_test_named_is_there(outcomes: dict[str, str]) -> None:
    unseen = [name for name in NAMES if not any(is_part_of(test, name) for test in outcomes)]
    collected = run("--collect-only", *unseen) if unseen else ""
    for name in unseen:
        assert name in collected, name


def test_every_test_named_passes(outcomes: dict[str, str]) -> None:
    quick = {name for _, names in rows(SEMANTICS) for name in names if not name.startswith(SLOW)}
    for name in NAMES:
        seen = {outcome for test, outcome in outcomes.items() if is_part_of(test, name)}
        assert "failed" not in seen, name
        if "passed" in seen and (name not in quick or "skipped" not in seen):
            quick.discard(name)
    if quick:
        summary = run("-r", "s", *sorted(quick)).splitlines()[-1]
        assert re.fullmatch(r"=*\s*\d+ passed in .*", summary), summary


def is_part_of(test: str, name: str) -> bool:
    return test == name or test.startswith((f"{name}::", f"{name}["))
