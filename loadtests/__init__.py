"""Load from outside, over HTTP only: benchmarks for figures, locust scenarios for people.

Both run against the same real cluster that the tests of whole clusters use.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPORTS = ROOT / "reports"

sys.path.insert(0, str(ROOT / "tests" / "support"))
sys.path.append(str(ROOT / "tests"))  # Last: there are tests of each package under its name.


def leave_in_order() -> None:
    """From now on SIGTERM is an exception, so that nodes are stopped on the way out."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
