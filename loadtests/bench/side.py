"""One of two versions: a cluster of it, measured when it is asked. Run by ``versus`` as a file.

Everything imported here is that version's own, however old; so what is used of it is little.
A line on stdin is a cell; a line on stdout is its record.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from loadtests import leave_in_order
from loadtests.bench.plan import PLANS, Cell
from loadtests.bench.service import Service

WARMUP_S = 0.3


def main() -> None:
    """Until stdin ends."""
    leave_in_order()
    directory, seconds = sys.argv[1:]
    plan = PLANS["slice"]._replace(warmup_s=WARMUP_S, measure_s=float(seconds))
    with tempfile.TemporaryDirectory(dir=directory) as data, Service(Path(data)) as service:
        print("ready", flush=True)
        for turn, line in enumerate(sys.stdin):
            print(json.dumps(service.measure(Cell(*json.loads(line)), plan, turn)), flush=True)


if __name__ == "__main__":
    main()
