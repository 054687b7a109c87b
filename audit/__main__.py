"""``make audit``: what is known of the dependencies that ``requirements.lock`` pins.

pip-audit asks PyPI. Without a network, or with an index that knows of no vulnerabilities, that
is said, and nothing else: it is no reason for a build to fail, and none to be content.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parents[1] / "requirements.lock"
TIMEOUT_S = 300
COMMAND = (
    *(sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--require-hashes"),
    *("--disable-pip", "--progress-spinner", "off", "--format", "json"),
)


def main() -> int:
    """Ask, and tell."""
    try:
        done = subprocess.run(  # noqa: S603 - a command of our own
            COMMAND, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return _unknown(f"no answer within {TIMEOUT_S} s")
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return _unknown((done.stderr.strip().splitlines() or ["no answer"])[-1])
    return told(found)


def told(found: list[dict[str, Any]]) -> int:
    """Print what is known; 1 if something is."""
    audited = [one for one in found if "skip_reason" not in one]
    if not audited:
        return _unknown("the index knows none of the packages")
    bad = [(one, vulnerability) for one in audited for vulnerability in one["vulns"]]
    for one, vulnerability in bad:
        fixed = ", ".join(vulnerability["fix_versions"]) or "nothing yet"
        print(f"{one['name']} {one['version']}: {vulnerability['id']}, fixed in {fixed}")
    for one in found:
        if "skip_reason" in one:
            print(f"{one['name']}: not audited: {one['skip_reason']}")
    print(f"{len(audited)} of {len(found)} packages audited, {len(bad)} known vulnerabilities")
    return 1 if bad else 0


def _unknown(why: str) -> int:
    print(f"Nothing was audited: {why}. Run this where PyPI can be reached.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
