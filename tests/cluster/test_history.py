"""The checker finds what is wrong, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from history import (
    Ack,
    Delivery,
    Extension,
    Fault,
    History,
    Kind,
    Put,
    Release,
    Result,
    check,
    recoveries,
)

LEASE_MS = 1_000


def delivery(
    number: int, claim: str, at_s: float, *, from_ms: int = 0, message_id: str = ""
) -> Delivery:
    return Delivery(
        number=number,
        message_id=message_id or f"m{number}",
        claim=claim,
        started_s=at_s,
        ended_s=at_s + 0.1,
        from_ms=from_ms,
        until_ms=from_ms + LEASE_MS,
    )


def put(number: int, result: Result = Result.DONE) -> Put:
    return Put(number, 0.0, 0.1, result, f"m{number}" if result is Result.DONE else "")


def sound() -> History:
    """Two messages done; one redelivered; one unknown that happened; one refused; one left."""
    return History(
        puts=[put(1), put(2), put(3, Result.UNKNOWN), put(4, Result.REFUSED), put(5)],
        deliveries=[
            delivery(1, "a", 1.0),
            delivery(2, "b", 1.0),
            delivery(2, "c", 3.0, from_ms=LEASE_MS),
            delivery(3, "d", 1.0),
        ],
        acks=[
            Ack("a", 1.2, 1.3, Result.DONE),
            Ack("b", 3.2, 3.3, Result.REFUSED),
            Ack("c", 3.2, 3.3, Result.DONE),
            Ack("d", 1.2, 1.3, Result.UNKNOWN),
        ],
        remaining=[(5, "m5")],
    )


def add(history: History, *events: Delivery | Release) -> None:
    for event in events:
        if isinstance(event, Delivery):
            history.deliveries.append(event)
        else:
            history.releases.append(event)


Change = Callable[[History], object]

# What is done to a sound history, and what the checker must say then.
BAD: list[tuple[str, Kind, Change]] = [
    ("acknowledged and not there", Kind.MISSING, lambda h: h.remaining.clear()),
    (
        "claimed by one who died, and gone since",
        Kind.VANISHED,
        lambda h: h.acks.__delitem__(2),
    ),
    ("a number nobody sent", Kind.INVENTED, lambda h: h.remaining.append((9, "m9"))),
    ("a refused put is there", Kind.REFUSED_TOOK_EFFECT, lambda h: h.remaining.append((4, "m4"))),
    ("one put is there twice", Kind.DOUBLED, lambda h: h.remaining.append((5, "m6"))),
    (
        "it has another id",
        Kind.RENAMED,
        lambda h: h.remaining.__setitem__(0, (5, "m6")),
    ),
    (
        "claimed again under a live lease",
        Kind.HELD_TWICE,
        lambda h: add(h, delivery(2, "e", 1.5, from_ms=LEASE_MS - 1)),
    ),
    (
        "claimed again while a released claim was not yet released",
        Kind.HELD_TWICE,
        lambda h: add(h, delivery(1, "e", 1.0, from_ms=500), Release("a", 1.2)),
    ),
    (
        "claimed again under an extended lease",
        Kind.HELD_TWICE,
        lambda h: h.extensions.append(Extension("b", LEASE_MS + 1)),
    ),
    (
        "claimed by two at the same time of the log",
        Kind.HELD_TWICE,
        lambda h: add(h, delivery(3, "e", 1.0)),
    ),
    (
        "claimed again when the log's time had jumped",
        Kind.EXPIRED_EARLY,
        lambda h: add(h, delivery(2, "e", 1.5, from_ms=9 * LEASE_MS)),
    ),
    (
        "delivered after its ack was confirmed",
        Kind.CAME_BACK,
        lambda h: add(h, delivery(1, "e", 9.0, from_ms=9 * LEASE_MS)),
    ),
    ("left after its ack was confirmed", Kind.CAME_BACK, lambda h: h.remaining.append((1, "m1"))),
]

GOOD: list[tuple[str, Change]] = [
    ("nothing more", lambda h: None),
    (
        "released and claimed by the next before the answer came",
        lambda h: add(
            h, delivery(5, "e", 1.0), Release("e", 1.3), delivery(5, "f", 1.25, from_ms=100)
        ),
    ),
    ("an unknown put never happened", lambda h: h.puts.append(put(6, Result.UNKNOWN))),
    (
        "claimed again when the lease had just run out",
        lambda h: add(h, delivery(5, "e", 1.0), delivery(5, "f", 2.0, from_ms=LEASE_MS)),
    ),
]


def test_a_sound_history_passes() -> None:
    assert check(sound()) == []


@pytest.mark.parametrize(("what", "change"), GOOD, ids=[what for what, _ in GOOD])
def test_what_a_correct_queue_may_do_passes(what: str, change: Change) -> None:
    history = sound()
    change(history)
    assert check(history) == []


@pytest.mark.parametrize(("what", "kind", "change"), BAD, ids=[what for what, _, _ in BAD])
def test_what_no_correct_queue_does_is_found(what: str, kind: Kind, change: Change) -> None:
    history = sound()
    change(history)
    assert kind in {violation.kind for violation in check(history)}


def test_every_kind_of_violation_has_an_example() -> None:
    assert {kind for _, kind, _ in BAD} == set(Kind)


def test_checking_changes_nothing() -> None:
    history = sound()
    before = copy.deepcopy(history)
    check(history)
    assert history == before


def test_recovery_counts_from_the_fault_to_the_first_put_begun_after_it() -> None:
    history = History(
        faults=[Fault("kill n1", 10.0), Fault("kill n2", 20.0)],
        puts=[
            Put(1, 9.9, 10.1, Result.DONE, "m1"),  # Was under way.
            Put(2, 10.0, 10.2, Result.REFUSED),
            Put(3, 10.3, 11.0, Result.DONE, "m3"),
            Put(4, 10.3, 12.0, Result.DONE, "m4"),
        ],
    )
    assert recoveries(history) == [("kill n1", 1.0), ("kill n2", float("inf"))]
