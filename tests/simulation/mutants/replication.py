"""Mutants of appending, acknowledging and committing."""

from __future__ import annotations

from raftq.consensus import guard
from raftq.consensus.consensus import Consensus
from raftq.consensus.core import Core
from raftq.consensus.replication import Replication
from simulation.mutants.damage import Edit, Mutant, mutant

# Not here: a leader of an older term that is not told so (who could hear it hears the new leader,
# too), and what was in flight on a connection that ended taken for received (the gap is probed).

MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "acknowledge-before-durable",
        "A follower vouches for what it has only written.",
        Edit(
            Consensus,
            "_acknowledge",
            "min(self._vouched, self._journal.durable_index)",
            "self._vouched",
        ),
    ),
    mutant(
        "acknowledge-beyond-verified",
        "A heartbeat makes a follower vouch for its whole log.",
        Edit(guard, "_nothing_new", "verified=verified", "verified=seen.last_index"),
    ),
    mutant(
        "vouched-outlives-the-leader",
        "What was verified against one leader is vouched for to the next.",
        Edit(
            Consensus,
            "_follow",
            "self._vouched = self._vouched_sent = 0",
            "self._vouched_sent = 0",
        ),
    ),
    mutant(
        "count-beyond-own-disk",
        "A leader counts an acknowledgement of what its own disk does not hold.",
        Edit(
            Replication,
            "_count",
            "min(progress.acknowledged, self._journal.durable_index)",
            "progress.acknowledged",
        ),
    ),
    mutant(
        "apply-before-commit",
        "What is on this node's disk is applied, and answered, committed or not.",
        Edit(
            Core,
            "_SyncObj__applyLogEntries",
            "min(self._SyncObj__raftCommitIndex, self._journal.durable_index)",
            "self._journal.durable_index",
        ),
    ),
    mutant(
        "apply-before-durable",
        "What is committed is applied before this node's disk holds it.",
        Edit(
            Core,
            "_SyncObj__applyLogEntries",
            "min(self._SyncObj__raftCommitIndex, self._journal.durable_index)",
            "self._SyncObj__raftCommitIndex",
        ),
        Edit(
            Consensus,
            "_wake_to_apply",
            "min(self.commit_index, self._journal.durable_index)",
            "self.commit_index",
        ),
    ),
    mutant(
        "reply-of-an-older-term",
        "What a member vouched for in an earlier leadership counts in the present one.",
        Edit(
            guard,
            "refuse_append_reply",
            "message.term != seen.term or not seen.is_leader",
            "not seen.is_leader",
        ),
    ),
    mutant(
        "reply-of-a-stranger",
        "A reply counts for its node's name, whichever identity sent it.",
        Edit(guard, "refuse_append_reply", "if sender not in seen.members:", "if False:"),
        Edit(
            Replication,
            "_count",
            "before, next_index =",
            "name = member.partition('/')[0] + '/'\n"
            "    member = next((m for m in core.others if m.startswith(name)), None)\n"
            "    if member is None:\n"
            "        return\n"
            "    before, next_index =",
        ),
    ),
    mutant(
        "truncate-what-matches",
        "Entries that the log holds already are cut off and written again, committed ones too.",
        # The check of what is committed here would stop the node: that is the second defence.
        Edit(guard, "plan_append", "while kept < len(entries) and ", "while False and "),
        Edit(guard, "_must_be_uncommitted", "index <= seen.commit_index", "False"),
    ),
    mutant(
        "commit-beyond-verified",
        "A follower commits as far as the leader has, also its own tail that nobody compared.",
        Edit(guard, "_capped", "commit_index <= verified", "True"),
    ),
    mutant(
        "commit-index-falls",
        # The core never lowers it by itself: so it is set to what the message says.
        "A follower's commit index is whatever the last message says.",
        Edit(
            Consensus,
            "_on_append",
            "self._vouched = max(",
            "self.core._SyncObj__raftCommitIndex = min(commit_index, plan.commit_index)\n"
            "    self._vouched = max(",
        ),
    ),
    mutant(
        "commit-of-an-older-term",
        "A leader commits an entry of an older term as soon as a majority holds it.",
        Edit(
            Core,
            "tick",
            "self._enter(now)",
            "self._enter(now)\n"
            "    if self.state == LEADER:\n"
            "        held = [*map(self.match_index, self.others), self._journal.durable_index]\n"
            "        held = sorted(held)[(len(held) - 1) // 2]\n"
            "        self._SyncObj__raftCommitIndex = max(self.commit_index, held)",
        ),
    ),
    mutant(
        "match-index-falls",
        # The core never lowers it by itself: so it is set to what the reply says.
        "A reply that was overtaken lowers what a member is known to hold.",
        Edit(
            Replication,
            "on_reply",
            "progress.acknowledged = max(progress.acknowledged, held)",
            "progress.acknowledged = held\n"
            "        self._core._SyncObj__raftMatchIndex = {\n"
            "            node: min(held, index) if node.id == sender else index\n"
            "            for node, index in self._core._SyncObj__raftMatchIndex.items()\n"
            "        }",
        ),
    ),
    mutant(
        "next-index-behind-match",
        "A success sets a member back to the beginning of what it lacked.",
        Edit(
            Replication,
            "_count",
            "core.set_next_index(member, next_index)",
            "core.set_next_index(member, before)",
        ),
    ),
)
