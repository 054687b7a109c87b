"""Standing for election, and voting: the pre-vote before, the guard around the core's own part.

Ongaro's dissertation, sections 3.4, 4.2.3 (stickiness) and 9.6 (pre-vote).
"""

from __future__ import annotations

from typing import Protocol

from raftq.consensus import engine_messages, guard
from raftq.consensus.core import Core
from raftq.consensus.guard import Intervention, Seen, VoteVerdict
from raftq.consensus.host import Host
from raftq.consensus.messages import PreVoteReply, PreVoteRequest, VoteReply, VoteRequest


class Voter(Seen, Protocol):
    """The member that stands and votes."""

    is_member: bool

    def leader_alive(self) -> bool:
        """Whether a leader was heard lately."""
        ...


class Elections:
    """One member's elections."""

    def __init__(self, voter: Voter, core: Core, host: Host) -> None:
        self._voter, self._core, self._host = voter, core, host
        self._votes: tuple[int, frozenset[str]] = (0, frozenset())
        self._pre_votes: tuple[int, frozenset[str]] = (0, frozenset())
        self.cleared = False  # A majority would vote for this member: it may stand.
        self.stood = 0
        self.asked = 0

    def ask_for_pre_votes(self) -> None:
        """Ask the members whether they would vote for this one; stand when a majority would."""
        self.asked += 1
        self._core.postpone_election()
        voter, term = self._voter, self._voter.term + 1
        self._pre_votes = (term, frozenset())
        for member in self._core.others:
            self._host.send(member, PreVoteRequest(term, voter.last_index, voter.last_term))

    def heard_leader(self) -> None:
        """There is a leader: what members said before of an election without one is void."""
        self._pre_votes = (0, frozenset())

    def on_pre_vote_request(self, sender: str, message: PreVoteRequest) -> None:
        """Answer truthfully; nothing changes."""
        voter = self._voter
        granted = guard.grant_pre_vote(voter, message, leader_alive=voter.leader_alive())
        self._host.send(sender, PreVoteReply(message.term, voter.term, granted))

    def on_pre_vote(self, sender: str, message: PreVoteReply) -> None:
        """Count it, once per member; follow a higher term."""
        voter = self._voter
        if sender not in voter.members:
            self._host.intervened(Intervention.FOREIGN_VOTE)
            return
        if message.term > voter.term and not message.granted:
            self._core.observe_term(message.term)
            return
        asked, granted = self._pre_votes
        if not message.granted or message.asked_term != asked or asked != voter.term + 1:
            return
        if voter.is_leader:
            return
        granted |= {sender}
        self._pre_votes = (asked, granted)
        if 2 * (len(granted) + 1) > len(self._core.others) + 1:
            self._pre_votes = (0, frozenset())
            self.cleared = True
            self._core.stand_at(0.0)

    def on_vote_request(self, sender: str, message: VoteRequest) -> None:
        """Vote, or say no; the core decides what the guard lets through."""
        voter = self._voter
        verdict, intervention = guard.judge_vote_request(
            voter, sender, message, leader_alive=voter.leader_alive()
        )
        if intervention is not None:
            self._host.intervened(intervention)
        if verdict is VoteVerdict.GRANT_AGAIN:
            self._host.send(sender, VoteReply(voter.term, granted=True))
            return
        if verdict is VoteVerdict.TO_CORE:
            self._core.deliver(sender, engine_messages.vote_request(message))
            if voter.voted_for == sender:
                return  # The core has answered, with the vote on disk.
        self._host.send(sender, VoteReply(voter.term, granted=False))

    def on_vote(self, sender: str, message: VoteReply) -> None:
        """Count it, once per member and term; follow a higher term."""
        voter = self._voter
        if not message.granted:
            if sender in voter.members:
                self._core.observe_term(message.term)
            return
        term, counted = self._votes
        if term != voter.term:
            counted = frozenset()
        if refusal := guard.refuse_vote(voter, sender, message, counted):
            self._host.intervened(refusal)
            return
        self._votes = (voter.term, counted | {sender})
        self._core.deliver(sender, engine_messages.vote(message))
