"""What a node counts about itself, and its Prometheus exposition.

Counting is a plain ``+=`` on the loop's thread and costs well under a
microsecond; everything else happens at the scrape. What is already known
elsewhere (indexes, sizes, queue totals) is not counted twice: its owner registers
a callback with ``before_render`` that sets the gauges.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from raftq.crossings import Crossings, Traffic

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
COUNTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0)
SIZES = tuple(float(1 << exponent) for exponent in range(8, 25, 2))


class Distribution:
    """A histogram: ``bounds`` are inclusive upper edges, and a last bucket has no edge."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str] = ()) -> None:
        """Append the buckets, cumulative as Prometheus wants them."""
        total, buckets = 0, []
        for edge, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            buckets.append((edge, float(total)))
        family.add_metric(labels, buckets, self._sum)


COUNTERS = {
    "entries_appended": "Entries this node made as the leader",
    "entries_committed": "Entries applied here after a majority had them on disk",
    "commands_committed": "Commands in the entries applied here",
    "leader_changes": "Times this node saw another leader than before",
    "elections_started": "Elections this node stood in",
    "pre_votes": "Times this node asked whether it could win before standing",
    "frames_sent": "Frames sent to peers",
    "frames_received": "Frames received from peers",
    "frame_bytes_sent": "Bytes of frames sent to peers",
    "frame_bytes_received": "Bytes of frames received from peers",
    "frames_dropped": "Frames not sent, as the peer was not connected or its buffer full",
    "snapshots_sent": "Snapshots streamed to a peer whole",
    "snapshots_installed": "Snapshots of the leader installed here",
    "leader_moves": "Times this node moved the leadership to a zone that is preferred",
    "leader_moves_failed": "Times it could not",
    "tls_reloads": "Times certificates were taken anew from their files",
    "tls_reload_failures": "Times they could not be, and the old ones stayed",
    "tls_handshakes_failed": "Callers of the API that came to no connection under TLS",
    "tls_handshakes_refused": "Callers of the API hung up on, as their address began too many",
    "peers_refused": "Connections of peers, or of who called as one, that were refused",
    "requests_refused": "Requests answered 503, as there was no leader or too much was pending",
    "bodies_damaged": "Reads of encrypted bodies that were changed on a disk",
}
GAUGES = {
    "term": "Current term",
    "is_leader": "1 on the leader, 0 elsewhere",
    "peers_connected": "Peers with an authenticated connection",
    "durable_index": "Last entry known to be on this node's disk",
    "commit_index": "Last entry known to be committed",
    "applied_index": "Last entry applied to the store",
    "journal_bytes": "Size of the journal on disk",
    "journal_segments": "Segments of the journal on disk",
    "accounts": "Accounts",
    "queues": "Queues of all accounts",
    "message_bytes": "Bytes of all stored messages",
    "parked_polls": "Claims waiting for a message",
    "event_readers": "Open streams of events",
    "connections": "Connections of clients",
    "pending_requests": "Requests waiting for their commit",
    "webhook_subscriptions": "Subscriptions that this node runs",
    "webhook_requests": "Messages that this node is posting",
}
DISTRIBUTIONS = {
    "entry_commands": ("Commands per entry made here as the leader", COUNTS),
    "entry_bytes": ("Bytes per entry made here as the leader", SIZES),
    "fsync_seconds": ("Time per fsync of the journal", SECONDS),
    "commit_seconds": ("From making a batch of this node to applying it here", SECONDS),
    "apply_round_seconds": ("Time to apply and store one round of entries", SECONDS),
}

TRAFFIC = {
    "frames_sent": "Frames sent to nodes of a zone",
    "frame_bytes_sent": "Bytes of frames sent to nodes of a zone",
    "frames_received": "Frames received from nodes of a zone",
    "frame_bytes_received": "Bytes of frames received from nodes of a zone",
}


