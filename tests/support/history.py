"""What clients saw of a cluster, and whether a correct queue could have shown it to them.

The checker knows HTTP's view only: what was asked, what was answered, and when. It says
something is wrong only where no order of events could explain it, so that every
violation is a bug; in the manner of Jepsen's checkers for queues.

There are two clocks: ``*_s`` is the clients' own monotonic clock, one for all of them, as
they are one process; ``*_ms`` is the log's time, in which leases live. Points on the two
are never compared, only lengths, and those with room for the log's time to be slewed.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

NEVER_S = float("inf")
# Log time may run a little faster than the clients' clock, but not by this much.
LEASE_SHARE_MIN = 0.8


class Result(enum.Enum):
    """How a request ended, as its client may believe."""

    DONE = "done"
    REFUSED = "refused"  # It had no effect and never will.
    UNKNOWN = "unknown"


class Put(NamedTuple):
    """One message was sent in, perhaps several times under one idempotency key."""

    number: int
    started_s: float
    ended_s: float
    result: Result
    message_id: str = ""


class Delivery(NamedTuple):
    """One message of a claim; the lease lasts from ``from_ms`` until ``until_ms``."""

    number: int
    message_id: str
    claim: str
    started_s: float
    ended_s: float
    from_ms: int
    until_ms: int


class Ack(NamedTuple):
    """All messages of a claim were acknowledged."""

    claim: str
    started_s: float
    ended_s: float
    result: Result


class Release(NamedTuple):
    """A claim was given back, or its client at least asked for it."""

    claim: str
    started_s: float


class Extension(NamedTuple):
    """A lease was extended, and the node said so."""

    claim: str
    until_ms: int


class Fault(NamedTuple):
    """Something was done to the cluster, and was done by then."""

    what: str
    at_s: float


@dataclass
class History:
    """Everything that was seen; ``remaining`` is what browsing found at the very end."""

    puts: list[Put] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    extensions: list[Extension] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    remaining: list[tuple[int, str]] = field(default_factory=list)  # (number, message id)

    @property
    def acknowledged(self) -> int:
        """How many puts were acknowledged."""
        return sum(put.result is Result.DONE for put in self.puts)


class Kind(enum.Enum):
    """What can be wrong with a history."""

    MISSING = "an acknowledged message was never delivered and is not there"
    VANISHED = "a delivered message is gone though nobody acknowledged it"
    INVENTED = "a message that nobody sent"
    REFUSED_TOOK_EFFECT = "a message whose put was refused"
    DOUBLED = "one put made two messages"
    RENAMED = "a message has another id than its producer was told"
    HELD_TWICE = "two claims held one message at the same time"
    EXPIRED_EARLY = "a message was claimed again before its lease can have run out"
    CAME_BACK = "a message was there after its ack was confirmed"


class Violation(NamedTuple):
    """One thing that no correct queue does."""

    kind: Kind
    detail: str

    def __str__(self) -> str:
        return f"{self.kind.name}: {self.kind.value}: {self.detail}"


def check(history: History) -> list[Violation]:
    """Everything that is wrong with a history whose queue was drained or browsed at its end."""
    return [
        *_losses(history),
        *_inventions(history),
        *_overlaps(history),
        *_returns(history),
    ]


def recoveries(history: History) -> list[tuple[str, float]]:
    """For each fault, the seconds until a put was acknowledged that began after it."""
    done = [put for put in history.puts if put.result is Result.DONE]
    found = []
    for fault in history.faults:
        # A put that was under way at the time of the fault proves nothing about after it.
        ends = (put.ended_s for put in done if put.started_s >= fault.at_s)
        found.append((fault.what, min(ends, default=NEVER_S) - fault.at_s))
    return found


def summary(history: History) -> str:
    """One line for a test's output."""
    unknown = sum(put.result is Result.UNKNOWN for put in history.puts)
    acked = sum(ack.result is Result.DONE for ack in history.acks)
    took = ", ".join(f"{took_s:.2f}" for _, took_s in recoveries(history))
    return (
        f"{history.acknowledged} puts acknowledged, {unknown} unknown, "
        f"{len(history.deliveries)} deliveries, {acked} claims acked, "
        f"{len(history.remaining)} left, writes again after [{took}] s"
    )


