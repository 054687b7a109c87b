"""What ``make audit`` says of what pip-audit found."""

from __future__ import annotations

import pytest

from audit.__main__ import told

GOOD = {"name": "good", "version": "1", "vulns": []}
BAD = {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "unknown", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        ([GOOD], 0, ["1 of 1 packages audited, 0 known vulnerabilities"]),
        ([GOOD, BAD], 1, ["bad 2: CVE-1, fixed in 3", "2 of 2 packages audited, 1 known"]),
        ([GOOD, SKIPPED], 0, ["unknown: not audited: not found", "1 of 2 packages audited"]),
        ([SKIPPED], 0, ["Nothing was audited"]),
        ([], 0, ["Nothing was audited"]),
    ],
)
def test_it_says_what_is_known_and_what_is_not(
    found: list[dict[str, object]], code: int, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(found) == code
    shown = capsys.readouterr().out
    assert all(text in shown for text in said)