class Metrics(Collector):
    """One node's numbers. Attributes named as in the tables above are there to be changed."""

    webhook_subscriptions = 0
    webhook_requests = 0
    tls_reloads = tls_reload_failures = tls_handshakes_failed = tls_handshakes_refused = 0
    peers_refused = 0
    certificate_ends_s: dict[str, float]
    _requests: dict[tuple[str, str, int], Distribution]
    _deliveries: dict[str, Distribution]
    _ended: Counter[str]
    _limited: Counter[str]
    _shed: Counter[str]

    def __init__(
        self, *, node: str = "", zone: str = "", peers: Mapping[str, str] | None = None
    ) -> None:
        """``peers``: the zone of each other node."""
        self.entries_appended = 0
        self.entries_committed = 0
        self.commands_committed = 0
        self.leader_changes = 0
        self.elections_started = self.pre_votes = 0
        self.frames_sent = 0
        self.frames_received = 0
        self.frame_bytes_sent = 0
        self.frame_bytes_received = 0
        self.frames_dropped = 0
        self.snapshots_sent = self.snapshots_installed = 0
        self.leader_moves = self.leader_moves_failed = 0
        self.requests_refused = 0
        self.bodies_damaged = 0
        self.term = 0
        self.is_leader = 0
        self.peers_connected = 0
        self.durable_index = 0
        self.commit_index = 0
        self.applied_index = 0
        self.journal_bytes = self.journal_segments = 0
        self.accounts = self.queues = self.message_bytes = 0
        self.parked_polls = self.event_readers = 0
        self.pending_requests = self.connections = 0
        self.entry_commands = Distribution(COUNTS)
        self.entry_bytes = Distribution(SIZES)
        self.fsync_seconds = Distribution(SECONDS)
        self.commit_seconds = Distribution(SECONDS)
        self.apply_round_seconds = Distribution(SECONDS)
        self.messages_by_state: dict[str, int] = {
            "ready": 0,
            "delayed": 0,
            "claimed": 0,
            "blocked": 0,
        }
        self.crossings = Crossings(zone, peers or {})
        self._node = (node, zone)
        self._interventions: Counter[str] = Counter()
        self._ended, self._limited, self._shed = Counter(), Counter(), Counter()
        self._requests, self._deliveries, self.certificate_ends_s = {}, {}, {}
        self._before_render: list[Callable[[], None]] = []
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def of_peer(self, peer: str) -> Traffic:
        """The transport's counters for a peer: those of its zone."""
        return self.crossings.of_peer(peer)

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request; ``route`` is the template, never the raw path."""
        child = self._requests.get((route, method, status))
        if child is None:
            child = self._requests[route, method, status] = Distribution(SECONDS)
        child.observe(seconds)

    def observe_delivery(self, how: enum.StrEnum, seconds: float) -> None:
        """Count one attempt to post a message; the enumeration keeps the labels few."""
        child = self._deliveries.get(how.value)
        if child is None:
            child = self._deliveries[how.value] = Distribution(SECONDS)
        child.observe(seconds)

    def observe_limited(self, limit: enum.StrEnum) -> None:
        """Count one request that was beyond a limit of its account."""
        self._limited[limit.value] += 1

    def observe_shed(self, kind: enum.StrEnum) -> None:
        """Count one request that was answered before it was read."""
        self._shed[kind.value] += 1

    def handshake_failed(self, _address: str, _reason: str) -> None:
        """Somebody called the API; not logged, since anybody may call as often as he likes."""
        self.tls_handshakes_failed += 1

    def handshake_refused(self) -> None:
        """An address began too many of them."""
        self.tls_handshakes_refused += 1

    def appended(self, commands: int, size_bytes: int) -> None:
        """This node, as the leader, made an entry."""
        self.entries_appended += 1
        self.entry_commands.observe(commands)
        self.entry_bytes.observe(size_bytes)

    def applied(self, entries: int, commands: int, seconds: float) -> None:
        """A round of committed entries reached the store."""
        self.entries_committed += entries
        self.commands_committed += commands
        self.apply_round_seconds.observe(seconds)

    def committed(self, seconds: float) -> None:
        """A batch of this node was proposed and applied."""
        self.commit_seconds.observe(seconds)

    def synced(self, seconds: float) -> None:
        """An fsync of the journal is done."""
        self.fsync_seconds.observe(seconds)

    def leader_changed(self) -> None:
        """This node learnt of another leader."""
        self.leader_changes += 1

    def intervened(self, what: enum.StrEnum, count: int = 1) -> None:
        """Count what the guard did; its enumeration of kinds is what keeps the labels few."""
        self._interventions[what.value] += count

    def connection_ended(self, why: enum.StrEnum) -> None:
        """Count a connection that the server refused or ended, for one of a few reasons."""
        self._ended[why.value] += 1

    def interventions(self) -> dict[str, int]:
        """What the guard did so far, by kind."""
        return dict(self._interventions)

    def before_render(self, callback: Callable[[], None]) -> None:
        """Call it at the start of every scrape: the place to set gauges."""
        self._before_render.append(callback)

    def render(self) -> bytes:
        """The Prometheus text exposition."""
        for callback in self._before_render:
            callback()
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """For the registry; see ``render``."""
        for name, help_text in COUNTERS.items():
            yield CounterMetricFamily(f"raftq_{name}", help_text, value=getattr(self, name))
        for name, help_text in GAUGES.items():
            yield GaugeMetricFamily(f"raftq_{name}", help_text, value=getattr(self, name))
        for name, (help_text, _) in DISTRIBUTIONS.items():
            histogram = HistogramMetricFamily(f"raftq_{name}", help_text)
            getattr(self, name).add_to(histogram)
            yield histogram
        yield from self._labelled()

    def _labelled(self) -> Iterator[Metric]:
        node = GaugeMetricFamily("raftq_node_info", "Who this is", labels=["node", "zone"])
        node.add_metric(self._node, 1)
        yield node
        messages = GaugeMetricFamily("raftq_messages", "Messages of all queues", labels=["state"])
        for state, count in self.messages_by_state.items():
            messages.add_metric([state], count)
        yield messages
        help_text = "Times the guard kept the core from breaking a rule of Raft"
        guard = CounterMetricFamily("raftq_guard_interventions", help_text, labels=["kind"])
        for kind, count in self._interventions.items():
            guard.add_metric([kind], count)
        yield guard
        yield from self._refused()
        help_text = "When the certificate ends, in seconds since 1970, by what it is for"
        ends = GaugeMetricFamily("raftq_tls_certificate_expiry_seconds", help_text, labels=["use"])
        for use, seconds in self.certificate_ends_s.items():
            ends.add_metric([use], seconds)
        yield ends
        yield from self._crossing()
        requests = HistogramMetricFamily(
            "raftq_request_seconds", "Time to answer", labels=["route", "method", "status"]
        )
        for (route, method, status), child in self._requests.items():
            child.add_to(requests, [route, method, str(status)])
        yield requests
        deliveries = HistogramMetricFamily(
            "raftq_webhook_seconds", "Time of an attempt to post a message", labels=["outcome"]
        )
        for outcome, child in self._deliveries.items():
            child.add_to(deliveries, [outcome])
        yield deliveries

    def _refused(self) -> Iterator[Metric]:
        for name, help_text, label, counts in (
            (
                "connections_ended",
                "Connections of clients that this node refused or ended",
                "reason",
                self._ended,
            ),
            (
                "requests_limited",
                "Requests beyond a limit of their account",
                "limit",
                self._limited,
            ),
            ("requests_shed", "Requests answered 503 before they were read", "kind", self._shed),
        ):
            family = CounterMetricFamily(f"raftq_{name}", help_text, labels=[label])
            for value, count in counts.items():
                family.add_metric([value], count)
            yield family

    def _crossing(self) -> Iterator[Metric]:
        for name, help_text in TRAFFIC.items():
            family = CounterMetricFamily(f"raftq_zone_{name}", help_text, labels=["zone"])
            for zone, traffic in self.crossings.traffic.items():
                family.add_metric([zone], getattr(traffic, name))
            yield family
        for name, help_text, counts in (
            ("put", "Messages put here, by their zone and the client's", self.crossings.put),
            ("claimed", "Messages claimed here, likewise", self.crossings.claimed),
        ):
            family = CounterMetricFamily(
                f"raftq_zone_messages_{name}", help_text, labels=["message_zone", "client_zone"]
            )
            for zones, count in counts.items():
                family.add_metric(zones, count)
            yield family
