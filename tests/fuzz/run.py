"""Runs targets, one after the other, each with its share; a finding says how to see it again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from fuzz.targets import TARGETS

TELL_S = 5.0


class Found(AssertionError):
    """A target raised what it does not declare."""


def fuzz(
    count: int, seed: int, *, only: str = "", tell: Callable[[str], None] = lambda _: None
) -> dict[str, int]:
    """Up to ``count`` executions in all; how many each target had."""
    chosen = {only: (TARGETS[only][0], 1.0)} if only else TARGETS
    done = {}
    for name, (target, share) in chosen.items():
        total = max(1, int(count * share))
        began_s = told_s = time.monotonic()
        execution = target(random.Random(f"{seed}/{name}"))
        for number in range(1, total + 1):
            try:
                execution()
            except Exception as error:
                raise Found(f"{name}, seed {seed}, execution {number}: {error!r}") from error
            if number % 64 == 0 and (now_s := time.monotonic()) - told_s > TELL_S:
                told_s = now_s
                tell(f"{name}: {number:,} of {total:,}, {number / (now_s - began_s):,.0f}/s")
        done[name] = total
        tell(f"{name}: {total:,} in {time.monotonic() - began_s:.1f} s")
    return done
