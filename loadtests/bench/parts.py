"""What can be measured: to measure one thing more, write its module and add a line here.

Parts that follow each other and have the same guard share a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from loadtests.bench import (
    backlog,
    cells,
    churn,
    costs,
    failover,
    idle,
    neighbours,
    open_latency,
    overload,
    parked,
)
from loadtests.bench.peers import comparison
from loadtests.bench.plan import Plan
from loadtests.bench.records import Record
from loadtests.bench.report import Section
from loadtests.bench.service import CROWDED, Guard, Service

CROWD = Guard(CROWDED)
PEERS = "peers"


class Part(NamedTuple):
    """One thing that is measured, and told of."""

    name: str
    measures: str
    takes: str
    """With the full plan."""
    records: Callable[[Service, Plan], Iterator[Record]]
    section: Callable[[list[Record]], Section]
    """Of the records of this part, and the medians of its cells."""
    guard: Guard = Guard()
    usual: bool = True
    """Measured also if nobody has asked for it by its name."""


PARTS = (
    Part("idle", "CPU and memory of nodes that nobody asks", "10 s", idle.records, idle.section),
    Part(
        "connections",
        "puts and lifecycles over 1 to 1,024 connections, by target, beside baselines",
        "5 min",
        cells.by_connections,
        cells.connections_section,
    ),
    Part(
        "batches",
        "1 to 1,000 messages in a request",
        "1 min",
        cells.by_batch,
        cells.batches_section,
    ),
    Part("bodies", "64 B to 1 MiB in a message", "1 min", cells.by_body, cells.bodies_section),
    Part("queues", "1 to 10,000 queues", "1 min", cells.by_queues, cells.queues_section),
    Part(
        "open",
        "latency at fixed rates of arrival, from when a request was due",
        "40 s",
        open_latency.records,
        open_latency.section,
    ),
    Part(
        "parked",
        "claims that wait: their cost, and how soon they wake",
        "30 s",
        parked.records,
        parked.section,
    ),
    Part(
        "backlog",
        "claims over --backlog messages, and restarts with them",
        "2 min for 1,000,000",
        backlog.records,
        backlog.section,
    ),
    Part(
        "failover",
        "from the SIGKILL of the leader to the first acknowledged put",
        "1 min",
        failover.records,
        failover.section,
    ),
    Part(
        "neighbours",
        "a quiet tenant beside one that takes all it can",
        "90 s",
        neighbours.records,
        neighbours.section,
        CROWD,
    ),
    Part(
        "overload",
        "three times the load that can be carried, second by second",
        "2 min",
        overload.records,
        overload.section,
        CROWD,
    ),
    Part(
        "costs",
        "what keys, TLS and encryption at rest cost",
        "2 min",
        costs.records,
        costs.section,
        usual=False,
    ),
    Part(
        PEERS,
        "PostgreSQL, RabbitMQ and NATS JetStream with the same promise, turn by turn",
        "20 min",
        comparison.records,
        comparison.section,
        usual=False,
    ),
    Part(
        "churn",
        "memory, disk and latency while messages come and go for --churn seconds",
        "2 h",
        churn.records,
        churn.section,
        usual=False,
    ),
)
