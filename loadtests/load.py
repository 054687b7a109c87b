"""``python -m loadtests.load``: the locust scenarios against three nodes of their own.

Exits with locust's status, which is not 0 when any request failed. The nodes live in a
temporary directory on free ports, and are stopped whatever happens.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cluster import Cluster
from loadtests import REPORTS, ROOT, leave_in_order

LOCUST = ROOT / ".venv-load" / "bin" / "locust"
LOCUSTFILE = Path(__file__).with_name("locustfile.py")


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.load", description=__doc__)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--users", type=int, default=40)
    asked = parser.parse_args()
    leave_in_order()
    with (
        tempfile.TemporaryDirectory(prefix="raftq-load-") as directory,
        Cluster(Path(directory) / "cluster") as cluster,
    ):
        cluster.start().wait_ready()
        return _locust([node.api_url for node in cluster], asked.seconds, asked.users)


def _locust(urls: list[str], seconds: int, users: int) -> int:
    REPORTS.mkdir(exist_ok=True)
    report = REPORTS / "load.html"
    sizes = ["--users", str(users), "--spawn-rate", str(users), "--run-time", f"{seconds}s"]
    done = subprocess.run(
        [
            *(str(LOCUST), "--locustfile", str(LOCUSTFILE), "--headless", "--only-summary"),
            *sizes,
            *("--stop-timeout", "5", "--html", str(report)),
        ],
        cwd=ROOT,
        env={**os.environ, "RAFTQ_URLS": ",".join(urls)},
    )
    print(f"report: {report}", file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
