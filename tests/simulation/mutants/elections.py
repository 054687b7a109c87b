"""Mutants of terms, votes, and who may lead."""

from __future__ import annotations

from raftq.consensus import guard
from raftq.consensus.consensus import Consensus
from raftq.consensus.core import Core
from raftq.consensus.core_log import CoreLog
from raftq.consensus.election import Elections
from raftq.journal import record_file
from raftq.replica import identity
from simulation.mutants.damage import Edit, Mutant, mutant

MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "vote-not-stored",
        "A vote is given and its term stored, but not for whom: after a restart it is given again.",
        Edit(
            CoreLog,
            "setCurrentTerm",
            "self._terms.store(term, vote)",
            "self._terms.store(term, None)",
        ),
    ),
    mutant(
        "term-file-not-synced",
        "The term file is renamed into its place before its content is on disk.",
        Edit(record_file, "store", "file.sync()", "_ = path.endswith('term') or file.sync()"),
    ),
    mutant(
        "term-file-name-not-synced",
        "The directory is not synced after the term file was replaced: the old one comes back.",
        Edit(
            record_file,
            "store",
            'disk.sync_directory(os.path.dirname(path) or ".")',
            "path.endswith('term') or disk.sync_directory(os.path.dirname(path))",
        ),
    ),
    mutant(
        "vote-for-everybody",
        # The core refuses a second vote as well; so this one is given without asking it.
        "Who has voted in a term votes in it for whoever else asks.",
        Edit(
            guard,
            "judge_vote_request",
            "if seen.voted_for == sender:",
            "if seen.voted_for is not None:",
        ),
    ),
    mutant(
        "votes-counted-double",
        "Each vote counts twice.",
        Edit(
            Elections,
            "on_vote",
            "self._core.deliver(sender, engine_messages.vote(message))",
            "[self._core.deliver(sender, engine_messages.vote(message)) for _ in range(2)]",
        ),
    ),
    mutant(
        "vote-counted-per-message",
        "A vote that arrives twice counts twice.",
        Edit(guard, "refuse_vote", "if sender in counted:", "if False:"),
    ),
    mutant(
        "vote-of-an-older-term",
        # The core compares terms as well: the vote is shown to it as one of the present term.
        "A vote given in an older term counts in the present one.",
        Edit(guard, "refuse_vote", "message.term != seen.term or not seen.is_candidate", "False"),
        Edit(
            Elections,
            "on_vote",
            "engine_messages.vote(message)",
            "engine_messages.vote(VoteReply(voter.term, True))",
        ),
    ),
    mutant(
        "vote-of-a-stranger",
        "The vote of a node that is no member counts, be its log empty.",
        Edit(guard, "refuse_vote", "if sender not in seen.members:", "if False:"),
        Edit(Elections, "on_pre_vote", "if sender not in voter.members:", "if False:"),
    ),
    mutant(
        "candidate-overstates-its-log",
        # The pre-vote would tell it that it is behind: it is lied to as well.
        "A candidate says that its last entry is of the present term.",
        Edit(Consensus, "core_sends", 'message["last_log_term"]', 'message["term"]'),
        Edit(
            Elections,
            "ask_for_pre_votes",
            "PreVoteRequest(term, voter.last_index, voter.last_term)",
            "PreVoteRequest(term, voter.last_index, term)",
        ),
    ),
    mutant(
        "no-pre-vote",
        "Whoever hears no leader stands at once, whether or not anybody would vote for him.",
        Edit(Consensus, "tick", "self.elections.ask_for_pre_votes()", "pass"),
    ),
    mutant(
        "pre-vote-outlives-the-leader",
        "What was granted while nobody led counts after a leader was heard.",
        Edit(Consensus, "_follow", "self.elections.heard_leader()", "pass"),
    ),
    mutant(
        "no-pre-vote-no-stickiness",
        "As above, and members that hear their leader vote it out.",
        Edit(Consensus, "tick", "self.elections.ask_for_pre_votes()", "pass"),
        Edit(guard, "judge_vote_request", "leader_alive and not message.transfer", "False"),
    ),
    mutant(
        "identity-outlives-the-disk",
        "A node that lost its disk votes and counts under the identity it had.",
        Edit(
            identity,
            "load_identity",
            "identity = runtime.token(IDENTITY_BYTES).hex()",
            'identity = "0" * 16',
        ),
    ),
    mutant(
        "two-changes-at-once",
        "The membership is changed again before the change before is committed.",
        Edit(
            Core,
            "change_membership",
            "if any(membership_change(entry.payload) for entry in pending):",
            "if False:",
        ),
    ),
    mutant(
        "change-before-own-commit",
        # The engine denies it as well, until its first entry is applied: it is told of none.
        "A new leader changes the membership before it knows what its predecessor changed.",
        Edit(
            Core,
            "change_membership",
            "if self._journal.term_at(applied) != self.term:\n        return False",
            "self._SyncObj__noopIDx = 0",
        ),
    ),
)