def _losses(history: History) -> Iterator[Violation]:
    remaining = {number for number, _ in history.remaining}
    delivered = {delivery.number for delivery in history.deliveries}
    tried = {ack.claim for ack in history.acks if ack.result is not Result.REFUSED}
    maybe_acked = {one.number for one in history.deliveries if one.claim in tried}
    for put in history.puts:
        if put.number in remaining:
            continue
        if put.result is Result.DONE and put.number not in delivered:
            yield Violation(Kind.MISSING, f"number {put.number}, {put.message_id}")
        elif put.number in delivered and put.number not in maybe_acked:
            yield Violation(Kind.VANISHED, f"number {put.number}")


def _inventions(history: History) -> Iterator[Violation]:
    puts = {put.number: put for put in history.puts}
    ids: dict[int, dict[str, None]] = defaultdict(dict)
    for number, message_id in _sightings(history):
        ids[number][message_id] = None
    for number, seen in ids.items():
        put = puts.get(number)
        if put is None:
            yield Violation(Kind.INVENTED, f"number {number}")
        elif put.result is Result.REFUSED:
            yield Violation(Kind.REFUSED_TOOK_EFFECT, f"number {number}")
        elif put.result is Result.DONE and put.message_id not in seen:
            yield Violation(Kind.RENAMED, f"number {number}: {put.message_id}, seen {list(seen)}")
        if len(seen) > 1:
            yield Violation(Kind.DOUBLED, f"number {number}: {list(seen)}")


def _sightings(history: History) -> Iterator[tuple[int, str]]:
    for delivery in history.deliveries:
        yield delivery.number, delivery.message_id
    yield from history.remaining


def _overlaps(history: History) -> Iterator[Violation]:
    """Leases are intervals of log time, so overlap in it is a fact whoever's clock is right.

    An ack explains nothing: had it come first, the message would be gone. A release does,
    unless it was only asked for after the other claim had been answered.
    """
    released_s = {release.claim: release.started_s for release in history.releases}
    extended_ms: dict[str, int] = {}
    for extension in history.extensions:
        extended_ms[extension.claim] = max(extended_ms.get(extension.claim, 0), extension.until_ms)
    for message_id, deliveries in _by_message(history.deliveries).items():
        for first, second in pairwise(sorted(deliveries, key=lambda one: one.from_ms)):
            ends_ms = max(first.until_ms, extended_ms.get(first.claim, 0))
            given_back = released_s.get(first.claim, NEVER_S) < second.ended_s
            if first.from_ms == second.from_ms:  # Either may have been the first.
                given_back |= released_s.get(second.claim, NEVER_S) < first.ended_s
            if given_back:
                continue
            detail = (
                f"{message_id}: {first.claim} from {first.from_ms} until {ends_ms}, "
                f"{second.claim} from {second.from_ms}"
            )
            lease_s = (first.until_ms - first.from_ms) / 1000
            took_s = second.ended_s - first.started_s
            if second.from_ms < ends_ms:
                yield Violation(Kind.HELD_TWICE, detail)
            elif took_s < lease_s * LEASE_SHARE_MIN:
                yield Violation(Kind.EXPIRED_EARLY, f"{detail}, {took_s:.3f} s later")


def _returns(history: History) -> Iterator[Violation]:
    confirmed_s = {ack.claim: ack.ended_s for ack in history.acks if ack.result is Result.DONE}
    remaining = {message_id for _, message_id in history.remaining}
    for message_id, deliveries in _by_message(history.deliveries).items():
        gone_s = min(
            (confirmed_s[one.claim] for one in deliveries if one.claim in confirmed_s),
            default=None,
        )
        if gone_s is None:
            continue
        if message_id in remaining or any(one.started_s > gone_s for one in deliveries):
            yield Violation(Kind.CAME_BACK, message_id)


def _by_message(deliveries: Iterable[Delivery]) -> dict[str, list[Delivery]]:
    found: dict[str, list[Delivery]] = defaultdict(list)
    for delivery in deliveries:
        found[delivery.message_id].append(delivery)
    return found
