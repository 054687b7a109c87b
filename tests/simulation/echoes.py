"""What a node would make of a message that came again now.

The network may bring a frame twice, and late; it does so seldom, and hardly ever at the moment
that matters. The guard's judgements are pure: so at those moments it is asked about what has
come before, and nothing changes. ``gate`` watches what really reaches the core.
"""

from __future__ import annotations

from collections import defaultdict

from raftq.consensus import guard
from raftq.consensus.core import CANDIDATE, LEADER
from raftq.consensus.guard import AppendPlan, Diverged
from raftq.consensus.messages import Append, AppendReply, RaftMessage, VoteReply
from raftq.replica.wire import SnapshotOffer
from raftq.snapshots import decode
from simulation.look import Look
from simulation.node import Node


class Echoes:
    """What every node has been told, as far as it may come again."""

    def __init__(self) -> None:
        # By node and by member: what was said last.
        self._votes: dict[str, dict[str, VoteReply]] = defaultdict(dict)
        self._replies: dict[str, dict[str, AppendReply]] = defaultdict(dict)
        self._appends: dict[str, tuple[int, str, Append]] = {}  # By node: its life, its leader.
        self._offers: dict[str, tuple[int, str, SnapshotOffer]] = {}  # By node: its life, the peer.
        self._answered: dict[str, tuple[Append, Look]] = {}  # By node: asked about last.
        self._appended: set[str] = set()  # Nodes that are handling an append.
        self._asked: dict[str, tuple[object, ...]] = {}  # By node: when the leader was asked.

    def heard(self, node: Node, member: str, message: RaftMessage) -> None:
        """A message has come to a node."""
        self._appended.discard(node.name)
        match message:
            case VoteReply(granted=True):
                self._votes[node.name][member] = message
            case AppendReply(success=True):
                self._replies[node.name][member] = message
            case Append() if message.term == node.running.consensus.term:
                self._keep(node, member, message)
            case _:
                pass

    def offered(self, node: Node, peer: str, offer: SnapshotOffer) -> None:
        """A snapshot is offered to a node."""
        self._offers[node.name] = (node.life, peer, offer)

    def installed(self, node: Node) -> None:
        """The offer of what a node has just installed comes again: nothing may come of it."""
        life, peer, offer = self._offers.get(node.name, (0, "", None))
        replica = node.running
        if offer is None or life != node.life:
            return
        manifest, member = decode(offer.manifest), replica.links.peers.by_name[peer].member
        if manifest.index <= replica.machine.applied_index:
            replica.snapshot_offered(peer, member or "", offer.term, manifest)

    def watched(self, node: Node, state: int, term: int, look: Look) -> str | None:
        """A node has done something: what is wrong with what it would make of an echo."""
        if state == LEADER:
            return self._leads(node, term)
        if state == CANDIDATE:
            return self._stands(node)
        if node.name in self._appended:
            self._appended.discard(node.name)
            return self._follows(node, look)
        return None

    def _stands(self, node: Node) -> str | None:
        """A candidate would count a vote: what is wrong with it."""
        consensus = node.running.consensus
        term, counted = consensus.elections._votes
        counted = counted if term == consensus.term else frozenset()
        for member, vote in self._votes[node.name].items():
            stale = vote.term != consensus.term or member in counted
            if stale and guard.refuse_vote(consensus, member, vote, counted) is None:
                return f"would count in term {consensus.term} what {member} voted in {vote.term}"
        return None

    def _leads(self, node: Node, term: int) -> str | None:
        """A leader, of a term and of members, would count a reply: what is wrong with it."""
        consensus = node.running.consensus
        moment = (node.life, term, consensus.core.others)
        if self._asked.get(node.name) == moment:
            return None
        self._asked[node.name] = moment
        for member, reply in self._replies[node.name].items():
            stale = reply.term != consensus.term or member not in consensus.members
            if stale and guard.refuse_append_reply(consensus, member, reply) is None:
                return f"would count in term {consensus.term} what {member} said in {reply.term}"
        return None

    def _follows(self, node: Node, look: Look) -> str | None:
        """A follower would take an append: what is wrong with what it made of it."""
        consensus = node.running.consensus
        life, leader, append = self._appends.get(node.name, (0, "", None))
        if append is None or (life, append.term) != (node.life, consensus.term):
            return None
        if leader != consensus.leader:
            return None
        if consensus.elections._pre_votes[0]:
            return "would stand by pre-votes from before it heard its leader"
        echo = (append, look)
        if echo == self._answered.get(node.name):
            return None  # As before: most appends are heartbeats.
        self._answered[node.name] = echo
        end = append.prev_index + len(append.entries)
        try:
            plan = guard.plan_append(consensus, append)
        except Diverged as error:
            return f"would stop if an append came again: {error}"
        if isinstance(plan, AppendPlan) and max(plan.verified, plan.commit_index) > end:
            return f"would take {plan.verified} for compared, commit {plan.commit_index}, by {end}"
        return None

    def _keep(self, node: Node, member: str, message: Append) -> None:
        """Of the appends of a term, the one with the most committed beyond its end."""
        self._appended.add(node.name)
        life, _, kept = self._appends.get(node.name, (0, "", None))
        same = kept is not None and (life, kept.term) == (node.life, message.term)
        if not same or kept is None or _beyond(message) >= _beyond(kept):
            self._appends[node.name] = (node.life, member, message)


def _beyond(append: Append) -> int:
    return append.commit_index - append.prev_index - len(append.entries)
