"""The smallest plan that still breaks something: delta debugging (Zeller and Hildebrandt, 2002).

Faults are left out in ever smaller chunks, then operations and clients, then time. What
is left may break another promise than the first one did: it is a smaller story all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from simulation.plan import Plan

T = TypeVar("T")
Fails = Callable[[Plan], bool]
TRIALS_MAX = 300
SECONDS_MIN = 0.5


def shrink(plan: Plan, fails: Fails, *, trials_max: int = TRIALS_MAX) -> Plan:
    """A plan that fails, and of which nothing more can be left out; ``plan`` itself fails."""
    trials = [trials_max]

    def still(candidate: Plan) -> bool:
        trials[0] -= 1
        return trials[0] >= 0 and fails(candidate)

    best, before = plan, None
    while best != before and trials[0] > 0:
        before = best
        best = _fewer_faults(best, still)
        for candidate in _simpler(best):
            if still(candidate):
                best = candidate
                break
    return best


def _fewer_faults(plan: Plan, fails: Fails) -> Plan:
    def without(faults: Sequence[object]) -> Plan:
        return msgspec.structs.replace(plan, faults=tuple(faults))

    kept = _minimal(plan.faults, lambda faults: fails(without(faults)))
    return without(kept)


def _minimal(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> list[T]:
    """``ddmin`` by complements: a subset that fails while leaving out any chunk does not."""
    kept = list(items)
    chunk = max(1, len(kept) // 2)
    while kept:
        for start in range(0, len(kept), chunk):
            rest = kept[:start] + kept[start + chunk :]
            if fails(rest):
                kept = rest
                break
        else:
            if chunk == 1:
                break
            chunk = max(1, chunk // 2)
        chunk = min(chunk, max(1, len(kept)))
    return kept


def _simpler(plan: Plan) -> Iterator[Plan]:
    """Plans that differ in one respect, for the simpler."""
    work = plan.workload
    last = max((fault.at_s + fault.seconds for fault in plan.faults), default=0.0)
    for seconds in (1.0, 2.0, last + 1.0, plan.seconds / 2):
        if SECONDS_MIN <= seconds < plan.seconds:
            yield msgspec.structs.replace(plan, seconds=round(seconds, 4))
    for clients in (1, 2, work.clients // 2):
        if 0 < clients < work.clients:
            yield _with(plan, clients=clients)
    yield from _less_to_do(plan)
    if any(clock.rate != 1.0 or clock.wall_skew_ms for clock in plan.clocks):
        true = msgspec.structs.replace(plan.clocks[0], rate=1.0, wall_skew_ms=0, origin_s=0.0)
        yield msgspec.structs.replace(plan, clocks=(true,) * plan.nodes)
    for at, fault in enumerate(plan.faults):
        if fault.seconds > 0.2:
            shorter = msgspec.structs.replace(fault, seconds=round(fault.seconds / 2, 4))
            yield msgspec.structs.replace(
                plan, faults=(*plan.faults[:at], shorter, *plan.faults[at + 1 :])
            )


def _less_to_do(plan: Plan) -> Iterator[Plan]:
    work = plan.workload
    for name in work.operations:
        rest = {key: weight for key, weight in work.operations.items() if key != name}
        if rest:
            yield _with(plan, operations=rest)
    for name in work.standing:
        rest = {key: weight for key, weight in work.standing.items() if key != name}
        yield _with(plan, standing=rest)


def _with(plan: Plan, **changes: int | dict[str, float]) -> Plan:
    workload = msgspec.structs.replace(plan.workload, **changes)
    return msgspec.structs.replace(plan, workload=workload)
