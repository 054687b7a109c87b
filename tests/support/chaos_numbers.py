"""What a run looked like to its clients, in numbers; pure, from the history."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from chaos_plan import Kind
from history import NEVER_S, History, Put, Result


class Injected(NamedTuple):
    """A fault that was there from ``from_s`` until ``until_s``, of the clients' clock."""

    kind: Kind
    victim: str
    from_s: float
    until_s: float


class Second(NamedTuple):
    """The puts that ended within one second of a run."""

    acknowledged: int = 0
    failed: int = 0  # Refused, or the client does not know.
    p50_ms: float = math.nan
    p99_ms: float = math.nan


class Outage(NamedTuple):
    """What a fault has cost."""

    until_next_s: float  # From the injection to the end of a put that began after it.
    silence_s: float  # The longest time without an acknowledged put before the next fault.


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that so large a share does not exceed; nothing has none."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def latencies_ms(puts: Iterable[Put]) -> list[float]:
    """How long acknowledged puts took, repetitions included, in order."""
    return sorted((put.ended_s - put.started_s) * 1000 for put in puts if put.result is Result.DONE)


def seconds(history: History, from_s: float, until_s: float) -> list[Second]:
    """Second by second, the last one perhaps cut off."""
    parts: list[list[Put]] = [[] for _ in range(max(1, math.ceil(until_s - from_s)))]
    for put in history.puts:
        at = math.floor(put.ended_s - from_s)
        if 0 <= at < len(parts):
            parts[at].append(put)
    return [_second(part) for part in parts]


def _second(puts: list[Put]) -> Second:
    took_ms = latencies_ms(puts)
    return Second(
        acknowledged=len(took_ms),
        failed=len(puts) - len(took_ms),
        p50_ms=percentile(took_ms, 0.5),
        p99_ms=percentile(took_ms, 0.99),
    )


def outages(history: History, faults: Sequence[Injected], until_s: float) -> list[Outage]:
    """For each fault, until the next one or the end."""
    done = sorted((put.started_s, put.ended_s) for put in history.puts if put.result is Result.DONE)
    started = [start for start, _ in done]
    # From behind: the first end of all puts that began no earlier than this one.
    first_end = [*itertools.accumulate((end for _, end in reversed(done)), min)][::-1]
    ended = sorted(end for _, end in done)
    found = []
    limits = [*(fault.from_s for fault in faults[1:]), until_s]
    for fault, limit_s in zip(faults, limits, strict=True):
        at = bisect.bisect_left(started, fault.from_s)
        next_s = first_end[at] if at < len(done) else NEVER_S
        inside = ended[bisect.bisect(ended, fault.from_s) : bisect.bisect(ended, limit_s)]
        marks = [fault.from_s, *inside, limit_s]
        silence_s = max(later - earlier for earlier, later in itertools.pairwise(marks))
        found.append(Outage(next_s - fault.from_s, silence_s))
    return found
