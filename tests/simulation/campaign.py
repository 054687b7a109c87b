"""Many seeds on all cores, with progress, until the first failure, which is then shrunk.

What a campaign must have reached is in ``sometimes``; a zero there is a failure too, once
the campaign is long enough to expect it.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from multiprocessing.pool import Pool
from typing import NamedTuple

import msgspec

from simulation.plan import Plan, make
from simulation.run import Result, run
from simulation.shrink import shrink

TELL_EVERY_S = 5.0
CHUNK = 8


class Tally(msgspec.Struct):
    """The sum of many runs."""

    seeds: int = 0
    with_five: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    events: int = 0
    requests: int = 0
    entries: int = 0
    reached: Counter[str] = msgspec.field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Count another part of the campaign in."""
        self.seeds += other.seeds
        self.with_five += other.with_five
        self.virtual_s += other.virtual_s
        self.cpu_s += other.cpu_s
        self.events += other.events
        self.requests += other.requests
        self.entries += other.entries
        self.reached.update(other.reached)


class Part(NamedTuple):
    """What a worker did: a tally, and the first failure."""

    tally: Tally
    failure: Result | None


def run_seeds(seeds: Iterable[int]) -> Part:
    """Run seeds one after the other, up to the first that fails."""
    tally = Tally()
    for seed in seeds:
        started = time.process_time()
        result = run(make(seed))
        tally.add(
            Tally(
                seeds=1,
                with_five=result.plan.nodes == 5,
                virtual_s=result.seconds,
                cpu_s=time.process_time() - started,
                events=result.events,
                requests=result.requests,
                entries=result.entries,
                reached=result.reached,
            )
        )
        if result.violation is not None:
            return Part(tally, result)
    return Part(tally, None)


def campaign(
    first: int, count: int, *, jobs: int | None = None, tell: Callable[[str], None] = print
) -> Part:
    """Run ``count`` seeds from ``first`` on; stops at the first failure found."""
    chunks = [
        range(start, min(start + CHUNK, first + count))
        for start in range(first, first + count, CHUNK)
    ]
    total = Tally()
    started = told_at = time.monotonic()
    with _pool(jobs) as pool:
        for part in pool.imap_unordered(run_seeds, chunks):
            total.add(part.tally)
            if part.failure is not None:
                pool.terminate()
                return Part(total, part.failure)
            now = time.monotonic()
            if now - told_at >= TELL_EVERY_S:
                told_at = now
                tell(_progress(total, count, now - started))
    return Part(total, None)


def _pool(jobs: int | None) -> Pool:
    # Forked: the workers have everything imported already.
    return multiprocessing.get_context("fork").Pool(jobs or os.cpu_count())


def _progress(total: Tally, count: int, seconds: float) -> str:
    left_s = seconds / total.seeds * (count - total.seeds)
    return (
        f"{total.seeds:>7,} of {count:,} seeds, {total.virtual_s / 3600:.2f} virtual hours, "
        f"{total.virtual_s / total.cpu_s:.0f} x real time a core, {left_s:.0f} s to go"
    )


def minimise(plan: Plan) -> Plan:
    """The shrunk plan of a failure."""
    return shrink(plan, lambda candidate: run(candidate).violation is not None)
