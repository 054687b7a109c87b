"""What everything costs, and what real nodes have shown: the figures the model stands on.

Microseconds of CPU unless the name says otherwise, of two cores of an AMD EPYC that others
use too. Beside each figure stands the command that printed it. Those that none prints are
fitted: set so that the model takes as much CPU for puts, alone and in batches, as the real
thing did (``REALITY``). Lifecycles and several groups (``REAL_SEVERAL_US``) had no say in that,
so how near the model comes to them tells what it is worth.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from loadtests.bench.plan import LIFECYCLE, PUT

CLAIM, ACK = "claim", "ack"
REQUESTS = {PUT: (PUT,), LIFECYCLE: (PUT, CLAIM, ACK)}
"""What a client asks for, one after the other."""


class Costs(NamedTuple):
    """See the module."""

    # A request: `make inside`, "HTTP and API"; the part after the outcome is known is an estimate.
    request_in_us: float = 100.0
    request_out_us: float = 40.0
    # Reading it and writing its answer; each further message of its batch. Fitted.
    request_io_us: float = 65.0
    message_in_us: float = 28.0
    client_us: float = 45.0  # Of a client that shares the machine: `--measure`, client_us.
    # Applying: `make inside`: what an entry costs, a command, each further message of it.
    apply_entry_us: float = 85.0
    apply_put_us: float = 13.0
    apply_claim_us: float = 17.0
    apply_ack_us: float = 13.0
    apply_message_us: float = 4.6
    sync_cpu_us: float = 210.0  # `make inside`, "sync by a thread".
    # A turn of the loop that writes to a socket or reads from some; a frame at either end;
    # a KiB of it; making a batch, or an entry. Fitted.
    turn_us: float = 130.0
    frame_us: float = 40.0
    kib_us: float = 1.0
    entry_us: float = 100.0
    beat_us: float = 3.0  # A group more in a heartbeat that is shared. An estimate.
    # Time of the disk, not of a core: `--measure`, syncs of 1 to 16 files at once.
    sync_us: float = 190.0
    handover_us: float = 120.0  # To and from the thread: docs/performance.md, 469 less 232 and CPU.
    sync_kib_us: float = 5.0
    disk_syncs_at_once: int = 4
    network_us: float = 100.0  # One way, between machines of a zone. An assumption.
    # On one machine: until a process that sleeps is awake; and what two cores gave to nodes and
    # client at most, by `REALITY`: rate times CPU. The rest was the kernel's and others'.
    loopback_us: float = 100.0
    shared_share: float = 0.85
    # `conf/node.toml`: heartbeat_ms; half of election_timeout_min_ms, within which one stands.
    heartbeat_s: float = 0.1
    stand_within_s: float = 0.25
    # A snapshot: CPU of a MiB at either end, putting a store in place, and until a newcomer is
    # a member (the leader looks once a second). Fitted to `--measure`, lost_disk.
    chunk_us: float = 3_000.0
    chunks_at_once: int = 1  # As it is: `raftq/replica/transfer.py`.
    install_s: float = 0.1
    rejoin_s: float = 2.5

    def apply_us(self, kind: str, messages: int) -> float:
        """Applying one command."""
        each = {PUT: self.apply_put_us, CLAIM: self.apply_claim_us, ACK: self.apply_ack_us}
        return each[kind] + (messages - 1) * self.apply_message_us


class Shape(NamedTuple):
    """A closed loop: so many clients, with so many messages in each request."""

    scenario: str
    clients: int
    batch: int


class Real(NamedTuple):
    """What three nodes and the client did on two cores."""

    shape: Shape
    messages_per_s: float
    node_us: float
    """CPU of all nodes for a message."""
    commands_per_entry: float


REALITY = (
    Real(Shape(PUT, 1, 1), 288, 3_800, 1),
    Real(Shape(PUT, 16, 1), 1_200, 1_110, 5.7),
    Real(Shape(PUT, 64, 1), 3_077, 470, 17.9),
    Real(Shape(PUT, 256, 1), 4_846, 310, 56.8),
    Real(Shape(PUT, 1, 64), 10_693, 110, 1),
    Real(Shape(PUT, 16, 64), 26_491, 60, 4.3),
    Real(Shape(LIFECYCLE, 1, 1), 82, 12_600, 1),
    Real(Shape(LIFECYCLE, 16, 1), 453, 3_050, 5.3),
    Real(Shape(LIFECYCLE, 64, 1), 1_138, 1_290, 18.2),
    Real(Shape(LIFECYCLE, 256, 1), 1_502, 980, 54.7),
)
"""``make bench ARGS='--only peers'``, as ``docs/performance.md`` has it; how many commands come
to an entry, by ``make groups ARGS='--measure 3'``."""

REAL_SEVERAL_US = {1: 476, 2: 636, 4: 1_001}
"""By how many clusters of three nodes were beside each other on two cores, with 64 clients that
put to one or another: CPU of all nodes for a message. ``--measure``."""
REAL_IDLE_PERCENT = 0.78
"""Of a core, on the leader: ``make bench ARGS='--quick --only idle'``."""
REAL_FAILOVER_S = (0.15, 0.21)
"""From the SIGKILL to an acknowledged put, median and longest: ``make bench``."""
REAL_LOST_DISK = (195.3, 6.93)
"""MiB, and seconds until a node that had lost them is whole again: ``--measure``."""


def changed(costs: Costs, changes: Iterable[str]) -> Costs:
    """With some figures as ``name=value`` says; ValueError if there is no such name or value."""
    for change in changes:
        name, _, value = change.partition("=")
        if name not in Costs._fields:
            raise ValueError(f"no cost is named {name!r}; there are {', '.join(Costs._fields)}")
        costs = costs._replace(**{name: type(getattr(costs, name))(value)})
    return costs
