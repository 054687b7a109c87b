"""``make fuzz``: N executions from a seed, shared among all targets, with their progress."""

from __future__ import annotations

import argparse
import functools

from fuzz.run import fuzz
from fuzz.targets import TARGETS


def main() -> None:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--executions", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=sorted(TARGETS), default="")
    given = parser.parse_args()
    tell = functools.partial(print, flush=True)
    done = fuzz(given.executions, given.seed, only=given.only, tell=tell)
    print(f"{sum(done.values()):,} executions, nothing found")


if __name__ == "__main__":
    main()
