from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostile import documented

FULL = os.environ.get("RAFTQ_HOSTILE") == "full"
CASES = 10_000


def test_a_node_answers_as_its_document_says(tmp_path: Path) -> None:
    arguments = ("--seed", "1", "--generation-deterministic", "--phases", "fuzzing", "-n", "2")
    report = documented.run(tmp_path, *arguments, timeout_s=250)
    assert report.code == 0, report.text
    assert report.cases >= 100, report.text


@pytest.mark.skipif(not FULL, reason="make hostile")
@pytest.mark.timeout(3_600)
def test_a_node_answers_as_its_document_says_however_long_it_is_asked(tmp_path: Path) -> None:
    arguments = ("--seed", "2", "--phases", "examples,coverage,fuzzing,stateful", "-n", "150")
    report = documented.run(tmp_path, *arguments, timeout_s=3_500)
    assert report.code == 0, report.text
    assert report.cases >= CASES, report.text
