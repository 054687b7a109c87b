"""The other nodes as this one knows them, and what follows from that for the membership.

First start: when every node of the configuration is reachable and has never been part
of a cluster, each founds the same one. Later: a node that comes back under a known name
with a new identity has lost its disk; the leader takes the old identity out and the new
one in, as two changes (one step would let two disjoint majorities exist).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from raftq.consensus.messages import MembershipChange
from raftq.replica.identity import member_id, node_of
from raftq.replica.membership import cluster_id
from raftq.replica.wire import Hello, State


class Peer:
    """One other node: what it said last."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.hello: Hello | None = None  # None while it is not connected.
        self.state: State | None = None
        self.rtt_us: int | None = None  # To it and back, smoothed.
        self._heard_us = 0  # When its last state came.

    def hears(self, state: State, now_us: int) -> None:
        """It has told how it is."""
        self.state = state
        self._heard_us = now_us
        if state.echo_us:
            rtt_us = max(0, now_us - state.echo_us - state.held_us)
            old_us = self.rtt_us
            self.rtt_us = rtt_us if old_us is None else old_us + (rtt_us - old_us) // 4

    def is_told(self, state: State, now_us: int) -> State:
        """``state`` for it, with what it needs to know the time to this node and back."""
        if self.state is None:
            return state
        held_us = now_us - self._heard_us
        return msgspec.structs.replace(state, echo_us=self.state.clock_us, held_us=held_us)

    def lost(self) -> None:
        """It is not connected any more."""
        self.hello = self.state = self.rtt_us = None

    @property
    def member(self) -> str | None:
        """Its id in the consensus, while it is connected."""
        return None if self.hello is None else member_id(self.name, self.hello.identity)


class Founding(NamedTuple):
    """The members of the cluster to join or found."""

    members: tuple[str, ...]


class Peers:
    """All other nodes of the configuration."""

    def __init__(self, names: Iterable[str]) -> None:
        self.by_name = {name: Peer(name) for name in sorted(names)}

    def founding(self, own_member: str, *, alone: bool) -> Founding | None:
        """What a node that belongs to no cluster should do now; None: wait.

        ``alone``: the operator said ``--bootstrap``: do not wait for the others.
        """
        hellos = {p.member: p.hello for p in self.by_name.values() if p.hello and p.member}
        for hello in hellos.values():
            # It was founded with this node; but whoever is taken in later needs a snapshot.
            founded = hello.cluster_id == cluster_id(hello.members)
            if founded and own_member in hello.members:
                return Founding(hello.members)
        if any(hello.cluster_id for hello in hellos.values()):
            return None  # A cluster exists: its leader will take us in.
        if alone or len(hellos) == len(self.by_name):
            return Founding(tuple(sorted([own_member, *hellos])))
        return None

    def change(self, members: Iterable[str], own_cluster: str) -> MembershipChange | None:
        """The next step towards a membership of the nodes that are really there."""
        present = {node_of(member): member for member in members}
        for peer in self.by_name.values():
            hello, member = peer.hello, peer.member
            if hello is None or member is None or hello.cluster_id not in ("", own_cluster):
                continue
            known = present.get(peer.name)
            if known == member:
                continue
            if known is not None:
                return MembershipChange(add=False, member=known)
            return MembershipChange(add=True, member=member)
        return None
