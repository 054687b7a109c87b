"""What has become of each test of this run, for ``test_semantics``, which comes last.

Modules are compiled once and not by each node that a test starts, whatever the environment says.
"""

from __future__ import annotations

import os
import sys

import pytest

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

OUTCOMES: dict[str, str] = {}
"""By the test's name: ``passed``, ``failed`` or ``skipped``; of its parts the worst counts."""

LAST = "tests/test_semantics.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.nodeid.startswith(LAST))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if not report.passed or report.nodeid not in OUTCOMES:
        OUTCOMES[report.nodeid] = report.outcome


@pytest.fixture
def outcomes() -> dict[str, str]:
    """See ``OUTCOMES``."""
    return OUTCOMES
