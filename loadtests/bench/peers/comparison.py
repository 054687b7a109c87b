"""raftq and its peers, taking turns: ratios within a repetition, their medians and intervals.

All are up all the time, and idle while another one has its turn; what they then use of the
machine is measured first. Who comes when in a repetition is drawn for each cell.

raftq is asked through all its nodes. It has a turn more for puts, and one for lifecycles, in which
all clients ask the node that leads, as PostgreSQL is asked through its primary.

It has three more turns for lifecycles. In one what was claimed is acknowledged by the request
that claims what is next, as its own consumers do it: in two round trips instead of three. In the
next that request puts as well: a transaction, one round trip; so does the turn through the leader.
In the last each client has a stream of claims, is given messages, and acknowledges them on it
without waiting for the answer: as RabbitMQ's consumers do, whose acks have none, so that they wait
once for a lifecycle, too.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import NamedTuple

import plots
from loadtests.bench import machine, versus
from loadtests.bench.peers.nats import Nats
from loadtests.bench.peers.peer import Peer
from loadtests.bench.peers.postgresql import PostgreSql
from loadtests.bench.peers.rabbitmq import RabbitMq
from loadtests.bench.plan import (
    ALL,
    CONSUME,
    LEADER,
    LIFECYCLE,
    PUT,
    ROUNDS,
    TRANSACTION,
    Cell,
    Plan,
)
from loadtests.bench.records import FIGURES, Record, cell_of, of_kind
from loadtests.bench.report import Plot, Section, Table
from loadtests.bench.service import Service

RAFTQ = "raftq"
AT_ONCE = "raftq, at once"
"""With the ack and the next claim in one request."""
IN_ONE = "raftq, in one"
"""With the ack, the put and the next claim in one request."""
STREAMED = "raftq, streamed"
"""With messages that are given to who has a stream of claims."""
LEADING = "raftq, leader"
"""By the node that leads: puts, and lifecycles in one."""
OURS = (
    (RAFTQ, ""),
    (LEADING, "leader_"),
    (AT_ONCE, "at_once_"),
    (IN_ONE, "in_one_"),
    (STREAMED, "streamed_"),
)
"""Who is compared with the others, and how the members of a record begin that say so."""
INSTEAD: dict[str, dict[str, tuple[str, str]]] = {
    LEADING: {PUT: (PUT, LEADER), LIFECYCLE: (TRANSACTION, LEADER)},
    AT_ONCE: {LIFECYCLE: (ROUNDS, ALL)},
    IN_ONE: {LIFECYCLE: (TRANSACTION, ALL)},
    STREAMED: {LIFECYCLE: (CONSUME, ALL)},
}
"""The other ways to ask raftq: what is done instead of a scenario, and who is asked."""
PEERS: tuple[type[Peer], ...] = (PostgreSql, RabbitMq, Nats)
NAMES = (*(name for name, _ in OURS), *(kind.name for kind in PEERS))
COLOURS = dict(
    zip(
        NAMES,
        ("blue", "brown", "teal", "grey", "red", "green", "orange", "purple"),
        strict=True,
    )
)
REST_S = 0.3  # Before a turn: what the one before has put is being deleted.


class Turns(NamedTuple):
    """How many, how long, and of what: (connections, messages in an operation)."""

    repetitions: int
    warmup_s: float
    measure_s: float
    sizes: tuple[tuple[int, int], ...] = ((1, 1), (16, 1), (64, 1), (256, 1), (1, 64), (16, 64))


TURNS = {
    "full": Turns(repetitions=8, warmup_s=0.5, measure_s=2.0),
    "quick": Turns(repetitions=2, warmup_s=0.2, measure_s=0.5),
    "slice": Turns(repetitions=1, warmup_s=0.05, measure_s=0.2, sizes=((2, 1), (2, 8))),
}
"""By the plan's name."""


class Subject(NamedTuple):
    """Who is measured."""

    name: str
    measure: Callable[[Cell, Plan, int], Record]
    cpu_s: Callable[[], float]
    """Of all its processes, until now."""
    scenarios: tuple[str, ...] = (PUT, LIFECYCLE)


def records(service: Service, plan: Plan) -> Iterator[Record]:
    """One for each turn, and for each cell and subject; and one for each peer that is missing."""
    turns = TURNS[plan.name]
    sized = plan._replace(warmup_s=turns.warmup_s, measure_s=turns.measure_s)
    kept: list[Record] = []
    with ExitStack() as stack:
        subjects = [Subject(RAFTQ, service.measure, lambda: machine.total_cpu_s(service.pids))]
        for kind in PEERS:
            if remedy := kind.missing():
                yield {"kind": "peer_missing", "subject": kind.name, "remedy": remedy}
                continue
            peer = stack.enter_context(kind(service.directory.with_name(kind.name)))
            yield {"kind": "peer", "subject": peer.name, "version": peer.version()}
            subjects.append(Subject(peer.name, peer.measure, peer.cpu_s))
        yield from _idle(subjects, turns.measure_s)
        for name, instead in INSTEAD.items():
            measure = partial(_instead, service, instead)
            subjects.append(Subject(name, measure, subjects[0].cpu_s, tuple(instead)))
        for record in _turns(subjects, sized, turns):
            kept.append(record)
            yield record
    yield from compared(kept)


def cells(turns: Turns) -> list[Cell]:
    """Everything that each subject is measured with."""
    return [
        Cell(scenario, ALL, connections, batch)
        for connections, batch in turns.sizes
        for scenario in (PUT, LIFECYCLE)
    ]


