"""Mutants of snapshots, their installation, and the membership."""

from __future__ import annotations

from raftq import snapshots
from raftq.consensus.consensus import Consensus
from raftq.journal import record_file
from raftq.replica.applier import Applier
from raftq.replica.membership import MembershipFile
from raftq.replica.peers import Peers
from raftq.replica.replica import Replica
from raftq.replica.upkeep import Upkeep
from raftq.stores.home import Home
from simulation.mutants.damage import Edit, Mutant, mutant

RESET = "self.journal.reset(manifest.index, manifest.term)"

MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "snapshot-not-synced",
        "A received snapshot becomes the store before it is on disk.",
        Edit(snapshots.Sink, "finish", "file.sync()", "pass"),
    ),
    mutant(
        "snapshot-names-not-synced",
        "A received snapshot becomes the store before its files' names are on disk.",
        Edit(snapshots.Sink, "finish", "self._disk.sync_directory(self._directory)", "pass"),
    ),
    mutant(
        "install-without-reset",
        "A snapshot is installed and the journal stays as it was.",
        Edit(Replica, "_install", RESET, "pass"),
    ),
    mutant(
        "install-without-membership",
        "A snapshot is installed without the membership that came with it.",
        Edit(Replica, "_install", "self._membership.store(membership)", "pass"),
    ),
    mutant(
        "membership-after-the-store",
        "A snapshot's membership is stored after the store is switched: a crash can part them.",
        Edit(
            Replica,
            "_install",
            "self._membership.store(membership)\n    self._applier.switch()",
            "self._applier.switch()\n    self._membership.store(membership)",
        ),
    ),
    mutant(
        "install-goes-back",
        # Both the offer and the installation look at it: the second line of defence goes too.
        "A snapshot is installed over a newer state.",
        Edit(
            Replica,
            "snapshot_offered",
            "if following and manifest.index > self.machine.applied_index:",
            "if following:",
        ),
        Edit(Replica, "_install", "if manifest.index <= self.machine.applied_index:", "if False:"),
    ),
    mutant(
        "reconcile-nothing",
        "A crash between switching the store and resetting the journal is not noticed.",
        Edit(Applier, "reconcile", "journal.reset(index, term)", "pass"),
    ),
    mutant(
        "pointer-before-data",
        "The pointer names a store that is still being received.",
        Edit(
            Home,
            "switch",
            "old, new = self._number, self._number + 1",
            "old, new = self._number, self._number + 1\n    self._point_to(new)",
        ),
    ),
    mutant(
        "old-store-goes-first",
        "The old store is removed before the pointer names the new one.",
        Edit(
            Home,
            "switch",
            "self._disk.remove_tree(self._path(new))",
            "self._disk.remove_tree(self._path(new))\n    self._disk.remove_tree(self._path(old))",
        ),
    ),
    mutant(
        "flush-error-ignored",
        "A flush of the store that failed counts as done.",
        Edit(
            Upkeep,
            "_flush",
            "self._keeper.run(lambda: self._applier.store.flush(), done)",
            "def flush() -> None:\n"
            "        try:\n"
            "            self._applier.store.flush()\n"
            "        except OSError:\n"
            "            pass\n"
            "    self._keeper.run(flush, done)",
        ),
    ),
    mutant(
        "snapshot-of-another-index",
        "A snapshot says that it is one entry newer than it is.",
        Edit(
            snapshots,
            "make",
            "Manifest(engine.name, index, term,",
            "Manifest(engine.name, index + 1, term,",
        ),
    ),
    mutant(
        "membership-not-kept",
        "A change of membership is in force but never stored: it goes with the journal.",
        Edit(MembershipFile, "applied", "self.store(", "bool("),
    ),
    mutant(
        "lost-disk-founds-a-cluster",
        "A node that finds itself empty founds a cluster although there is one.",
        Edit(
            Peers, "founding", "if any(hello.cluster_id for hello in hellos.values()):", "if False:"
        ),
    ),
    mutant(
        "lost-disk-never-replaced",
        "A node that comes back without its disk is never taken in again.",
        Edit(Peers, "change", "return MembershipChange(add=False, member=known)", "continue"),
    ),
    mutant(
        "newcomer-takes-the-log",
        "A node without a membership accepts the log's beginning.",
        Edit(
            Consensus,
            "_is_newcomer",
            "not self.is_member and self.core.applied_index == 0",
            "False",
        ),
    ),
    mutant(
        "stale-view",
        "Every other read of a node is answered from the view of the one before.",
        Edit(
            Replica,
            "reader",
            "return self._applier.reader()",
            "old = getattr(self, '_old', None)\n"
            "    self._old = None if old else self._applier.store.frozen()\n"
            "    return old or self._applier.reader()",
        ),
    ),
    mutant(
        "store-not-synced",
        "A flush of the store writes its file and does not sync it.",
        Edit(
            record_file, "store", "file.sync()", '_ = path.endswith("memory.store") or file.sync()'
        ),
    ),
    mutant(
        "flush-in-the-middle-of-a-round",
        "A flush counts for what was applied, though the store has not been given all of it.",
        Edit(Upkeep, "_flush", "self._applier.settle()", "pass"),
    ),
    mutant(
        "read-in-the-middle-of-a-round",
        "A read does not see what was applied last.",
        Edit(Applier, "reader", "self.settle()", "pass"),
    ),
)
