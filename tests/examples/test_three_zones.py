"""The worked example, shortened: what it says of itself holds, and its page is complete."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(200)
def test_nothing_is_lost_when_a_zone_is_cut_off_and_healed(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    command = [sys.executable, "-W", "error", "-m", "examples.three_zones"]
    command += ["--seconds", "8", "--out", str(page)]
    ran = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=180, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    totals = json.loads(ran.stdout.splitlines()[-2])
    assert totals["made"] == totals["put"] == totals["processed"] > 300
    assert totals["lost"] == totals["never put"] == totals["left in the queue"] == 0
    text = page.read_text()
    assert "://" not in text  # Nothing comes from elsewhere.
    picture = ET.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])  # noqa: S314 - our own.
    kinds = [rect.get("class") for rect in picture.iter("rect")]
    assert kinds.count("cut") == 1
    assert kinds.count("local") > 10
    assert f"{totals['processed']:,}" in text