def compared(kept: Sequence[Record]) -> Iterator[Record]:
    """For each cell and subject: medians, and the ratios of raftq's rates to its."""
    found: dict[Cell, dict[str, list[Record]]] = {}
    for record in kept:
        found.setdefault(cell_of(record), {}).setdefault(record["subject"], []).append(record)
    for cell, subjects in found.items():
        for name in sorted(subjects, key=NAMES.index):
            own = subjects[name]
            told = {
                figure: round(median(record[figure] for record in own), 3) for figure in FIGURES
            }
            record = {"kind": "comparison", **cell._asdict(), "subject": name, **told}
            for ours, prefix in OURS:
                if ours in subjects:
                    beside = versus.ratio("messages_per_s", own, subjects[ours])
                    record |= {prefix + part: beside[part] for part in ("ratio", "low", "high")}
            yield record


def section(records: list[Record]) -> Section:
    """The table, the rates of single messages, and what is not there."""
    columns = ("scenario", "subject", "clients", "batch", "messages/s", "raftq is", "95 %")
    ways = [prefix.replace("_", " ") for _, prefix in OURS[1:]]
    figures = (
        *(column for way in ways for column in (f"{way}it is", "95 %")),
        "p50 ms",
        "p99 ms",
        "server CPU",
        "client CPU",
    )
    comparisons = of_kind(records, "comparison")
    told = [
        "Three nodes each, which acknowledge what a majority has on disk; messages of 1 KiB. "
        "They are up all the time and have turns. CPU: seconds for 10,000 messages, of all nodes. "
        "Leader: puts, and lifecycles in one, by the node that leads. "
        "At once: what was claimed is acknowledged by the request that claims what is next. "
        "In one: that request puts, too. "
        "Streamed: messages come on a stream, on which they are acknowledged.",
        *(f"{one['subject']}: {one['version']}." for one in of_kind(records, "peer")),
        *(
            f"{one['subject']} uses {100 * one['cpu_share']:.1f} % of a core when idle."
            for one in of_kind(records, "peer_idle")
        ),
        *(
            f"{one['subject']} is not measured; run: {one['remedy']}."
            for one in of_kind(records, "peer_missing")
        ),
    ]
    table = Table((*columns, *figures), [_row(one) for one in comparisons], names=2)
    drawn = [_rates(scenario, comparisons) for scenario in (PUT, LIFECYCLE)]
    return Section("Peers", " ".join(told), [table], drawn)


def _rates(scenario: str, comparisons: Sequence[Record]) -> Plot:
    """Of messages that come one in a request."""
    least = min(one["batch"] for one in comparisons)
    shown = [one for one in comparisons if (one["scenario"], one["batch"]) == (scenario, least)]
    sizes = sorted({one["connections"] for one in shown})
    lines = [
        plots.Series(
            css,
            name,
            [
                (one["connections"], one["messages_per_s"])
                for one in shown
                if one["subject"] == name
            ],
        )
        for name, css in COLOURS.items()
    ]
    drawing = plots.plot(
        plots.stops(sizes, [f"{size:,}" for size in sizes]),
        plots.linear(max(one["messages_per_s"] for one in shown)),
        [line for line in lines if line.points],
    )
    return Plot(f"{scenario}: messages a second, over connections", drawing)


def _idle(subjects: Sequence[Subject], seconds: float) -> Iterator[Record]:
    before_s = [subject.cpu_s() for subject in subjects]
    time.sleep(seconds)
    for subject, used_s in zip(subjects, before_s, strict=True):
        share = round((subject.cpu_s() - used_s) / seconds, 3)
        yield {"kind": "peer_idle", "subject": subject.name, "cpu_share": share}


def _turns(subjects: Sequence[Subject], plan: Plan, turns: Turns) -> Iterator[Record]:
    for repetition in range(turns.repetitions):
        for cell in cells(turns):
            asked = [subject for subject in subjects if cell.scenario in subject.scenarios]
            for subject in random.sample(asked, len(asked)):
                time.sleep(REST_S)
                os.sync()  # Or the first sync of this one would have to write it down.
                record = subject.measure(cell, plan, repetition)
                yield record | {"kind": "turn", **cell._asdict(), "subject": subject.name}


def _instead(
    service: Service,
    instead: Mapping[str, tuple[str, str]],
    cell: Cell,
    plan: Plan,
    repetition: int,
) -> Record:
    scenario, target = instead[cell.scenario]
    return service.measure(cell._replace(scenario=scenario, target=target), plan, repetition)


def _row(one: Record) -> list[str]:
    return [
        one["scenario"],
        one["subject"],
        f"{one['connections']}",
        f"{one['batch']}",
        f"{one['messages_per_s']:,.0f}",
        *(text for ours in OURS for text in _beside(one, *ours)),
        f"{one['p50_ms']:.2f}",
        f"{one['p99_ms']:.2f}",
        f"{one['server_cpu_s_per_10k']:.2f}",
        f"{one['client_cpu_s_per_10k']:.2f}",
    ]


def _beside(one: Record, ours: str, prefix: str) -> tuple[str, str]:
    """How much faster ``ours`` is, and its interval; nothing if there is nothing to compare."""
    if one["subject"] == ours or f"{prefix}ratio" not in one:
        return "", ""
    ratio, low, high = (one[prefix + part] for part in ("ratio", "low", "high"))
    return f"{ratio:.2f} x", f"{low:.2f} to {high:.2f}"
