"""``python -m simulation.mutate``: does the simulator see what is damaged on purpose?

Each mutant is applied in a process of its own and run over seeds, until one shows a broken
promise that the same seed does not show without the damage. A mutant that lives through all
of them is a hole in the faults, the workload or the checks.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import NamedTuple

from simulation.mutants.catalogue import MUTANTS
from simulation.mutants.damage import Mutant
from simulation.plan import make
from simulation.run import run

SEEDS = 500
STILL_CPU_S = 60.0  # The longest seeds take a few: in such a world time does not go on.
REASON_CHARACTERS_MAX = 80
IN_BRACKETS = re.compile(r"\([^()]*\)|\[[^][]*\]|\{[^{}]*\}")


class StandsStill(BaseException):
    """A run burns time and does not end; nothing may catch this but the runner."""


class Fate(NamedTuple):
    """What became of a mutant."""

    name: str
    seed: int | None  # That killed it.
    tried: int  # Seeds, the last one included.
    reason: str
    seconds: float

    @property
    def killed(self) -> bool:
        """Whether a seed showed the damage."""
        return self.seed is not None


def hunt(name: str, *, first: int, seeds: int) -> Fate:
    """Run seeds on a mutant up to the one that kills it."""
    mutant, started = MUTANTS[name], time.monotonic()
    for tried, seed in enumerate(range(first, first + seeds), start=1):
        reason = _violation(mutant, seed)
        if reason is not None and run(make(seed)).violation is None:
            return Fate(name, seed, tried, in_few_words(reason), time.monotonic() - started)
    return Fate(name, None, seeds, "", time.monotonic() - started)


def hunt_all(
    names: Iterable[str], *, first: int, seeds: int, jobs: int | None, tell: Callable[[Fate], None]
) -> list[Fate]:
    """The fates of many, each in a process of its own."""
    names = list(names)
    for name in names:
        with MUTANTS[name].applied():
            pass  # One that damages nothing is an error now and not in an hour.
    fates = []
    work = partial(hunt, first=first, seeds=seeds)
    # Forked: everything is imported already. One task each: nothing is left of a mutant.
    with multiprocessing.get_context("fork").Pool(jobs or os.cpu_count(), maxtasksperchild=1) as p:
        for fate in p.imap_unordered(work, names, chunksize=1):
            fates.append(fate)
            tell(fate)
    return fates


def in_few_words(violation: str) -> str:
    """What broke, without when and where, and with dots for what stands in brackets."""
    text = re.sub(r"^[\d.]+ n\d+: | \(at [\d.]+ s\)$", "", violation)
    while text != (shorter := IN_BRACKETS.sub("…", text)):
        text = shorter
    text = " ".join(text.split())
    return text if len(text) <= REASON_CHARACTERS_MAX else text[: REASON_CHARACTERS_MAX - 3] + "..."


def _violation(mutant: Mutant, seed: int) -> str | None:
    try:
        with mutant.applied(), _not_for_ever():
            return run(make(seed)).violation
    except StandsStill:
        return "liveness: the world's time stands still"


@contextmanager
def _not_for_ever() -> Iterator[None]:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise StandsStill

    before = signal.signal(signal.SIGVTALRM, stop)
    # Again and again: what is raised in a finalizer is swallowed.
    signal.setitimer(signal.ITIMER_VIRTUAL, STILL_CPU_S, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def table(fates: Iterable[Fate]) -> Iterator[str]:
    """One line for each mutant, in the catalogue's order."""
    by_name = {fate.name: fate for fate in fates}
    width = max(map(len, by_name), default=0)
    for name in MUTANTS:
        if (fate := by_name.get(name)) is not None:
            yield f"{name:<{width}}  {_verdict(fate)}"


def _verdict(fate: Fate) -> str:
    if not fate.killed:
        return f"SURVIVED {fate.tried} seeds"
    return f"seed {fate.seed:>4}, {fate.tried:>4} tried: {fate.reason}"


def main(arguments: list[str]) -> int:
    """The exit status: 1 if a mutant survives."""
    parser = argparse.ArgumentParser(prog="python -m simulation.mutate", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=MUTANTS, help="not all")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="at most (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="from which on (default: %(default)s)")
    parser.add_argument("--jobs", type=int, help="processes (default: one for each core)")
    parser.add_argument("--list", action="store_true", help="say what each of them breaks instead")
    options = parser.parse_args(arguments)
    names = options.only or [*MUTANTS]
    if options.list:
        for name in names:
            _say(f"{name}: {MUTANTS[name].breaks} ({MUTANTS[name].where})")
        return 0
    done: list[Fate] = []

    def tell(fate: Fate) -> None:
        done.append(fate)
        progress = f"[{len(done)}/{len(names)}] {fate.name} ({fate.seconds:.0f} s)"
        _say(f"{progress}: {_verdict(fate)}")

    fates = hunt_all(names, first=options.first, seeds=options.seeds, jobs=options.jobs, tell=tell)
    _say("")
    for line in table(fates):
        _say(line)
    survivors = [fate for fate in fates if not fate.killed]
    _say(f"{len(fates)} mutants, {len(fates) - len(survivors)} killed, {len(survivors)} survived")
    return 1 if survivors else 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
